"""Stage ``report``: the page and its provenance."""

from __future__ import annotations

from pathlib import Path

from spatialmae.artifacts import write_json, write_text
from spatialmae.claims.ledger import load_ledger
from spatialmae.config import Config
from spatialmae.figures.declaration import drawn_figures
from spatialmae.layout import Layout, finished, unfinished_parts
from spatialmae.report.agreement import read_agreements
from spatialmae.report.claims import claim_rows, part_command
from spatialmae.report.page import page_figures, render
from spatialmae.report.provenance import collect_provenance
from spatialmae.tables import read_table


def run(config: Config, deviations: Path) -> None:
    """Write ``report.html`` and ``provenance.json``, of the parts of the study that are finished."""
    layout, left = Layout.of(config), unfinished_parts(config)
    config = finished(config)
    ledger, figures, provenance = load_ledger(config.claims.ledger), drawn_figures(config), collect_provenance(config)
    tables = {name: read_table(layout.tables / f"{name}.csv") for name in ("claims_detail", "claims_seeds")}
    tables["claims"] = read_table(layout.claims)
    claims = claim_rows(ledger, config.claims.configuration or config.name, tables, figures, layout, left)
    page = render(
        ledger,
        claims,
        figures=page_figures(figures, layout.figures, claims),
        agreements=read_agreements(config),
        provenance=provenance,
        deviations=deviations.read_text(encoding="utf-8"),
        unfinished={part.name: part_command(layout, part.name) for part in left},
    )
    write_json(layout.provenance, provenance)
    write_text(layout.report, page)
