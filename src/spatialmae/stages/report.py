"""Stage ``report``: the page and its provenance."""

from __future__ import annotations

from pathlib import Path

from spatialmae.artifacts import write_json, write_text
from spatialmae.config import Config
from spatialmae.figures.catalogue import drawn_figures
from spatialmae.layout import Layout
from spatialmae.report.page import render
from spatialmae.report.provenance import collect_provenance
from spatialmae.tables import read_table

DEVIATIONS = Path("docs/deviations.md")


def run(config: Config) -> None:
    """Write ``report.html`` and ``provenance.json``."""
    layout = Layout.of(config)
    provenance = collect_provenance(config)
    page = render(
        claims=read_table(layout.claims),
        detail=read_table(layout.tables / "claims_detail.csv"),
        figures=drawn_figures(config),
        folder=layout.figures,
        provenance=provenance,
        deviations=DEVIATIONS.read_text(encoding="utf-8"),
    )
    write_json(layout.provenance, provenance)
    write_text(layout.report, page)
