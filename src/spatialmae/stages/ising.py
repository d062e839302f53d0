"""Stage ``ising``: where in a patch the weights lie, on free chains and on a lattice (claim A3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from tqdm import tqdm

from spatialmae.analysis.ising import border_distance, edge_centre_ratio, patch_energy
from spatialmae.config import Config, Ising
from spatialmae.data.dataset import ImageData
from spatialmae.data.ising import ising_chain, ising_lattice
from spatialmae.errors import UserError
from spatialmae.geometry import patch_labels
from spatialmae.layout import Layout
from spatialmae.linear.closed_form import Solution, solve
from spatialmae.linear.objective import Corruption
from spatialmae.linear.sweep import Sweep
from spatialmae.tables import write_table


def run(config: Config) -> None:
    """Write ``tables/ising/ising.csv`` and the energy profiles ``tables/ising_profile/ising.csv``.

    Raises:
        UserError: the configuration has no such section.
    """
    if config.ising is None:
        raise UserError("ising", "the configuration has none", "add the section, as config/config.yaml has it")
    ising, mask_ratios = config.ising, config.linear.mask_ratios
    ratios: list[dict[str, Any]] = []
    profiles: list[dict[str, Any]] = []
    for seed in tqdm(config.simulation_seeds, desc="ising", unit="seed"):
        for keys, data, patch_sizes in _samples(ising, seed):
            for patch_size in patch_sizes:
                row = {"seed": seed, **keys, "patch_size": patch_size}
                for mask_ratio, solution in _solutions(data, patch_size, mask_ratios, max(ising.n_components)):
                    arm = row | {"mask_ratio": mask_ratio}
                    _measure(arm, solution, data, ising.n_components, ratios, profiles)
    layout = Layout.of(config)
    write_table(layout.table("ising", "ising"), pd.DataFrame(ratios))
    write_table(layout.table("ising_profile", "ising"), pd.DataFrame(profiles))


def _samples(ising: Ising, seed: int) -> Iterator[tuple[dict[str, Any], ImageData, list[int]]]:
    """Fresh samples of every chain and of the lattice."""
    counts: dict[str, int] = {"n_train": ising.n_samples, "n_validation": 0, "n_test": 0, "seed": seed}
    for coupling in ising.couplings:
        chain = ising_chain(length=ising.length, coupling=coupling, **counts)
        yield {"dimension": 1, "coupling": coupling}, chain, ising.patch_sizes
    size, coupling = ising.lattice_size, ising.lattice_coupling
    lattice = ising_lattice(size=size, coupling=coupling, n_sweeps=ising.lattice_sweeps, **counts)
    yield {"dimension": 2, "coupling": coupling}, lattice, [ising.lattice_patch_size]


def _solutions(
    data: ImageData, patch_size: int, mask_ratios: list[float], rank: int
) -> Iterator[tuple[float, Solution]]:
    """AE (ratio 0) and MAE at every masking ratio."""
    spins = 2 * data.features("train") - 1
    S = spins.T @ spins / len(spins)
    height, width, _ = data.image_shape
    shape = None if height == 1 else (height, width)
    labels = patch_labels(len(S), patch_size, shape)
    yield 0.0, solve(S, labels, Corruption.gaussian(0.0), rank)
    sweep = Sweep.of(S, labels)
    for mask_ratio in mask_ratios:
        yield mask_ratio, sweep.solve(Corruption.bernoulli(mask_ratio), min(rank, len(sweep.mu)))


def _measure(
    row: dict[str, Any],
    solution: Solution,
    data: ImageData,
    n_components: list[int],
    ratios: list[dict],
    profiles: list[dict],
) -> None:
    height, width, _ = data.image_shape
    for k in n_components:
        matrices = {"encoder": solution.encoder[:, :k], "decoder": solution.decoder[:k].T}
        for matrix, weights in matrices.items():
            energy = patch_energy(weights, (height, width), row["patch_size"])
            keys = {**row, "n_components": k, "matrix": matrix}
            ratios.append(keys | {"edge_centre_ratio": edge_centre_ratio(energy)})
            profiles += [keys | {"position": position, "energy": value} for position, value in _profile(energy)]


def _profile(energy: Float64[np.ndarray, "ph pw"]) -> list[tuple[int, float]]:
    """Energy by position along a chain's patch; on a lattice by distance from the patch's border."""
    if energy.shape[0] == 1:
        return [(i, float(value)) for i, value in enumerate(energy[0])]
    distance = border_distance(energy.shape)
    return [(i, float(energy[distance == i].mean())) for i in range(int(distance.max()) + 1)]
