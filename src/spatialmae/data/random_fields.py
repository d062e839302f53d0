"""Gaussian random fields whose correlations are known exactly: textures of any correlation length.

A field has covariance exp(−ρ(x)), ρ² = ((x·u) / (a ℓ))² + ((x·v) / (ℓ / a))², with ℓ the correlation length, a the
square root of the anisotropy, and the orthogonal directions u and v turned by the class. All classes have the same mean
and variance at every pixel, and differ in their correlations alone. The world is ours: what is tested on it is a proxy.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, UInt8

from spatialmae.data.dataset import ImageData, consecutive_splits
from spatialmae.errors import UserError

ORIENTATIONS = ("0°", "45°", "90°", "135°")
MEAN, STD = 127.5, 40.0  # grey levels; 3 σ lie within 0–255, the rest is clipped
# The torus that fields are drawn on, in image sides: opposite borders of an image never meet around it.
TORUS = 4
CHUNK_SIZE = 256


def random_fields(
    *,
    n_train: int,
    n_validation: int,
    n_test: int,
    image_size: int = 16,
    correlation_length: float = 0.25,
    anisotropy: float = 2.0,
    seed: int,
) -> ImageData:
    """Grey Gaussian fields, uint8 (n, image_size, image_size, 1), with target ``orientation`` (int64, 0–3).

    Args:
        n_train: images to train on; likewise ``n_validation`` and ``n_test``.
        n_validation: see ``n_train``.
        n_test: see ``n_train``.
        image_size: side in px, at least 8.
        correlation_length: geometric mean of the lengths along and across, as a fraction of the image side, at most .5.
        anisotropy: ratio of the two, above 1 or the classes are the same, at most 4.
        seed: of the fields.

    Raises:
        UserError: an impossible value.
    """
    options = {"image_size": image_size, "correlation_length": correlation_length, "anisotropy": anisotropy}
    _check(image_size, correlation_length, anisotropy)
    counts = {"train": n_train, "validation": n_validation, "test": n_test}
    splits = consecutive_splits(**counts)
    rng = np.random.default_rng(seed)
    orientation = rng.integers(len(ORIENTATIONS), size=sum(counts.values()))
    images = np.empty((len(orientation), image_size, image_size, 1), dtype=np.uint8)
    for label in range(len(ORIENTATIONS)):
        lags = torus_lags(TORUS * image_size)
        covariance = field_covariance(lags, correlation_length * image_size, anisotropy, label)
        chosen = np.flatnonzero(orientation == label)
        for start in range(0, len(chosen), CHUNK_SIZE):
            rows = chosen[start : start + CHUNK_SIZE]
            images[rows, ..., 0] = _grey(_draw(covariance, len(rows), rng)[:, :image_size, :image_size])
    return ImageData(
        name="random_fields",
        images=images,
        splits=splits,
        targets={"orientation": orientation.astype(np.int64)},
        class_names={"orientation": ORIENTATIONS},
        provenance={"kind": "random_fields", **counts, **options, "seed": seed},
    )


def torus_lags(side: int) -> Float64[np.ndarray, "side side 2"]:
    """Lags (rows, columns) from the origin of a torus to each of its points, the shorter way round, px."""
    lag = np.fft.fftfreq(side, 1 / side)
    return np.stack(np.meshgrid(lag, lag, indexing="ij"), axis=-1)


def field_covariance(
    lags: Float64[np.ndarray, "*grid 2"], length: float, anisotropy: float, label: int
) -> Float64[np.ndarray, "*grid"]:
    """Covariance at given lags of the fields of one class, whose variance is 1.

    Args:
        lags: (rows, columns) in px.
        length: ℓ in px.
        anisotropy: ratio of the lengths along and across.
        label: 0 … 3, eighths of a turn.
    """
    angle = np.pi * label / len(ORIENTATIONS)
    along = lags[..., 1] * np.cos(angle) - lags[..., 0] * np.sin(angle)
    across = lags[..., 1] * np.sin(angle) + lags[..., 0] * np.cos(angle)
    stretch = np.sqrt(anisotropy)
    return np.exp(-np.hypot(along / (length * stretch), across * stretch / length))


def _draw(
    covariance: Float64[np.ndarray, "side side"], n: int, rng: np.random.Generator
) -> Float64[np.ndarray, "n side side"]:
    """Periodic fields with a given covariance, whose Fourier coefficients are independent."""
    # Where the covariance is cut off half-way round the torus its spectrum dips below 0, by a ten-thousandth at most.
    spectrum = np.fft.fft2(covariance).real.clip(min=0)
    noise = np.fft.fft2(rng.standard_normal((n, *covariance.shape)))
    return np.fft.ifft2(noise * np.sqrt(spectrum)).real


def _grey(field: Float64[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n h w"]:
    return (MEAN + STD * field).round().clip(0, 255).astype(np.uint8)


def _check(image_size: int, correlation_length: float, anisotropy: float) -> None:
    if image_size < 8:
        raise UserError("random_fields.image_size", f"{image_size} pixels show no orientation", "use at least 8")
    if not 0 < correlation_length <= 0.5:
        problem = f"{correlation_length} of the image side is not in (0, .5]"
        raise UserError("random_fields.correlation_length", problem, "use e.g. 0.25")
    if not 1 < anisotropy <= 4:
        problem = f"{anisotropy} is not in (1, 4], and 1 gives no orientation"
        raise UserError("random_fields.anisotropy", problem, "use e.g. 2")
