"""Covariance of pixels by the lag between them: second moments with little noise.

A covariance of every pair of pixels has more numbers than most data sets have images, and its noise lengthens the reach
of the closed form's maps: CIFAR-10 in grey, patches of 2 px, ratio .75, full rank: 10.5, 7.4, 4.6 and 3.3 px from
1,000, 3,000, 12,000 and 45,000 images, where that of lags gives 3.0 to 3.1 from each. What is lost is how pairs at one
lag differ from place to place. Random crops, which MAE trains on, average over positions too.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import scipy.linalg
from jaxtyping import Float64, Int64, UInt8

from spatialmae.geometry import block_means, pixel_coordinates
from spatialmae.linear.moments import Moments

IMAGES_AT_ONCE = 1000
# Least eigenvalue of a covariance, in units of the pixels' variance: noise of 3 % of a pixel's standard deviation.
# Images that are not the same everywhere leave some below 0.
NOISE = 1e-3
NO_VARIANCE = 1e-12  # of values in [0, 1]: rounding errors


def averaged_down(images: UInt8[np.ndarray, "n h w c"], factor: int) -> Float64[np.ndarray, "n h2 w2 c"]:
    """Means over blocks of ``factor`` px, in [0, 1]."""
    return block_means(images, factor) / 255


@dataclass(frozen=True)
class LagCovariance:
    """Covariance of two pixels of averaged-down images by the lag between them, with groups that can be left out.

    Attributes:
        groups: for each group of images, the moments of each channel.
    """

    groups: tuple[tuple[Moments, ...], ...]

    @classmethod
    def of(
        cls, images: UInt8[np.ndarray, "n h w c"], factor: int, group: Int64[np.ndarray, " n"] | None = None
    ) -> LagCovariance:
        """Of images, which are averaged down by a divisor of their sides.

        Args:
            images: at least two, square.
            factor: the divisor.
            group: 0 … of each image, each with one at least; None: there is one group.
        """
        members = [np.arange(len(images))] if group is None else [np.flatnonzero(group == g) for g in np.unique(group)]
        channels = range(images.shape[-1])
        return cls(tuple(tuple(_moments(images, rows, factor, c) for c in channels) for rows in members))

    def by_lag(self, without: int | None = None) -> Float64[np.ndarray, "lags lags"]:
        """Covariance at each lag, (row + side − 1, column + side − 1): 1 at lag 0.

        Averaged over all pairs of pixels at that lag, and over channels, each in units of its variance.

        Args:
            without: a group to leave out.

        Raises:
            ValueError: all images are the same.
        """
        kept = [moments for label, moments in enumerate(self.groups) if label != without]
        lag = self._lags
        pairs = np.bincount(lag.ravel())
        found: list[Float64[np.ndarray, " lags"]] = []
        for channel in range(len(self.groups[0])):
            covariance = reduce(operator.add, [moments[channel] for moments in kept]).covariance
            variance = float(np.trace(covariance)) / len(covariance)
            if variance > NO_VARIANCE:
                found.append(np.bincount(lag.ravel(), weights=covariance.ravel()) / pairs / variance)
        if not found:
            raise ValueError("images: they are all the same; give images that differ")
        return np.mean(found, axis=0).reshape(2 * self.side - 1, -1)

    def covariance(self, without: int | None = None) -> Float64[np.ndarray, "d d"]:
        """Covariance of every two pixels that :meth:`by_lag` gives, whose eigenvalues are :data:`NOISE` at least."""
        values, vectors = scipy.linalg.eigh(self.by_lag(without).ravel()[self._lags])
        return (vectors * values.clip(min=NOISE)) @ vectors.T

    @property
    def side(self) -> int:
        """Of the averaged-down images, px."""
        return math.isqrt(len(self.groups[0][0].mean))

    @cached_property
    def _lags(self) -> Int64[np.ndarray, "d d"]:
        """The lag of every two pixels as an index into the flattened lags."""
        row, column = pixel_coordinates((self.side, self.side)).astype(np.int64).T
        down, right = row[:, None] - row, column[:, None] - column
        return (down + self.side - 1) * (2 * self.side - 1) + right + self.side - 1


def _moments(images: UInt8[np.ndarray, "n h w c"], rows: Int64[np.ndarray, " k"], factor: int, channel: int) -> Moments:
    batches = np.split(rows, range(IMAGES_AT_ONCE, len(rows), IMAGES_AT_ONCE))
    return Moments.from_batches(
        averaged_down(images[batch][..., [channel]], factor).reshape(len(batch), -1) for batch in batches
    )


def sampled_covariance(
    covariance: Float64[np.ndarray, "d d"], n_images: int, rng: np.random.Generator
) -> Float64[np.ndarray, "d d"]:
    """Sample covariance of so many Gaussian images: what the same number of images makes of a known covariance.

    Args:
        covariance: positive definite.
        n_images: at least two.
        rng: draws the images.
    """
    factor = np.linalg.cholesky(covariance)
    sizes = [min(IMAGES_AT_ONCE, n_images - start) for start in range(0, n_images, IMAGES_AT_ONCE)]
    return Moments.from_batches(rng.standard_normal((size, len(factor))) @ factor.T for size in sizes).covariance
