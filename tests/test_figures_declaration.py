"""Figures are declared once: by the function that draws them, for the notebook that draws them."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from spatialmae.config import load_config
from spatialmae.errors import UserError
from spatialmae.figures import declaration, sweep
from spatialmae.figures.declaration import MODULES, FigureKind, declared_figures, drawn_figures, notebook_inputs
from spatialmae.figures.drawing import Drawing
from spatialmae.layout import Layout

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "src" / "spatialmae" / "figures"
NOTEBOOKS = {path.stem: path for path in (ROOT / "notebooks").glob("*.ipynb")}
HEAVY = ("matplotlib", "pandas", "scipy", "seaborn", "skimage", "torch")


def calls_of(notebook: Path) -> list[str]:
    """``module.function`` of all that the cells of a notebook draw."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return [ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "draw"]


def test_every_figure_is_drawn_once_by_the_notebook_that_its_declaration_names() -> None:
    declared: dict[str, list[str]] = {name: [] for name in NOTEBOOKS}
    for kind in declared_figures().values():
        declared[kind.notebook].append(kind.name)
    for name, path in NOTEBOOKS.items():
        called = [call.split(".") for call in calls_of(path)]
        assert Counter(figure for _, figure in called) == Counter(declared[name])
        for module, figure in called:
            assert callable(getattr(importlib.import_module(f"spatialmae.figures.{module}"), figure))


def test_every_declaration_is_found() -> None:
    """Of modules that are not listed, of functions below others, and of any that is written otherwise as well."""
    written = sum(path.read_text(encoding="utf-8").count("\n@declare(") for path in FIGURES.glob("*.py"))
    assert written == len(declared_figures())
    assert {path.stem for path in FIGURES.glob("*.py") if "import declare\n" in path.read_text()} == set(MODULES)


def test_captions_and_texts_for_readers_name_their_subject() -> None:
    for drawn in drawn_figures(load_config(ROOT / "config" / "smoke.yaml")):
        assert not {"{", "}"} & set(drawn.caption + drawn.alt), drawn.stem
        assert drawn.kind.section and drawn.alt.endswith(".")
        if drawn.subject:
            assert drawn.subject in drawn.alt


def test_sections_come_in_the_order_of_the_argument() -> None:
    sections = list(dict.fromkeys(kind.section for kind in declared_figures().values()))
    assert sections == [
        *("All verdicts", "Linear MAE, and the images", "Latent hierarchies: theory", "Non-linear MAE: training"),
        *("Non-linear MAE: analyses", "Latent hierarchies: experiments", "Recommender"),
    ]


def test_a_table_that_is_missing_is_named(tmp_path: Path) -> None:
    draw = Drawing(tmp_path, {"sweep": ["leaves"]})
    with pytest.raises(UserError) as caught:
        draw(sweep.sweep)
    assert caught.value.where == str(tmp_path / "tables" / "linear_sweep" / "leaves.csv") and caught.value.hint


def test_figures_of_a_configuration_have_names_of_their_own() -> None:
    stems = [figure.stem for figure in drawn_figures(load_config(ROOT / "config" / "smoke.yaml"))]
    assert len(stems) == len(set(stems))


def test_a_notebook_waits_for_what_its_figures_declare() -> None:
    config = load_config(ROOT / "config" / "smoke.yaml")
    layout = Layout.of(config)

    def inputs(notebook: str) -> set[str]:
        return {path.removeprefix(f"{layout.root}/") for path in notebook_inputs(config, layout, notebook)}

    assert inputs("claims") == {"claims.csv", "tables/claims_detail.csv"}
    assert inputs("features") == {"tables/features/leaves.csv", "linear/leaves"}
    assert inputs("calibration") == {"tables/calibration/cells.csv", "tables/calibration/held_out.csv"}
    images = inputs("images")
    assert {"tables/hierarchy_levels/hierarchy.csv", "pictures/attention/ratios.safetensors"} <= images
    assert "tables/shape_bias/boundary.csv" in images and "tables/image_quality/boundary.csv" not in images
    assert {"claims/A.yaml", "pictures/jacobian/patches.safetensors"} <= inputs("nonlinear")


def test_declarations_are_read_without_the_plotting_libraries() -> None:
    code = f"""
import sys
from spatialmae.figures.declaration import declared_figures
assert declared_figures()
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("source", "line", "problem"),
    [
        ('@declare(caption="a", alt=name)\ndef one(): ...', 3, "alt"),
        ('@declare("a", alt="b")\ndef one(): ...', 3, "caption"),
        ('@declare(caption="a", alt="b", table="c")\ndef one(): ...', 3, "table"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, source: str, line: int, problem: str) -> None:
    path = tmp_path / "toy.py"
    path.write_text(f'SECTION = "s"\nNOTEBOOK = "n"\n{source}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"toy\.py:{line}: .*{problem}"):
        list(declaration._declared_in(path))


def test_what_is_read_is_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "toy.py"
    source = '@declare(tables=["t"], caption="a " "b {subject}", alt="b", along="seed")\ndef one(t, subject): ...\n'
    path.write_text(f'SECTION = "s"\nNOTEBOOK = "n"\n{source}def two(): ...\n', encoding="utf-8")
    expected = {"tables": ["t"], "caption": "a b {subject}", "alt": "b", "along": "seed"}
    assert list(declaration._declared_in(path)) == [FigureKind(name="one", section="s", notebook="n", **expected)]
