"""What tests of figures ask of a drawing."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from spatialmae.figures import theme
from spatialmae.figures.declaration import FigureKind, declared_figures, figures_of, name_and_subject

ROOT = Path(__file__).parent.parent


def check_text(draw: Callable[[], Figure]) -> Figure:
    """Draw without warnings, with axes that are labelled and text that can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw()
        theme.settle(figure)
    shown = [axes for axes in figure.axes if axes.axison and axes.get_subplotspec()]  # no colour bars
    assert all(axes.get_xlabel() for axes in shown if axes.get_subplotspec().is_last_row())
    assert all(axes.get_ylabel() for axes in shown if axes.get_subplotspec().is_first_col())
    check_layout(figure)
    return figure


def check_layout(figure: Figure) -> None:
    """Text of a drawn figure is inside it, large enough, and clear of other text; the figure fits a column or two."""
    texts = [*(t for legend in figure.legends for t in legend.get_texts()), *figure.texts]
    texts += [t for axes in figure.axes for t in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    written = [text for text in texts if text.get_text().strip()]
    for text in written:
        box = text.get_window_extent()
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, text.get_text()
        assert text.get_fontsize() >= 7
    for one, other in itertools.combinations(written, 2):
        assert not _overlap(one, other), (one.get_text(), other.get_text())
    assert figure.get_figwidth() in (theme.COLUMN_WIDTH, theme.DOUBLE_WIDTH)


def _overlap(one: Text, other: Text) -> bool:
    boxes = one.get_window_extent(), other.get_window_extent()
    common = Bbox.intersection(*boxes)
    return common is not None and min(common.width, common.height) > 1


def line(axes: Axes, label: str) -> np.ndarray:
    """Points (x, y) of the one line with a label."""
    found = [item for item in axes.lines if item.get_label() == label]
    assert len(found) == 1, label
    return np.asarray(found[0].get_xydata())


def level(axes: Axes, label: str) -> float:
    """Height of the one horizontal line with a label."""
    heights = set(line(axes, label)[:, 1])
    assert len(heights) == 1
    return heights.pop()


def labels(axes: Axes) -> list[str]:
    """What the legend has of a panel."""
    return axes.get_legend_handles_labels()[1]


def run_notebook_cells(name: str, results: Path, subjects: Mapping[str, Sequence[str]]) -> None:
    """Run the code of a notebook: it draws each figure of its subjects, from all that is declared and nothing else.

    Args:
        name: of the notebook.
        results: folder of tables and other artifacts.
        subjects: of each figure.
    """
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    first, *cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    scope: dict[str, object] = {}
    exec(first, scope)
    assert set(scope) - {"__builtins__"} == {"results", "subjects"}
    scope |= {"results": str(results), "subjects": subjects}
    shutil.rmtree(results / "figures", ignore_errors=True)
    with opened_files() as opened:
        for cell in cells:
            exec(cell, scope)
    drawn = [one for figure, own in subjects.items() for one in figures_of(figure, own)]
    files = {f"{one.stem}.{suffix}" for one in drawn for suffix in ("svg", "png")}
    assert {path.name for path in (results / "figures").iterdir()} == files
    declared = {path for figure, own in subjects.items() for path in _declared_reads(declared_figures()[figure], own)}
    read = {Path(path).relative_to(results) for path in opened if Path(path).is_relative_to(results)}
    read = {path for path in read if path.parts[0] != "figures"}
    there = {path for path in declared if (results / path).exists()}
    assert {path if path in declared else path.parent for path in read} == there


def _declared_reads(kind: FigureKind, subjects: Sequence[str]) -> Iterator[Path]:
    """What a figure declares to be drawn from, in the folder of the results."""
    for table in (*kind.tables, *kind.optional):
        for subject in subjects or [""]:
            name, own = name_and_subject(table, subject)
            yield Path("tables", name, f"{own}.csv")
    for artifact in kind.artifacts:
        yield from (Path(artifact.format(subject=subject)) for subject in subjects or [""])
    if kind.control_of:
        yield from (Path("config.yaml"), Path("claims"))


_recorders: list[list[str]] = []


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _recorders and isinstance(arguments[0], str | PathLike):
        for opened in _recorders:
            opened.append(fspath(arguments[0]))


sys.addaudithook(_record)


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """The paths of all files that Python opens in the block."""
    opened: list[str] = []
    _recorders.append(opened)
    try:
        yield opened
    finally:
        _recorders.remove(opened)
