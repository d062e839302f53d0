"""Common views: the images and masks that all models of a seed are looked at with, whatever they were trained with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from spatialmae.analysis.reach import ReachGeometry, central_pixels
from spatialmae.geometry import patch_labels
from spatialmae.stages.evaluation import EvaluationSet


@dataclass(frozen=True)
class View:
    """What is looked at under one mask: its hidden pixels in the image's centre.

    Attributes:
        noise: from which a model's geometry makes the mask, see :meth:`ViewedModels.masks`.
        mask_ratio: of the mask.
        visible: the pixels that are.
        geometry: of the hidden central pixels.
    """

    noise: Float[Tensor, "1 units"]
    mask_ratio: float
    visible: Bool[np.ndarray, " pixels"]
    geometry: ReachGeometry


class ViewedModels(EvaluationSet):
    """The models of one evaluation under common views."""

    def images(self, seed: int) -> Int64[np.ndarray, " n"]:
        """Rows of the test images that the models of a seed are looked at with."""
        rows = self.data.splits["test"]
        n_images = min(self.settings.n_images, len(rows))
        return np.sort(np.random.default_rng(seed).choice(rows, n_images, replace=False))

    def views(self, seed: int, mask_ratio: float) -> list[View]:
        """The masks of a seed. One of a higher ratio hides what one of a lower hides, and more."""
        height, width = self.data.image_shape[:2]
        labels = patch_labels(height * width, self.mask_unit, (height, width))
        geometry = ReachGeometry.of(self.data.image_shape, self.mask_unit)
        views = []
        for noise in self._noise(seed, labels):
            masks = self.masks(self.specs[0].model, mask_ratio, noise)
            patches = patch_labels(height * width, self.specs[0].model.patch_size, (height, width))
            visible = masks.mask[0].numpy()[patches] == 0
            views.append(View(noise, mask_ratio, visible, geometry.of_outputs(~visible)))
        return views

    def _noise(self, seed: int, labels: Int64[np.ndarray, " pixels"]) -> list[Float[Tensor, "1 units"]]:
        # The unit that is hidden first lies in the centre, so that every mask hides pixels that are looked at.
        central = np.unique(labels[central_pixels(self.data.image_shape)])
        draw = torch.Generator().manual_seed(seed)
        found: list[Tensor] = []
        while len(found) < self.settings.n_masks:
            noise = torch.rand(1, int(labels.max()) + 1, generator=draw)
            if int(noise.argmax()) in central:
                found.append(noise)
        return found
