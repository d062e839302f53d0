"""Stage ``statistics``: spatial statistics of a data set, for every replicate."""

from __future__ import annotations

import pandas as pd

from spatialmae.analysis.statistics import correlation_length, correlation_profile, power_spectrum, spectrum_fit
from spatialmae.config import Config
from spatialmae.stages.replicates import moments_of, replicates, write_replicates


def run(config: Config, dataset: str) -> None:
    """Write ``tables/statistics/<dataset>.csv`` (curves) and ``tables/statistics_summary/<dataset>.csv``."""
    curves, summary = [], []
    for seed, data in replicates(config, dataset):
        distances, correlation = correlation_profile(moments_of(data).covariance, data.image_shape)
        frequencies, power = power_spectrum(data.images[data.splits["train"]])
        n_train = len(data.splits["train"])
        for statistic, positions, values in (
            ("correlation", distances, correlation),
            ("power", frequencies, power),
        ):
            curves.append(
                pd.DataFrame(
                    {"seed": seed, "n_train": n_train, "statistic": statistic, "position": positions, "value": values}
                )
            )
        exponent, r_squared = spectrum_fit(frequencies, power)
        length = correlation_length(distances, correlation)
        summary.append((seed, dataset, length, exponent, r_squared, n_train))
    measures = ["correlation_length", "spectrum_exponent", "spectrum_r2"]
    write_replicates(config, "statistics", dataset, pd.concat(curves), ["value"])
    table = pd.DataFrame(summary, columns=["seed", "target", *measures, "n_train"])
    write_replicates(config, "statistics_summary", dataset, table, measures)
