"""Stage ``plan``: what one training trains, in a file that a bare machine can read."""

from __future__ import annotations

from collections.abc import Sequence

from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.train.plan import Plan, RunSpec


def run(config: Config, training: str) -> None:
    """Write ``training/<training>.json``."""
    plan_of(config, training, config.training_runs(training)).save(Layout.of(config).plan(training))


def plan_of(config: Config, name: str, runs: Sequence[RunSpec]) -> Plan:
    """Some runs on one data set, after those that they go on from."""
    layout = Layout.of(config)
    found = list(runs)
    for spec in found:  # grows meanwhile: a trunk may have a trunk
        trunk = spec.trunk(config.all_runs())
        if trunk is not None and trunk not in found:
            found.append(trunk)
    return Plan(name, layout.data(runs[0].dataset), layout.runs, tuple(found))
