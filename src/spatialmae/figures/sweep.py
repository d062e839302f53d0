"""Figures of the linear theory: its agreement with independent answers, and what the optimum leaves unexplained."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from spatialmae.figures import theme


def loss_fraction(table: pd.DataFrame, dataset: str) -> Figure:
    """Expected loss at the optimum over total variance, against masking ratio, by patch size and rank.

    Args:
        table: ``sweep``: seed, mask_ratio, patch_size, n_components (−1: full rank), loss_fraction.
        dataset: name of the data set.
    """
    # Full rank is stored as −1 and belongs after the largest rank.
    ranks = sorted(table["n_components"].unique(), key=lambda k: (k < 0, k))
    columns = min(len(ranks), 4)
    figure, axes = theme.panels(-(-len(ranks) // columns), columns)
    styles = theme.patch_styles(table)
    for axis, rank in zip(axes.flat, ranks, strict=False):
        axis.set_title("full rank" if rank < 0 else f"rank k = {rank}")
        for patch_size, rows in table[table["n_components"] == rank].groupby("patch_size"):
            style = styles[int(patch_size)]
            theme.draw_series(axis, rows, "mask_ratio", "loss_fraction", style, f"{patch_size} px")
    for axis in axes.flat[len(ranks) :]:
        axis.set_visible(False)
    theme.label_outer(axes, "mask ratio m", "expected loss / tr S")
    theme.legend_above(figure, axes.flat, "patch size")
    keys = ["mask_ratio", "patch_size", "n_components"]
    theme.note(figure, dataset, theme.state_n(table, keys, "loss_fraction"))
    return figure


def closed_form_errors(table: pd.DataFrame, dataset: str) -> Figure:
    """Relative error of the closed form in each check, beside its negative control (claim A1).

    Every seed is a point; the marker is the largest, because an equality has to hold for each of them.

    Args:
        table: ``theory``: seed, check, role ("claim" or "control"), relative_error.
        dataset: name of the data set.
    """
    shown = table.assign(error=table["relative_error"].clip(lower=_SMALLEST_ERROR))
    checks = sorted(shown["check"].unique())
    figure, axes = theme.panels(1, 1, height=0.5 + 0.3 * len(checks))
    axis = axes[0, 0]
    for role, label, style in _ROLES:
        rows = shown[shown["role"] == role]
        axis.scatter(rows["error"], rows["check"].map(checks.index), s=6, color=[style.color], alpha=0.35, linewidths=0)
        largest = rows.groupby("check")["error"].max()
        places = [checks.index(name) for name in largest.index]
        axis.plot(largest, places, color=style.color, marker=style.marker, linestyle="", markersize=5, label=label)
    axis.set(xscale="log", ylim=(len(checks) - 0.5, -0.5))
    axis.set_yticks(range(len(checks)), [name.replace("_", " ") for name in checks])
    theme.label_outer(axes, "relative error", "compared with")
    theme.legend_above(figure, axes.flat)
    theme.note(figure, dataset, f"n = {shown['seed'].nunique()} parts of the data (markers: the largest)", _FLOOR)
    return figure


_ROLES = (
    ("claim", "closed form", theme.Style(theme.PALETTE[0])),
    ("control", "negative control", theme.Style(theme.PALETTE[3], "X")),
)
# Exact agreement is drawn at a floor: zero has no place on a logarithmic axis.
_SMALLEST_ERROR = 1e-17
_FLOOR = "errors below 1e−17 drawn there"
