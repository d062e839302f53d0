"""``spatialmae publish``: commit-ready copies of a finished run, and what the README says of published runs."""

from __future__ import annotations

from pathlib import Path

from spatialmae.artifacts import write_text
from spatialmae.claims.ledger import load_ledger
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.recommend.advice import Calibration
from spatialmae.recommend.answer import calibration_says
from spatialmae.report.publication import publish, verdict_table, write_section

# What `spatialmae recommend` reads, and the configuration that makes it.
CALIBRATION, CALIBRATED_BY = Path("src/spatialmae/recommend/calibration.csv"), "calibration"
REFERENCE, README = Path("results/reference"), Path("README.md")


def run(config: Config) -> None:
    """Write ``results/reference/<name>/``, the verdicts at the top of the README, and the recommender's calibration.

    Raises:
        UserError: the run is incomplete, made from uncommitted changes, or its results lie elsewhere.
    """
    layout = Layout.of(config)
    publish(layout, REFERENCE)
    if config.calibration and config.name == CALIBRATED_BY:
        write_text(CALIBRATION, layout.table("calibration", "cells").read_text(encoding="utf-8"))
    write_section(README, "verdicts", verdict_table(load_ledger(config.claims.ledger), REFERENCE))
    write_section(README, "calibration", calibration_says(Calibration.published()))
