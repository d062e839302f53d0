"""An installation from nothing: `make install` in a fresh copy, and a wheel that holds all that the package reads."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from checkout import ROOT, copy_checkout

pytestmark = pytest.mark.install


def call(*command: str | Path, cwd: Path) -> str:
    # Neither this environment's packages nor its tools are there for the new one.
    environment = {
        name: os.environ[name] for name in os.environ if not name.startswith(("PYTHON", "VIRTUAL_ENV", "MAKE"))
    }
    environment["PATH"] = os.defpath + ":/usr/local/bin:/usr/bin:/bin"
    result = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


def test_make_installs_an_environment_in_which_the_workflow_can_be_planned(checkout):
    base = Path(sys.base_prefix) / "bin" / "python3"
    call("make", "install", f"PYTHON={base}", cwd=checkout)
    programs = checkout / ".venv" / "bin"
    assert "recommend" in call(programs / "spatialmae", "--help", cwd=checkout)
    planned = call(programs / "snakemake", "--dry-run", "--quiet", "rules", "--cores", "1", cwd=checkout)
    assert "write_report" in planned
    assert (programs / "pytest").exists() and (programs / "ruff").exists()


def test_a_wheel_holds_every_file_of_the_package(checkout, tmp_path):
    call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ".", cwd=checkout)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("spatialmae/")}
    package = ROOT / "src"
    files = {path.relative_to(package).as_posix() for path in (package / "spatialmae").rglob("*") if path.is_file()}
    assert held == {name for name in files if "__pycache__" not in name}
