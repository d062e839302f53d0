"""Replicates of a data set: all of it, and all but one group of images for each seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from tqdm import tqdm

from spatialmae.analysis.jackknife import WHOLE, pseudo_values
from spatialmae.artifacts import read_tensors
from spatialmae.config import Config
from spatialmae.data.dataset import ImageData, Split
from spatialmae.errors import UserError
from spatialmae.layout import Layout
from spatialmae.linear.moments import Moments
from spatialmae.tables import write_table

# Columns that tell rows of one replicate apart; the rest are estimates, or notes on how they were made.
KEYS = (
    *("method", "noise_std", "mask_ratio", "patch_size", "n_components"),
    *("sigma", "target", "statistic", "position", "distance"),
)


def replicates(config: Config, dataset: str, *, whole: bool = True) -> Iterator[tuple[int, ImageData]]:
    """Yield (seed, data): the whole data set first (unless told not to), then each leave-one-out replicate.

    Seed s leaves out group s mod 100 of a partition drawn for its block of a hundred seeds. Progress and ETA are
    shown.

    Raises:
        UserError: the data have too few images or sources for the groups.
    """
    data = ImageData.load(Layout.of(config).data(dataset))
    seeds = config.dataset_seeds(dataset)
    for seed in tqdm([WHOLE] * whole + seeds, desc=dataset, unit="replicate"):
        yield seed, data if seed == WHOLE else _without(data, dataset, seed, len(seeds))


def _without(data: ImageData, dataset: str, seed: int, n_groups: int) -> ImageData:
    try:
        return data.leave_out(seed % 100, n_groups, rng_seed=seed // 100)
    except ValueError as error:
        raise UserError(f"datasets.{dataset}.groups", str(error), "lower it, or give more images") from None


def write_replicates(config: Config, table: str, dataset: str, rows: pd.DataFrame, values: Sequence[str]) -> None:
    """Write pseudo-values to ``tables/<table>/`` and the estimates from all images to ``tables/<table>_all/``."""
    layout, keys = Layout.of(config), [key for key in KEYS if key in rows]
    write_table(layout.table(table, dataset), pseudo_values(rows, keys, values))
    write_table(layout.table(f"{table}_all", dataset), rows[rows["seed"] == WHOLE].drop(columns="seed"))


def moments_of(data: ImageData, split: Split = "train") -> Moments:
    """Moments of a split, streamed so that its images are never all held as floats."""
    rows, flat = data.splits[split], data.images.reshape(len(data.images), -1)
    return Moments.from_batches(flat[rows[i : i + 2000]] / 255.0 for i in range(0, len(rows), 2000))


def solution_file(seed: int) -> str:
    """Name of the file that holds a replicate's solutions."""
    return "all.safetensors" if seed == WHOLE else f"seed{seed}.safetensors"


def linear_solutions(
    config: Config, dataset: str, seed: int
) -> tuple[Float64[np.ndarray, " d"], list[tuple[dict[str, Any], np.ndarray, np.ndarray]]]:
    """The mean, and (keys, encoder (d, k), decoder (k, d)) in float64 of every linear autoencoder of a replicate.

    Keys are method, noise_std, mask_ratio and patch_size (0 for AE and DAE, which know no patches).
    """
    tensors, metadata = read_tensors(Layout.of(config).linear(dataset) / solution_file(seed))
    solutions = []
    for name, keys in metadata["solutions"].items():
        encoder, decoder = (tensors[f"{name}/{part}"].astype(np.float64) for part in ("encoder", "decoder"))
        solutions.append((keys, encoder, decoder))
    return tensors["mean"], solutions
