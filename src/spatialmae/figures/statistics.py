"""Figures of the spatial statistics of the data sets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spatialmae.figures import theme
from spatialmae.figures.declaration import declare

SECTION = "Linear MAE, and the images"
NOTEBOOK = "statistics"


@declare(
    tables=["statistics"],
    once=True,
    papers="both",
    caption="Correlation between pixels against their distance; the correlation length is where it crosses 1/e. "
    "{units}",
    alt="Correlation between pixels against their distance, by data set.",
)
def correlation(table: pd.DataFrame) -> Figure:
    """Correlation between pixels against their distance, a line for each data set, with 1/e marked.

    Args:
        table: ``statistics`` of all data sets: dataset, seed, statistic, position (px), value.
    """
    chosen = table[table["statistic"] == "correlation"]
    figure, axes = theme.panels(1, 1, height=2.4)
    axis = axes[0, 0]
    for name, style, rows in _by_dataset(chosen):
        theme.draw_series(axis, rows, "position", "value", style, name, interval="band")
    axis.axhline(np.exp(-1), color=theme.GREY, linestyle=":", linewidth=0.8, label="1/e")
    axis.axhline(0, color=theme.GREY, linewidth=0.5)
    theme.label_outer(axes, "distance (px)", "correlation")
    theme.legend_above(figure, axes.flat)
    theme.note(figure, _state_n(chosen))
    return figure


@declare(
    tables=["statistics", "statistics_summary"],
    once=True,
    papers="both",
    caption="Radially averaged power spectra with their exponents. {units}",
    alt="Radial power spectrum, log-log, by data set.",
)
def power_spectrum(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Radially averaged power spectrum, log–log, with the fitted exponent of each data set in the legend.

    Args:
        table: ``statistics`` of all data sets: dataset, seed, statistic, position (cycles/px), value.
        summary: ``statistics_summary``: dataset, seed, spectrum_exponent, spectrum_r2.
    """
    # Frequency zero is the mean brightness and has no place on a logarithmic axis.
    chosen = table[(table["statistic"] == "power") & (table["position"] > 0) & (table["value"] > 0)]
    exponents = theme.summarise(summary, "dataset", "spectrum_exponent").set_index("dataset")
    figure, axes = theme.panels(1, 1, height=2.6)
    axis = axes[0, 0]
    for name, style, rows in _by_dataset(chosen):
        label = f"{name}: {_estimate(exponents.loc[name])}"
        theme.draw_series(axis, rows, "position", "value", style, label, interval="band")
    axis.set(xscale="log", yscale="log")
    theme.plain_ticks(axis.xaxis, [0.02, 0.05, 0.1, 0.2, 0.5])
    theme.label_outer(axes, "spatial frequency (cycles/px)", "power (luminance²)")
    theme.legend_above(figure, axes.flat, "fitted exponent ± half of its 95 % interval")
    theme.note(figure, _state_n(chosen))
    return figure


@declare(
    tables=["statistics_summary"],
    once=True,
    papers="both",
    caption="Correlation lengths of the data sets. {units}",
    alt="Correlation length by data set.",
)
def correlation_length(summary: pd.DataFrame) -> Figure:
    """Distance at which the correlation falls to 1/e, a row for each data set.

    Args:
        summary: ``statistics_summary`` of all data sets: dataset, seed, correlation_length (px).
    """
    names = list(dict.fromkeys(summary["dataset"]))
    figure, axes = theme.panels(1, 1, height=0.3 + 0.24 * len(names))
    axis = axes[0, 0]
    for place, (_, style, rows) in enumerate(_by_dataset(summary)):
        values = rows["correlation_length"]
        point = theme.summarise(rows, "dataset", "correlation_length")
        if point.empty:
            axis.annotate(" stays above 1/e in the image", (0, place), va="center", fontsize=7, color=theme.GREY)
            continue
        axis.scatter(values, [place] * len(values), s=6, color=[style.color], alpha=0.35, linewidths=0)
        axis.hlines(place, point["low"], point["high"], color=style.color, linewidth=1.2)
        axis.plot(point["mean"], [place], color=style.color, marker=style.marker, markersize=4.5)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(left=0)
    theme.label_outer(axes, "correlation length (px)", "data set")
    theme.note(figure, theme.state_n(summary, ["dataset"], "correlation_length"))
    return figure


def _by_dataset(table: pd.DataFrame) -> Iterator[tuple[str, theme.Style, pd.DataFrame]]:
    names = list(dict.fromkeys(table["dataset"]))
    for name, style in theme.category_styles(names).items():
        yield name, style, table[table["dataset"] == name]


def _state_n(table: pd.DataFrame) -> str:
    return theme.state_n(table, ["dataset", "position"], "value", interval="bands")


def _estimate(summary: pd.Series) -> str:
    half = summary["high"] - summary["mean"]
    return f"{summary['mean']:.2f}" + ("" if np.isnan(half) else f" ± {half:.2f}")
