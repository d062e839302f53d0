"""Gabor responses predicted from linear features (paper A, claim A7).

The paper's filter bank is unknown. Ours: a circular Gaussian envelope of standard deviation σ, four
orientations, two phases in quadrature, at nine positions, and a wavelength proportional to σ, so that all
scales have the same bandwidth of 1.4 octaves, the median of simple cells (De Valois et al. 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float64

from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.geometry import pixel_coordinates
from spatialmae.luminance import luminance
from spatialmae.probe.ridge import ALPHAS, LinearCode, SplitArrays, nested_ridge, split_features

BANDWIDTH = 1.4  # octaves at half height
ORIENTATIONS = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
PHASES = (0.0, np.pi / 2)
# The envelope counts as inside the image when its centre is this many σ from the border.
MARGIN = 2.0


def wavelength(sigma: float) -> float:
    """Wavelength in px of the filters with envelope ``sigma`` px: 2.40 σ at 1.4 octaves.

    σ/λ = √(ln 2 / 2) / π · (2^b + 1) / (2^b − 1) for a half-height bandwidth of b octaves.
    """
    octave = 2.0**BANDWIDTH
    return float(sigma * np.pi * np.sqrt(2 / np.log(2)) * (octave - 1) / (octave + 1))


def sigma_range(image_shape: tuple[int, int, int]) -> tuple[float, float]:
    """Smallest and largest σ in px of a bank on images of this shape.

    The smallest has a wavelength of 2 px, the sampling limit; the largest has its ±2 σ inside the image.
    """
    return 2.0 / wavelength(1.0), min(image_shape[:2]) / (2 * MARGIN)


def gabor_bank(image_shape: tuple[int, int, int], sigma: float) -> Float64[np.ndarray, "filters pixels"]:
    """Linear Gabor filters on the luminance image: zero mean, unit norm.

    Filters are ordered by position, orientation, phase (even, odd). Orientation θ is the direction of the
    wave: 0 varies along the columns of the image. Positions are the image's centre and eight around it, a
    quarter of the image away or as far as ±2 σ stays inside; only the centre where nothing else does.

    Args:
        image_shape: (h, w, c).
        sigma: standard deviation of the envelope, px, inside :func:`sigma_range`.

    Raises:
        ValueError: ``sigma`` is outside the range, or the image has one dimension.
    """
    smallest, largest = sigma_range(image_shape)
    if not smallest <= sigma <= largest:
        raise ValueError(f"sigma={sigma} px is outside {smallest:.2f}–{largest:.2f} px for an image of {image_shape}")
    coordinates = pixel_coordinates(image_shape)
    filters = [
        _gabor(coordinates - centre, sigma, orientation, phase)
        for centre, orientation, phase in product(_centres(image_shape, sigma), ORIENTATIONS, PHASES)
    ]
    return np.stack(filters)


def _centres(image_shape: tuple[int, int, int], sigma: float) -> Float64[np.ndarray, "centres 2"]:
    """Row and column of the positions of the filters."""
    side = np.array(image_shape[:2], dtype=np.float64)
    step = np.maximum(np.minimum(side / 4, side / 2 - MARGIN * sigma), 0.0)
    offsets = np.array(list(product((-1, 0, 1), repeat=2))) * step
    return (side - 1) / 2 + np.unique(offsets, axis=0)


def _gabor(
    position: Float64[np.ndarray, "pixels 2"], sigma: float, orientation: float, phase: float
) -> Float64[np.ndarray, " pixels"]:
    """One filter at positions (row, column) relative to its centre."""
    envelope = np.exp(-(position**2).sum(axis=1) / (2 * sigma**2))
    along = position @ np.array([np.sin(orientation), np.cos(orientation)])
    wave = np.cos(2 * np.pi * along / wavelength(sigma) - phase)
    # The constant is taken off under the envelope, so that the filter stays local.
    balanced = envelope * (wave - (envelope @ wave) / envelope.sum())
    return balanced / np.linalg.norm(balanced)


def gabor_targets(
    X: Float64[np.ndarray, "n d"], image_shape: tuple[int, int, int], sigma: float
) -> Float64[np.ndarray, "n filters"]:
    """Responses of :func:`gabor_bank` to the luminance of flattened images with values in [0, 1].

    Raises:
        ValueError: as :func:`gabor_bank`.
    """
    grey = luminance(X.reshape(len(X), *image_shape))
    return grey.reshape(len(X), -1) @ gabor_bank(image_shape, sigma).T


class GaborProbe:
    """The Gabor responses of one data set at every σ; :meth:`rows` probes the code of one encoder."""

    def __init__(self, data: ImageData, sigmas: Sequence[float], alphas: Sequence[float] = ALPHAS) -> None:
        self.alphas = alphas
        features = split_features(data)
        self.targets: dict[float, SplitArrays] = {
            float(sigma): {split: gabor_targets(features[split], data.image_shape, sigma) for split in SPLITS}
            for sigma in sigmas
        }

    def rows(self, code: LinearCode, n_components: Sequence[int]) -> pd.DataFrame:
        """A row for each σ (px) and rank: ``r2`` on the test split and the contract of the probe."""
        return pd.DataFrame(
            [
                probe.row("r2", sigma=sigma)
                for sigma, targets in self.targets.items()
                for probe in nested_ridge(code, targets, n_components, self.alphas)
            ]
        )


def probe_gabor(
    data: ImageData,
    encoder: Float64[np.ndarray, "d k"],
    mean: Float64[np.ndarray, " d"],
    n_components: Sequence[int],
    sigmas: Sequence[float],
) -> pd.DataFrame:
    """:class:`GaborProbe` for a single encoder."""
    return GaborProbe(data, sigmas).rows(LinearCode.project(split_features(data), encoder, mean), n_components)
