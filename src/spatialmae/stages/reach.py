"""Stage ``reach``: how far the Jacobian A B of every linear autoencoder reaches, for every fold."""

from __future__ import annotations

import pandas as pd

from spatialmae.analysis.reach import Influence, ReachGeometry, influence_profile, reach_measures, uniform_measures
from spatialmae.artifacts import write_table
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.stages.folds import iterate_folds, linear_solutions


def run(config: Config, dataset: str) -> None:
    """Write ``tables/reach/<dataset>.csv`` and the profiles ``tables/jacobian/<dataset>.csv``."""
    measures, profiles = [], []
    patch_sizes = config.datasets[dataset].patch_sizes
    shape = config.datasets[dataset].source.shape
    geometries = {patch_size: ReachGeometry.of(shape, patch_size) for patch_size in patch_sizes}
    ceilings = {patch_size: uniform_measures(geometry) for patch_size, geometry in geometries.items()}
    for seed, _ in iterate_folds(config, dataset):
        _, solutions = linear_solutions(config, dataset, seed)
        for keys, encoder, decoder in solutions:
            # AE and DAE know no patches: the same map is measured against each patch size.
            evaluated = [keys["patch_size"]] if keys["patch_size"] else patch_sizes
            for k in config.datasets[dataset].n_components:
                influence = Influence.of_linear(encoder[:, :k], decoder[:k], geometries[evaluated[0]])
                for patch_size in evaluated:
                    row = {"seed": seed, **keys, "patch_size": patch_size, "n_components": k}
                    geometry = geometries[patch_size]
                    measures.append(row | reach_measures(influence, geometry) | ceilings[patch_size])
                    distances, mean_abs = influence_profile(influence, geometry)
                    profiles.append(pd.DataFrame({**row, "distance": distances, "mean_abs": mean_abs}))
    layout = Layout.of(config)
    write_table(layout.table("reach", dataset), pd.DataFrame(measures))
    write_table(layout.table("jacobian", dataset), pd.concat(profiles))
