"""The look that all figures share: theme, palettes, labels, intervals over seeds, and saving.

Methods keep one style in every figure: AE black dashes, DAE vermilion dash-dots, MAE solid and coloured by
masking ratio. Categories take seaborn's colour-blind-safe palette together with a marker or a line style; ordered
values take perceptually uniform maps, whose lightness orders them in grey as well.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter
from scipy import stats

from spatialmae.artifacts import atomic_path
from spatialmae.figures.svg import compact

COLUMN_WIDTH = 3.35
"""Width of one text column, in inches."""
DOUBLE_WIDTH = 6.9
"""Width of two text columns, in inches."""
CONFIDENCE = 0.95
"""Level of every interval over seeds."""
PALETTE: list[tuple[float, float, float]] = list(sns.color_palette("colorblind"))
"""Seaborn's colour-blind-safe palette, for categories."""
RATIO_COLORMAP = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.9, 256)), name="mask_ratio")
"""Masking ratios from 0 to 1, the same in every figure: viridis without its pale end."""
GREY = "0.45"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINESTYLES = ("-", "--", "-.", ":")

# What 7 pt text of the default sans serif holds in an inch, and what a legend's handle and gaps take up.
_CHARACTERS_PER_INCH = 19.5
_HANDLE_CHARACTERS = 8
_MOST_LAYOUTS = 4
_FEW = 4  # masking ratios


@dataclass(frozen=True)
class Style:
    """How one series is drawn."""

    color: Any
    marker: str = "o"
    linestyle: str = "-"


def use_theme() -> None:
    """Set the shared seaborn theme for all figures drawn afterwards; type is 7–8 pt at printed size."""
    sizes = {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "figure.labelsize": 7}
    small = ("xtick.labelsize", "ytick.labelsize", "legend.fontsize", "legend.title_fontsize")
    lines = {"axes.linewidth": 0.6, "lines.linewidth": 1.1, "lines.markersize": 3.5, "grid.linewidth": 0.4}
    ticks = {f"{axis}tick.{kind}.{part}": size for axis in "xy" for kind, part, size in _TICKS}
    spines = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "0.92"}
    rc = sizes | dict.fromkeys(small, 7) | lines | ticks | spines | {"legend.frameon": False}
    sns.set_theme(context="paper", style="ticks", palette="colorblind", rc=rc)


_TICKS = (("major", "width", 0.6), ("major", "size", 3.0), ("minor", "width", 0.4), ("minor", "size", 1.5))


def summarise(table: pd.DataFrame, by: str | Sequence[str], value: str) -> pd.DataFrame:
    """Mean over seeds with a two-sided 95 % Student t interval.

    Args:
        table: one row for each seed and each combination of ``by``; missing values are left out.
        by: the column(s) that name a point of the figure.
        value: the column to summarise.

    Returns:
        A row for each combination, sorted: columns ``by``, ``mean``, ``low``, ``high``, ``n``. One seed alone has
        no interval: ``low`` and ``high`` are NaN.

    Raises:
        ValueError: a seed has several rows in one combination, which would pass for independent replicates.
    """
    keys = [by] if isinstance(by, str) else list(by)
    kept = table.dropna(subset=[value])
    if kept.duplicated([*keys, "seed"]).any():
        raise ValueError(f"several rows of one seed share {keys}: select or average them before summarising {value}")
    summary = kept.groupby(keys)[value].agg(mean="mean", sem="sem", n="count").reset_index()
    half = summary.pop("sem") * stats.t.ppf((1 + CONFIDENCE) / 2, summary["n"] - 1)
    return summary.assign(low=summary["mean"] - half, high=summary["mean"] + half)[[*keys, "mean", "low", "high", "n"]]


