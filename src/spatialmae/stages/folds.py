"""Folds of a data set: the replicate that each seed stands for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64
from tqdm import tqdm

from spatialmae.artifacts import read_tensors
from spatialmae.config import Config
from spatialmae.data.dataset import ImageData, Split
from spatialmae.layout import Layout
from spatialmae.linear.moments import Moments


def iterate_folds(config: Config, dataset: str) -> Iterator[tuple[int, ImageData]]:
    """Yield (seed, fold) for every seed of a data set, with progress and ETA.

    Seed s is fold s mod 100 of a partition drawn for its block of a hundred seeds, so that seeds of one
    block never share an image.
    """
    data = ImageData.load(Layout.of(config).data(dataset))
    n_folds = config.datasets[dataset].folds
    for seed in tqdm(config.dataset_seeds(dataset), desc=dataset, unit="fold"):
        yield seed, data.fold(seed % 100, n_folds, rng_seed=seed // 100)


def fold_moments(fold: ImageData, split: Split = "train") -> Moments:
    """Moments of a split, streamed so that its images are never all held as floats."""
    rows, flat = fold.splits[split], fold.images.reshape(len(fold.images), -1)
    return Moments.from_batches(flat[rows[i : i + 2000]] / 255.0 for i in range(0, len(rows), 2000))


def linear_solutions(
    config: Config, dataset: str, seed: int
) -> tuple[Float64[np.ndarray, " d"], list[tuple[dict[str, object], np.ndarray, np.ndarray]]]:
    """The mean, and (keys, encoder (d, k), decoder (k, d)) in float64 of every linear autoencoder of a fold.

    Keys are method, noise_std, mask_ratio and patch_size (0 for AE and DAE, which know no patches).
    """
    tensors, metadata = read_tensors(Layout.of(config).linear(dataset) / f"seed{seed}.safetensors")
    solutions = []
    for name, keys in metadata["solutions"].items():
        encoder, decoder = (tensors[f"{name}/{part}"].astype(np.float64) for part in ("encoder", "decoder"))
        solutions.append((keys, encoder, decoder))
    return tensors["mean"], solutions
