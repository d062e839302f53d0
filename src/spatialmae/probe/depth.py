"""Depth predicted from linear features (paper A, claim A8; the paper's depth data are unknown)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64

from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.probe.ridge import ALPHAS, LinearCode, SplitArrays, nested_ridge, split_features

GRID = 4


def pooled_depth(depth: Float[np.ndarray, "n h w"], grid: int = GRID) -> Float64[np.ndarray, "n cells"]:
    """Mean depth in the cells of a ``grid`` × ``grid`` division of each map, cells in row-major order.

    A pixel that is not finite (depth not measured) is left out of its cell's mean; a cell without a measured
    pixel is NaN.

    Raises:
        ValueError: the grid does not divide the map.
    """
    n, height, width = depth.shape
    if height % grid or width % grid:
        raise ValueError(f"a grid of {grid}×{grid} cells does not divide a depth map of {height}×{width} pixels")
    cells = depth.reshape(n, grid, height // grid, grid, width // grid).astype(np.float64)
    measured = np.isfinite(cells)
    count = measured.sum(axis=(2, 4))
    total = np.where(measured, cells, 0.0).sum(axis=(2, 4))
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean.reshape(n, grid * grid)


class DepthProbe:
    """The pooled depth of one data set; :meth:`rows` probes the code of one encoder.

    Images with a cell without measured depth are left out of all splits.
    """

    def __init__(
        self, data: ImageData, target: str = "depth", grid: int = GRID, alphas: Sequence[float] = ALPHAS
    ) -> None:
        self.alphas = alphas
        pooled = {split: pooled_depth(data.target(target, split), grid) for split in SPLITS}
        self.complete = {split: np.isfinite(pooled[split]).all(axis=1) for split in SPLITS}
        self.targets: SplitArrays = {split: pooled[split][self.complete[split]] for split in SPLITS}

    def rows(self, code: LinearCode, n_components: Sequence[int]) -> pd.DataFrame:
        """A row for each rank: ``r2`` on the test split and the contract of the probe."""
        everywhere = all(complete.all() for complete in self.complete.values())
        probed = code if everywhere else code.keep(self.complete)
        probes = nested_ridge(probed, self.targets, n_components, self.alphas)
        return pd.DataFrame([probe.row("r2") for probe in probes])


def probe_depth(
    data: ImageData,
    encoder: Float64[np.ndarray, "d k"],
    mean: Float64[np.ndarray, " d"],
    n_components: Sequence[int],
) -> pd.DataFrame:
    """:class:`DepthProbe` for a single encoder."""
    return DepthProbe(data).rows(LinearCode.project(split_features(data), encoder, mean), n_components)
