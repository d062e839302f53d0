"""The claims as the page shows them: verdict, figure, numbers of each seed, and the command that makes them again."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from spatialmae.claims.ledger import Claim, Ledger
from spatialmae.errors import UserError
from spatialmae.figures.declaration import DrawnFigure
from spatialmae.layout import Layout, Part

VERDICTS = ("CONTRADICTED", "NULL", "INVALID", "INCONCLUSIVE", "REPLICATED", "SUGGESTIVE", "NOT_TESTED")
"""What a reader should see first: where a paper is contradicted, then where its effect is absent."""


SEED_DIGITS = 4
"""Significant digits of a seed's numbers, one more than of estimates: arms may differ by little."""


@dataclass(frozen=True)
class SeedTable:
    """The numbers behind a verdict: a row for each seed (association: run), text as it is shown."""

    header: list[str]
    rows: list[list[str]]
    means: list[str]


@dataclass(frozen=True)
class ClaimRow:
    """One claim, tested or not.

    Attributes:
        record: its record in the ledger.
        result: its row of claims.csv.
        detail: its row of claims_detail.csv.
        subject: what it was tested on, or empty.
        figure: stem of the figure that shows it, or empty.
        seeds: its numbers; None where it is not tested.
        table: file that its numbers come from, in the folder of results, or empty.
        command: makes that table, the verdicts and the page again; or the part of the study that tests it; or empty.
    """

    record: Claim
    result: Mapping[str, Any]
    detail: Mapping[str, Any]
    subject: str
    figure: str
    seeds: SeedTable | None
    table: str
    command: str

    @property
    def id(self) -> str:
        """The claim's id."""
        return self.record.id

    @property
    def verdict(self) -> str:
        """The verdict without what stands in brackets behind it."""
        return base_verdict(self.result["verdict"])

    @property
    def is_tested(self) -> bool:
        """Whether this configuration tests it."""
        return self.verdict != "NOT_TESTED"

    @property
    def order(self) -> int:
        """Place in the ledger's order of ids: A2.3 before A11.1."""
        leaf = [int(part) for part in self.id[1:].split(".")]
        return ("AB".index(self.record.paper) * 100 + leaf[0]) * 100 + leaf[1]

    @property
    def rank(self) -> int:
        """Place of its verdict in the order of :data:`VERDICTS`."""
        return VERDICTS.index(self.verdict)

    @property
    def interval(self) -> str:
        """Estimate with interval and unit, three significant digits; a dash where nothing was measured."""
        estimate, low, high = (number(self.result[key]) for key in ("estimate", "ci_low", "ci_high"))
        if estimate == "–":
            return estimate
        return " ".join(filter(None, [estimate, "" if low == "–" else f"[{low}, {high}]", self.record.unit]))


