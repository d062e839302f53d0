"""The report: complete, self-contained, contradictions first."""

import re

import pandas as pd
import pytest

from spatialmae.figures.catalogue import CATALOGUE, DrawnFigure
from spatialmae.report.page import counts, deviation_rows, findings, number, render
from spatialmae.report.provenance import (
    git_state,
    machine,
    package_versions,
    stage_seconds,
    trained_runs,
    training_seconds,
)

KIND = {kind.name: kind for kind in CATALOGUE}
FIGURES = [
    DrawnFigure(KIND["claims"], None),
    DrawnFigure(KIND["loss_curves"], "ratios"),
    DrawnFigure(KIND["reach_radii"], "leaves"),
]
RUNS = pd.DataFrame(
    {
        "name": ["a", "b"], "dataset": "leaves", "seed": [301, 300], "device": ["cpu (X)", "GPU Y"], "torch": "2.0",
        "precision": "auto", "precision_used": "bf16", "wall_seconds": [60.0, 30.0], "code_matches": [True, False],
        "weights_sha256": ["1f", "2e"],
    }
)  # fmt: skip


def claim(id_: str, verdict: str, **changes) -> dict:
    row = {
        "id": id_, "paper": "A", "statement": f"Statement <{id_}> & more.", "type": "ordering", "tier": "note",
        "fidelity": "proxy", "estimate": 1.5, "ci_low": 1.0, "ci_high": 2.0, "n_seeds": 10, "p": 0.01,
        "paper_value": "rises", "verdict": verdict, "figure": "reach_radii", "deviations": "D1 D2",
    }  # fmt: skip
    return row | changes


CLAIMS = pd.DataFrame(
    [
        claim("A1", "REPLICATED"),
        claim("A2", "NULL"),
        claim("A3", "CONTRADICTED"),
        claim("A4", "SUGGESTIVE(+)", figure="nowhere"),
        claim("B1", "NOT_TESTED(planned)", estimate=None, ci_low=None, ci_high=None, p=None),
    ]
)
DETAIL = pd.DataFrame(
    [{"id": id_, "dataset": "leaves", "unit": "px", "rule": "a rule", "reason": "a reason"} for id_ in CLAIMS["id"][:4]]
)
PROVENANCE = {
    "spatialmae": "0", "commit": {"sha": "abc", "modified": True}, "configuration": {"name": "toy", "sha256": ""},
    "machine": machine(), "packages": package_versions(), "seeds": {"leaves": [200, 201]}, "seconds": {"a": 60.0},
    "training": {"ratios": trained_runs(RUNS)},
    "data": {"leaves": {"seed": 1}, "mine": {"n_images": 3, "skipped": [{"file": "a.png", "reason": "damaged"}]}},
}  # fmt: skip


@pytest.fixture
def page(tmp_path):
    for figure in FIGURES:
        (tmp_path / f"{figure.stem}.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    return render(CLAIMS, DETAIL, FIGURES, tmp_path, PROVENANCE, "| D1 | a \\| b | c | d |\n| x | y |\n")


def test_contradictions_and_nulls_come_first():
    assert [finding.row["id"] for finding in findings(CLAIMS, DETAIL, FIGURES)] == ["A3", "A2", "A1", "A4"]
    assert counts(CLAIMS) == {"CONTRADICTED": 1, "NULL": 1, "REPLICATED": 1, "SUGGESTIVE": 1, "NOT_TESTED": 1}


def test_page_needs_no_other_file_and_escapes_text(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "<script" not in page
    assert "Statement &lt;A1&gt; &amp; more." in page


def test_links_lead_somewhere(page):
    anchors = set(re.findall(r'id="([^"]*)"', page))
    links = {link for link in re.findall(r'href="#([^"]*)"', page) if not link.startswith("D")}
    assert links <= anchors
    assert {"claim-A3", "figure-reach_radii_leaves", "D1"} <= anchors


def test_page_says_what_is_not_tested_and_where_it_comes_from(page):
    assert "1 claims that this configuration does not test" in page
    assert "commit abc with uncommitted changes" in page
    assert "1.0 minutes" in page
    assert "3 used, 1 files left out: a.png (damaged)" in page


def test_training_has_a_section_of_its_own_with_its_machines_and_the_runs_that_other_code_made(page):
    figures = re.findall(r'<h2[^>]*>([^<]*)</h2>|<figure id="figure-([^"]*)"', page)
    order = [title or stem for title, stem in figures]
    at = order.index("Non-linear MAE: training")
    assert order[at - 3 : at + 2] == ["Figures", "claims", "reach_radii_leaves", order[at], "loss_curves_ratios"]
    assert (
        "2 runs on leaves, 1.5 minutes of training on GPU Y, cpu (X), bf16, torch 2.0; <b>1 made by other code" in page
    )
    assert "leaves 200–201, training ratios 300–301<" in page
    assert "1.0 minutes of jobs, training by the time of its runs" in page
    assert PROVENANCE["training"]["ratios"]["made_by_other_code"] == ["b"]
    assert PROVENANCE["training"]["ratios"]["weights_sha256"] == {"a": "1f", "b": "2e"}


@pytest.mark.parametrize(
    ("value", "text"), [(float("nan"), "–"), (None, "–"), (-0.12345, "−0.123"), (12, "12"), (3e-9, "3e−09")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_deviation_rows_keep_bars():
    assert deviation_rows("| D1 | mean \\|J\\| | why | so |") == [["D1", "mean |J|", "why", "so"]]


def test_provenance_is_of_this_machine_without_its_name(tmp_path):
    for job in ("linear", "train"):
        (tmp_path / job).mkdir()
        (tmp_path / job / "leaves.tsv").write_text("s\th:m:s\n1.25\t0:00:01\n")
    assert stage_seconds(tmp_path) == {"linear/leaves": 1.25}
    assert set(git_state()) == {"sha", "modified"}
    assert package_versions()["numpy"][0].isdigit()
    assert set(machine()) == {"system", "architecture", "cpus", "blas"}


def test_training_costs_the_time_of_its_runs_and_one_that_stages_share_is_counted_once():
    other = RUNS.assign(name=["b", "c"], wall_seconds=[30.0, 5.0])
    assert training_seconds({"ratios": RUNS, "other": other}) == {"train/ratios": 90.0, "train/other": 5.0}
