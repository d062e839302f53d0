"""Stage ``features``: variance kept against redundancy across patches, for every replicate and autoencoder."""

from __future__ import annotations

import pandas as pd

from spatialmae.analysis.features import patch_redundancy, redundancy_share, variance_kept
from spatialmae.config import Config
from spatialmae.geometry import patch_labels
from spatialmae.stages.replicates import linear_solutions, moments_of, replicates, write_replicates


def run(config: Config, dataset: str) -> None:
    """Write ``tables/features/<dataset>.csv``; redundancy is evaluated on test images."""
    ranks, rows = config.datasets[dataset].n_components, []
    for seed, data in replicates(config, dataset):
        S, held_out = moments_of(data).covariance, moments_of(data, "test").covariance
        _, solutions = linear_solutions(config, dataset, seed)
        for patch_size in config.datasets[dataset].patch_sizes:
            labels = patch_labels(len(S), patch_size, data.image_shape)
            R = patch_redundancy(S, held_out, labels)
            for keys, encoder, decoder in solutions:
                if keys["patch_size"] not in (0, patch_size):
                    continue
                measures = {
                    "variance_kept": variance_kept(S, encoder, ranks),
                    "redundancy": redundancy_share(R, held_out, labels, decoder.T, ranks),
                    "redundancy_read": redundancy_share(R, held_out, labels, encoder, ranks),
                }
                table = pd.DataFrame({"n_components": ranks, **measures})
                rows.append(
                    table.assign(seed=seed, n_train=len(data.splits["train"]), **{**keys, "patch_size": patch_size})
                )
    measured = ["variance_kept", "redundancy", "redundancy_read"]
    write_replicates(config, "features", dataset, pd.concat(rows), measured)
