"""The whole workflow: a clean checkout runs config/smoke.yaml, and reruns exactly what depends on an edit."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from chromium import find_chromium
from spatialmae.config import load_config
from spatialmae.figures.catalogue import drawn_figures

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The files git tracks (and new ones it does not ignore) in an empty folder, results outside it."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def snakemake(folder: Path, *arguments: str) -> str:
    # The copy's package, not the installed one, is what its edits must reach.
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    chosen = [] if "--configfile" in arguments else ["--configfile", "config/smoke.yaml"]
    command = [str(BIN / "snakemake"), *arguments, "--cores", "2", *chosen]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def jobs(folder: Path, *arguments: str) -> dict[str, int]:
    """How many jobs of each rule would run."""
    text = snakemake(folder, "--dry-run", "--quiet", "rules", *arguments)
    counts = re.findall(r"^(\w+) +(\d+)$", text, flags=re.MULTILINE)
    return {rule: int(count) for rule, count in counts if rule not in ("total", "all")}


def planned(folder: Path) -> set[str]:
    """Names of the rules that would run."""
    return set(jobs(folder))


@pytest.fixture(scope="module")
def finished(checkout):
    snakemake(checkout)
    return checkout


@pytest.mark.workflow
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
    provenance = json.loads((results / "provenance.json").read_text())
    assert provenance["data"]["leaves"]
    stages = provenance["training"].values()
    assert {name for stage in stages for name in stage["weights_sha256"]} == set(trained(results))
    assert (results / "report.html").stat().st_size > 100_000
    drawn = [figure.stem for figure in drawn_figures(load_config(ROOT / "config" / "smoke.yaml"))]
    found = sorted(path.name for path in (results / "figures").iterdir())
    assert found == sorted(f"{stem}.{suffix}" for stem in drawn for suffix in ("svg", "png"))
    assert {path.stem for path in (results / "notebooks").glob("*.html")} == {
        path.stem for path in (finished / "notebooks").glob("*.ipynb")
    }


@pytest.mark.workflow
def test_a_second_run_has_nothing_to_do(finished):
    assert planned(finished) == set()


AFTER_ANALYSIS = {"judge_claims": 1, "draw_claims": 1, "write_report": 1}
AFTER_TRAINING = AFTER_ANALYSIS | {  # of models of leaves, which three evaluations share
    "draw_training": 1,
    "evaluate_jacobian": 2,
    "evaluate_probe": 3,
    "evaluate_fine_tuning": 1,
    "evaluate_reconstruction": 1,
    "evaluate_attention": 1,
    "evaluate_embedding": 1,
    "evaluate_corruptions": 1,
    "evaluate_shape_bias": 1,
    "evaluate_dense": 1,
    "draw_nonlinear": 1,
    "draw_images": 1,
    "calibrate": 1,
    "draw_calibration": 1,
}
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


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("module", "reruns"),
    [
        ("figures/reach.py", {"draw_reach", "write_report"}),
        ("figures/training.py", {"draw_training", "draw_nonlinear", "write_report"}),
        ("analysis/reconstruction.py", {"collect_training", "draw_training", "write_report"}),
        ("train/trainer.py", {"train_models", "collect_training", "evaluate_second_order", *AFTER_TRAINING}),
        ("data/cifar10.py", set()),
        ("claims/rules.py", {*AFTER_ANALYSIS}),
        ("recommend/rules.py", {"calibrate", "draw_calibration", "write_report"}),
        (
            "analysis/reach.py",
            {
                "measure_reach",
                "measure_sampling",
                "draw_reach",
                "evaluate_jacobian",
                "draw_nonlinear",
                "draw_images",
                *AFTER_ANALYSIS,
            }
            | {"calibrate", "draw_calibration"},
        ),
    ],
)
def test_an_edit_reruns_what_depends_on_it_and_nothing_else(finished, module, reruns):
    path = finished / "src" / "spatialmae" / module
    before = path.read_bytes()
    path.write_bytes(before + b"\nEDITED = True\n")
    try:
        assert planned(finished) == reruns
    finally:
        path.write_bytes(before)
    assert planned(finished) == set()


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("setting", "edited", "reruns"),
    [
        ("n_samples: 200", "n_samples: 300", {"measure_ising": 1, "draw_ising": 1} | AFTER_ANALYSIS),
        (
            "n_components: [8, 16, 64]",
            "n_components: [8, 64]",
            {"solve_linear": 1, "probe_features": 3} | AFTER_SOLVING,
        ),
        (
            "grid: {mask_ratio: [0.5, 0.75]}",
            "grid: {mask_ratio: [0.5, 0.75, 0.9]}",
            {"plan_training": 1, "train_models": 1, "collect_training": 1} | AFTER_TRAINING,
        ),
        (
            "n_train: 2400",
            "n_train: 2300",
            {"prepare_data": 1, "measure_statistics": 1, "draw_statistics": 1, "solve_linear": 1, "probe_features": 3}
            | {"train_models": 4, "collect_training": 4}
            | AFTER_SOLVING
            | AFTER_TRAINING
            | {"evaluate_probe": 4, "evaluate_shape_bias": 2},
        ),
        ("dense: {n_train: 200,", "dense: {n_train: 300,", {"evaluate_dense": 1, "draw_images": 1} | AFTER_ANALYSIS),
    ],
)
def test_an_edited_setting_reruns_in_one_call_all_that_depends_on_it(finished, setting, edited, reruns):
    text = (finished / "config" / "smoke.yaml").read_text()
    assert setting in text
    (finished / "edited.yaml").write_text(text.replace(setting, edited))
    assert jobs(finished, "--configfile", "edited.yaml") == reruns
    assert planned(finished) == set()


@pytest.mark.workflow
def test_taking_runs_of_other_code_or_no_longer_is_a_change(finished, monkeypatch):
    monkeypatch.setenv("SPATIALMAE_KEEP_TRAINED", "1")
    assert {"train_models", "collect_training"} <= planned(finished)
    monkeypatch.delenv("SPATIALMAE_KEEP_TRAINED")
    assert planned(finished) == set()


@pytest.mark.workflow
def test_a_fresh_folder_of_results_can_be_planned(checkout):
    text = (checkout / "config" / "smoke.yaml").read_text()
    (checkout / "fresh.yaml").write_text(text.replace("results: results", "results: fresh"))
    assert {"prepare_data", "plan_training", "train_models", "write_report"} <= set(
        jobs(checkout, "--configfile", "fresh.yaml")
    )
    assert [path.name for path in (checkout / "fresh" / "smoke").iterdir()] == ["config.yaml"]


@pytest.mark.workflow
def test_planning_leaves_what_running_jobs_read_alone(finished):
    resolved = finished / "results" / "smoke" / "config.yaml"
    before = resolved.read_bytes()
    (finished / "edited.yaml").write_text(
        (finished / "config" / "smoke.yaml").read_text().replace("n_samples: 200", "n_samples: 300")
    )
    lock = finished / ".snakemake" / "locks" / "0.input.lock"
    lock.write_text("")
    try:
        output = snakemake(finished, "--dry-run", "--configfile", "edited.yaml")
    finally:
        lock.unlink()
    assert "results/smoke/config.yaml: left as it is while snakemake runs here" in output
    assert resolved.read_bytes() == before


def trained(results: Path) -> dict[str, bytes]:
    """The record of each finished training run."""
    return {path.parent.name: path.read_bytes() for path in (results / "runs").glob("*/run.json")}


@pytest.mark.workflow
def test_a_lost_manifest_is_made_again_without_training(finished):
    results = finished / "results" / "smoke"
    manifest, before = results / "training" / "ratios.manifest.json", trained(results)
    content = manifest.read_bytes()
    manifest.unlink()
    snakemake(finished, "results/smoke/training/ratios.manifest.json")
    assert manifest.read_bytes() == content
    assert before
    assert trained(results) == before
    assert planned(finished) == set()


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.workflow
def test_lost_and_damaged_runs_are_noticed_and_trained_again_alone(finished):
    results = finished / "results" / "smoke"
    manifest = results / "training" / "ratios.manifest.json"
    content, before = manifest.read_bytes(), trained(results)
    deleted, flipped, unreadable, _ = names = [entry["name"] for entry in json.loads(content)]
    shutil.rmtree(results / "runs" / deleted)
    flip_a_byte(results / "runs" / flipped / "model.safetensors")
    (results / "runs" / unreadable / "run.json").write_text("{")
    output = snakemake(finished, "--dry-run")
    assert f"ratios.manifest.json: 3 of 4 runs lost or damaged ({deleted} first); removed, " in output
    assert jobs(finished) == {"train_models": 1, "collect_training": 1} | AFTER_TRAINING
    snakemake(finished)
    after = trained(results)
    assert {name for name in before if after[name] != before[name]} == set(names[:3])
    assert manifest.read_bytes() == content
    assert planned(finished) == set()


@pytest.mark.workflow
def test_a_damaged_log_is_damage_to_its_run(finished):
    results = finished / "results" / "smoke"
    manifest = results / "training" / "ratios.manifest.json"
    before = manifest.read_bytes()
    name = json.loads(before)[0]["name"]
    log = results / "runs" / name / "log.csv"
    content = log.read_bytes()
    flip_a_byte(log)
    try:
        output = snakemake(finished, "--dry-run")
    finally:
        log.write_bytes(content)
        manifest.write_bytes(before)
    assert f"ratios.manifest.json: 1 of 4 runs lost or damaged ({name} first); removed, " in output


@pytest.mark.workflow
@pytest.mark.parametrize("content", ["[", "{}", '[{"name": "a"}]', "[1]"])
def test_a_damaged_manifest_is_removed_with_one_line(finished, content):
    manifest = finished / "results" / "smoke" / "training" / "ratios.manifest.json"
    before = manifest.read_bytes()
    manifest.write_text(content)
    try:
        output = snakemake(finished, "--dry-run")
        assert (
            len(re.findall(r"^results/smoke/training/ratios.manifest.json: .*; removed, ", output, re.MULTILINE)) == 1
        )
        assert not manifest.exists()
    finally:
        manifest.write_bytes(before)


@pytest.mark.workflow
def test_runs_of_another_machine_are_taken_up(finished):
    text = (finished / "config" / "smoke.yaml").read_text().replace("results: results", "results: carried")
    (finished / "carried.yaml").write_text(text)
    before = trained(finished / "results" / "smoke")
    shutil.copytree(finished / "results" / "smoke" / "runs", finished / "carried" / "smoke" / "runs")
    snakemake(finished, "--configfile", "carried.yaml", "--until", "train_models")
    assert (finished / "carried" / "smoke" / "training" / "ratios.manifest.json").is_file()
    assert trained(finished / "carried" / "smoke") == before


@pytest.mark.workflow
def test_a_run_that_leaves_out_an_evaluation_is_judged_without_it(finished):
    text = (finished / "config" / "smoke.yaml").read_text().replace("results: results", "results: parts")
    (evaluation,) = re.findall(r"^  surrogate: \{models: .*\n", text, flags=re.MULTILINE)
    (finished / "parts.yaml").write_text(text.replace(evaluation, ""))
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


@pytest.mark.workflow
def test_a_configuration_that_extends_another_and_is_overridden_is_planned(checkout):
    own = {"extends": "config/smoke.yaml", "name": "own", "checks": None, "training": {"ratios": {"seeds": 3}}}
    (checkout / "own.yaml").write_text(json.dumps(own))
    command = [str(BIN / "snakemake"), "--configfile", "own.yaml", "--config", "results=elsewhere", "--dry-run"]
    planned = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert "elsewhere/own/runs/leaves-p4-m0.5-e2-s2-" in planned
    assert "check_closed_form" not in planned


@pytest.mark.workflow
def test_a_wrong_configuration_is_one_clear_line(checkout):
    (checkout / "wrong.yaml").write_text(
        (checkout / "config" / "smoke.yaml").read_text().replace("masking:", "maskin:")
    )
    command = [str(BIN / "snakemake"), "--cores", "1", "--configfile", "wrong.yaml", "--dry-run"]
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "linear.maskin: unknown key; remove it" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.workflow
def test_snakemakes_own_report_is_built(finished):
    snakemake(finished, "--report", "report.html")
    assert (finished / "report.html").stat().st_size > 100_000


if find_chromium():

    @pytest.mark.workflow
    def test_the_real_page_does_all_that_a_page_must_in_a_browser(finished):
        from browser import check_page, launch

        with launch() as browser:
            check_page(browser, finished / "results" / "smoke" / "report.html")
