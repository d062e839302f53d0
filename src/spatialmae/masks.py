"""Masks over patches: how many stay visible, and random masks for theory and training alike."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Literal

import numpy as np

from spatialmae.shapes import Bool


def check_mask_ratio(mask_ratio: float) -> float:
    """Return ``mask_ratio`` as a float in [0, 1).

    Raises:
        ValueError: it is not; at 1 nothing would be visible.
    """
    if not 0 <= mask_ratio < 1:
        raise ValueError(f"mask_ratio: {mask_ratio} is not in [0, 1), at 1 nothing is visible; change it")
    return float(mask_ratio)


def n_visible(n_patches: int, mask_ratio: float, size_field: Literal["patch_size", "mask_unit"] = "patch_size") -> int:
    """Number of visible patches, ⌊n_patches (1 − mask_ratio)⌋ in exact decimal arithmetic.

    The ratio is read as the decimal a person writes: 100 patches at 0.9 leave 10, where binary
    floating point, 100 × (1 − 0.9) = 9.999…, leaves 9.

    Args:
        n_patches: patches of an image, or mask units where they are larger.
        mask_ratio: share of them to hide, in [0, 1).
        size_field: the setting of their size, for the message.

    Raises:
        ValueError: no patch would stay visible.
    """
    ratio = Fraction(repr(check_mask_ratio(mask_ratio)))
    visible = floor(n_patches * (1 - ratio))
    if visible < 1:
        units = "patches" if size_field == "patch_size" else "mask units"
        raise ValueError(
            f"mask_ratio: {mask_ratio} leaves none of {n_patches} {units} visible; lower it or {size_field}"
        )
    return visible


def bernoulli_masks(
    n_samples: int, n_patches: int, mask_ratio: float, rng: np.random.Generator
) -> Bool[np.ndarray, "n patches"]:
    """Masks that hide every patch independently with probability ``mask_ratio``; true = hidden.

    High noise hides, here as in :func:`fixed_count_masks` and the model's masks.

    Raises:
        ValueError: the ratio is not in [0, 1).
    """
    return rng.random((n_samples, n_patches)) >= 1 - check_mask_ratio(mask_ratio)


def fixed_count_masks(
    n_samples: int, n_patches: int, mask_ratio: float, rng: np.random.Generator
) -> Bool[np.ndarray, "n patches"]:
    """Masks that leave exactly :func:`n_visible` patches visible, uniformly at random; true = hidden.

    Raises:
        ValueError: the ratio is not in [0, 1), or leaves no patch visible.
    """
    noise = rng.random((n_samples, n_patches))
    rank = noise.argsort(axis=1).argsort(axis=1)
    return rank >= n_visible(n_patches, mask_ratio)
