"""Stage ``features``: variance kept against redundancy across patches, for every fold and autoencoder."""

from __future__ import annotations

import pandas as pd

from spatialmae.analysis.features import patch_redundancy, redundancy_kept, variance_kept
from spatialmae.artifacts import write_table
from spatialmae.config import Config
from spatialmae.geometry import patch_labels
from spatialmae.layout import Layout
from spatialmae.stages.folds import fold_moments, iterate_folds, linear_solutions


def run(config: Config, dataset: str) -> None:
    """Write ``tables/features/<dataset>.csv``; redundancy is evaluated on the fold's test images."""
    ranks, rows = config.datasets[dataset].n_components, []
    for seed, fold in iterate_folds(config, dataset):
        S, held_out = fold_moments(fold).covariance, fold_moments(fold, "test").covariance
        _, solutions = linear_solutions(config, dataset, seed)
        for patch_size in config.datasets[dataset].patch_sizes:
            labels = patch_labels(len(S), patch_size, fold.image_shape)
            R = patch_redundancy(S, held_out, labels)
            for keys, encoder, _ in solutions:
                if keys["patch_size"] not in (0, patch_size):
                    continue
                kept = variance_kept(S, encoder, ranks)
                redundancy = redundancy_kept(R, held_out, labels, encoder, ranks)
                for k, variance, shared in zip(ranks, kept, redundancy, strict=True):
                    measures = {"n_components": k, "variance_kept": variance, "redundancy": shared}
                    rows.append({"seed": seed, **keys, "patch_size": patch_size, **measures})
    write_table(Layout.of(config).table("features", dataset), pd.DataFrame(rows))
