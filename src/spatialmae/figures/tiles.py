"""Figures of many small pictures in rows, without axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from spatialmae.figures import theme

Pictures = tuple[Mapping[str, np.ndarray], Any]
"""Arrays by their names and what is said of them, as :func:`~spatialmae.artifacts.read_tensors` gives them."""

_LABEL_WIDTH, TITLE_HEIGHT, _FOOT_HEIGHT = 0.75, 0.22, 0.85  # inches
TITLE_LINE = 0.13  # inches of each line of a title after the first
_GAP = 0.06  # between tiles, in tiles


def tile_grid(
    rows: int,
    columns: Sequence[float],
    aspect: float = 1.0,
    *,
    label_width: float = _LABEL_WIDTH,
    title_height: float = TITLE_HEIGHT,
    foot_height: float = _FOOT_HEIGHT,
) -> tuple[Figure, np.ndarray]:
    """Tiles without axes, as wide as a page; sizes are fixed, so no layout engine is used.

    Args:
        rows: how many.
        columns: width of each in tiles: 1, or less for one that stays empty.
        aspect: height/width of a tile.
        label_width: inches left of the tiles.
        title_height: inches above them.
        foot_height: inches below them.
    """
    width = theme.DOUBLE_WIDTH
    tile = (width - label_width) / sum(columns)
    height = rows * tile * aspect + title_height + foot_height
    figure = Figure(figsize=(width, height))
    sides = {"left": label_width / width, "right": 1 - 0.02 / width, "wspace": _GAP}
    ends = {"top": 1 - title_height / height, "bottom": foot_height / height, "hspace": _GAP}
    cells = sides | ends | {"width_ratios": list(columns)}
    grid = figure.subplots(rows, len(columns), squeeze=False, gridspec_kw=cells)
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
