"""Masks over patches: how many stay visible, and random masks for theory and training alike."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np

from spatialmae.shapes import Bool


def check_mask_ratio(mask_ratio: float) -> float:
    """Return ``mask_ratio`` as a float in [0, 1).

    Raises:
        ValueError: it is not; at 1 nothing would be visible.
    """
    if not 0 <= mask_ratio < 1:
        raise ValueError(f"mask_ratio={mask_ratio} must lie in [0, 1): at 1 nothing stays visible")
    return float(mask_ratio)


def n_visible(n_patches: int, mask_ratio: float) -> int:
    """Number of visible patches, ⌊n_patches (1 − mask_ratio)⌋ in exact decimal arithmetic.

    The ratio is read as the decimal a person writes: 100 patches at 0.9 leave 10, where binary
    floating point, 100 × (1 − 0.9) = 9.999…, leaves 9.

    Raises:
        ValueError: no patch would stay visible.
    """
    ratio = Fraction(repr(check_mask_ratio(mask_ratio)))
    visible = floor(n_patches * (1 - ratio))
    if visible < 1:
        raise ValueError(
            f"mask_ratio={mask_ratio} leaves none of {n_patches} patches visible: lower mask_ratio or patch_size"
        )
    return visible


def bernoulli_masks(
    n_samples: int, n_patches: int, mask_ratio: float, rng: np.random.Generator
) -> Bool[np.ndarray, "n patches"]:
    """Masks that hide every patch independently with probability ``mask_ratio``; true = hidden."""
    return rng.random((n_samples, n_patches)) < check_mask_ratio(mask_ratio)


def fixed_count_masks(
    n_samples: int, n_patches: int, mask_ratio: float, rng: np.random.Generator
) -> Bool[np.ndarray, "n patches"]:
    """Masks that leave exactly :func:`n_visible` patches visible, uniformly at random; true = hidden."""
    noise = rng.random((n_samples, n_patches))
    rank = noise.argsort(axis=1).argsort(axis=1)
    return rank >= n_visible(n_patches, mask_ratio)
