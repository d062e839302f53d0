"""Figures of the probes on linear features (claims A7, A8 and classification)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spatialmae.figures import theme
from spatialmae.figures.declaration import declare

SECTION = "Linear MAE, and the images"
NOTEBOOK = "probes"

_KEYS = ["method", "noise_std", "mask_ratio", "patch_size", "n_components"]


@declare(
    tables=["probe_gabor"],
    caption="R² of predicting Gabor responses from k features, by width of the filter ({subject}; claims A7). {units}",
    alt="R² of Gabor responses against envelope width by method, {subject}.",
)
def probe_gabor(table: pd.DataFrame, subject: str) -> Figure:
    """R² of predicted Gabor responses against the width of the filter's envelope, by method.

    A row of panels for each rank, a column for each patch size the MAE was trained with.

    Args:
        table: ``probe_gabor``: seed, method, noise_std, mask_ratio, patch_size, n_components, sigma (px), r2.
        subject: name of the data set.
    """
    ranks, patches = (sorted(table[key].unique()) for key in ("n_components", "patch_size"))
    shown = theme.few_ratios(table)
    figure, axes = theme.panels(len(ranks), len(patches), height=1.6)
    for (rank, patch_size), rows in shown.groupby(["n_components", "patch_size"]):
        axis = axes[ranks.index(rank), patches.index(patch_size)]
        axis.set_title(f"patch {patch_size} px, k = {rank}")
        for label, style, points in theme.iterate_methods(rows):
            theme.draw_series(axis, points, "sigma", "r2", style, label)
        theme.log2_axis(axis.xaxis, table["sigma"])
    theme.label_outer(axes, "Gabor envelope σ (px)", "R² of the response")
    theme.legend_above(figure, axes.flat)
    theme.note(figure, subject, theme.state_n(shown, [*_KEYS, "sigma"], "r2"))
    return figure


@declare(
    tables=["probe_depth"],
    caption="R² of predicting depth from k features ({subject}; claims A8). {units}",
    alt="R² of depth against number of features by method, {subject}.",
)
def probe_depth(table: pd.DataFrame, subject: str) -> Figure:
    """R² of predicted depth against the number of linear features, by method; a panel for each patch size.

    Args:
        table: ``probe_depth``: seed, method, noise_std, mask_ratio, patch_size, n_components, r2.
        subject: name of the data set.
    """
    patches = sorted(table["patch_size"].unique())
    shown = theme.few_ratios(table)
    figure, axes = theme.panels(1, len(patches), height=2.0)
    _draw_against_rank(axes[0], shown, "r2")
    for axis, patch_size in zip(axes[0], patches, strict=True):
        axis.set_title(f"patch {patch_size} px")
    theme.label_outer(axes, "number of features k", "R² of depth")
    theme.legend_above(figure, axes.flat)
    theme.note(figure, subject, theme.state_n(shown, _KEYS, "r2"))
    return figure


@declare(
    tables=["probe_class"],
    papers="both",
    caption="Accuracy of a ridge classifier on k features ({subject}; no claim of the papers). {units}",
    alt="Accuracy against number of features by method, {subject}.",
)
def probe_class(table: pd.DataFrame, subject: str) -> Figure:
    """Test accuracy of a linear classifier against the number of linear features, by method, beside chance.

    A row of panels for each target, a column for each patch size.

    Args:
        table: ``probe_class``: seed, method, noise_std, mask_ratio, patch_size, n_components, target, accuracy
            and chance (fractions).
        subject: name of the data set.
    """
    targets, patches = (sorted(table[key].unique()) for key in ("target", "patch_size"))
    shown = theme.few_ratios(table)
    figure, axes = theme.panels(len(targets), len(patches), height=1.8, sharey="row")
    for line, target in zip(axes, targets, strict=True):
        rows = shown[shown["target"] == target]
        _draw_against_rank(line, rows, "accuracy")
        for axis, patch_size in zip(line, patches, strict=True):
            axis.set_title(f"{target}, patch {patch_size} px")
            axis.axhline(rows["chance"].mean(), color=theme.GREY, linestyle=":", linewidth=0.9, label="chance")
    theme.label_outer(axes, "number of features k", "accuracy (fraction)")
    theme.legend_above(figure, axes.flat)
    theme.note(figure, subject, theme.state_n(shown, [*_KEYS, "target"], "accuracy"))
    return figure


def _draw_against_rank(axes: np.ndarray, table: pd.DataFrame, value: str) -> None:
    """One axes for each patch size, in order."""
    for axis, (_, rows) in zip(axes, table.groupby("patch_size"), strict=True):
        for label, style, points in theme.iterate_methods(rows):
            theme.draw_series(axis, points, "n_components", value, style, label)
        theme.log2_axis(axis.xaxis, table["n_components"])
