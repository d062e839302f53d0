"""The whole workflow: a clean checkout runs config/smoke.yaml, and reruns exactly what depends on an edit.

Each call of Snakemake takes seconds. So edits that outdate different rules are planned in one call, and the reasons
that it gives tell apart what an edit outdates by itself from what follows from that. How a rule's code is found is
tested module by module in test_fingerprint.py; here, that it reaches the rule.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
import yaml

from checkout import copy_checkout
from chromium import find_chromium
from spatialmae.config import load_config
from spatialmae.figures.declaration import drawn_figures

pytestmark = pytest.mark.workflow
ROOT = Path(__file__).parent.parent
SMOKE = ("--configfile", "config/smoke.yaml")
FOLLOWS = "input files updated by another job"


@dataclass(frozen=True)
class Planned:
    """What Snakemake would run.

    Attributes:
        jobs: how many of each rule.
        outdated: the rules that run for a reason of their own, not because another job makes what they read.
    """

    jobs: dict[str, int] = field(default_factory=dict)
    outdated: frozenset[str] = frozenset()


def call(folder: Path, *arguments: str | Path, fails: bool = False) -> str:
    """What Snakemake prints in a folder whose copy of the package it uses."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [Path(sys.executable).parent / "snakemake", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    assert (result.returncode != 0) == fails, output
    return output


def run(folder: Path, *arguments: str | Path, cores: int = 2, fails: bool = False) -> str:
    chosen = () if "--configfile" in arguments else SMOKE
    return call(folder, *arguments, "--cores", str(cores), *chosen, fails=fails)


def plan(folder: Path, *arguments: str | Path) -> Planned:
    chosen = () if "--configfile" in arguments else SMOKE
    output = call(folder, "--dry-run", *arguments, *chosen)
    counts = dict(re.findall(r"^(\w+) +(\d+)$", output, flags=re.MULTILINE))
    jobs = {rule: int(count) for rule, count in counts.items() if rule not in ("total", "all")}
    reasons = re.findall(r"^    (\S.*):\n        (.*)$", output.partition("\nReasons:\n")[2], flags=re.MULTILINE)
    outdated = {rule for reason, rules in reasons if reason != FOLLOWS for rule in rules.split(", ")}
    assert bool(jobs) == bool(outdated), output
    return Planned(jobs, frozenset(outdated))


