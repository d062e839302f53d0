"""Figures of many small pictures in rows, without axes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from spatialmae.figures import theme

_LABEL_WIDTH, _TITLE_HEIGHT, _FOOT_HEIGHT = 0.75, 0.22, 0.85  # inches
_TITLE_LINE = 0.13  # inches of each line after the first


def tile_grid(rows: int, columns: int, aspect: float, *, title_lines: int = 1) -> tuple[Figure, np.ndarray]:
    """Tiles of height/width ``aspect`` without axes; sizes are fixed, so no layout engine is used."""
    width = theme.DOUBLE_WIDTH
    tile = (width - _LABEL_WIDTH) / columns
    title_height = _TITLE_HEIGHT + (title_lines - 1) * _TITLE_LINE
    height = rows * tile * aspect + title_height + _FOOT_HEIGHT
    figure = Figure(figsize=(width, height))
    sides = {"left": _LABEL_WIDTH / width, "right": 1 - 0.02 / width, "wspace": 0.06}
    ends = {"top": 1 - title_height / height, "bottom": _FOOT_HEIGHT / height, "hspace": 0.06}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=sides | ends)
    for axis in grid.flat:
        axis.set_axis_off()
    return figure, grid


def label_row(first: Axes, label: str) -> None:
    """Name a row, left of its first tile."""
    first.annotate(
        label,
        (0, 0.5),
        xycoords="axes fraction",
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=7,
    )


def draw_bar(figure: Figure, above: Axes, scale: ScalarMappable, label: str) -> None:
    """A colour bar below a tile."""
    box, inch = above.get_position(), 1 / figure.get_figheight()
    bar = figure.add_axes((box.x0, box.y0 - 0.12 * inch, box.width, 0.07 * inch))
    figure.colorbar(scale, cax=bar, orientation="horizontal")
    bar.set_xlabel(label, fontsize=7)