def draw_series(
    axes: Axes,
    table: pd.DataFrame,
    x: str,
    value: str,
    style: Style,
    label: str,
    *,
    interval: Literal["bars", "band"] = "bars",
) -> None:
    """Draw ``value`` against ``x``: seeds as light points, their mean as a line, the 95 % t interval."""
    summary = summarise(table, x, value)
    axes.scatter(table[x], table[value], s=3, color=[style.color], alpha=0.3, linewidths=0, zorder=1.5)
    marker = style.marker if interval == "bars" else ""
    axes.plot(summary[x], summary["mean"], color=style.color, marker=marker, linestyle=style.linestyle, label=label)
    several = summary.dropna(subset=["low", "high"])
    if several.empty:
        return
    if interval == "band":
        axes.fill_between(several[x], several["low"], several["high"], color=style.color, alpha=0.25, linewidth=0)
    else:
        axes.vlines(several[x], several["low"], several["high"], color=style.color, linewidth=0.9)


def panels(
    rows: int,
    columns: int,
    *,
    height: float = 1.9,
    sharex: bool | Literal["none", "all", "row", "col"] = True,
    sharey: bool | Literal["none", "all", "row", "col"] = True,
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of axes, object array (rows, columns): column width for one column, else double.

    ``height`` is that of a row in inches. The figure does not belong to pyplot, so it is freed when dropped.
    """
    width = COLUMN_WIDTH if columns == 1 else DOUBLE_WIDTH
    figure = Figure(figsize=(width, rows * height + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, axes


def label_outer(axes: np.ndarray, xlabel: str, ylabel: str | Sequence[str]) -> None:
    """Label the bottom row and the left column of a grid of axes; ``ylabel`` may differ by row."""
    ylabels = [ylabel] * len(axes) if isinstance(ylabel, str) else ylabel
    for axis in axes[-1]:
        axis.set_xlabel(xlabel)
    for axis, text in zip(axes[:, 0], ylabels, strict=True):
        axis.set_ylabel(text)


def legend_above(figure: Figure, axes: Iterable[Axes], title: str | None = None, *, order: Sequence[str] = ()) -> None:
    """One legend above the panels with each label once, in as many columns as fit; those of ``order`` come first."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    entries = {label: entries[label] for label in dict.fromkeys([*order, *entries]) if label in entries}
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper left",
        ncols=_legend_columns(list(entries), figure.get_figwidth() * _CHARACTERS_PER_INCH),
        title=title,
        alignment="left",
        columnspacing=1.2,
        handlelength=2.2,
    )


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """One row of the legend if it fits into ``width`` characters, else rows of equal length."""
    widths = [len(label) + _HANDLE_CHARACTERS for label in labels]
    if sum(widths) <= width:
        return len(labels)
    rows = -(-len(labels) // max(1, int(width / max(widths))))
    return -(-len(labels) // rows)


def note(figure: Figure, *facts: str) -> None:
    """Write facts (data set, n, what the marks are) as a small line below the panels."""
    width = int(figure.get_figwidth() * _CHARACTERS_PER_INCH)
    text = textwrap.fill("; ".join(facts) + ".", width)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7, color="0.3")


def state_n(table: pd.DataFrame, by: Sequence[str], value: str, *, unit: str = "group", interval: str = "bars") -> str:
    """The number of seeds behind each mean, and what the marks are, for :func:`note`."""
    counts = table[table[value].notna()].groupby(list(by))["seed"].nunique().tolist()
    high = max(counts, default=0)
    points = "jackknife pseudo-values" if unit == "group" else f"{unit}s"
    marks = "no interval" if high <= 1 else f"points: {points}, {interval}: 95 % t interval"
    return f"{count_n(counts, unit)} ({marks})"


def count_n(counts: Sequence[int], unit: str = "seed") -> str:
    """How many seeds there are, of configurations that have not all as many: n = 2–5 seeds."""
    low, high = min(counts, default=0), max(counts, default=0)
    number = f"{low}" if low == high else f"{low}–{high}"
    of_what = " of images left out" if unit == "group" else ""
    return f"n = {number} {unit}{'' if high == 1 else 's'}{of_what}"


def method_label(method: str, noise_std: float = 0.0, mask_ratio: float = 0.0) -> str:
    """Name of a method in legends: AE, DAE σ = 0.2, MAE m = 0.75."""
    if method == "dae":
        return f"DAE σ = {noise_std:.2g}"
    return f"MAE m = {mask_ratio:.2g}" if method == "mae" else method.upper()


def method_style(method: str, mask_ratio: float = 0.0) -> Style:
    """Style of a method, the same in every figure."""
    if method == "ae":
        return Style("black", "s", "--")
    return Style(PALETTE[3], "D", "-.") if method == "dae" else Style(RATIO_COLORMAP(float(mask_ratio)))


def iterate_methods(table: pd.DataFrame) -> Iterator[tuple[str, Style, pd.DataFrame]]:
    """Label, style and rows of each method in the order AE, DAE, MAE by ratio."""
    for (method, noise_std, ratio), rows in table.groupby(["method", "noise_std", "mask_ratio"]):
        yield method_label(str(method), noise_std, ratio), method_style(str(method), ratio), rows


def sequence_styles(values: Iterable[Any], colormap: str) -> dict[Any, Style]:
    """Ordered values in steps of a perceptually uniform map, each with a marker of its own."""
    ordered = sorted(set(values))
    shades = np.linspace(0.1, 0.78, len(ordered)) if len(ordered) > 1 else [0.4]
    cmap = mpl.colormaps[colormap]
    return {
        v: Style(cmap(shade), MARKERS[i % len(MARKERS)])
        for i, (v, shade) in enumerate(zip(ordered, shades, strict=True))
    }


def patch_styles(table: pd.DataFrame) -> dict[int, Style]:
    """Style of each patch size of a table: steps of seaborn's ``flare``."""
    return sequence_styles(table["patch_size"].unique().tolist(), "flare_r")


def category_styles(names: Sequence[str]) -> dict[str, Style]:
    """Style of each name: colour-blind-safe colours, with markers and line styles beside them."""
    return {
        name: Style(PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)], LINESTYLES[i % len(LINESTYLES)])
        for i, name in enumerate(names)
    }


