"""The page itself, rendered from claims, figures, tables and provenance by a template."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.colors import to_hex

from spatialmae.claims.ledger import Ledger
from spatialmae.figures.claims import VERDICT_STYLES
from spatialmae.figures.declaration import DrawnFigure
from spatialmae.report import svg
from spatialmae.report.agreement import Agreement
from spatialmae.report.claims import VERDICTS, ClaimRow, claims_by_figure, claims_by_number, counts, number
from spatialmae.report.costs import stage_costs
from spatialmae.report.templates import page_environment

TITLES = {
    "CONTRADICTED": "an effect against the claim, or outside its bounds",
    "NULL": "the whole change is smaller than the smallest effect of interest",
    "INVALID": "a control failed, or too many runs",
    "INCONCLUSIVE": "neither the claim nor its opposite",
    "REPLICATED": "by the rule fixed beforehand",
    "SUGGESTIVE": "too few seeds, or exploring ones: + for the claim, − against it, 0 neither",
    "NOT_TESTED": "not by this run",
}


@dataclass(frozen=True)
class PageFigure:
    """A figure as the page embeds it, with the claims that it shows."""

    drawn: DrawnFigure
    address: str
    width: float
    height: float
    claims: list[ClaimRow]

    @property
    def question(self) -> str:
        """The caption's first sentence, which stands for the picture where it cannot be seen."""
        return re.split(r"(?<=[.?]) ", self.drawn.caption, maxsplit=1)[0]


@dataclass(frozen=True)
class TableLibrary:
    """The script that sorts and filters the claims table: DataTables, as the package itables carries it."""

    name: str
    address: str
    licences: str


def table_library() -> TableLibrary:
    """The installed script as an address, so that the page needs no network, with its licences to be shown."""
    script = (resources.files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    # At the end of the script its bundler gathers the licence comments of all it is made from.
    _, licences = script.split("/*! Bundled license information:", maxsplit=1)
    encoded = base64.b64encode(script.encode()).decode("ascii")
    return TableLibrary(
        name=f"itables {version('itables')}",
        address=f"data:text/javascript;base64,{encoded}",
        licences=re.sub(r"^\s*(\(\*!?|\*\)|\*/|\*)|\n\s*(?=\n)", "", licences, flags=re.MULTILINE).strip(),
    )


def page_figures(
    figures: Sequence[DrawnFigure], folder: Path, claims: Sequence[ClaimRow]
) -> dict[str, list[PageFigure]]:
    """The figures by section of the page, each with the claims that name it.

    Args:
        figures: in the order they appear.
        folder: where their SVG files lie.
        claims: all claims.
    """
    by_figure = claims_by_figure(claims)
    result: dict[str, list[PageFigure]] = {}
    for figure in figures:
        text = (folder / f"{figure.stem}.svg").read_text(encoding="utf-8")
        embedded = PageFigure(figure, svg.data_address(text), *svg.size(text), by_figure.get(figure.stem, []))
        result.setdefault(figure.kind.section, []).append(embedded)
    return result


def render(
    ledger: Ledger,
    claims: Sequence[ClaimRow],
    figures: Mapping[str, Sequence[PageFigure]],
    agreements: Sequence[Agreement],
    provenance: Mapping[str, Any],
    deviations: str,
    unfinished: Mapping[str, str] | None = None,
) -> str:
    """The page as HTML.

    Args:
        ledger: the records, for what their designs are.
        claims: all claims, in the table's first order.
        figures: by section.
        agreements: one for each evaluation that measures both reach and level along the masking ratio.
        provenance: what :func:`spatialmae.report.provenance.collect_provenance` gives.
        deviations: docs/deviations.md.
        unfinished: parts of the study that have not been run, with the command that runs each.
    """
    environment = page_environment("spatialmae.report")
    environment.filters["number"] = number
    folder = Path(__file__).parent
    return environment.get_template("report.html.j2").render(
        script=(folder / "report.js").read_text(encoding="utf-8"),
        library=table_library(),
        colors=palette(),
        titles=TITLES,
        verdicts=VERDICTS,
        counts=counts,
        claims=claims,
        numbered=claims_by_number(claims),
        numbers=ledger.titles,
        designs=ledger.designs,
        sections=figures,
        stems={figure.drawn.stem for section in figures.values() for figure in section},
        agreements=agreements,
        provenance=provenance,
        costs=stage_costs(provenance),
        deviations=deviation_rows(deviations),
        unfinished=unfinished or {},
    )


def palette() -> dict[str, str]:
    """Colour of each verdict that was reached, as in the figure of all claims."""
    return {verdict: to_hex(style.color) for verdict, style in VERDICT_STYLES.items()}


def deviation_rows(markdown: str) -> list[list[str]]:
    """Cells of the deviations' table: id, departure, reason, effect."""
    lines = [line for line in markdown.splitlines() if line.startswith("| D")]
    return [[cell.strip().replace("\0", "|") for cell in line.replace("\\|", "\0").split("|")[1:-1]] for line in lines]
