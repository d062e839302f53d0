"""What the linear theory says about given images, for every patch size and masking ratio: no network is trained.

Images are analysed as grey ones: the covariances of their channels are averaged, each in units of its variance, as
patches hide all channels of a pixel. Above 32 px a side they are averaged down by whole factors first, and lengths
given in px of the images as they came. That keeps the shares of patches in an image, and loses detail below the factor.

The covariance of two pixels is taken to depend on the lag between them alone (:mod:`spatialmae.analysis.lags`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from spatialmae.analysis.reach import Influence, ReachGeometry, rms_radius
from spatialmae.analysis.second_order import ConditionalMean
from spatialmae.analysis.statistics import correlation_length, correlation_profile
from spatialmae.geometry import patch_labels
from spatialmae.linear.objective import Corruption
from spatialmae.linear.sweep import Sweep
from spatialmae.masks import fixed_count_masks, n_visible
from spatialmae.recommend.rules import DEFAULT_PATCHES

MAX_SIDE = 32  # px: the closed form takes seconds up to here, and grows with the sixth power
LEAST_SIDE = 16  # px that averaging leaves: below, little of an image is left to say anything about
N_MASKS = 4  # that the unexplained share is averaged over; it differs by a few per cent between masks
# Columns of evidence that are shown, with their title and digits.
MAPS = {
    "reach": ("reach of the linear MAE (px), by masking ratio", ".1f"),
    "unexplained": ("unexplained share of hidden pixels, by masking ratio", ".2f"),
}


@dataclass(frozen=True)
class Grid:
    """The settings that are compared.

    Attributes:
        image_size: side of the images, px.
        patch_sizes: rising, px; each tiles the images, and their averaged-down copies.
        mask_ratios: rising.
    """

    image_size: int
    patch_sizes: tuple[int, ...]
    mask_ratios: tuple[float, ...]

    @property
    def factor(self) -> int:
        """By which images are averaged down, see :func:`averaging_factor`."""
        return averaging_factor(self.image_size)

    @property
    def settings(self) -> list[tuple[int, float]]:
        """(patch_size, mask_ratio) of all combinations that leave a patch visible.

        Where patches are so few that ratios come to the same number of them, the lowest stands for all.
        """
        found: dict[tuple[int, int], tuple[int, float]] = {}
        for patch_size in self.patch_sizes:
            for mask_ratio in self.mask_ratios:
                n_patches = self.n_patches(patch_size)
                with suppress(ValueError):  # none visible
                    found.setdefault((patch_size, n_visible(n_patches, mask_ratio)), (patch_size, mask_ratio))
        return list(found.values())

    def n_patches(self, patch_size: int) -> int:
        """Patches of an image."""
        return (self.image_size // patch_size) ** 2


def averaged_sides(image_size: int) -> list[int]:
    """What averaging by a whole factor can leave of a side, px, largest first; none if all are too short."""
    if image_size <= MAX_SIDE:
        return [image_size]
    return [side for side in range(MAX_SIDE, LEAST_SIDE - 1, -1) if image_size % side == 0]


def averaging_factor(image_size: int) -> int:
    """The smallest divisor of ``image_size`` that leaves from :data:`LEAST_SIDE` to :data:`MAX_SIDE` px; up to here, 1.

    One that leaves whole px to MAE's own patches, 14 a side, comes first: of 224 px 8, so that 16 px are compared.

    Raises:
        ValueError: there is none.
    """
    sides = averaged_sides(image_size)
    if not sides:
        problem = f"{image_size} px cannot be averaged down by a whole factor to {LEAST_SIDE} to {MAX_SIDE} px"
        raise ValueError(f"{problem}; use a multiple of a number from {LEAST_SIDE} to {MAX_SIDE}")
    return image_size // next((side for side in sides if side % DEFAULT_PATCHES == 0), sides[0])


@dataclass(frozen=True)
class Correlations:
    """How alike pixels are, by their distance.

    Attributes:
        distances: px of the images as they came.
        correlation: mean Pearson correlation of pixels that far apart, −1 … 1.
        length: distance at which it first falls to 1/e, px; NaN where it stays above within the image.
        least_length: the length, or the image side as its lower bound where it is NaN, px.
    """

    distances: Float64[np.ndarray, " bins"]
    correlation: Float64[np.ndarray, " bins"]
    length: float
    least_length: float

    @classmethod
    def of(cls, covariance: Float64[np.ndarray, "d d"], grid: Grid) -> Correlations:
        """From the covariance of averaged-down images."""
        side = grid.image_size // grid.factor
        distances, correlation = correlation_profile(covariance, (side, side, 1))
        length = correlation_length(distances, correlation) * grid.factor
        least_length = float(grid.image_size) if np.isnan(length) else length
        return cls(distances * grid.factor, correlation, length, least_length)


def theory_cells(covariance: Float64[np.ndarray, "d d"], grid: Grid) -> pd.DataFrame:
    """What the closed form says of each setting of a grid.

    Args:
        covariance: of averaged-down images, from :meth:`LagCovariance.covariance`.
        grid: the settings.

    Returns:
        A row for each setting: ``patch_size`` px, ``mask_ratio``, ``image_size`` px, ``n_patches``,
        ``n_visible``; ``reach``, the rms radius of J² of the linear MAE at that setting, px (docs/theory.md, 12);
        ``unexplained``, the mean squared error of the best linear reconstruction of hidden pixels, each mask having its
        own, in units of their variance; ``correlation_length`` px, of which the image side is a lower bound where the
        correlation stays above 1/e.
    """
    length = Correlations.of(covariance, grid).least_length
    sweeps: dict[int, tuple[Sweep, ReachGeometry]] = {}
    rows: list[dict[str, Any]] = []
    for patch_size, mask_ratio in grid.settings:
        if patch_size not in sweeps:
            sweeps = {patch_size: _prepare(covariance, grid, patch_size)}  # one at a time: each is several d × d
        sweep, geometry = sweeps[patch_size]
        n_patches = grid.n_patches(patch_size)
        linear_map = sweep.full_rank_map(Corruption.fixed_count(mask_ratio, n_patches))
        influence = Influence.of_jacobian(linear_map[:, geometry.outputs], channels=1)
        rows.append(
            {
                "patch_size": patch_size,
                "mask_ratio": mask_ratio,
                "image_size": grid.image_size,
                "n_patches": n_patches,
                "n_visible": n_visible(n_patches, mask_ratio),
                "reach": rms_radius(influence.squared, geometry) * grid.factor,
                "unexplained": _unexplained(covariance, grid, patch_size, mask_ratio),
                "correlation_length": length,
            }
        )
    return pd.DataFrame(rows)


def _prepare(covariance: Float64[np.ndarray, "d d"], grid: Grid, patch_size: int) -> tuple[Sweep, ReachGeometry]:
    side = grid.image_size // grid.factor
    labels = _labels(grid, patch_size)
    return Sweep.of(covariance, labels), ReachGeometry.of((side, side), patch_size // grid.factor)


def _labels(grid: Grid, patch_size: int) -> Int64[np.ndarray, " d"]:
    side = grid.image_size // grid.factor
    return patch_labels(side**2, patch_size // grid.factor, (side, side))


def _unexplained(covariance: Float64[np.ndarray, "d d"], grid: Grid, patch_size: int, mask_ratio: float) -> float:
    labels = _labels(grid, patch_size)
    # The same masks for the same setting, whatever else is compared.
    masks = fixed_count_masks(N_MASKS, grid.n_patches(patch_size), mask_ratio, np.random.default_rng(0))
    predictor = ConditionalMean(np.zeros(len(covariance)), covariance)
    hidden = masks[:, labels]
    errors = [predictor.predictor(row).expected_error / covariance.diagonal()[row].mean() for row in hidden]
    return float(np.mean(errors))


def default_grid(image_size: int, mask_ratios: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.9)) -> Grid:
    """The settings that are compared where none are asked for.

    Patch sizes are the divisors of the side that are multiples of the averaging factor, from 2 px, and leave from 4 to
    32 patches a side, or 2 where there is no other.
    """
    factor = averaging_factor(image_size)
    divisors = [p for p in range(max(2, factor), image_size) if image_size % p == 0 and p % factor == 0]
    sizes = [p for p in divisors if 4 <= image_size // p <= 32] or divisors
    return Grid(image_size, tuple(sizes), tuple(sorted(mask_ratios)))
