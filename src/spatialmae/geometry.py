"""Geometry of images and patches: which patch a feature belongs to, how far apart two pixels are."""

from __future__ import annotations

from math import prod

import numpy as np
from jaxtyping import Float64, Int64, Real
from scipy.spatial.distance import cdist

ImageShape = tuple[int, int] | tuple[int, int, int]


def patch_labels(n_features: int, patch_size: int, image_shape: ImageShape | None = None) -> Int64[np.ndarray, " d"]:
    """Index of the patch of every feature of a flattened image, patches counted in row-major order.

    Args:
        n_features: d, the length of a flattened image.
        patch_size: side of the square patch in pixels; for a 1-D signal its length.
        image_shape: (h, w) or (h, w, c), features in C order; a patch holds all channels of its pixels.
            None: a 1-D signal, whose last patch may be shorter.

    Raises:
        ValueError: the shape does not hold ``n_features``, or patches do not tile the image.
    """
    if patch_size < 1:
        raise ValueError(f"patch_size={patch_size} must be at least 1")
    if image_shape is None:
        return np.arange(n_features, dtype=np.int64) // patch_size
    if len(image_shape) not in (2, 3) or prod(image_shape) != n_features:
        raise ValueError(f"image_shape={image_shape} does not hold n_features={n_features}: give (h, w) or (h, w, c)")
    height, width, channels = (*image_shape, 1)[:3]
    if height % patch_size or width % patch_size:
        raise ValueError(f"patch_size={patch_size} does not tile an image of {height}×{width} pixels")
    row = np.arange(height) // patch_size
    column = np.arange(width) // patch_size
    labels = row[:, None] * (width // patch_size) + column[None, :]
    return np.repeat(labels.ravel(), channels).astype(np.int64)


def patch_members(labels: Int64[np.ndarray, " d"]) -> list[Int64[np.ndarray, " _"]]:
    """The features of each patch, in patch order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def block_means(images: Real[np.ndarray, "n h w c"], factor: int) -> Float64[np.ndarray, "n h2 w2 c"]:
    """Images averaged down over blocks of ``factor`` px, a divisor of their sides."""
    n, height, width, channels = images.shape
    blocks = images.reshape(n, height // factor, factor, width // factor, factor, channels)
    return blocks.mean(axis=(2, 4), dtype=np.float64)


def pixel_coordinates(image_shape: ImageShape) -> Float64[np.ndarray, "pixels 2"]:
    """Row and column of every pixel in C order, in pixels; channels share a pixel."""
    height, width = image_shape[:2]
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows.ravel(), columns.ravel()], axis=1).astype(np.float64)


def pixel_distances(image_shape: ImageShape) -> Float64[np.ndarray, "pixels pixels"]:
    """Euclidean distance between the centres of every two pixels, in pixels."""
    coordinates = pixel_coordinates(image_shape)
    return cdist(coordinates, coordinates)
