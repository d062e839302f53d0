"""Measure ``attention_distance``: how far each attention head of an encoder looks.

Dosovitskiy et al. (ICLR 2021), figure 7: the distance between a query's patch and the patches that it attends to,
weighted by attention, averaged over queries and images. Nothing is masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialmae.evaluation.measure import Measure, MeasuredModel, Row, Rows

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from numpy import ndarray
    from torch import Tensor

    from spatialmae.evaluation.shared import Shared
    from spatialmae.model.trained import TrainedModel

N_IMAGES = 128  # as there
AT_ONCE = 16


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """A row for each block, the first of which is 1, and head: px, and that of uniform attention."""
    import numpy as np

    from spatialmae.geometry import pixel_distances

    trained, images = model.load(), shared.data.images[shared.test_images(N_IMAGES, model.seed)]
    config = trained.model.config
    uniform = float(np.mean(config.patch_size * pixel_distances(config.grid)))
    common = {"attention_distance_uniform": uniform, "n_images": len(images)}
    distances = head_distances(trained, images)
    return {
        "attention_distance": [
            {"block": block, "head": head, "attention_distance": float(distance)} | common
            for block, heads in enumerate(distances, start=1)
            for head, distance in enumerate(heads, start=1)
        ]
    }


def head_distances(trained: TrainedModel, images: UInt8[ndarray, "n h w c"]) -> Float[ndarray, "blocks heads"]:
    """Mean distance in px of each block's heads, over images and queries."""
    import torch

    from spatialmae.model.mae import Intermediates

    config = trained.model.config
    total = torch.zeros(config.encoder_depth, config.encoder_heads, dtype=torch.float64)
    for start in range(0, len(images), AT_ONCE):
        kept: Intermediates = {}
        with torch.no_grad():
            trained.model.encode(trained.normalise(torch.from_numpy(images[start : start + AT_ONCE])), kept=kept)
        for block in range(config.encoder_depth):
            maps = kept[f"encoder/block{block}/attention"]
            total[block] += mean_distance(maps, config.patch_size, config.grid).sum(dim=0)
    return (total / len(images)).numpy()


def mean_distance(
    attention: Float[Tensor, "n heads T T"], patch_size: int, grid: tuple[int, int]
) -> Float[Tensor, "n heads"]:
    """Mean distance in px between a query's patch and those attended to, float64.

    Args:
        attention: of queries (rows) to keys; [CLS], which comes first, is left out of both, and rows are divided by
            their sums.
        patch_size: side of a patch in px.
        grid: rows and columns of patches.
    """
    import torch

    from spatialmae.geometry import pixel_distances

    distances = torch.from_numpy(patch_size * pixel_distances(grid))
    to_patches = attention[:, :, 1:, 1:].double()
    return ((to_patches * distances).sum(dim=-1) / to_patches.sum(dim=-1)).mean(dim=-1)


MEASURE = Measure(
    "how far each attention head looks in test images, as Dosovitskiy et al. (2021) measure it",
    tables=("attention_distance",),
    rows=rows,
)
