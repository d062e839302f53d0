"""The command line: one line and exit status 1 for bad input, nothing half-written."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def spatialmae(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "spatialmae", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_help_lists_the_stages():
    result = spatialmae("--help")
    assert result.returncode == 0
    for stage in ("data", "linear", "reach", "claims", "report"):
        assert stage in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("linear", "leaves", "-c", "no.yaml"), "no.yaml: configuration not found"),
        (("linear", "leafs", "-c", "config/smoke.yaml"), "datasets has no 'leafs'; use one of leaves, digits"),
        (("probe", "depth", "digits", "-c", "config/smoke.yaml"), "datasets.digits.analyses lacks probe_depth"),
        (("plan", "sizes", "-c", "config/smoke.yaml"), "training has no 'sizes'; use one of ratios"),
        (("probe", "colour", "leaves", "-c", "config/smoke.yaml"), "unknown probe 'colour'"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, message):
    result = spatialmae(*arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_stage_whose_input_is_missing_says_which_and_writes_nothing(tmp_path):
    values = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"results": str(tmp_path / "results")}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values))
    result = spatialmae("linear", "leaves", "-c", tmp_path / "my.yaml")
    assert result.returncode == 1
    assert "leaves.safetensors: images not found; make them: spatialmae data leaves" in result.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_too_many_groups_and_a_folder_that_is_a_file_are_said_so(tmp_path):
    values = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"results": str(tmp_path / "results")}
    del values["training"], values["evaluations"], values["calibration"]
    values["datasets"]["leaves"]["groups"] = 90
    values["datasets"]["leaves"]["source"] |= {"n_train": 50, "n_validation": 20, "n_test": 20}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values))
    assert spatialmae("data", "leaves", "-c", tmp_path / "my.yaml").returncode == 0
    result = spatialmae("statistics", "leaves", "-c", tmp_path / "my.yaml")
    assert result.returncode == 1
    assert "datasets.leaves.groups: train: too few images" in result.stderr
    values["results"] = str(tmp_path / "my.yaml")
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(values))
    result = spatialmae("resolve", "-c", tmp_path / "other.yaml")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)


def test_resolve_writes_a_configuration_that_is_valid_again(tmp_path):
    values = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"results": str(tmp_path)}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values))
    assert spatialmae("resolve", "-c", tmp_path / "my.yaml").returncode == 0
    resolved = tmp_path / "smoke" / "config.yaml"
    assert spatialmae("resolve", "-c", resolved).returncode == 0
    assert yaml.safe_load(resolved.read_text())["linear"]["masking"] == "bernoulli"
