"""Stage ``plan``: what one training stage trains, in a file that a bare machine can read."""

from __future__ import annotations

from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.train.plan import Plan


def run(config: Config, stage: str) -> None:
    """Write ``training/<stage>.json``."""
    layout = Layout.of(config)
    plan = Plan(
        stage=stage,
        data=layout.data(config.training[stage].dataset),
        runs_dir=layout.runs,
        manifest=layout.manifest(stage),
        runs=tuple(config.training_runs(stage)),
    )
    plan.save(layout.plan(stage))
