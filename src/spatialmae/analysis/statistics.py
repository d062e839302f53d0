"""Second-order spatial statistics of images: correlation against distance and the power spectrum.

Every function returns point values for one replicate of a data set; intervals are made across replicates.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from scipy.signal.windows import hann
from scipy.stats import linregress

from spatialmae.geometry import pixel_distances
from spatialmae.luminance import luminance

# Below this share of the largest variance a pixel counts as constant: what it has is rounding error.
CONSTANT_SHARE = 1e-12
IMAGES_AT_ONCE = 1024


def correlation_profile(
    S: Float64[np.ndarray, "d d"], image_shape: tuple[int, int, int]
) -> tuple[Float64[np.ndarray, " bins"], Float64[np.ndarray, " bins"]]:
    """Mean Pearson correlation of pixel pairs of one channel, against their distance.

    The pairs of all channels are pooled. Pixels without variance (three in ``digits``) have no correlation
    and are left out.

    Args:
        S: centred second moments of the flattened images, up to a factor.
        image_shape: (h, w, c), features in C order.

    Returns:
        Distances in px, rounded to integers, from 0 to max(h, w) − 1, and the mean correlation, −1 … 1, at
        each. A distance without a pair is dropped.

    Raises:
        ValueError: the shape does not hold the d features of ``S``.
    """
    height, width, channels = image_shape
    if height * width * channels != len(S):
        raise ValueError(f"image_shape={image_shape} does not hold the {len(S)} features of S")
    distances = np.rint(pixel_distances((height, width))).astype(np.int64)
    n_bins = max(height, width)
    total, pairs = np.zeros(n_bins), np.zeros(n_bins)
    varies = np.diag(S) > CONSTANT_SHARE * np.diag(S).max()
    for channel in range(channels):
        of_channel = slice(channel, None, channels)
        channel_total, channel_pairs = _sum_by_distance(
            S[of_channel, of_channel], varies[of_channel], distances, n_bins
        )
        total += channel_total
        pairs += channel_pairs
    present = np.flatnonzero(pairs)
    return present.astype(np.float64), total[present] / pairs[present]


def _sum_by_distance(
    covariance: Float64[np.ndarray, "pixels pixels"],
    varies: Bool[np.ndarray, " pixels"],
    distances: Int64[np.ndarray, "pixels pixels"],
    n_bins: int,
) -> tuple[Float64[np.ndarray, " bins"], Float64[np.ndarray, " bins"]]:
    """Sum of correlations, and number of pairs, at every integer distance below ``n_bins``."""
    chosen = np.ix_(varies, varies)
    deviation = np.sqrt(np.diag(covariance)[varies])
    correlation = (covariance[chosen] / deviation[:, None] / deviation).ravel()
    bins = distances[chosen].ravel()
    total = np.bincount(bins, weights=correlation, minlength=n_bins)[:n_bins]
    pairs = np.bincount(bins, minlength=n_bins)[:n_bins]
    return total.astype(np.float64), pairs.astype(np.float64)


def correlation_length(distances: Float64[np.ndarray, " bins"], correlation: Float64[np.ndarray, " bins"]) -> float:
    """Distance in px at which the correlation first falls to 1/e, interpolated linearly.

    Args:
        distances: ascending, px.
        correlation: from :func:`correlation_profile`.

    Returns:
        The length; NaN where the correlation stays above 1/e at all distances of the image.
    """
    threshold = np.exp(-1)
    below = np.flatnonzero(correlation <= threshold)
    if not len(below):
        return float("nan")
    last = below[0]
    first = max(last - 1, 0)
    # np.interp wants its abscissa ascending; the correlation falls between these two points.
    return float(np.interp(threshold, correlation[[last, first]], distances[[last, first]]))


def power_spectrum(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[Float64[np.ndarray, " bins"], Float64[np.ndarray, " bins"]]:
    """Radially averaged periodogram of the luminance.

    Each image has its mean removed and is multiplied by a Hann window in both directions (an image of
    height 1 along its width only). Power is the mean of |F|² / Σ window² over images and over the
    frequencies of an annulus, so white noise has its variance at every frequency.

    Returns:
        Frequencies in cycles/px, multiples of 1 / max(h, w) with 0 < f ≤ 0.5, and the power at each
        (luminance in 0 … 1, squared).
    """
    height, width = images.shape[1:3]
    side = max(height, width)
    periodogram = _mean_periodogram(images)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    annulus = np.rint(radius * side).astype(np.int64).ravel()
    count = np.bincount(annulus)
    mean = np.bincount(annulus, weights=periodogram.ravel()) / np.maximum(count, 1)
    chosen = np.arange(1, side // 2 + 1)
    return chosen / side, mean[chosen]


def _mean_periodogram(images: UInt8[np.ndarray, "n h w c"]) -> Float64[np.ndarray, "h w"]:
    """Windowed periodogram averaged over images, in slices that bound the memory."""
    height, width = images.shape[1:3]
    window = hann(height, sym=False)[:, None] * hann(width, sym=False)[None, :]
    total = np.zeros((height, width))
    for start in range(0, len(images), IMAGES_AT_ONCE):
        grey = luminance(images[start : start + IMAGES_AT_ONCE])
        centred = grey - grey.mean(axis=(1, 2), keepdims=True)
        total += (np.abs(np.fft.fft2(centred * window)) ** 2).sum(axis=0)
    return total / len(images) / (window**2).sum()


def spectrum_fit(frequencies: Float64[np.ndarray, " bins"], power: Float64[np.ndarray, " bins"]) -> tuple[float, float]:
    """Exponent of the power law power ∝ f^−exponent, and R², of a least-squares line in log-log.

    Every frequency has the same weight. Frequencies without power are left out; both values are NaN where
    fewer than three are left (constant images).
    """
    positive = power > 0
    if positive.sum() < 3:
        return float("nan"), float("nan")
    line = linregress(np.log(frequencies[positive]), np.log(power[positive]))
    return float(-line.slope), float(line.rvalue**2)
