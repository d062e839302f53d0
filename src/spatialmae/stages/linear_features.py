"""What the probes of linear autoencoders share: their features, for every replicate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import pandas as pd

from spatialmae.config import Config
from spatialmae.data.dataset import ImageData
from spatialmae.probe.ridge import LinearCode, split_features
from spatialmae.stages.replicates import linear_solutions, replicates, write_replicates


class Probe(Protocol):
    """A probe whose targets are computed, once for a replicate."""

    def rows(self, code: LinearCode, n_components: Sequence[int]) -> pd.DataFrame:
        """What the leading features of each rank predict."""


def probe_features(
    config: Config, dataset: str, table: str, prepare: Callable[[ImageData], Probe], values: Sequence[str]
) -> None:
    """Write the table of one probe of every linear autoencoder.

    Args:
        config: the configuration.
        dataset: data set that the autoencoders are of.
        table: name of the table.
        prepare: the probe for the images of a replicate.
        values: columns that are estimates.
    """
    patch_sizes, ranks, tables = config.datasets[dataset].patch_sizes, config.datasets[dataset].n_components, []
    for seed, data in replicates(config, dataset):
        probe, features = prepare(data), split_features(data)
        mean, solutions = linear_solutions(config, dataset, seed)
        for keys, encoder, _ in solutions:
            rows = probe.rows(LinearCode.project(features, encoder, mean), ranks)
            # AE and DAE know no patches; repeating their rows lets every patch size be compared with them.
            for patch_size in [keys["patch_size"]] if keys["patch_size"] else patch_sizes:
                tables.append(rows.assign(seed=seed, **{**keys, "patch_size": patch_size}))
    write_replicates(config, table, dataset, pd.concat(tables), values)
