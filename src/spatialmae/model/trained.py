"""A model with what it takes to show it images: how they are normalised, and in which precision it looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.shapes import Float, UInt8


@dataclass(frozen=True)
class TrainedModel:
    """A model, trained or not, that images can be shown to.

    Attributes:
        model: in evaluation mode.
        mean: of each channel of its training images, on the scale [0, 1].
        std: likewise.
        precision: that features are computed in, the one that it was trained in: "bf16" or "fp32".
    """

    model: MaskedAutoencoder
    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: Literal["bf16", "fp32"] = "fp32"

    def normalise(self, images: UInt8[Tensor, "N H W C"]) -> Float[Tensor, "N C H W"]:
        """Images as the model was trained on: zero mean and unit variance by channel of the training images."""
        mean, std = self._statistics(images.device)
        return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def denormalise(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N H W C"]:
        """The inverse of :meth:`normalise`, on the scale [0, 1], not clipped."""
        mean, std = self._statistics(images.device)
        return (images * std + mean).permute(0, 2, 3, 1)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (self.mean, self.std))
        return mean, std
