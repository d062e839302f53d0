"""How high in a tree the shared latents lie: complete binary trees over a line, quad-trees over an image (claim B2).

Leaves are observables (pixels) and have height 0; a latent's height is its distance from them. Masks are those of an
MAE: patches aligned with the tree, a fixed count hidden. A patch of side 2^k is then a subtree that is hidden or
visible as a whole, so c lies above height k, where it is that of the tree whose leaves are the patches.

c is symmetric in masked and visible, so its law is the same with a share r of the patches hidden as with 1 − r, up to
the rounding of counts: the theorem implies no peak above a half.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from math import log2
from typing import Literal

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from spatialmae.masks import fixed_count_masks

Tree = Literal["binary", "quad"]
DIMENSIONS: dict[Tree, int] = {"binary": 1, "quad": 2}
# Patches whose masks are drawn at once: tens of megabytes.
PATCHES_AT_ONCE = 1 << 20


def complete_tree(tree: Tree, depth: int) -> nx.DiGraph:
    """The tree with 2^depth leaves along a side; nodes are (height, index) or (height, row, column).

    Raises:
        ValueError: there is no such tree.
    """
    _check_tree(tree, depth)
    dimensions = DIMENSIONS[tree]
    graph = nx.DiGraph()
    for height in range(1, depth + 1):
        for child in product(range(2 << (depth - height)), repeat=dimensions):
            graph.add_edge((height, *(index // 2 for index in child)), (height - 1, *child))
    return graph


def latents_by_height(hidden: Bool[np.ndarray, "n ..."]) -> Int64[np.ndarray, "n levels"]:
    """Number of members of c at every height, for many masks of a complete tree at once.

    Equal to :func:`~spatialmae.hierarchy.shared.shared_latents` on the tree's graph, without the graph: a node is
    shared if it has hidden and visible leaves below it, and in c if none of its children is shared.

    Args:
        hidden: (n, 2^depth) over the leaves of a binary tree, or (n, 2^depth, 2^depth) over those of a quad-tree,
            true = hidden. Leaves may stand for patches; heights then count from the patches.

    Returns:
        Column h holds the members at height h, for h = 0 (always none) to depth.

    Raises:
        ValueError: the sides differ or are no power of two.
    """
    n, *sides = hidden.shape
    if len(sides) not in DIMENSIONS.values() or len(set(sides)) != 1 or sides[0].bit_count() != 1:
        raise ValueError(f"hidden: leaves of shape {tuple(sides)} are no complete tree; use sides 2^depth")
    any_hidden, any_visible, child_shared = hidden, ~hidden, np.zeros_like(hidden)
    counts = [np.zeros(n, np.int64)]
    while any_hidden.shape[1] > 1:
        any_hidden, any_visible, child_shared = _parents(any_hidden), _parents(any_visible), _parents(child_shared)
        shared = any_hidden & any_visible
        counts.append((shared & ~child_shared).reshape(n, -1).sum(axis=1))
        child_shared = shared
    return np.stack(counts, axis=1)


def _parents(any_child: Bool[np.ndarray, "n ..."]) -> Bool[np.ndarray, "n ..."]:
    """Whether any child of each node of the next level is true."""
    for axis in range(1, any_child.ndim):
        before = (slice(None),) * axis
        any_child = any_child[*before, ::2] | any_child[*before, 1::2]
    return any_child


def mean_and_max_height(
    counts: Int64[np.ndarray, "n levels"],
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """The mean and the largest height of c for every mask, from :func:`latents_by_height`.

    Raises:
        ValueError: a mask hides nothing or everything, so that c is empty and has no height.
    """
    sizes = counts.sum(axis=1)
    if not sizes.all():
        raise ValueError(f"masks: mask {int(sizes.argmin())} hides nothing or everything; hide some patches, not all")
    heights = np.arange(counts.shape[1])
    return counts @ heights / sizes, np.where(counts > 0, heights, 0).max(axis=1)


def levels(
    tree: Tree,
    depth: int,
    *,
    patch_sizes: Iterable[int],
    mask_ratios: Iterable[float],
    n_masks: int,
    seeds: Iterable[int],
) -> pd.DataFrame:
    """The level of c under random masks of a tree, a row for each patch size, masking ratio and seed.

    Columns: the settings; ``n_patches`` and ``n_hidden``, the patches there are and those hidden; averaged over the
    seed's masks, ``mean_height`` and ``max_height`` of the members of c, in levels above the leaves, and
    ``n_latents``, how many members. At one patch size and seed all ratios rank the patches alike.

    Args:
        tree: ``"binary"`` or ``"quad"``.
        depth: levels above the leaves, of which there are 2^depth along a side.
        patch_sizes: leaves (px) along a patch's side, powers of two.
        mask_ratios: share of the patches that is hidden; the count visible is rounded down.
        n_masks: masks for each seed.
        seeds: of the masks.

    Raises:
        ValueError: a value is impossible; the message names it.
    """
    _check_tree(tree, depth)
    if n_masks < 1:
        raise ValueError(f"n_masks: {n_masks} is not at least 1; raise it")
    settings = product(patch_sizes, mask_ratios, seeds)
    return pd.DataFrame([_level_row(tree, depth, *one, n_masks) for one in settings])


def _level_row(
    tree: Tree, depth: int, patch_size: int, mask_ratio: float, seed: int, n_masks: int
) -> dict[str, str | int | float]:
    """One row of :func:`levels`."""
    if patch_size < 1 or patch_size.bit_count() != 1 or patch_size >= 1 << depth:
        raise ValueError(f"patch_size: {patch_size} is no power of two below 2^{depth}, the side; change it")
    sides = [(1 << depth) // patch_size] * DIMENSIONS[tree]
    n_patches = int(np.prod(sides))
    rng = np.random.default_rng(seed)
    counts, n_hidden = [], 0
    for n in _batches(n_masks, max(PATCHES_AT_ONCE // n_patches, 1)):
        hidden = fixed_count_masks(n, n_patches, mask_ratio, rng)
        n_hidden = int(hidden[0].sum())
        if n_hidden == 0:
            raise ValueError(f"mask_ratio: {mask_ratio} hides none of {n_patches} patches, nothing is shared; raise it")
        counts.append(latents_by_height(hidden.reshape(n, *sides)))
    by_height = np.concatenate(counts)
    mean, largest = mean_and_max_height(by_height)
    return {
        "tree": tree,
        "depth": depth,
        "patch_size": patch_size,
        "mask_ratio": mask_ratio,
        "seed": seed,
        "n_masks": n_masks,
        "n_patches": n_patches,
        "n_hidden": n_hidden,
        "mean_height": log2(patch_size) + float(mean.mean()),
        "max_height": log2(patch_size) + float(largest.mean()),
        "n_latents": float(by_height.sum(axis=1).mean()),
    }


def _batches(n: int, most: int) -> list[int]:
    """Sizes of at most ``most`` that add up to n."""
    return [min(most, n - start) for start in range(0, n, most)]


def _check_tree(tree: Tree, depth: int) -> None:
    """Raise ValueError for an unknown tree, or one without latents."""
    if tree not in DIMENSIONS:
        raise ValueError(f"tree: {tree!r} is unknown; use binary or quad")
    if depth < 1:
        raise ValueError(f"depth: {depth} leaves a tree without latents; use at least 1")
