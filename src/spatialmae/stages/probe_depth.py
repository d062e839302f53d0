"""Stage ``probe_depth``: what of depth linear features predict, for every replicate."""

from __future__ import annotations

from spatialmae.config import Config
from spatialmae.probe.depth import DepthProbe
from spatialmae.stages.linear_features import probe_features


def run(config: Config, dataset: str) -> None:
    """Write ``tables/probe_depth/<dataset>.csv``."""
    probe_features(config, dataset, "probe_depth", DepthProbe, ["r2"])
