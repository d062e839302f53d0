"""Stage ``probe``: what the features of every linear autoencoder predict, for every fold."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pandas as pd

from spatialmae.artifacts import write_table
from spatialmae.config import Config, Dataset
from spatialmae.data.dataset import ImageData
from spatialmae.layout import Layout
from spatialmae.probe.ridge import LinearCode, split_features
from spatialmae.stages.folds import iterate_folds, linear_solutions

# Imported by name, so that a probe's table depends on its own code and no other probe's.
PROBES = {"gabor": ("gabor", "GaborProbe"), "depth": ("depth", "DepthProbe"), "class": ("classification", "ClassProbe")}


def run(config: Config, probe: str, dataset: str) -> None:
    """Write ``tables/probe_<probe>/<dataset>.csv``."""
    patch_sizes, ranks, tables = config.datasets[dataset].patch_sizes, config.datasets[dataset].n_components, []
    for seed, fold in iterate_folds(config, dataset):
        prepared, features = _prepare(config.datasets[dataset], probe, fold), split_features(fold)
        mean, solutions = linear_solutions(config, dataset, seed)
        for keys, encoder, _ in solutions:
            rows = prepared.rows(LinearCode.project(features, encoder, mean), ranks)
            # AE and DAE know no patches; repeating their rows lets every patch size be compared with them.
            for patch_size in [keys["patch_size"]] if keys["patch_size"] else patch_sizes:
                tables.append(rows.assign(seed=seed, **{**keys, "patch_size": patch_size}))
    write_table(Layout.of(config).table(f"probe_{probe}", dataset), pd.concat(tables))


def _prepare(dataset: Dataset, probe: str, fold: ImageData) -> Any:
    """The probe with its targets computed once for a fold."""
    module, name = PROBES[probe]
    prepare = getattr(import_module(f"spatialmae.probe.{module}"), name)
    return prepare(fold, dataset.sigmas) if probe == "gabor" else prepare(fold)
