"""Figure of the linear theory: what the optimum leaves unexplained."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from spatialmae.figures import theme
from spatialmae.figures.declaration import declare

SECTION = "Linear MAE, and the images"
NOTEBOOK = "sweep"


@declare(
    tables=["linear_sweep"],
    caption="Expected loss of the best linear MAE, as a fraction of the variance ({subject}). {units}",
    alt="Expected loss fraction against masking ratio by patch size and rank, {subject}.",
)
def sweep(table: pd.DataFrame, subject: str) -> Figure:
    """Expected loss at the optimum over total variance, against masking ratio, by patch size and rank.

    Args:
        table: ``sweep``: seed, mask_ratio, patch_size, n_components (−1: full rank), loss_fraction.
        subject: name of the data set.
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
    theme.note(figure, subject, theme.state_n(table, keys, "loss_fraction"))
    return figure
