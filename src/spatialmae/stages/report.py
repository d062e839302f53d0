"""Stage ``report``: the page and its provenance."""

from __future__ import annotations

from pathlib import Path

from spatialmae.artifacts import write_json, write_text
from spatialmae.claims.ledger import load_ledger
from spatialmae.config import Config
from spatialmae.figures.declaration import drawn_figures
from spatialmae.layout import Layout
from spatialmae.report.agreement import read_agreements
from spatialmae.report.claims import claim_rows
from spatialmae.report.page import page_figures, render
from spatialmae.report.provenance import collect_provenance
from spatialmae.tables import read_table

DEVIATIONS = Path("docs/deviations.md")


def run(config: Config) -> None:
    """Write ``report.html`` and ``provenance.json``."""
    layout = Layout.of(config)
    ledger, figures, provenance = load_ledger(config.claims.ledger), drawn_figures(config), collect_provenance(config)
    tables = {name: read_table(layout.tables / f"{name}.csv") for name in ("claims_detail", "claims_seeds")}
    tables["claims"] = read_table(layout.claims)
    claims = claim_rows(ledger, config.claims.configuration or config.name, tables, figures, layout)
    page = render(
        ledger,
        claims,
        figures=page_figures(figures, layout.figures, claims),
        agreements=read_agreements(config),
        provenance=provenance,
        deviations=DEVIATIONS.read_text(encoding="utf-8"),
    )
    write_json(layout.provenance, provenance)
    write_text(layout.report, page)
