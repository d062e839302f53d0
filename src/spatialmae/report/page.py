"""The page itself, rendered from claims, figures and provenance by a template."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from spatialmae.figures.catalogue import DrawnFigure

# What a reader should see first: where a paper is contradicted, then where its effect is absent.
VERDICTS = ("CONTRADICTED", "NULL", "INVALID", "INCONCLUSIVE", "REPLICATED", "SUGGESTIVE")
PAPERS = {
    "A": "Bisulco et al., ICCV 2025: masked autoencoders learn spatial correlations; masking ratio and patch size "
    "select how far they reach.",
    "B": "Kong et al., CVPR 2023: masked reconstruction identifies latents of a hierarchy; masking ratio and patch "
    "size select their level.",
}


@dataclass(frozen=True)
class Finding:
    """A tested claim as the page shows it."""

    row: Mapping[str, Any]
    detail: Mapping[str, Any]
    verdict: str
    anchor: str

    @property
    def interval(self) -> str:
        """Estimate with interval, three significant digits."""
        estimate, low, high = (number(self.row[key]) for key in ("estimate", "ci_low", "ci_high"))
        return estimate if low == "–" else f"{estimate} [{low}, {high}]"


def number(value: Any, digits: int = 3) -> str:
    """A number as people write it; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    text = f"{float(value):.{digits}g}"
    return text.replace("-", "−")


def base_verdict(verdict: str) -> str:
    """The verdict without what stands in brackets behind it."""
    return verdict.split("(")[0]


def findings(claims: pd.DataFrame, detail: pd.DataFrame, figures: Sequence[DrawnFigure]) -> list[Finding]:
    """The tested claims, contradictions and nulls first, with the figure that shows each."""
    details = detail.set_index("id").to_dict("index")
    result = []
    for row in claims.to_dict("records"):
        if base_verdict(row["verdict"]) == "NOT_TESTED":
            continue
        own = details[row["id"]]
        wanted = {f"{row['figure']}_{own['dataset']}", f"{row['figure']}_1d_{own['dataset']}", row["figure"]}
        anchor = next((figure.stem for figure in figures if figure.stem in wanted), "")
        result.append(Finding(row, own, row["verdict"], anchor))
    return sorted(result, key=lambda finding: VERDICTS.index(base_verdict(finding.verdict)))


def counts(claims: pd.DataFrame) -> dict[str, int]:
    """How many claims have each verdict, in the order of :data:`VERDICTS`, the untested last."""
    found = Counter(base_verdict(verdict) for verdict in claims["verdict"])
    return {verdict: found[verdict] for verdict in (*VERDICTS, "NOT_TESTED") if found[verdict]}


def embed(path: Path) -> str:
    """An SVG as a data address: the page needs no other file."""
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def sections(figures: Sequence[DrawnFigure], folder: Path) -> dict[str, list[tuple[DrawnFigure, str]]]:
    """The figures with their addresses, by section of the page."""
    result: dict[str, list[tuple[DrawnFigure, str]]] = {}
    for figure in figures:
        result.setdefault(figure.kind.section, []).append((figure, embed(folder / f"{figure.stem}.svg")))
    return result


def render(
    claims: pd.DataFrame,
    detail: pd.DataFrame,
    figures: Sequence[DrawnFigure],
    folder: Path,
    provenance: Mapping[str, Any],
    deviations: str,
) -> str:
    """The page as HTML.

    Args:
        claims: claims.csv.
        detail: tables/claims_detail.csv.
        figures: the figures in the order they appear.
        folder: where their SVG files lie.
        provenance: what :func:`spatialmae.report.provenance.collect_provenance` gives.
        deviations: docs/deviations.md.
    """
    environment = Environment(
        loader=PackageLoader("spatialmae.report", "."),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.tests["match_verdict"] = lambda verdict, base: base_verdict(verdict) == base
    untested = claims[claims["verdict"].map(base_verdict) == "NOT_TESTED"].to_dict("records")
    return environment.get_template("report.html.j2").render(
        css=(Path(__file__).parent / "report.css").read_text(encoding="utf-8"),
        papers=PAPERS,
        counts=counts(claims),
        findings=findings(claims, detail, figures),
        untested=untested,
        sections=sections(figures, folder),
        provenance=provenance,
        minutes=sum(provenance["seconds"].values()) / 60,
        deviations=deviation_rows(deviations),
    )


def deviation_rows(markdown: str) -> list[list[str]]:
    """Cells of the deviations' table: id, departure, reason, effect."""
    lines = [line for line in markdown.splitlines() if line.startswith("| D")]
    return [[cell.strip().replace("\0", "|") for cell in line.replace("\\|", "\0").split("|")[1:-1]] for line in lines]