def number(value: Any, digits: int = 3) -> str:
    """A number as people write it; a dash where there is none."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{float(value):.{digits}g}".replace("-", "−")


def base_verdict(verdict: str) -> str:
    """The verdict without what stands in brackets behind it."""
    return verdict.split("(")[0]


def claim_rows(
    ledger: Ledger,
    configuration: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Sequence[DrawnFigure],
    layout: Layout,
    unfinished: Sequence[Part] = (),
) -> list[ClaimRow]:
    """All claims, contradictions and nulls first, else in the ledger's order.

    Args:
        ledger: the records.
        configuration: name of the configuration that tested them.
        tables: ``claims``, ``claims_detail`` and ``claims_seeds``.
        figures: the figures of the page.
        layout: where the results lie.
        unfinished: parts of the study that have not been made.

    Raises:
        UserError: the verdicts are of another ledger.
    """
    records = {claim.id: claim for claim in ledger.claims}
    details = tables["claims_detail"].set_index("id").to_dict("index")
    seeds = dict(list(tables["claims_seeds"].groupby("id")))
    left = {made: part_command(layout, part.name) for part in unfinished for made in part.tables}
    result = []
    for row in tables["claims"].to_dict("records"):
        record = records.get(row["id"])
        if record is None or (base_verdict(row["verdict"]) != "NOT_TESTED" and configuration not in record.tests):
            problem = f"has a verdict on {row['id']} that the ledger's record does not lead to"
            raise UserError(layout.claims, problem, "run the stage again: spatialmae claims")
        about = details[row["id"]], seeds.get(row["id"]), configuration, figures, layout, left
        result.append(_claim_row(record, row, *about))
    return sorted(result, key=lambda claim: (claim.rank, claim.order))


def _claim_row(
    record: Claim,
    result: Mapping[str, Any],
    detail: Mapping[str, Any],
    seeds: pd.DataFrame | None,
    configuration: str,
    figures: Sequence[DrawnFigure],
    layout: Layout,
    left: Mapping[tuple[str, str], str],
) -> ClaimRow:
    if base_verdict(result["verdict"]) == "NOT_TESTED" or seeds is None or record.estimand is None:
        plan = record.tests.get(configuration)
        command = left.get((record.estimand.table, plan.dataset), "") if plan and record.estimand else ""
        return ClaimRow(record, result, detail, subject="", figure="", seeds=None, table="", command=command)
    subject = record.tests[configuration].dataset
    table = layout.table(record.estimand.table, subject)
    return ClaimRow(
        record,
        result,
        detail,
        subject=subject,
        figure=figure_of(record, subject, figures),
        seeds=seed_table(seeds),
        table=str(table.relative_to(layout.root)),
        command=rerun_command(layout, table),
    )


def figure_of(record: Claim, subject: str, figures: Sequence[DrawnFigure]) -> str:
    """Stem of the figure that shows a claim as it was tested, or empty.

    A claim on chains names the figures of both dimensions. Costs are called by their measure and evaluation together.
    """
    evaluation = subject.removeprefix(f"{record.figure}_")
    wanted = {f"{record.figure}_{evaluation}", f"{record.figure}_1d_{subject}", record.figure}
    return next((figure.stem for figure in figures if figure.stem in wanted), "")


def rerun_command(layout: Layout, table: Path) -> str:
    """The command that makes a claim's table, then the verdicts and the page, again, and all that lies between."""
    targets = [str(path) for path in (table, layout.claims, layout.report)]
    return shlex.join(["snakemake", "--cores", "all", "--configfile", str(layout.config), "--force", *targets])


def part_command(layout: Layout, part: str) -> str:
    """The command that makes a part of the study, the verdicts and the page."""
    return shlex.join(["snakemake", part, "--cores", "all", "--configfile", str(layout.config)])


def seed_table(seeds: pd.DataFrame) -> SeedTable:
    """The numbers of one claim; a column for each arm, or of an association both of its columns.

    Args:
        seeds: its rows of ``claims_seeds``: seed, arm, arm_label, value, against.
    """
    if seeds["against"].notna().any():
        runs = seeds.sort_values(["arm", "seed"])
        kept = zip(runs["arm_label"], runs["seed"], runs["value"], runs["against"], strict=True)
        rows = [
            [str(label), str(seed), number(value, SEED_DIGITS), number(against, SEED_DIGITS)]
            for label, seed, value, against in kept
        ]
        return SeedTable(["configuration", "seed", "value", "against"], rows, [])
    by_arm = seeds.pivot_table(index="seed", columns="arm", values="value", dropna=False)
    labels = seeds.drop_duplicates("arm").set_index("arm")["arm_label"].fillna("")
    header = ["seed", *(str(labels[arm]) or "value" for arm in by_arm)]
    rows = [[str(seed), *(number(value, SEED_DIGITS) for value in values)] for seed, *values in by_arm.itertuples()]
    return SeedTable(header, rows, ["mean", *(number(value, SEED_DIGITS) for value in by_arm.mean())])


def counts(claims: Iterable[ClaimRow]) -> dict[str, int]:
    """How many claims have each verdict, in the order of :data:`VERDICTS`."""
    found = Counter(claim.verdict for claim in claims)
    return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}


def claims_by_number(claims: Iterable[ClaimRow]) -> dict[str, list[ClaimRow]]:
    """The claims of each numbered one, A5 say, tested or not, in the ledger's order."""
    result: dict[str, list[ClaimRow]] = {}
    for claim in sorted(claims, key=lambda claim: claim.order):
        result.setdefault(claim.record.parent, []).append(claim)
    return result


def claims_by_figure(claims: Sequence[ClaimRow]) -> dict[str, list[ClaimRow]]:
    """The tested claims that each figure shows, in the ledger's order."""
    result: dict[str, list[ClaimRow]] = {}
    for claim in sorted(claims, key=lambda claim: claim.order):
        if claim.figure:
            result.setdefault(claim.figure, []).append(claim)
    return result
