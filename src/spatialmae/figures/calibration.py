"""Figures of the recommender's calibration: the grids that were measured, and what following a rule costs on them."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatialmae.figures import theme
from spatialmae.figures.declaration import declare
from spatialmae.figures.setting_grid import draw_grid, frame
from spatialmae.recommend.rules import BASELINES, LEAST_RANGE, default_position, mean_interval, setting_of

SECTION = "Recommender"
NOTEBOOK = "calibration"

_COLUMNS = 3
_LABELS = {"rule": "rule", "default": "MAE's own", "fixed": "fixed, best on others", "random": "random"}


@declare(
    tables=["calibration/cells", "calibration/held_out"],
    once=True,
    papers="both",
    caption="Which setting does a linear probe prefer on each data set? Accuracy on test images over patch size and "
    "masking ratio; framed: what the recommender's rule picked, chosen on the other data sets, and MAE's own setting "
    "(no claim).",
    alt="Accuracy over patch size and masking ratio by data set.",
)
def calibration_grids(cells: pd.DataFrame, held_out: pd.DataFrame) -> Figure:
    """Accuracy of the linear probe over patch size and masking ratio, a panel for each data set.

    Args:
        cells: ``calibration/cells``: dataset, patch_size, mask_ratio, image_size, accuracy, n_seeds.
        held_out: ``calibration/held_out``: dataset, patch_size and mask_ratio of the pick; none of uninformative sets.
    """
    datasets = list(dict.fromkeys(cells["dataset"]))
    rows = -(-len(datasets) // _COLUMNS)
    figure, axes = theme.panels(rows, _COLUMNS, height=1.35, sharex=False, sharey=False)
    for axis, dataset in zip(axes.flat, datasets, strict=False):
        own = cells[cells["dataset"] == dataset].reset_index(drop=True)
        _draw_grid(axis, own, held_out[held_out["dataset"] == dataset])
    for axis in axes.flat[len(datasets) :]:
        axis.set_axis_off()
    # Of an incomplete last row the panels above its gap are the lowest of their columns.
    for place, axis in enumerate(axes.flat[: len(datasets)]):
        axis.set(xlabel="masking ratio", ylabel="patch (px)" if place % _COLUMNS == 0 else "")
    seeds = cells["n_seeds"]
    theme.note(
        figure,
        "accuracy in %, test images, mean over labels and "
        + (f"{seeds.min()} seeds" if seeds.min() == seeds.max() else f"{seeds.min()}–{seeds.max()} seeds"),
        "solid frame: the rule's pick, chosen on the other sets; dashed: MAE's own setting",
        f"pale titles: validation accuracies differ by less than {100 * LEAST_RANGE:g} points, which says nothing",
    )
    return figure


def _draw_grid(axis: Axes, own: pd.DataFrame, pick: pd.DataFrame) -> None:
    table = draw_grid(axis, own.assign(accuracy=100 * own["accuracy"]), "accuracy", ".0f")
    color = "black" if len(pick) else theme.GREY
    axis.set_title(f"{own['dataset'].iloc[0]} ({own['image_size'].iloc[0]} px)", loc="left", color=color)
    frame(axis, table, setting_of(own.iloc[default_position(own)]), linestyle="--")
    for _, row in pick.iterrows():
        frame(axis, table, setting_of(row))


@declare(
    tables=["calibration/held_out"],
    once=True,
    papers="both",
    caption="Is the recommender worth following? Accuracy lost against the best setting of each grid, by the rule, by "
    "MAE's own setting, by the fixed one that was best on the other data sets, and at random; right: rank correlation "
    "of the rule's score with accuracy. Points are data sets, each left out once, bars their mean and two-sided 95 % "
    "t interval (no claim).",
    alt="Accuracy lost by the rule and by fixed settings.",
)
def calibration_regrets(held_out: pd.DataFrame) -> Figure:
    """Accuracy lost by following the rule, and by settings that ask no images; a point for each data set.

    Args:
        held_out: ``calibration/held_out``: dataset, rho, regret, regret_default, regret_fixed, regret_random.
    """
    figure, axes = theme.panels(1, 2, height=2.3, sharex=False, sharey=False)
    styles = theme.category_styles(list(held_out["dataset"]))
    columns = {"rule": "regret"} | {baseline: f"regret_{baseline}" for baseline in BASELINES}
    for row in held_out.to_dict("records"):
        style = styles[row["dataset"]]
        lost = [100 * row[column] for column in columns.values()]
        look = {"color": style.color, "marker": style.marker, "linewidth": 0.6, "alpha": 0.8}
        axes[0, 0].plot(range(len(columns)), lost, label=row["dataset"], **look)
        axes[0, 1].plot([0], [row["rho"]], linestyle="", **(look | {"alpha": 0.8}))
    for place, column in enumerate(columns.values()):
        _draw_interval(axes[0, 0], place, held_out[column] * 100)
    _draw_interval(axes[0, 1], 0, held_out["rho"])
    axes[0, 0].set_xticks(range(len(columns)), [_LABELS[name].replace(", ", ",\n") for name in columns])
    axes[0, 0].set(xlabel="setting that is followed", ylabel="accuracy lost (points)")
    axes[0, 1].axhline(0, color=theme.GREY, linewidth=0.8, linestyle=":")
    axes[0, 1].set(
        xlim=(-0.6, 0.6), ylim=(-1.05, 1.05), xlabel="score of the rule", ylabel="rank correlation\nwith accuracy"
    )
    axes[0, 1].set_xticks([])
    if len(held_out):
        theme.legend_above(figure, axes.flat)
    theme.note(figure, f"n = {len(held_out)} data sets, each left out once; black: mean and 95 % t interval over them")
    return figure


def _draw_interval(axis: Axes, place: int, values: pd.Series) -> None:
    mean, low, high = mean_interval(values.to_numpy(dtype=float))
    axis.plot([place + 0.15], [mean], color="black", marker="_", markersize=8)
    axis.vlines([place + 0.15], low, high, color="black", linewidth=1.2)
