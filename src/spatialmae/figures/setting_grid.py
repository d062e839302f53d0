"""A map of patch sizes and masking ratios, with frames around settings."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from spatialmae.figures import theme


def draw_grid(axis: Axes, cells: pd.DataFrame, value: str, digits: str) -> pd.DataFrame:
    """Draw a column of ``cells``, which has one row for each patch_size and mask_ratio; the table as it is drawn."""
    table = cells.pivot_table(index="patch_size", columns="mask_ratio", values=value)
    sns.heatmap(table, ax=axis, annot=True, fmt=digits, cmap="cividis", cbar=False, annot_kws={"size": 7})
    axis.tick_params(axis="y", rotation=0)
    return table


def frame(
    axis: Axes, table: pd.DataFrame, setting: tuple[int, float], linewidth: float = 1.6, linestyle: str = "-"
) -> None:
    """Frame a patch size and masking ratio of a table that :func:`draw_grid` drew."""
    patch_size, mask_ratio = setting
    corner = table.columns.get_loc(mask_ratio), table.index.get_loc(patch_size)
    rectangle = Rectangle(
        corner, 1, 1, fill=False, edgecolor=theme.PALETTE[3], linewidth=linewidth, linestyle=linestyle
    )
    axis.add_patch(rectangle).set_clip_on(False)
