"""The claims ledger as a forest plot."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatialmae.figures import theme
from spatialmae.figures.declaration import declare

SECTION = "All verdicts"
NOTEBOOK = "claims"

VERDICT_STYLES = {
    "REPLICATED": theme.Style(theme.PALETTE[2], "o"),
    "CONTRADICTED": theme.Style(theme.PALETTE[3], "X"),
    "NULL": theme.Style(theme.PALETTE[0], "s"),
    "INCONCLUSIVE": theme.Style(theme.GREY, "D"),
    "SUGGESTIVE": theme.Style(theme.PALETTE[1], "^"),
    "INVALID": theme.Style("black", "P"),
}
"""Colour and marker of each verdict; SUGGESTIVE covers (+), (−) and (0)."""
_NOT_TESTED = "NOT_TESTED"

# Columns of the figure in inches from its left edge, and the height of a row.
_STATEMENT, _AXES, _VERDICT = 0.42, 3.2, 5.45
_ROW, _TOP, _BOTTOM, _NOTE_LINE = 0.37, 0.1, 0.45, 0.13
_STATEMENT_CHARACTERS = 52
_LINEAR_LIMIT = 10.0
_STRIPES = ("1.0", "0.96")


@declare(
    artifacts=["claims.csv", "tables/claims_detail.csv"],
    once=True,
    papers="both",
    caption="Verdicts of this configuration. Estimates in units of the smallest effect of interest, with their "
    "intervals; fidelity in brackets. The rules were fixed before the runs.",
    alt="Forest plot of the claims, with verdicts.",
)
def claims(claims: pd.DataFrame, detail: pd.DataFrame) -> Figure:
    """Each tested claim's estimate and interval in units of its smallest effect of interest.

    Colour, marker and word give the verdict. A claim decided by a tolerance or a margin has no smallest effect; its
    estimate is printed. Claims that were not tested are listed by id below.

    Args:
        claims: ``claims.csv``: id, statement, fidelity, estimate, ci_low, ci_high, n_seeds, verdict.
        detail: ``claims_detail``: id, dataset, unit, smallest_effect.
    """
    rows = claims.merge(detail[["id", "dataset", "unit", "smallest_effect"]], on="id", how="left", validate="1:1")
    untested = rows["verdict"].str.startswith(_NOT_TESTED)
    tested = rows[~untested].reset_index(drop=True)
    remark = _remark(rows.loc[untested, "id"])
    figure, axes = _canvas(len(tested), remark)
    for place, row in tested.iterrows():
        _draw_claim(axes, int(str(place)), row)
    _set_axis(axes, tested)
    return figure


def _canvas(n_rows: int, remark: str) -> tuple[Figure, Axes]:
    """Figure and axes with room for text at both sides; sizes are fixed, so no layout engine is used."""
    below = _BOTTOM + _NOTE_LINE * (remark.count("\n") + 1)
    height = _TOP + _ROW * max(n_rows, 1) + below
    figure = Figure(figsize=(theme.DOUBLE_WIDTH, height))
    box = (_AXES, below, _VERDICT - _AXES - 0.1, _ROW * max(n_rows, 1))
    axes = figure.add_axes((box[0] / theme.DOUBLE_WIDTH, box[1] / height, box[2] / theme.DOUBLE_WIDTH, box[3] / height))
    figure.text(0.05 / theme.DOUBLE_WIDTH, 0.05 / height, remark, va="bottom", fontsize=7, color="0.3")
    return figure, axes


def _remark(untested: pd.Series) -> str:
    facts = "Dotted: ± the smallest effect of interest; bars: the claim's interval."
    if len(untested):
        facts += f" Not tested here ({len(untested)}): {', '.join(untested)}."
    return textwrap.fill(facts, 128)


def _draw_claim(axes: Axes, place: int, row: pd.Series) -> None:
    style = next((s for name, s in VERDICT_STYLES.items() if row["verdict"].startswith(name)), theme.Style("black"))
    if place % 2:
        axes.axhspan(place - 0.5, place + 0.5, xmin=-5, xmax=5, color=_STRIPES[1], clip_on=False, zorder=0, linewidth=0)
    _write(axes, 0.05, place, row["id"], weight="bold")
    statement = textwrap.wrap(row["statement"], _STATEMENT_CHARACTERS, max_lines=3, placeholder=" …")
    _write(axes, _STATEMENT, place, "\n".join(statement))
    about = f"{row['dataset']} ({row['fidelity']}), n = {row['n_seeds']:.0f}"
    _write(axes, _VERDICT, place - 0.2, row["verdict"], color=style.color, weight="bold")
    _write(axes, _VERDICT, place + 0.2, about)
    _draw_estimate(axes, place, row, style)


def _draw_estimate(axes: Axes, place: int, row: pd.Series, style: theme.Style) -> None:
    estimate, low, high = (row[name] for name in ("estimate", "ci_low", "ci_high"))
    scale = row["smallest_effect"]
    if np.isnan(estimate) or np.isnan(scale):
        box = {"facecolor": _STRIPES[place % 2], "edgecolor": "none", "pad": 1.0}
        text = "no estimate" if np.isnan(estimate) else f"{_in_words(estimate, low, high)}\n{_unit(row)}".strip()
        middle = axes.get_yaxis_transform()
        axes.text(0.5, place, text, transform=middle, ha="center", va="center", fontsize=7, bbox=box)
        return
    axes.hlines(place, low / scale, high / scale, color=style.color, linewidth=1.3)
    axes.plot(estimate / scale, place, color=style.color, marker=style.marker, markersize=5, linestyle="")


def _in_words(estimate: float, low: float, high: float) -> str:
    return f"{estimate:.2g}, no interval" if np.isnan(low) else f"{estimate:.2g} [{low:.2g}, {high:.2g}]"


def _unit(row: pd.Series) -> str:
    return row["unit"] if isinstance(row["unit"], str) else ""


def _write(axes: Axes, inches: float, place: float, text: str, **style: Any) -> None:
    """Text at a distance from the figure's left edge, level with a row."""
    width = _VERDICT - _AXES - 0.1
    x = (inches - _AXES) / width
    axes.text(x, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7, **style)


def _set_axis(axes: Axes, tested: pd.DataFrame) -> None:
    """Linear in the neighbourhood of the smallest effect, logarithmic beyond where estimates lie far out."""
    axes.set_ylim(max(len(tested), 1) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    reach = tested[["estimate", "ci_low", "ci_high"]].div(tested["smallest_effect"], axis=0).abs().max().max()
    reach = 1.0 if np.isnan(reach) else float(reach)
    limit = max(2.0, 1.15 * reach)
    if limit > _LINEAR_LIMIT:
        axes.set_xscale("symlog", linthresh=2)
        decades = 10.0 ** np.arange(1 + int(np.log10(limit)))
        theme.plain_ticks(axes.xaxis, [*-decades, 0, *decades])
    axes.set_xlim(-limit, limit)
    axes.set_xlabel("estimate / smallest effect of interest")
    axes.axvline(0, color="black", linewidth=0.6)
    for edge in (-1, 1):
        axes.axvline(edge, color=theme.GREY, linestyle=":", linewidth=0.9)
