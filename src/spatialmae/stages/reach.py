"""Stage ``reach``: how far the Jacobian A B of every linear autoencoder reaches, for every replicate."""

from __future__ import annotations

import pandas as pd

from spatialmae.analysis.reach import Influence, ReachGeometry, influence_profile, reach_measures, uniform_measures
from spatialmae.config import Config
from spatialmae.stages.replicates import KEYS, linear_solutions, replicates, write_replicates


def run(config: Config, dataset: str) -> None:
    """Write ``tables/reach/<dataset>.csv`` and the profiles ``tables/reach_profile/<dataset>.csv``."""
    measures, profiles = [], []
    settings = config.datasets[dataset]
    geometries = {size: ReachGeometry.of(settings.source.shape, size) for size in settings.patch_sizes}
    for seed, data in replicates(config, dataset):
        replicate = {"seed": seed, "n_train": len(data.splits["train"])}
        _, solutions = linear_solutions(config, dataset, seed)
        for keys, encoder, decoder in solutions:
            # AE and DAE know no patches: the same map is measured against each patch size.
            evaluated: list[int] = [keys["patch_size"]] if keys["patch_size"] else settings.patch_sizes
            for k in settings.n_components:
                influence = Influence.of_linear(encoder[:, :k], decoder[:k], geometries[evaluated[0]])
                for patch_size in evaluated:
                    row = {**replicate, **keys, "patch_size": patch_size, "n_components": k}
                    measures.append(row | reach_measures(influence, geometries[patch_size]))
                    distances, mean_abs = influence_profile(influence, geometries[patch_size])
                    profiles.append(pd.DataFrame({**row, "distance": distances, "mean_abs": mean_abs}))
    table = pd.DataFrame(measures)
    ceilings = pd.DataFrame([{"patch_size": size, **uniform_measures(g)} for size, g in geometries.items()])
    estimates = [name for name in table.columns if name not in ("seed", "n_train", *KEYS)]
    write_replicates(config, "reach", dataset, table.merge(ceilings, on="patch_size"), estimates)
    write_replicates(config, "reach_profile", dataset, pd.concat(profiles), ["mean_abs"])
