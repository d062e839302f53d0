"""Stage ``statistics``: spatial statistics of a data set, for every fold."""

from __future__ import annotations

import pandas as pd

from spatialmae.analysis.statistics import correlation_length, correlation_profile, power_spectrum, spectrum_fit
from spatialmae.artifacts import write_table
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.stages.folds import fold_moments, iterate_folds


def run(config: Config, dataset: str) -> None:
    """Write ``tables/statistics/<dataset>.csv`` (curves) and ``tables/statistics_summary/<dataset>.csv``."""
    curves, summary = [], []
    for seed, fold in iterate_folds(config, dataset):
        distances, correlation = correlation_profile(fold_moments(fold).covariance, fold.image_shape)
        frequencies, power = power_spectrum(fold.images[fold.splits["train"]])
        for statistic, positions, values in (
            ("correlation", distances, correlation),
            ("power", frequencies, power),
        ):
            curves.append(
                pd.DataFrame({"seed": seed, "statistic": statistic, "position": positions, "value": values})
            )
        exponent, r_squared = spectrum_fit(frequencies, power)
        length = correlation_length(distances, correlation)
        summary.append(
            {
                "seed": seed,
                "correlation_length": length,
                "spectrum_exponent": exponent,
                "spectrum_r2": r_squared,
                "n_train": len(fold.splits["train"]),
            }
        )
    layout = Layout.of(config)
    write_table(layout.table("statistics", dataset), pd.concat(curves))
    write_table(layout.table("statistics_summary", dataset), pd.DataFrame(summary))
