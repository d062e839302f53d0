"""Figure of the linear theory: its agreement with independent answers (claim A1)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from spatialmae.figures import theme
from spatialmae.figures.declaration import declare

SECTION = "Linear MAE, and the images"
NOTEBOOK = "sweep"


@declare(
    tables=["checks"],
    caption="Is the closed form right? Its relative distance from gradient descent, from PCA at ratio 0 and from "
    "random masks, each beside a negative control that must fail ({subject}; claims A1).",
    alt="Relative error of the closed form in each check, {subject}.",
)
def theory(table: pd.DataFrame, subject: str) -> Figure:
    """Relative error of the closed form in each check, beside its negative control (claim A1).

    Every seed is a point; the marker is the largest, because an equality has to hold for each of them.

    Args:
        table: ``theory``: seed, check, role ("claim" or "control"), relative_error.
        subject: name of the data set.
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
    theme.note(figure, subject, f"n = {shown['seed'].nunique()} parts of the data (markers: the largest)", _FLOOR)
    return figure


_ROLES = (
    ("claim", "closed form", theme.Style(theme.PALETTE[0])),
    ("control", "negative control", theme.Style(theme.PALETTE[3], "X")),
)
# Exact agreement is drawn at a floor: zero has no place on a logarithmic axis.
_SMALLEST_ERROR = 1e-17
_FLOOR = "errors below 1e−17 drawn there"
