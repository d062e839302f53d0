"""Stage ``linear``: closed forms of AE, DAE and MAE over masking ratios, patch sizes and ranks, for every replicate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from spatialmae.artifacts import write_tensors
from spatialmae.config import Config
from spatialmae.errors import UserError
from spatialmae.geometry import patch_labels
from spatialmae.layout import Layout
from spatialmae.linear.closed_form import Solution, solve
from spatialmae.linear.objective import Corruption
from spatialmae.linear.sweep import Sweep
from spatialmae.stages.replicates import moments_of, replicates, solution_file, write_replicates

FULL_RANK = -1


def run(config: Config, dataset: str) -> None:
    """Write ``linear/<dataset>/`` (a file for each replicate) and ``tables/linear_sweep/<dataset>.csv``."""
    rows: list[dict[str, Any]] = []
    for seed, data in replicates(config, dataset):
        moments = moments_of(data)
        tensors: dict[str, np.ndarray] = {"mean": moments.mean}
        solutions: dict[str, dict[str, Any]] = {}
        S = moments.covariance
        for name, keys, solution in _baselines(config, dataset, S):
            _keep(tensors, solutions, name, keys, solution)
        for patch_size in config.datasets[dataset].patch_sizes:
            labels = patch_labels(len(S), patch_size, data.image_shape)
            for name, keys, solution, full_loss in _masked(config, dataset, S, labels, patch_size):
                _keep(tensors, solutions, name, keys, solution)
                row = {"seed": seed, "n_train": moments.n_samples, **keys}
                rows += _losses(config, dataset, row, solution, full_loss)
        metadata = {"image_shape": list(data.image_shape), "n_train": moments.n_samples, "solutions": solutions}
        write_tensors(Layout.of(config).linear(dataset) / solution_file(seed), tensors, metadata)
    write_replicates(config, "linear_sweep", dataset, pd.DataFrame(rows), ["loss", "loss_fraction"])


def _baselines(config: Config, dataset: str, S: Float64[np.ndarray, "d d"]) -> list[tuple[str, dict, Solution]]:
    """AE and DAE: neither knows patches (patch_size 0)."""
    rank = max(config.datasets[dataset].n_components)
    labels = np.zeros(len(S), dtype=np.int64)
    keys = {"mask_ratio": 0.0, "patch_size": 0}
    return [
        (
            name,
            {"method": name, "noise_std": noise_std, **keys},
            solve(S, labels, Corruption.gaussian(noise_std), rank),
        )
        for name, noise_std in (("ae", 0.0), ("dae", config.linear.noise_std))
    ]


def _masked(
    config: Config, dataset: str, S: Float64[np.ndarray, "d d"], labels: Int64[np.ndarray, " d"], patch_size: int
) -> list[tuple[str, dict, Solution, float]]:
    """MAE at every masking ratio of one patch size, with the loss of the best map of full rank."""
    sweep, rank = Sweep.of(S, labels), max(config.datasets[dataset].n_components)
    if rank > len(sweep.mu):
        problem = f"{rank} exceeds the rank {len(sweep.mu)} of the data"
        raise UserError(f"datasets.{dataset}.n_components", problem, "lower it, or give more images")
    results = []
    for mask_ratio in config.linear.mask_ratios:
        corruption = corruption_of(config, mask_ratio, int(labels[-1]) + 1)
        keys = {"method": "mae", "noise_std": 0.0, "mask_ratio": mask_ratio, "patch_size": patch_size}
        solution = sweep.solve(corruption, rank)
        results.append((f"mae/p{patch_size}/m{mask_ratio:g}", keys, solution, sweep.full_rank_loss(corruption)))
    return results


def corruption_of(config: Config, mask_ratio: float, n_patches: int) -> Corruption:
    """The MAE's masking, of the kind that the configuration asks for."""
    if config.linear.masking == "bernoulli":
        return Corruption.bernoulli(mask_ratio)
    return Corruption.fixed_count(mask_ratio, n_patches)


def _keep(
    tensors: dict[str, np.ndarray], solutions: dict[str, dict], name: str, keys: dict, solution: Solution
) -> None:
    """Add a solution to the artifact, in float32: analyses need no more digits."""
    tensors[f"{name}/encoder"] = solution.encoder.astype(np.float32)
    tensors[f"{name}/decoder"] = solution.decoder.astype(np.float32)
    solutions[name] = keys


def _losses(config: Config, dataset: str, keys: dict, solution: Solution, full_loss: float) -> list[dict[str, Any]]:
    """Rows of the sweep's table: the expected loss at every rank, and at full rank (−1)."""
    ranks = config.datasets[dataset].n_components
    losses = {rank: solution.truncate(rank).loss for rank in ranks} | {FULL_RANK: full_loss}
    return [
        {**keys, "n_components": rank, "loss": loss, "loss_fraction": loss / solution.total}
        for rank, loss in losses.items()
    ]
