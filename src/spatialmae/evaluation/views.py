"""Common views: the images and masks that all models of a seed are looked at with, whatever they were trained with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from spatialmae.analysis.reach import ReachGeometry, central_pixels
from spatialmae.evaluation.shared import Shared
from spatialmae.geometry import patch_labels
from spatialmae.masks import n_visible


@dataclass(frozen=True)
class View:
    """What is looked at under one mask: its hidden pixels in the image's centre.

    Attributes:
        noise: from which a model's geometry makes the mask, see :func:`~spatialmae.evaluation.shared.common_masks`.
        mask_ratio: of the mask.
        visible: the pixels that are.
        geometry: of the hidden central pixels.
    """

    noise: Float[Tensor, "1 units"]
    mask_ratio: float
    visible: Bool[np.ndarray, " pixels"]
    geometry: ReachGeometry


def viewed_images(shared: Shared, n_images: int, seed: int) -> Int64[np.ndarray, " n"]:
    """Rows of the test images that the models of a seed are looked at with, at most so many."""
    rows = shared.data.splits["test"]
    return np.sort(np.random.default_rng(seed).choice(rows, min(n_images, len(rows)), replace=False))


def common_views(
    image_shape: tuple[int, int, int], mask_ratio: float, mask_unit: int, n_masks: int, seed: int
) -> list[View]:
    """The masks of a seed. One of a higher ratio hides what one of a lower hides, and more.

    Args:
        image_shape: (h, w, c).
        mask_ratio: of the masks.
        mask_unit: side in px of what they hide together.
        n_masks: how many.
        seed: draws them.
    """
    height, width, _ = image_shape
    labels = patch_labels(height * width, mask_unit, (height, width))
    geometry = ReachGeometry.of(image_shape, mask_unit)
    views = []
    for noise in _noise(image_shape, labels, n_masks, seed):
        # Units of the lowest noise are visible, as in Masks.from_noise.
        kept = noise[0].argsort(stable=True)[: n_visible(noise.shape[1], mask_ratio, "mask_unit")]
        visible = np.isin(labels, kept.numpy())
        views.append(View(noise, mask_ratio, visible, geometry.of_outputs(~visible)))
    return views


def _noise(
    image_shape: tuple[int, int, int], labels: Int64[np.ndarray, " pixels"], n_masks: int, seed: int
) -> list[Float[Tensor, "1 units"]]:
    # The unit that is hidden first lies in the centre, so that every mask hides pixels that are looked at.
    central = np.unique(labels[central_pixels(image_shape)])
    draw = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    while len(found) < n_masks:
        noise = torch.rand(1, int(labels.max()) + 1, generator=draw)
        if int(noise.argmax()) in central:
            found.append(noise)
    return found