def contents(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of all files but Snakemake's own notes."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".snakemake" not in path.parts)
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def trained(results: Path) -> dict[str, bytes]:
    """The record of each finished training run."""
    return {path.parent.name: path.read_bytes() for path in (results / "runs").glob("*/run.json")}


def config_like_smoke(folder: Path, name: str, edits: Mapping[str, str]) -> Path:
    """A configuration in a checkout: smoke's text with these parts replaced."""
    text = (folder / "config" / "smoke.yaml").read_text()
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


@contextmanager
def edited(folder: Path, edits: Mapping[str, str]) -> Iterator[None]:
    """Modules of the package with lines more at their end."""
    before = {folder / "src" / "spatialmae" / name: text for name, text in edits.items()}
    content = {path: path.read_bytes() for path in before}
    try:
        for path, text in before.items():
            path.write_bytes(content[path] + f"\n{text}\n".encode())
        yield
    finally:
        for path, old in content.items():
            path.write_bytes(old)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def finished(checkout):
    run(checkout)
    return checkout


def test_a_fresh_checkout_is_planned_from_another_folder_and_nothing_is_written(checkout, tmp_path):
    before = contents(checkout)
    files = [path for path in checkout.rglob("*") if ".snakemake" not in path.parts]
    try:
        for path in files:
            path.chmod(path.stat().st_mode & ~0o222)
        arguments = ("--snakefile", checkout / "workflow" / "Snakefile", "--directory", tmp_path)
        found = plan(checkout, *arguments, "--configfile", checkout / "config" / "smoke.yaml")
    finally:
        for path in files:
            path.chmod(path.stat().st_mode | 0o200)
    assert {"prepare_data", "train", "collect_training", "judge_claims", "write_report"} <= set(found.jobs)
    assert contents(checkout) == before and contents(tmp_path) == {}


def test_a_run_leaves_everything_a_reader_needs(finished):
    results = finished / "results" / "smoke"
    claims = pd.read_csv(results / "claims.csv", keep_default_na=False)
    assert {*(f"A{i}" for i in range(1, 16)), *(f"B{i}" for i in range(1, 12))} <= {
        claim.split(".")[0] for claim in claims["id"]
    }
    # Two epochs bring no model near the linear bound, and the control of A11.1 says so.
    invalid = claims.loc[claims["verdict"] == "INVALID", "id"]
    assert invalid.tolist() == ["A11.1"]
    assert claims["verdict"].drop(invalid.index).str.match(r"SUGGESTIVE|NOT_TESTED").all()
    part = json.loads((results / "provenance.json").read_text())["parts"]["smoke"]
    assert part["data"]["leaves"]
    assert {name for one in part["training"].values() for name in one["weights_sha256"]} == set(trained(results))
    assert (results / "report.html").stat().st_size > 100_000
    drawn = [figure.stem for figure in drawn_figures(load_config(ROOT / "config" / "smoke.yaml"))]
    found = sorted(path.name for path in (results / "figures").iterdir())
    assert found == sorted(f"{stem}.{suffix}" for stem in drawn for suffix in ("svg", "png"))
    assert {path.stem for path in (results / "notebooks").glob("*.html")} == {
        path.stem for path in (finished / "notebooks").glob("*.ipynb")
    }


def test_a_second_run_has_nothing_to_do(finished):
    assert plan(finished) == Planned()


AFTER_ANALYSIS = {"finish_part": 1, "judge_claims": 1, "draw_claims": 1, "write_report": 1}
AFTER_CALIBRATION = {"draw_calibration": 1, "write_report": 1}
AFTER_TRAINING = (
    AFTER_ANALYSIS
    | AFTER_CALIBRATION
    | {  # of models of leaves, which three evaluations share
        "draw_training": 1,
        "evaluate_jacobian": 2,
        "evaluate_linear_probe": 3,
        "evaluate_fine_tuning": 1,
        "evaluate_image_quality": 1,
        "evaluate_attention": 1,
        "evaluate_attention_distance": 1,
        "evaluate_separability": 1,
        "evaluate_corruptions": 1,
        "evaluate_shape_bias": 1,
        "evaluate_dense": 1,
        "draw_nonlinear": 1,
        "draw_images": 1,
        "calibrate": 1,
    }
)
AFTER_SOLVING = AFTER_ANALYSIS | dict.fromkeys(
    (
        "measure_features",
        "measure_reach",
        "measure_sampling",
        "draw_sweep",
        "draw_features",
        "draw_reach",
        "draw_probes",
    ),
    1,
)

# Groups of edited modules, each with the rules that it outdates by itself, and the rules that follow.
EDITED_CODE = {
    "what draws, judges and recommends": (
        {
            "figures/reach.py": {"draw_reach"},
            "figures/training.py": {"draw_training", "draw_nonlinear"},
            "claims/rules.py": {"judge_claims"},
            "data/cifar10.py": set(),
        },
        {"draw_claims", "write_report"},
    ),
    "what recommends": (
        {"recommend/rules.py": {"calibrate"}},
        {"draw_calibration", *AFTER_ANALYSIS},
    ),
    "what gathers and measures": (
        {
            "analysis/reconstruction.py": {"collect_training"},
            "analysis/reach.py": {"measure_reach", "measure_sampling", "evaluate_jacobian", "calibrate"},
        },
        {"draw_training", "draw_reach", "draw_nonlinear", "draw_images", *AFTER_ANALYSIS, *AFTER_CALIBRATION},
    ),
    "what trains": (
        {"train/trainer.py": {"train"}},
        {"collect_training", "evaluate_second_order", *AFTER_TRAINING},
    ),
}


@pytest.mark.parametrize(("edits", "follow"), EDITED_CODE.values(), ids=EDITED_CODE.keys())
def test_an_edit_reruns_what_depends_on_it_and_nothing_else(finished, edits, follow):
    with edited(finished, dict.fromkeys(edits, "EDITED = True")):
        found = plan(finished)
    outdated = set().union(*edits.values())
    assert found.outdated == outdated
    assert set(found.jobs) == outdated | follow


def test_an_edited_comment_reruns_nothing(finished):
    with edited(finished, {"train/trainer.py": "# A comment.", "analysis/reach.py": "# Another.\n"}):
        assert plan(finished) == Planned()


# Groups of edited settings, the rules that they outdate by themselves, and all jobs.
EDITED_SETTINGS = {
    "settings of single rules": (
        {
            "n_samples: 200": "n_samples: 300",
            "n_components: [8, 16, 64]": "n_components: [8, 64]",
            "dense: {n_train: 200,": "dense: {n_train: 300,",
        },
        {"measure_ising", "solve_linear", "measure_sampling", "evaluate_dense"},
        {"measure_ising": 1, "draw_ising": 1, "solve_linear": 1, "probe_features": 3, "evaluate_dense": 1}
        | {"draw_images": 1}
        | AFTER_SOLVING,
    ),
    "models more": (
        {"grid: {mask_ratio: [0.5, 0.75]}": "grid: {mask_ratio: [0.5, 0.75, 0.9]}"},
        {"train", "collect_training"},
        {"train": 2, "collect_training": 1} | AFTER_TRAINING,
    ),
    "other images": (
        {"n_train: 2400": "n_train: 2300"},
        {"prepare_data"},
        {"prepare_data": 1, "measure_statistics": 1, "draw_statistics": 1, "solve_linear": 1, "probe_features": 3}
        | {"train": 14, "collect_training": 4}
        | AFTER_SOLVING
        | AFTER_TRAINING
        | {"evaluate_linear_probe": 4, "evaluate_shape_bias": 2},
    ),
}


@pytest.mark.parametrize(("edits", "outdated", "jobs"), EDITED_SETTINGS.values(), ids=EDITED_SETTINGS.keys())
def test_an_edited_setting_reruns_in_one_call_all_that_depends_on_it(finished, edits, outdated, jobs):
    config = config_like_smoke(finished, "edited", edits)
    found = plan(finished, "--configfile", config)
    assert found.outdated >= outdated
    assert found.jobs == jobs


def test_taking_runs_of_other_code_or_no_longer_is_a_change(finished, monkeypatch):
    monkeypatch.setenv("SPATIALMAE_KEEP_TRAINED", "1")
    assert plan(finished).outdated == {"train"}


def test_looking_changes_nothing_whatever_the_state_of_results(finished):
    results = finished / "results" / "smoke"
    first, second = sorted(trained(results))[:2]
    damaged = {
        results / "config.yaml": b"name: other\n",
        results / "runs" / first / "run.json": b"{",
        results / "runs" / second / "model.safetensors": b"",
    }
    whole = {path: (path.read_bytes(), path.stat()) for path in damaged}
    try:
        for path, content in damaged.items():
            path.write_bytes(content)
        before = contents(finished)
        for look in ("--dry-run", "--lint", "--summary", "--unlock"):
            call(finished, look, *SMOKE)
            assert contents(finished) == before, look
    finally:
        for path, (content, stat) in whole.items():
            path.write_bytes(content)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_tables_do_not_depend_on_the_number_of_cores(finished):
    config = config_like_smoke(finished, "again", {"results: results": "results: again"})
    again, before = finished / "again" / "smoke", finished / "results" / "smoke"
    run(finished, "again/smoke/claims.csv", "--configfile", config, cores=1)
    tables = {path.relative_to(before) for path in before.rglob("*.csv")} - {
        path.relative_to(before) for folder in ("runs", "benchmarks") for path in (before / folder).rglob("*")
    }
    made = {path for path in tables if (again / path).exists() and "costs" not in path.parts}
    assert len(made) > 50
    assert [path for path in sorted(made) if (again / path).read_bytes() != (before / path).read_bytes()] == []


def test_runs_of_another_machine_are_taken_up(finished):
    config = config_like_smoke(finished, "carried", {"results: results": "results: carried"})
    before = trained(finished / "results" / "smoke")
    name = min(before)
    shutil.copytree(finished / "results" / "smoke" / "runs", finished / "carried" / "smoke" / "runs")
    run(finished, f"carried/smoke/runs/{name}/run.json", "--configfile", config)
    assert trained(finished / "carried" / "smoke") == before


def test_a_run_that_leaves_out_an_evaluation_is_judged_without_it(finished):
    values = yaml.safe_load((finished / "config" / "smoke.yaml").read_text()) | {"results": "parts"}
    del values["evaluations"]["surrogate"]
    (finished / "parts.yaml").write_text(yaml.safe_dump(values))
    before, part = finished / "results" / "smoke", finished / "parts" / "smoke"
    shutil.copytree(before / "tables", part / "tables")
    shutil.rmtree(part / "tables" / "second_order")
    command = [sys.executable, "-m", "spatialmae", "claims", "--config", "parts.yaml"]
    subprocess.run(command, cwd=finished, env=os.environ | {"PYTHONPATH": str(finished / "src")}, check=True)
    whole, found = (pd.read_csv(folder / "claims.csv", index_col="id")["verdict"] for folder in (before, part))
    left_out = found[found == "NOT_TESTED(left out)"].index
    assert {claim.split(".")[0] for claim in left_out} == {"A11"}
    assert not whole[left_out].str.startswith("NOT_TESTED").any()
    pd.testing.assert_series_equal(found.drop(left_out), whole.drop(left_out))


def test_a_configuration_that_extends_another_and_is_overridden_is_planned(checkout):
    own = {"extends": "config/smoke.yaml", "name": "own", "checks": None, "training": {"ratios": {"seeds": 3}}}
    (checkout / "own.yaml").write_text(json.dumps(own))
    output = call(checkout, "--dry-run", "--configfile", "own.yaml", "--config", "results=elsewhere")
    assert "elsewhere/own/runs/leaves-p4-m0.5-e2-s2-" in output
    assert "check_closed_form" not in output


def test_a_wrong_configuration_is_one_clear_line(checkout):
    config = config_like_smoke(checkout, "wrong", {"masking:": "maskin:"})
    output = call(checkout, "--dry-run", "--configfile", config, fails=True)
    assert "linear.maskin: unknown key; remove it" in output
    assert "Traceback" not in output


def test_snakemakes_own_report_is_built(finished):
    run(finished, "--report", "report.html")
    assert (finished / "report.html").stat().st_size > 100_000


if find_chromium():

    def test_the_real_page_does_all_that_a_page_must_in_a_browser(finished):
        from browser import check_page, launch

        with launch() as browser:
            check_page(browser, finished / "results" / "smoke" / "report.html")


def test_all_these_looks_have_left_nothing_to_do(finished):
    assert plan(finished) == Planned()


def test_the_job_that_finds_a_damaged_run_says_so_and_the_same_command_trains_it_again(finished):
    results, table = finished / "results" / "smoke", "results/smoke/tables/training_runs/ratios.csv"
    (finished / table).unlink()
    names = [spec.name for spec in load_config(finished / "config" / "smoke.yaml").training_runs("ratios")]
    before, (lost, damaged) = trained(results), names[:2]
    shutil.rmtree(results / "runs" / lost)
    weights = results / "runs" / damaged / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert plan(finished, table).outdated == {"train", "collect_training"}
    output = run(finished, table, fails=True)
    assert re.search(rf"^error: .*{re.escape(damaged)}.*run\.json is removed", output, flags=re.MULTILINE), output
    assert "Traceback (most recent" not in output
    assert set(trained(results)) == set(before) - {damaged}
    run(finished, table)
    assert trained(results) == before
    # The same bits outdate nothing but the part's table of costs.
    assert plan(finished).outdated <= {"finish_part"}
