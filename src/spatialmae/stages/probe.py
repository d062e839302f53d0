"""Stage ``probe``: what the features of every linear autoencoder predict, for every replicate."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pandas as pd

from spatialmae.config import PROBE_MODULES, Config, Dataset
from spatialmae.data.dataset import ImageData
from spatialmae.probe.ridge import LinearCode, split_features
from spatialmae.stages.replicates import linear_solutions, replicates, write_replicates

# Imported by name, so that a probe's table depends on its own code and no other probe's.
PROBES = {"gabor": "GaborProbe", "depth": "DepthProbe", "class": "ClassProbe"}


def run(config: Config, probe: str, dataset: str) -> None:
    """Write ``tables/probe_<probe>/<dataset>.csv``."""
    patch_sizes, ranks, tables = config.datasets[dataset].patch_sizes, config.datasets[dataset].n_components, []
    for seed, data in replicates(config, dataset):
        prepared, features = _prepare(config.datasets[dataset], probe, data), split_features(data)
        mean, solutions = linear_solutions(config, dataset, seed)
        for keys, encoder, _ in solutions:
            rows = prepared.rows(LinearCode.project(features, encoder, mean), ranks)
            # AE and DAE know no patches; repeating their rows lets every patch size be compared with them.
            for patch_size in [keys["patch_size"]] if keys["patch_size"] else patch_sizes:
                tables.append(rows.assign(seed=seed, **{**keys, "patch_size": patch_size}))
    values = ["accuracy", "chance"] if probe == "class" else ["r2"]
    write_replicates(config, f"probe_{probe}", dataset, pd.concat(tables), values)


def _prepare(dataset: Dataset, probe: str, data: ImageData) -> Any:
    """The probe with its targets computed once for a replicate."""
    prepare = getattr(import_module(f"spatialmae.probe.{PROBE_MODULES[probe]}"), PROBES[probe])
    return prepare(data, dataset.sigmas) if probe == "gabor" else prepare(data)
