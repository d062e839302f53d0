"""Where in a patch an encoder's weights lie on Ising data (paper A, claim A3; docs/theory.md, section 6)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64


def interior_patches(grid: tuple[int, int]) -> Int64[np.ndarray, " _"]:
    """Patches of a (rows, columns) grid that have a neighbour on every side; a chain is a grid of one row.

    Raises:
        ValueError: there is none.
    """
    index = np.arange(grid[0] * grid[1]).reshape(grid)
    inner = index[:, 1:-1] if grid[0] == 1 else index[1:-1, 1:-1]
    if inner.size == 0:
        raise ValueError(f"a grid of {grid[0]}×{grid[1]} patches has no interior patch")
    return inner.ravel()


def patch_energy(
    weights: Float64[np.ndarray, "d k"], image_shape: tuple[int, int], patch_size: int
) -> Float64[np.ndarray, "ph pw"]:
    """Mean squared weight at each position within a patch, over interior patches and features; mean 1.

    Args:
        weights: encoder A, or the transposed decoder; features in C order of ``image_shape``.
        image_shape: (1, length) of a chain or (h, w) of a lattice.
        patch_size: side of a patch; on a chain its length.

    Returns:
        (1, p) for a chain, (p, p) for a lattice.
    """
    height, width = image_shape
    rows = 1 if height == 1 else patch_size
    energy = np.square(weights).sum(axis=1)
    patches = energy.reshape(height // rows, rows, width // patch_size, patch_size).swapaxes(1, 2)
    grid = (height // rows, width // patch_size)
    profile = patches.reshape(-1, rows, patch_size)[interior_patches(grid)].mean(axis=0)
    return profile / profile.mean()


def border_distance(patch_shape: tuple[int, int]) -> Int64[np.ndarray, "ph pw"]:
    """Distance of each position from the patch's border, 0 at the edge; along a chain only its ends are edges."""
    along = [np.minimum(np.arange(n), np.arange(n)[::-1]) for n in patch_shape]
    if patch_shape[0] == 1:
        return along[1][None, :]
    return np.minimum(along[0][:, None], along[1][None, :])


def edge_centre_ratio(energy: Float64[np.ndarray, "ph pw"]) -> float:
    """Mean energy at the patch's edge over that at its centre; above one: weight sits at the boundary (16)."""
    distance = border_distance(energy.shape)
    return float(energy[distance == 0].mean() / energy[distance == distance.max()].mean())
