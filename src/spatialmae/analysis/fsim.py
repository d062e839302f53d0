"""FSIM and FSIMc: how alike two images are in their features.

After Zhang, Zhang, Mou and Zhang (2011), "FSIM: A feature similarity index for image quality assessment". Features are
the phase congruency of luminance, which says where waves of all scales agree in phase (Kovesi, 1999, "Image features
from phase congruency"), and the size of its gradient; FSIMc weighs in chrominance. All constants are those of the
authors' own code, on the scale 0–255. Like it, this filters luminance as if it were periodic and takes gradients as if
zero surrounded the image; in small images both reach far in (docs/deviations.md, D22).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import log, pi, sqrt

import numpy as np
import scipy.fft
from jaxtyping import Complex128, Float, Float64
from scipy.ndimage import correlate1d, uniform_filter

N_SCALES = 4
N_ORIENTATIONS = 4
MIN_WAVELENGTH = 6.0  # px
WAVELENGTH_FACTOR = 2.0  # from one scale to the next
RADIAL_RATIO = 0.55  # σ of a filter's spectrum over its centre frequency, on a logarithmic axis
ANGULAR_RATIO = 1.2  # angle between two orientations over σ of a filter's angular spread
LOW_PASS_CUTOFF = 0.45  # cycles/px, of a Butterworth filter that rounds off the corners of the spectrum
LOW_PASS_ORDER = 15
NOISE_DEVIATIONS = 2.0  # of noise energy beyond its mean, below which energy counts as noise
NOISE_OVERESTIMATE = 1.7  # Kovesi's empirical correction of that threshold
ENERGY_EPS = 1e-4

T_PHASE, T_GRADIENT, T_CHROMA = 0.85, 160.0, 200.0
CHROMA_EXPONENT = 0.03
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
SIDE_AT_FULL_SIZE = 256  # px: an image is averaged down to a shorter side of about that

MAX_BYTES = 2**25  # of the filters' responses alive at once


@dataclass(frozen=True)
class FeatureSimilarity:
    """Similarity of pairs of images, 1 where they are the same.

    Attributes:
        fsim: of luminance, in [0, 1].
        fsimc: with chrominance; the same as ``fsim`` for grey images.
    """

    fsim: Float64[np.ndarray, " n"]
    fsimc: Float64[np.ndarray, " n"]


def feature_similarity(images: Float[np.ndarray, "n h w c"], others: Float[np.ndarray, "n h w c"]) -> FeatureSimilarity:
    """FSIM and FSIMc of each pair. Both are symmetric.

    Where neither image has phase congruency anywhere (both are constant), the authors' weights are 0/0; here
    all pixels then weigh alike.

    Args:
        images: on the scale [0, 1]; one channel, or R, G and B.
        others: likewise.

    Raises:
        ValueError: there are neither one nor three channels.
    """
    n, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"images have {channels} channels; FSIM is defined for 1 (grey) and 3 (R, G, B)")
    at_once = max(1, MAX_BYTES // (16 * N_SCALES * N_ORIENTATIONS * height * width))
    fsim, fsimc = np.empty(n), np.empty(n)
    for start in range(0, n, at_once):
        rows = slice(start, start + at_once)
        fsim[rows], fsimc[rows] = _similarity(_planes(images[rows]), _planes(others[rows]))
    return FeatureSimilarity(fsim, fsimc)


def _planes(images: Float[np.ndarray, "n h w c"]) -> Float64[np.ndarray, "c n h2 w2"]:
    """Luminance, then the two of chrominance if there are any, on the scale 0–255, averaged down if large."""
    scaled = 255 * images.astype(np.float64)
    planes = np.moveaxis(scaled if images.shape[3] == 1 else scaled @ RGB_TO_YIQ.T, 3, 0)
    step = max(1, int(min(images.shape[1:3]) / SIDE_AT_FULL_SIZE + 0.5))
    if step == 1:
        return planes
    # Zero surrounds the image. Of an even window one pixel more lies below and to the right, as conv2's "same" has it.
    origin = -1 if step % 2 == 0 else 0
    return uniform_filter(planes, step, mode="constant", origin=origin, axes=(2, 3))[:, :, ::step, ::step]


def _similarity(
    x: Float64[np.ndarray, "c n h w"], y: Float64[np.ndarray, "c n h w"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """FSIM and FSIMc."""
    phase_x, phase_y = phase_congruency(x[0]), phase_congruency(y[0])
    similarity = _agreement(phase_x, phase_y, T_PHASE)
    similarity *= _agreement(_gradient_size(x[0]), _gradient_size(y[0]), T_GRADIENT)
    weights = np.maximum(phase_x, phase_y)
    weights[weights.sum(axis=(1, 2)) == 0] = 1.0
    total = weights.sum(axis=(1, 2))
    fsim = (weights * similarity).sum(axis=(1, 2)) / total
    if len(x) == 1:
        return fsim, fsim.copy()
    chroma = _agreement(x[1], y[1], T_CHROMA) * _agreement(x[2], y[2], T_CHROMA)
    # Opposite hues make it negative; the paper means the real part of the power.
    factor = np.abs(chroma) ** CHROMA_EXPONENT * np.where(chroma < 0, np.cos(pi * CHROMA_EXPONENT), 1.0)
    return fsim, (weights * similarity * factor).sum(axis=(1, 2)) / total


def _agreement(
    x: Float64[np.ndarray, "n h w"], y: Float64[np.ndarray, "n h w"], constant: float
) -> Float64[np.ndarray, "n h w"]:
    """(2xy + T) / (x² + y² + T): 1 where x = y."""
    return (2 * x * y + constant) / (x**2 + y**2 + constant)


def _gradient_size(luminance: Float64[np.ndarray, "n h w"]) -> Float64[np.ndarray, "n h w"]:
    """Length of the gradient by Scharr's 3 × 3 filters, zero around the image."""
    along, across = (
        correlate1d(
            correlate1d(luminance, [-1.0, 0.0, 1.0], axis=axis, mode="constant"),
            np.array([3.0, 10.0, 3.0]) / 16,
            axis=3 - axis,
            mode="constant",
        )
        for axis in (1, 2)
    )
    return np.hypot(along, across)