def representative(values: Iterable[float], count: int = 3) -> list[float]:
    """At most ``count`` of the distinct values, evenly spread in rank with both ends kept."""
    ordered = sorted(set(values))
    places = np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int))
    return [ordered[i] for i in places]


def few_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """AE and DAE with the MAE at a few representative masking ratios, where all would crowd a panel."""
    is_mae = table["method"] == "mae"
    return table[~is_mae | table["mask_ratio"].isin(representative(table.loc[is_mae, "mask_ratio"], _FEW))]


def middle(values: Iterable[Any]) -> Any:
    """The upper median of the distinct values: the cell shown where a figure has no room for all."""
    ordered = sorted(set(values))
    return ordered[len(ordered) // 2]


def log2_axis(axis: Any, values: Iterable[float]) -> None:
    """Make a matplotlib axis (``axes.xaxis``) logarithmic with plain numbers at ``values`` alone."""
    axis.axes.set_xscale("log", base=2) if axis.axis_name == "x" else axis.axes.set_yscale("log", base=2)
    plain_ticks(axis, values)


def plain_ticks(axis: Any, values: Iterable[float]) -> None:
    """Ticks at ``values`` alone, as plain numbers."""
    axis.set_major_locator(FixedLocator(sorted(set(values))))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def settle(figure: Figure) -> None:
    """Lay out a figure until nothing moves any more, and leave it so.

    A layout that narrows panels can change their ticks, and the room that the labels of these take.
    """
    before: list[tuple[float, ...]] = []
    for _ in range(_MOST_LAYOUTS):
        figure.draw_without_rendering()
        places = [axes.get_position().bounds for axes in figure.axes]
        if before and np.allclose(places, before):
            break
        before = places
    figure.set_layout_engine("none")


def save(figure: Figure, path_stem: Path | str) -> Path:
    """Write ``<path_stem>.svg``, made small, and ``<path_stem>.png`` (200 dpi), each atomically.

    The same figure gives the same bytes: identifiers in the SVG come from a fixed salt, neither file is dated,
    and text is drawn as paths so that it looks alike without the fonts.

    Returns:
        The path of the PNG.
    """
    settle(figure)
    stem = Path(path_stem)
    written = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
    with mpl.rc_context({"svg.hashsalt": "spatialmae", "svg.fonttype": "path"}):
        for path in written:
            undated = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=200, metadata=undated)
                if path.suffix == ".svg":
                    temporary.write_text(compact(temporary.read_text(encoding="utf-8")), encoding="utf-8")
    return written[-1]
