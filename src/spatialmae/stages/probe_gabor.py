"""Stage ``probe_gabor``: what of Gabor responses linear features predict, for every replicate."""

from __future__ import annotations

from spatialmae.config import Config
from spatialmae.probe.gabor import GaborProbe
from spatialmae.stages.linear_features import probe_features


def run(config: Config, dataset: str) -> None:
    """Write ``tables/probe_gabor/<dataset>.csv``."""
    probe_features(
        config, dataset, "probe_gabor", lambda data: GaborProbe(data, config.datasets[dataset].sigmas), ["r2"]
    )
