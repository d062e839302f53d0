from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from spatialmae.errors import UserError
from spatialmae.notebook import run_notebook
from spatialmae.tables import write_table

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def write_notebook(path: Path, cells: list[str], *, tagged: bool = True) -> Path:
    """A notebook whose first cell holds the parameters."""
    tags = [["parameters"] if tagged and not i else [] for i in range(len(cells))]
    content = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "cells": [
            {"cell_type": "code", "id": f"cell-{i}", "source": source, "metadata": {"tags": tag}}
            | {"outputs": [], "execution_count": None}
            for i, (source, tag) in enumerate(zip(cells, tags, strict=True))
        ],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def run(folder: Path, source: Path, **parameters: Any) -> tuple[Path, Path, Path]:
    targets = (folder / "out" / "a.ipynb", folder / "out" / "a.html", folder / "log" / "a.ipynb")
    run_notebook(source, *targets, parameters)
    return targets


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs_and_with_parameters(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert set(re.findall(r"^(\w+) = ", "".join(tagged[0]["source"]), re.MULTILINE)) == {"results", "subjects"}


@pytest.mark.slow
def test_sweep_notebook_runs_and_its_page_needs_no_network(tmp_path: Path) -> None:
    rows = [
        {"seed": s, "mask_ratio": m, "patch_size": p, "n_components": k, "loss": 1.0, "loss_fraction": m / 2 + s / 99}
        for s in range(3)
        for m in (0.25, 0.5, 0.75)
        for p in (2, 4)
        for k in (8, -1)
    ]
    write_table(tmp_path / "tables" / "linear_sweep" / "digits.csv", pd.DataFrame(rows))
    source = next(path for path in NOTEBOOKS if path.stem == "sweep")
    output, html, log = run(tmp_path, source, results=str(tmp_path), subjects={"sweep": ["digits"]})
    assert (tmp_path / "figures" / "sweep_digits.svg").is_file()
    page = html.read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert page.count("<img") == 1
    assert 'alt="Expected loss fraction' in page
    assert "loss_fraction(" not in page
    executed = json.loads(output.read_text(encoding="utf-8"))
    assert "papermill" not in executed["metadata"]
    kept = [cell for cell in executed["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    assert str(tmp_path) not in json.dumps(kept)
    assert not [out for cell in kept for out in cell.get("outputs", []) if out["output_type"] == "stream"]
    assert log.is_file()


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "n.ipynb", ["x = 1", "x + 1"])
    first = [path.read_bytes() for path in run(tmp_path, source, x=2)[:2]]
    assert b"3" in first[0]
    assert [path.read_bytes() for path in run(tmp_path, source, x=2)[:2]] == first


def test_unknown_parameter_is_refused_by_name(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "n.ipynb", ["x = 1"])
    with pytest.raises(UserError) as caught:
        run(tmp_path, source, x=1, y=2)
    assert caught.value.where == str(source) and "'y'" in caught.value.problem and "x" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cells", [["x = 1"], ["pass"]])
def test_notebook_without_parameters_is_refused(tmp_path: Path, cells: list[str]) -> None:
    source = write_notebook(tmp_path / "n.ipynb", cells, tagged=cells == ["pass"])
    with pytest.raises(UserError) as caught:
        run(tmp_path, source)
    assert caught.value.where == str(source) and "`parameters`" in caught.value.problem and "tag" in caught.value.hint


def test_missing_notebook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(tmp_path, tmp_path / "none.ipynb")
    assert caught.value.where == str(tmp_path / "none.ipynb") and "path" in caught.value.hint


@pytest.mark.slow
def test_failing_cell_leaves_its_traceback_and_no_output(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "n.ipynb", ["x = 1", "1 / (x - 2)"])
    run(tmp_path, source, x=1)
    with pytest.raises(UserError) as caught:
        run(tmp_path, source, x=2)
    assert caught.value.where == str(source) and "ZeroDivisionError" in caught.value.problem
    assert str(tmp_path / "log" / "a.ipynb") in caught.value.hint
    assert list((tmp_path / "out").iterdir()) == []
    assert "ZeroDivisionError" in (tmp_path / "log" / "a.ipynb").read_text(encoding="utf-8")
