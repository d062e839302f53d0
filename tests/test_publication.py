"""Published runs: what is committed of them, what the README says of them, and that their verdicts follow from them."""

import json
import re
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from spatialmae.claims.ledger import load_ledger
from spatialmae.claims.verdicts import claims_table, judge
from spatialmae.config import load_config
from spatialmae.errors import UserError
from spatialmae.layout import Layout, makes_table, parts_of
from spatialmae.recommend.advice import Calibration
from spatialmae.recommend.answer import calibration_says
from spatialmae.report.claims import base_verdict
from spatialmae.report.publication import marks, publish, verdict_table, write_section
from spatialmae.tables import read_table, write_table

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
PUBLISHED = sorted(path.parent for path in REFERENCE.glob("*/tables"))
LEDGER = load_ledger(ROOT / "claims")
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"/>'


@pytest.fixture
def finished(tmp_path, monkeypatch) -> Layout:
    """A finished run in ``results/``, made from a commit."""
    monkeypatch.chdir(tmp_path)
    layout = Layout(Path("results/quick"), Path("results/downloads"))
    ids, tiers = ["A1.1", "A1.2", "B2.1", "B2.2"], ["primary", "derived", "primary", "ours"]
    write_table(layout.claims, pd.DataFrame({"id": ids, "tier": tiers, "verdict": VERDICTS}))
    write_table(layout.table("reach", "leaves"), pd.DataFrame({"seed": [1]}))
    for path, text in (
        (layout.config, "name: quick\n"),
        (layout.report, f"<html>--configfile {layout.config} --force"),
        (layout.figures / "a.svg", SVG),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (layout.figures / "a.png").write_bytes(b"")
    (layout.runs / "one").mkdir(parents=True)
    (layout.runs / "one" / "model.safetensors").write_bytes(b"weights")
    layout.provenance.write_text(json.dumps(PROVENANCE))
    layout.parts.mkdir()
    layout.part("quick").write_text(json.dumps(PART))
    return layout


VERDICTS = ["REPLICATED", "CONTRADICTED", "NOT_TESTED(planned)", "REPLICATED"]
PART = {
    "date": "2026-01-02",
    "commit": {"sha": "0123456789", "modified": False},
    "training": {"ratios": {"devices": ["cpu (some)"]}},
    "machine": {"cpus": 2},
}
PROVENANCE = {"date": "2026-01-03", "commit": {"sha": "012345678a", "modified": False}, "parts": {"quick": PART}}


def test_verdicts_tables_figures_and_report_are_published_and_nothing_else(finished, tmp_path):
    publish(finished, Path("reference"))
    files = {path.relative_to("reference").as_posix() for path in Path("reference").rglob("*") if path.is_file()}
    kept = {"claims.csv", "config.yaml", "provenance.json", "report.html", "figures/a.svg", "tables/reach/leaves.csv"}
    kept.add("parts/quick.json")
    assert files == {f"quick/{name}" for name in kept}


def test_commands_of_a_published_report_name_the_published_configuration(finished):
    publish(finished, Path("reference"))
    assert Path("reference/quick/report.html").read_text() == "<html>--configfile reference/quick/config.yaml --force"


def test_publishing_again_replaces_what_was_there(finished):
    publish(finished, Path("reference"))
    Path("reference/quick/old.csv").touch()
    publish(finished, Path("reference"))
    assert not Path("reference/quick/old.csv").exists() and Path("reference/quick/claims.csv").exists()
    assert [path.name for path in Path("reference").iterdir()] == ["quick"]


@pytest.mark.parametrize(
    ("commit", "problem"),
    [({"sha": "1", "modified": True}, "uncommitted"), ({"sha": None, "modified": None}, "uncommitted")],
)
def test_a_run_that_no_commit_made_is_refused(finished, commit, problem):
    of_page, of_part = PROVENANCE | {"commit": commit}, PROVENANCE | {"parts": {"quick": PART | {"commit": commit}}}
    for provenance in (of_page, of_part):
        finished.provenance.write_text(json.dumps(provenance))
        with pytest.raises(UserError, match=problem):
            publish(finished, Path("reference"))
    assert not Path("reference").exists()


def test_published_parts_that_a_run_lacks_are_not_lost(finished):
    publish(finished, Path("reference"))
    Path("reference/quick/parts/other.json").write_text("{}")
    with pytest.raises(UserError, match="lacks the part other, which is published; make it, or copy"):
        publish(finished, Path("reference"))
    assert Path("reference/quick/parts/other.json").exists()


def test_an_unfinished_run_and_results_elsewhere_are_refused(finished, tmp_path):
    with pytest.raises(UserError, match="which the report names"):
        publish(Layout(tmp_path / "results" / "quick", tmp_path), Path("reference"))
    finished.report.unlink()
    with pytest.raises(UserError, match="report.html: not found"):
        publish(finished, Path("reference"))


def test_the_readme_gets_a_row_for_each_numbered_claim(finished):
    publish(finished, Path("results/reference"))
    text = verdict_table(LEDGER, Path("results/reference"))
    assert text.startswith("- **quick**: 2026-01-02, cpu (some), commit `0123456`; 2 of 3 claims")
    assert f"| A1 {LEDGER.titles['A1']} | **1 contradicted**, 1 replicated |".replace("**1 ", "1 **") in text
    assert f"| B2 {LEDGER.titles['B2']} | –; of our own, 1 replicated |" in text
    assert text.count("\n| ") == 1 + len(LEDGER.titles)


def test_a_section_of_the_readme_is_written_between_its_marks(tmp_path):
    readme, (start, end) = tmp_path / "README.md", marks("verdicts")
    readme.write_text(f"# Title\n{start}\nold\n{end}\nrest\n")
    write_section(readme, "verdicts", "new")
    assert readme.read_text() == f"# Title\n{start}\nnew\n{end}\nrest\n"
    with pytest.raises(UserError, match="lacks the marks between which calibration stand"):
        write_section(readme, "calibration", "new")


@pytest.mark.parametrize(
    ("section", "content"),
    [
        ("verdicts", lambda: verdict_table(LEDGER, REFERENCE)),
        ("calibration", lambda: calibration_says(Calibration.published())),
    ],
)
def test_the_readme_says_what_is_published(section, content):
    text, (start, end) = (ROOT / "README.md").read_text(encoding="utf-8"), marks(section)
    assert text.split(start)[1].split(end)[0].strip() == content()


@pytest.mark.slow
@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_published_verdicts_follow_from_the_published_tables_by_the_committed_rules(folder):
    published = read_table(folder / "claims.csv").set_index("id")
    makes = partial(makes_table, load_config(folder / "config.yaml"))
    judged = claims_table(judge(LEDGER, folder / "tables", folder.name, makes)).set_index("id")
    # Which configurations test what a run does not is known better later; all else stands as it was.
    left = published["verdict"].map(base_verdict) == "NOT_TESTED"
    assert (judged.loc[left, "verdict"].map(base_verdict) == "NOT_TESTED").all()
    assert judged.loc[~left, "verdict"].to_dict() == published.loc[~left, "verdict"].to_dict()
    for column in ("tier", "statement"):
        assert judged[column].to_dict() == published[column].to_dict()
    for column in ("estimate", "ci_low", "ci_high", "p"):
        pd.testing.assert_series_equal(judged[column], published[column], check_dtype=False, rtol=1e-6)


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_published_runs_are_complete_and_name_no_machine(folder):
    config = load_config(folder / "config.yaml")
    assert config.name == folder.name and config.results == "results"
    made = json.loads((folder / "provenance.json").read_text())
    assert set(made["parts"]) == {part.name for part in parts_of(config)}
    for one in (made, *made["parts"].values()):
        assert one["commit"]["modified"] is False and re.fullmatch("[0-9a-f]{40}", one["commit"]["sha"])
    for name, part in made["parts"].items():
        assert part == json.loads((folder / "parts" / f"{name}.json").read_text())
        assert all(seeds[0] >= LEDGER.verdict_seeds_from for seeds in part["seeds"].values())
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {".csv", ".html", ".json", ".svg", ".yaml"}
    for path in (folder / "report.html", folder / "provenance.json", folder / "config.yaml"):
        text = re.sub(r"data:[^\"]*", "", path.read_text(encoding="utf-8"))
        assert not re.search(r"(?<![\w./~-])/(home|root|tmp|Users)/", text), path


def test_the_recommender_reads_the_published_calibration():
    published = REFERENCE / "calibration" / "tables" / "calibration" / "cells.csv"
    packaged = ROOT / "src" / "spatialmae" / "recommend" / "calibration.csv"
    assert published.is_file() == packaged.is_file()
    assert not packaged.is_file() or packaged.read_text() == published.read_text()
