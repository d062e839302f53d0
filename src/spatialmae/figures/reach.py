"""Figures of the reach of the Jacobian AB (claims A4, A5, A6)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatialmae.figures import theme
from spatialmae.figures.declaration import declare

SECTION = "Linear MAE, and the images"
NOTEBOOK = "reach"

_KEYS = ["method", "noise_std", "mask_ratio", "patch_size", "n_components"]
_RADII = {
    "rms_radius_abs": ("rms radius, weights |J|", "rms_radius_uniform"),
    "rms_radius_squared": ("rms radius, weights J²", "rms_radius_uniform"),
    "median_radius": ("median radius, weights |J|", "median_radius_uniform"),
}
_SPREADS = {
    "entropy": ("entropy, all inputs\n(nats)", "entropy_uniform"),
    "entropy_outside": ("entropy, outside the patch\n(nats)", "entropy_outside_uniform"),
    "share_outside_abs": ("share of |J| outside\n(fraction)", "share_outside_uniform"),
    "share_outside_squared": ("share of J² outside\n(fraction)", "share_outside_uniform"),
}
_SAMPLING = theme.category_styles(["covariance by lag", "as many Gaussian images of it"])


@declare(
    tables=["reach"],
    caption="Does influence reach farther with a higher masking ratio? Radii of |J| and J² against the ratio, by patch "
    "size; the dotted line is the ceiling that the image's size sets ({subject}; claims A5, A6). {units}",
    alt="Radii of influence against masking ratio by patch size, {subject}.",
)
def reach_radii(table: pd.DataFrame, subject: str) -> Figure:
    """Rms radii (weights |J|, J²) and median radius against masking ratio, by patch size, at the largest rank.

    The AE is the MAE at ratio 0; dashes mark the DAE, dots the value of uniform weights (the ceiling).

    Args:
        table: ``reach``: seed, method, noise_std, mask_ratio, patch_size, n_components and the radii (px).
        subject: name of the data set.
    """
    rank = table["n_components"].max()
    chosen = table[table["n_components"] == rank]
    path = chosen[chosen["method"].isin(["ae", "mae"])]
    styles = theme.patch_styles(chosen)
    figure, axes = theme.panels(1, len(_RADII), height=2.2)
    for axis, (value, (title, ceiling)) in zip(axes[0], _RADII.items(), strict=True):
        axis.set_title(title)
        for patch_size, rows in path.groupby("patch_size"):
            style = styles[int(patch_size)]
            theme.draw_series(axis, rows, "mask_ratio", value, style, f"patch {patch_size} px")
        _draw_levels(axis, chosen, value, ceiling)
    theme.label_outer(axes, "mask ratio m (0: AE)", "radius (px)")
    theme.legend_above(figure, axes.flat)
    theme.note(figure, f"{subject}, k = {rank}", theme.state_n(path, _KEYS, "rms_radius_abs"))
    return figure


@declare(
    tables=["sampling_lags", "sampling_draws"],
    caption="Is the reach one of the images, or of noise? Rms radius of J² against the ratio, from covariances by lag, "
    "nearly free of noise, and from Gaussian images of that covariance, as many for each of their numbers as there "
    "are images ({subject}; claims A5, A6). {units} For Gaussian images points are draws.",
    alt="Reach with and without noise of second moments, {subject}.",
)
def reach_sampling(lags: pd.DataFrame, sampled: pd.DataFrame, subject: str) -> Figure:
    """Rms radius (weights J²) against masking ratio from a covariance with little noise, and from samples of it.

    Args:
        lags: ``sampling_lags``: seed, method, noise_std, mask_ratio, patch_size, n_components, rms_radius_squared (px).
        sampled: ``sampling_draws``: the same keys, the same radius from ``n_images`` Gaussian images.
        subject: name of the data set.
    """
    patches = sorted(lags["patch_size"].unique())
    figure, axes = theme.panels(1, len(patches), height=2.2)
    for axis, patch_size in zip(axes[0], patches, strict=True):
        axis.set_title(f"patch {patch_size} px")
        for table, (label, style) in zip((lags, sampled), _SAMPLING.items(), strict=True):
            rows = table[table["patch_size"] == patch_size]
            theme.draw_series(axis, rows, "mask_ratio", "rms_radius_squared", style, label)
    theme.label_outer(axes, "mask ratio m", "rms radius,\nweights J² (px)")
    theme.legend_above(figure, axes.flat)
    n = f"{sampled['n_images'].iloc[0]:,} Gaussian images a draw, n = {sampled['seed'].nunique()} draws"
    theme.note(
        figure,
        f"{subject} in grey, k = {lags['n_components'].max()}",
        theme.state_n(lags, _KEYS, "rms_radius_squared"),
        n,
    )
    return figure


@declare(
    tables=["reach_profile", "reach"],
    caption="How does influence decay with distance? Mean |J| over pixel pairs, with exponential fits over half the "
    "image's side ({subject}; claims A4). {units}",
    alt="Mean influence against distance with exponential fits, {subject}.",
)
def reach_decay(jacobian: pd.DataFrame, reach: pd.DataFrame, subject: str) -> Figure:
    """Mean |J| against distance with exponential fits, at the largest rank; a panel for each patch size.

    The largest quarter of distances, which few pairs of pixels have, is left out.

    Args:
        jacobian: ``jacobian``: seed, method, noise_std, mask_ratio, patch_size, n_components, distance (px),
            mean_abs (mean |J| over pixel pairs at that distance).
        reach: ``reach``: the same keys, decay_intercept log a and decay_rate 1/ℓ (1/px) of the fit a·exp(−r/ℓ).
        subject: name of the data set.
    """
    rank = jacobian["n_components"].max()
    near = jacobian["distance"] <= 0.75 * jacobian["distance"].max()
    shown = theme.few_ratios(jacobian[(jacobian["n_components"] == rank) & near])
    patches = sorted(shown["patch_size"].unique())
    figure, axes = theme.panels(1, len(patches), height=2.4)
    for axis, (patch_size, rows) in zip(axes[0], shown.groupby("patch_size"), strict=True):
        axis.set(title=f"patch {patch_size} px", yscale="log")
        for label, style, points in theme.iterate_methods(rows):
            theme.draw_series(axis, points, "distance", "mean_abs", style, label, interval="band")
    # The fits come last, on frozen limits: extrapolated, they would stretch the axis over empty decades.
    for axis, (_, rows) in zip(axes[0], shown.groupby("patch_size"), strict=True):
        axis.autoscale(False)
        _draw_fits(axis, rows.drop_duplicates([*_KEYS, "distance"])[[*_KEYS, "distance"]], reach)
    theme.label_outer(axes, "distance (px)", "mean |J|")
    theme.legend_above(figure, axes.flat)
    n = theme.state_n(shown, [*_KEYS, "distance"], "mean_abs", interval="bands")
    theme.note(figure, f"{subject}, k = {rank}", n, "dotted: exponential fits")
    return figure


@declare(
    tables=["reach"],
    caption="What does a larger patch do? Spatial entropy, and the share of influence from outside the output's patch, "
    "with their ceilings ({subject}; claims A6). {units}",
    alt="Entropy and share outside the patch against patch size, {subject}.",
)
def reach_spread(table: pd.DataFrame, subject: str) -> Figure:
    """Entropy over all inputs and outside the patch, and share outside, against patch size, at the largest rank.

    Dots mark the value of uniform weights (the ceiling).

    Args:
        table: ``reach``: seed, method, noise_std, mask_ratio, patch_size, n_components, entropies (nats), shares.
        subject: name of the data set.
    """
    rank = table["n_components"].max()
    shown = theme.few_ratios(table[table["n_components"] == rank])
    figure, axes = theme.panels(2, 2, height=1.9, sharey=False)
    for axis, (value, (label, ceiling)) in zip(axes.flat, _SPREADS.items(), strict=True):
        for name, style, rows in theme.iterate_methods(shown):
            theme.draw_series(axis, rows, "patch_size", value, style, name)
        uniform = shown.groupby("patch_size", as_index=False)[ceiling].mean()
        axis.plot(uniform["patch_size"], uniform[ceiling], color=theme.GREY, linestyle=":", label="uniform weights")
        axis.set_ylabel(label)
        theme.log2_axis(axis.xaxis, shown["patch_size"])
    for axis in axes[-1]:
        axis.set_xlabel("patch size (px)")
    theme.legend_above(figure, axes.flat)
    theme.note(figure, f"{subject}, k = {rank}", theme.state_n(shown, _KEYS, "entropy"))
    return figure


@declare(
    tables=["reach"],
    caption="Radii of influence against the rank k ({subject}; how far the choice of k matters). {units}",
    alt="Radii of influence against rank by method, {subject}.",
)
def reach_rank(table: pd.DataFrame, subject: str) -> Figure:
    """Rms radii (weights |J| above, J² below) against rank by method; a column for each patch size.

    Args:
        table: ``reach``: seed, method, noise_std, mask_ratio, patch_size, n_components and the radii (px).
        subject: name of the data set.
    """
    values = ["rms_radius_abs", "rms_radius_squared"]
    shown = theme.few_ratios(table)
    patches = sorted(shown["patch_size"].unique())
    figure, axes = theme.panels(2, len(patches), height=1.7)
    for line, value in zip(axes, values, strict=True):
        for axis, (patch_size, rows) in zip(line, shown.groupby("patch_size"), strict=True):
            for label, style, points in theme.iterate_methods(rows):
                theme.draw_series(axis, points, "n_components", value, style, label)
            axis.axhline(rows["rms_radius_uniform"].mean(), color=theme.GREY, linestyle=":", label="uniform weights")
            axis.set_title(f"patch {patch_size} px")
            theme.log2_axis(axis.xaxis, shown["n_components"])
    theme.label_outer(axes, "rank k", [f"{_RADII[value][0]}\n(px)".replace(", ", ",\n") for value in values])
    theme.legend_above(figure, axes.flat)
    theme.note(figure, subject, theme.state_n(shown, _KEYS, "rms_radius_abs"))
    return figure


def _draw_fits(axes: Axes, grid: pd.DataFrame, reach: pd.DataFrame) -> None:
    """The curves exp(log a − r/ℓ), with log a and 1/ℓ averaged over seeds: the fit is linear in both."""
    fits = reach.groupby(_KEYS, as_index=False)[["decay_rate", "decay_intercept"]].mean()
    for _, style, points in theme.iterate_methods(grid.merge(fits, on=_KEYS)):
        curve = np.exp(points["decay_intercept"] - points["distance"] * points["decay_rate"])
        axes.plot(points["distance"], curve, color=style.color, linestyle=":", linewidth=0.9)


def _draw_levels(axes: Axes, table: pd.DataFrame, value: str, ceiling: str) -> None:
    """Horizontal lines: the DAE, which has no masking ratio and no patch, and the ceiling."""
    first = table[table["patch_size"] == table["patch_size"].min()]
    for label, style, rows in theme.iterate_methods(first[first["method"] == "dae"]):
        level = theme.summarise(rows, "method", value).iloc[0]
        axes.axhline(level["mean"], color=style.color, linestyle=style.linestyle, label=label)
        if not np.isnan(level["low"]):
            axes.axhspan(level["low"], level["high"], color=style.color, alpha=0.2, linewidth=0)
    axes.axhline(table[ceiling].mean(), color=theme.GREY, linestyle=":", label="uniform weights")
