"""pyproject, constraints and environment.yml agree, and what is published is in order."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def test_every_direct_dependency_is_pinned_to_a_version_it_allows():
    for dependency in map(Requirement, DEPENDENCIES):
        assert dependency.specifier.contains(pins()[normal(dependency.name)]), dependency


def test_every_direct_dependency_has_a_reason():
    text = (ROOT / "pyproject.toml").read_text()
    for dependency in DEPENDENCIES:
        assert re.search(rf'"{re.escape(dependency)}",\s+# \w+', text), dependency


def test_pins_are_exact_and_free_of_builds():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line), line
    assert pins()["torch"] == "2.13.0"


def test_conda_installs_what_make_installs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    assert pip["pip"] == ["--constraint constraints.txt", "--editable .[dev]"]
    make = (ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt --editable '.[dev]'" in make


def test_torchvision_and_timm_are_not_needed():
    assert not {"torchvision", "timm"} & set(pins())


def test_citation_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    identifiers = [item["value"] for paper in citation["references"] for item in paper["identifiers"]]
    assert identifiers == ["arXiv:2508.15404", "arXiv:2306.04898"]


def test_equations_cited_in_docstrings_exist():
    theory = (ROOT / "docs" / "theory.md").read_text()
    defined = {int(number) for number in re.findall(r"\s\((\d+)\)$", theory, flags=re.MULTILINE)}
    assert defined == set(range(1, max(defined) + 1))
    cited = 0
    for folder in ("linear", "analysis"):
        for path in (ROOT / "src" / "spatialmae" / folder).glob("*.py"):
            for number in re.findall(
                r"(?:eqs?\. |\s\()(\d{1,2})(?:\)|[,–]| and)", path.read_text().replace("(0, N", "")
            ):
                assert int(number) in defined, (path, number)
                cited += 1
    assert cited > 10
