"""A small page of the report, made from made-up verdicts, tables and figures, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from model_tables import make_agreement_tables, make_runs
from spatialmae.claims.ledger import Ledger
from spatialmae.figures import theme
from spatialmae.figures.declaration import DrawnFigure, declared_figures
from spatialmae.layout import Layout
from spatialmae.report.agreement import compare_papers
from spatialmae.report.claims import ClaimRow, claim_rows
from spatialmae.report.page import page_figures, render
from spatialmae.report.provenance import machine, package_versions, trained_runs

LAYOUT = Layout(Path("results/toy"), Path("results/downloads"))
DEVIATIONS = "| id | departure |\n|---|---|\n" + "".join(f"| D{i} | mean \\|J\\| {i} | why | so |\n" for i in (1, 2))

KIND = declared_figures()
FIGURES = [
    DrawnFigure(KIND["claims"], None),
    DrawnFigure(KIND["reach_radii"], "leaves"),
    DrawnFigure(KIND["edge_ratio_1d"], "ising"),
    DrawnFigure(KIND["loss_curves"], "ratios"),
    DrawnFigure(KIND["proxy"], "ratios"),
    DrawnFigure(KIND["reach_and_level"], "ratios"),
]

VERDICTS = {
    "A2.1": "REPLICATED",
    "A2.2": "NULL",
    "A3.1": "INVALID",
    "A5.1": "CONTRADICTED",
    "A10.1": "INCONCLUSIVE",
    "A15.1": "SUGGESTIVE(+)",
    "B1.1": "NOT_TESTED(planned)",
    "B2.1": "NOT_TESTED(quick)",
}
_ARMS = {"table": "reach", "value": "radius", "arms": [{"mask_ratio": 0.1}, {"mask_ratio": 0.9}]}
_TESTED = {"toy": {"dataset": "leaves", "fidelity": "same"}}


def _record(name: str, **own: object) -> dict:
    record = {
        "id": name, "paper": name[0], "section": "Theorem 1", "statement": f"Statement <{name}> & more.",
        "tier": "primary", "type": "ordering", "paper_value": f"value of {name}", "unit": "px", "figure": "reach_radii",
        "deviations": ["D1", "D2"], "design": "seeds", "estimand": _ARMS,
        "rule": {"family": "A", "smallest_effect": 0.5}, "tests": _TESTED,
    }  # fmt: skip
    return record | own


LEDGER = Ledger.model_validate(
    {
        "verdict_seeds_from": 200,
        "designs": {"seeds": "Unit: a seed. Pairing: all arms of a seed."},
        "titles": {name: f"What {name} says" for name in ("A2", "A3", "A5", "A10", "A15", "B1", "B2")},
        "claims": [
            _record("A2.1", tier="ours"),
            _record("A2.2", figure="nowhere"),
            _record("A3.1", figure="edge_ratio", tests={"toy": {"dataset": "ising", "fidelity": "proxy"}}),
            _record("A5.1"),
            _record("A10.1", estimand=_ARMS | {"transform": "log"}, unit=""),
            _record(
                "A15.1",
                type="association",
                figure="proxy",
                estimand={"table": "linear_probe", "value": "accuracy", "against": "error", "cluster": ["mask_ratio"]},
                rule={"family": "A15", "margin": [-0.5, 0.5]},
                tests={"toy": {"dataset": "ratios", "fidelity": "scaled"}},
            ),
            _record("B1.1", design=None, estimand=None, rule=None, tests={}, planned="a later run"),
            _record("B2.1", tests={"quick": {"dataset": "leaves", "fidelity": "proxy"}}),
        ],
    }
)


def make_tables() -> dict[str, pd.DataFrame]:
    """``claims``, ``claims_detail`` and ``claims_seeds``; estimates rise in the ledger's order."""
    claims, details, seeds = [], [], []
    for place, record in enumerate(LEDGER.claims):
        tested = "toy" in record.tests
        row = {"id": record.id, "verdict": VERDICTS[record.id], "n_seeds": 5 if tested else 0, "fidelity": np.nan}
        row |= dict.fromkeys(("estimate", "ci_low", "ci_high", "p"), np.nan)
        reason = record.planned or f"why {record.id}"
        details.append({"id": record.id, "rule": f"rule of {record.id}", "reason": reason, "reversals": ""})
        if tested:
            row |= {"fidelity": record.tests["toy"].fidelity, "p": 10.0**-place}
            row |= {"estimate": place - 1.5, "ci_low": place - 2.0, "ci_high": place - 1.0}
            against = 0.25 if record.type == "association" else np.nan
            seeds += [
                {"id": record.id, "seed": seed, "arm": arm, "arm_label": f"mask_ratio={ratio}", "value": seed + arm / 8,
                 "against": against}
                for seed in (200, 201) for arm, ratio in enumerate((0.1, 0.9))
            ]  # fmt: skip
        claims.append(row)
    return {
        "claims": pd.DataFrame(claims),
        "claims_detail": pd.DataFrame(details),
        "claims_seeds": pd.DataFrame(seeds),
    }


def make_claims() -> list[ClaimRow]:
    """The claims as the page shows them."""
    return claim_rows(LEDGER, "toy", make_tables(), FIGURES, LAYOUT)


RUNS = pd.DataFrame(
    {
        "name": ["a", "b"], "dataset": "leaves", "seed": [301, 300], "torch": "2.0", "precision": "auto",
        "precision_used": "bf16", "code_matches": [True, False], "weights_sha256": ["1f", "2e"],
    }
)  # fmt: skip
COSTS = pd.DataFrame({"name": ["a", "b"], "device": ["cpu (X)", "GPU Y"], "seconds": [60.0, 30.0]})
PART = {
    "spatialmae": "0", "date": "2026-01-02", "commit": {"sha": "abc", "modified": True}, "constraints_sha256": "c1",
    "machine": machine() | {"cpus": 2}, "packages": package_versions(),
    "seeds": {"leaves": [200, 201]}, "threads": {"leaves": 1},
    "seconds": {"reach/leaves": 60.0, "reach/digits": 30.0, "train/ratios": 90.0},
    "training": {"ratios": trained_runs(RUNS, COSTS)}, "data_sha256": {"leaves": "d0", "mine": "d1"},
    "data": {"leaves": {"seed": 1}, "mine": {"n_images": 3, "skipped": [{"file": "a.png", "reason": "damaged"}]}},
}  # fmt: skip
PROVENANCE = {
    "spatialmae": "0", "date": "2026-01-03", "commit": {"sha": "abd", "modified": False},
    "configuration": {"name": "toy", "sha256": "c0"}, "ledger_sha256": "c2", "seconds": {"claims": 0.0},
    "parts": {"toy": PART},
}  # fmt: skip


def draw_figures(folder: Path) -> None:
    """A plot for each figure of the page."""
    for figure in FIGURES:
        plot, axes = theme.panels(1, 2)
        for axis in axes.flat:
            axis.plot([0, 1], [0, 1], label=figure.stem)
            axis.scatter([0, 0.5, 1], [1, 0.5, 0], alpha=0.3)
        theme.legend_above(plot, axes.flat)
        theme.save(plot, folder / figure.stem)


def make_page(folder: Path) -> str:
    """The page, with the figures of :func:`draw_figures` in a folder."""
    claims = make_claims()
    figures = page_figures(FIGURES, folder, claims)
    agreement = compare_papers("ratios", make_agreement_tables(make_runs()))
    return render(LEDGER, claims, figures, [agreement], PROVENANCE, DEVIATIONS)