def phase_congruency(luminance: Float64[np.ndarray, "n h w"]) -> Float64[np.ndarray, "n h w"]:
    """Kovesi's PC₂, summed over orientations before it is normalised, in [0, 1]; 0 in constant images.

    Of each orientation the energy is Σ over scales of A (cos Δφ − |sin Δφ|), with A the amplitude of a scale's response
    and Δφ the angle between it and the mean response; less a threshold for noise, not below 0. The sum of energies is
    divided by the sum of amplitudes.

    Args:
        luminance: on the scale 0–255 (where ``ENERGY_EPS`` is small).
    """
    filters = _log_gabor_bank(*luminance.shape[1:])
    responses = scipy.fft.ifft2(scipy.fft.fft2(luminance)[:, None, None] * filters)
    mean = responses.sum(axis=2)
    phase = mean / (np.abs(mean) + ENERGY_EPS)
    turned = responses * phase.conj()[:, :, None]
    energy = (turned.real - np.abs(turned.imag)).sum(axis=2)
    threshold = _noise_threshold(responses[:, :, 0], filters)
    energy = np.maximum(energy - threshold[..., None, None], 0).sum(axis=1)
    amplitude = np.abs(responses).sum(axis=(1, 2))
    return np.divide(energy, amplitude, out=np.zeros_like(energy), where=amplitude > 0)


def _noise_threshold(
    finest: Complex128[np.ndarray, "n orientations h w"], filters: Float64[np.ndarray, "orientations scales h w"]
) -> Float64[np.ndarray, "n orientations"]:
    """Energy that noise alone may have, from the response at the finest scale, most of which is noise."""
    # Gaussian noise has an exponentially distributed squared response, whose mean is its median over log 2.
    mean_square = np.median(np.square(np.abs(finest)), axis=(2, 3)) / log(2)
    power = mean_square / np.square(filters[:, 0]).sum(axis=(1, 2))
    height, width = filters.shape[2:]
    kernel = scipy.fft.ifft2(filters).real.sum(axis=1) * sqrt(height * width)
    rayleigh = np.sqrt(power * np.square(kernel).sum(axis=(1, 2)))
    return rayleigh * (sqrt(pi / 2) + NOISE_DEVIATIONS * sqrt(2 - pi / 2)) / NOISE_OVERESTIMATE


@cache
def _log_gabor_bank(height: int, width: int) -> Float64[np.ndarray, "orientations scales h w"]:
    """Spectra of the filters, frequency 0 first: one-sided, so that responses are complex, an even and an odd part."""
    y, x = _frequencies(height)[:, None], _frequencies(width)[None, :]
    radius = np.hypot(x, y)
    low_pass = 1 / (1 + (radius / LOW_PASS_CUTOFF) ** (2 * LOW_PASS_ORDER))
    radius[0, 0] = 1  # any number that has a logarithm: no filter passes frequency 0
    centres = 1 / (MIN_WAVELENGTH * WAVELENGTH_FACTOR ** np.arange(N_SCALES))
    radial = np.exp(-np.square(np.log(radius / centres[:, None, None])) / (2 * log(RADIAL_RATIO) ** 2)) * low_pass
    radial[:, 0, 0] = 0
    orientations = pi / N_ORIENTATIONS * np.arange(N_ORIENTATIONS)
    difference = np.arctan2(-y, x) - orientations[:, None, None]
    angle = np.abs(np.arctan2(np.sin(difference), np.cos(difference)))
    spread = pi / N_ORIENTATIONS / ANGULAR_RATIO
    angular = np.exp(-np.square(angle) / (2 * spread**2))
    return angular[:, None] * radial


def _frequencies(n: int) -> Float64[np.ndarray, " n"]:
    """In cycles/px, 0 first; of an odd number stretched to ±½, as Kovesi's code has it."""
    frequencies = np.fft.fftfreq(n)
    return frequencies * n / (n - 1) if n % 2 and n > 1 else frequencies
