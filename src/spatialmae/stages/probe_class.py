"""Stage ``probe_class``: what of class labels linear features predict, for every replicate."""

from __future__ import annotations

from spatialmae.config import Config
from spatialmae.probe.classification import ClassProbe
from spatialmae.stages.linear_features import probe_features


def run(config: Config, dataset: str) -> None:
    """Write ``tables/probe_class/<dataset>.csv``."""
    probe_features(config, dataset, "probe_class", ClassProbe, ["accuracy", "chance"])
