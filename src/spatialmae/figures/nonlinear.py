"""Figures of trained models: their reach and its growth, their basis, and the linear bound (A5, A9–A11).

The tables hold every setting of the models; :mod:`spatialmae.figures.design` finds in them what models are drawn along.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy import stats

from spatialmae.figures import theme
from spatialmae.figures.declaration import declare
from spatialmae.figures.design import (
    ALONG,
    Comparison,
    Line,
    compare,
    compare_at_once,
    dot_style,
    draw_dots,
    draw_level,
    draw_reference,
    state_centre,
    state_seeds,
)
from spatialmae.figures.features import draw_tile
from spatialmae.figures.tiles import Pictures, draw_bar, label_row, tile_grid
from spatialmae.figures.training import HIDDEN

SECTION = "Non-linear MAE: analyses"
NOTEBOOK = "nonlinear"

SHOWN_RATIO = 0.75
"""Ratio of the evaluation masks, or the nearest there is, in figures of one ratio alone: what claims are judged at."""

_REACH = "rms_radius_squared"
_REACHES = {_REACH: "rms radius of J² (px)", "entropy": "entropy (nats)"}
_BASES = {
    "dispersion": ("Change from image to image", "dispersion (fraction)"),
    "object_log_ratio": ("Within objects / across borders", "log-ratio at equal distance"),
    "expansion_error": ("First-order expansion", "relative error"),
}
_COLUMNS = 3  # of panels
_N_EPOCHS = 6  # that are written at the axis, at most
_LINEAR = theme.Style("black", "", "--")
_LINEAR_LABEL = "best linear predictor"


@declare(
    tables=["jacobian_reach"],
    caption="How far do trained models reach? Rms radius of J² and spatial entropy against what the models differ in, "
    "the masking ratio that they were trained at, say; all models of a column see the same masks, since masks alone "
    "widen reach. Dashes: the best linear predictor under these masks; dots: networks before training ({subject}; "
    "claims A5.6, A5.7). {seeds}",
    alt="Rms radius and entropy of influence in trained models, {subject}.",
)
def nonlinear_reach(table: pd.DataFrame, subject: str) -> Figure:
    """Rms radius of J² and spatial entropy against what the models differ in; a column for each evaluation ratio.

    Of a cross each setting has a column, all at one evaluation ratio.

    Args:
        table: ``jacobian_reach``: seed, predictor, evaluation_mask_ratio, the measures, and of models every setting.
        subject: name of the evaluation.
    """
    compared = compare(table)
    ratios = sorted(table["evaluation_mask_ratio"].unique()) if len(compared) == 1 else [_nearest(table)]
    columns = list(itertools.product(ratios, compared))
    figure, axes = theme.panels(2, len(columns), height=1.6, sharex="col", sharey="row")
    theme.label_outer(axes, "", list(_REACHES.values()))
    for column, (ratio, comparison) in zip(axes.T, columns, strict=True):
        column[0].set_title(f"evaluated at {ratio:.2g}")
        column[-1].set_xlabel(comparison.label)
        for axis, value in zip(column, _REACHES, strict=True):
            _draw_models(axis, comparison, _at(table, ratio), value)
            comparison.set_axis(axis)
    theme.legend_above(figure, axes.flat)
    seeds = state_seeds(table[table["predictor"] == "trained"], "evaluation_mask_ratio", _REACH)
    masks = ["each column has masks of its own"] if len(compared) == 1 else state_centre(compared)
    theme.note(figure, subject, seeds, *masks)
    return figure


@declare(
    tables=["jacobian_profile"],
    caption="How does influence decay with distance in trained models? Mean |J| over pairs of pixels under masks of "
    "one ratio, hidden inputs counting as 0, beside the best linear predictor ({subject}; no claim). Points are "
    "training seeds, bands two-sided 95 % t intervals.",
    alt="Mean influence against distance in trained models, {subject}.",
)
def nonlinear_profile(table: pd.DataFrame, subject: str) -> Figure:
    """Mean |J| against distance by what the models differ in, and of the best linear predictor.

    Distances at which nothing is visible are left out, and the largest quarter, which few pairs of pixels have.

    Args:
        table: ``jacobian_profile``: seed, predictor, evaluation_mask_ratio, distance (px), mean_abs (mean |J| over
            pixel pairs at that distance, 0 from hidden inputs), and of models every setting.
        subject: name of the evaluation.
    """
    ratio = _nearest(table)
    near = table["distance"] <= 0.75 * table["distance"].max()
    shown = _at(table[near & (table["mean_abs"] > 0)], ratio)
    trained, linear = (shown[shown["predictor"] == kind] for kind in ("trained", "linear"))
    compared = compare(table)
    groups = _groups(compared, trained)
    figure, axes = _group_panels(len(groups), height=2.4)
    for axis, (title, points) in zip(axes.flat, groups, strict=False):
        axis.set(title=title, yscale="log")
        for point in points:
            theme.draw_series(axis, point.rows, "distance", "mean_abs", point.style, point.label, interval="band")
        theme.draw_series(axis, linear, "distance", "mean_abs", _LINEAR, _LINEAR_LABEL, interval="band")
    theme.label_outer(axes, "distance (px)", "mean |J|")
    theme.legend_above(figure, axes.flat)
    evaluated = f"{subject}, evaluated at ratio {ratio:.2g}{_trained_at(compared)}"
    seeds = state_seeds(trained, "distance", "mean_abs", interval="bands")
    theme.note(figure, evaluated, seeds, *state_centre(compared))
    return figure


@declare(
    tables=["jacobian_reach"],
    caption="Do theory and training agree? Reach of each model at the ratio it was trained at, against that of the "
    "best linear predictor under the same masks; on the line both are equal. Masks that hide more push influence "
    "outwards in any network, so untrained ones (crosses) are the control: a rank correlation no higher than theirs "
    "can be the masks' doing ({subject}; no claim).",
    alt="Reach of trained models against that of the best linear predictor, {subject}.",
)
def agreement(table: pd.DataFrame, subject: str) -> Figure:
    """Rms radius of J² of each model at its own ratio against that of the best linear predictor under the same masks.

    Masks that hide more push influence outwards whatever the model does, so the rank correlation stands beside that
    of untrained networks, the control.

    Args:
        table: ``jacobian_reach``, see :func:`nonlinear_reach`.
        subject: name of the evaluation.
    """
    keys = ["seed", "evaluation_mask_ratio"]
    linear = table.loc[table["predictor"] == "linear", [*keys, _REACH]]
    both = table[table["name"].notna()].merge(linear, on=keys, suffixes=("", "_linear"))
    trained, untrained = (both[both["predictor"] == kind] for kind in ("trained", "untrained"))
    trained = trained[np.isclose(trained["mask_ratio"], trained["evaluation_mask_ratio"])]
    untrained = untrained[untrained["evaluation_mask_ratio"].isin(trained["evaluation_mask_ratio"])]
    figure, axes = theme.panels(1, 1, height=2.9)
    axis = axes[0, 0]
    if len(untrained):
        axis.plot(untrained[f"{_REACH}_linear"], untrained[_REACH], **dot_style(theme.GREY, "x"), label="untrained")
    draw_dots(axis, compare_at_once(table), trained, f"{_REACH}_linear", _REACH)
    axis.axline((0, 0), slope=1, color=theme.GREY, linewidth=0.8, linestyle="--", zorder=1, label="identity")
    _square(axis, pd.concat([trained, untrained])[[_REACH, f"{_REACH}_linear"]])
    axis.set(xlabel=f"{_LINEAR_LABEL}, rms radius of J² (px)", ylabel="trained MAE, rms radius of J² (px)")
    theme.legend_above(figure, axes.flat)
    n = trained["seed"].nunique()
    facts = [f"{subject}, each at its training ratio", f"n = {n} seed{'s' if n != 1 else ''} (points: models)"]
    control = f", of untrained networks {_spearman(untrained)}" if len(untrained) else ""
    facts.append(f"Spearman ρ of the models {_spearman(trained)}{control}")
    theme.note(figure, *facts, *state_centre(compare(table)))
    return figure


@declare(
    tables=["jacobian_basis"],
    caption="Does the basis, the Jacobian, adapt to the image? Its change from image to image as a share of its "
    "squared size (0 in a linear model); influence within objects against that across their borders, where objects "
    "are known; and the error of the first-order expansion for small changes ({subject}; claims A9). {seeds}",
    alt="How the Jacobian of trained models adapts to the image, {subject}.",
)
def basis(table: pd.DataFrame, subject: str) -> Figure:
    """How the Jacobian changes with the image, keeps to its objects, and predicts small changes.

    Each against what the models differ in; of a cross each setting has a row of panels.

    Args:
        table: ``jacobian_basis``: seed, predictor, evaluation_mask_ratio, dispersion, object_log_ratio (missing where
            objects are not known), expansion_error, and of models every setting.
        subject: name of the evaluation.
    """
    ratio = _nearest(table)
    shown = _at(table, ratio)
    trained = shown[shown["predictor"] == "trained"]
    values = [value for value in _BASES if trained[value].notna().any()]
    compared = compare(table)
    figure, axes = theme.panels(len(compared), len(values), height=2.2, sharex="row", sharey="col")
    for line, comparison in zip(axes, compared, strict=True):
        for axis, value in zip(line, values, strict=True):
            _draw_models(axis, comparison, shown, value)
            comparison.set_axis(axis)
            axis.set(ylabel=_BASES[value][1], xlabel=comparison.label)
    for axis, value in zip(axes[0], values, strict=True):
        axis.set_title(_BASES[value][0])
    theme.legend_above(figure, axes.flat)
    control = shown.loc[shown["predictor"] == "trained, reversed", "expansion_error"]
    facts = [f"{subject}, evaluated at ratio {ratio:.2g}", state_seeds(trained, "predictor", "dispersion")]
    if control.notna().any():
        span = f"{control.min():.2g} to {control.max():.2g}"
        facts.append(f"control: with the Jacobian's inputs in reverse order the expansion's error is {span}")
    theme.note(figure, *facts, *state_centre(compared))
    return figure


@declare(
    artifacts=["pictures/jacobian/{subject}.safetensors"],
    where="jacobian_basis",
    caption="What does the basis look like, and does it change with the image? A row for each test image, all under "
    "one mask. |J| is how much each visible pixel moves the prediction of one hidden pixel (circle), on one scale for "
    "all rows; input directions are the changes of the image that move the hidden central pixels most. A linear "
    "model's are the same for every image, as the last row's, whose weights are noisy where images are few. One model "
    "alone: the figure before it measures the change ({subject}; claims A9).",
    alt="Influence on one pixel and leading input directions at each image, {subject}.",
)
def basis_pictures(pictures: Pictures, subject: str) -> Figure:
    """What the basis looks like: a row for each image, and one for the best linear predictor, which is the same at all.

    Args:
        pictures: arrays and what is said of them. Arrays: ``images`` uint8 (n, h, w, c), ``hidden`` bool (h, w),
            ``output`` (row, column), ``influence`` (n, h, w), mean |J| of that output, ``inputs`` (n, k, h, w, c),
            leading input directions, and both of the linear predictor as ``linear/influence`` and ``linear/inputs``,
            without n. Said: mask_ratio that the model was trained at, and evaluation_mask_ratio.
        subject: name of the evaluation.
    """
    tensors, about = pictures
    hidden, linear = tensors["hidden"], tensors["linear/inputs"]
    n, n_directions = tensors["inputs"].shape[:2]
    maps = [*tensors["influence"], tensors["linear/influence"]]
    directions = [*tensors["inputs"], linear]
    visible = np.full((*hidden.shape, 1), _VISIBLE)  # the linear predictor looks at no image
    seen = [*(tensors["images"] / 255), visible]
    labels = [*(f"trained MAE,\nimage {i + 1}" for i in range(n)), "best linear\npredictor,\nany image"]
    figure, grid = tile_grid(n + 1, [1] * (2 + max(n_directions, len(linear))), hidden.shape[0] / hidden.shape[1])
    largest = max(float(one.max()) for one in maps) or 1.0
    # A linear scale would show the nearest pixels alone.
    scale = ScalarMappable(LogNorm(largest / _DYNAMIC_RANGE, largest), "magma")
    for line, label, image, influence, inputs in zip(grid, labels, seen, maps, directions, strict=True):
        label_row(line[0], label)
        shown = scale.to_rgba(influence.clip(largest / _DYNAMIC_RANGE))[..., :3]
        for axis, picture in zip(line, (image, shown), strict=False):
            axis.imshow(np.where(hidden[..., None], HIDDEN, picture), interpolation="nearest")
            axis.plot(*tensors["output"][::-1], "o", markersize=3, markerfacecolor="none", color=theme.PALETTE[3])
        for axis, direction in zip(line[2:], inputs, strict=False):
            draw_tile(axis, direction)
    for axis, title in zip(grid[0], ("as seen", "|J| of one output", "leading input directions"), strict=False):
        axis.set_title(title, fontsize=8, loc="left")
    draw_bar(figure, grid[-1, 1], scale, "mean |J|, log scale")
    weights = "luminance of the weights" if linear.shape[-1] == 3 else "weights"
    theme.note(
        figure,
        f"{subject}, first seed, trained at m = {about['mask_ratio']:.2g}",
        f"one mask of ratio {about['evaluation_mask_ratio']:.2g}, hidden pixels in blue-grey",
        "circle: the output",
        f"directions: {weights}, red above and blue below zero, each on its own scale",
    )
    return figure


_DYNAMIC_RANGE = 1000  # of influence that is shown; what is smaller is black
_VISIBLE = 0.92


@declare(
    tables=["jacobian_training"],
    caption="Does the basis grow from local to diffuse? Rms radius of J² after each epoch at which weights were kept. "
    "Untrained networks, at the left, attend everywhere and are no basis yet ({subject}; claim A10). {seeds}",
    alt="Reach against epoch, {subject}.",
)
def basis_training(table: pd.DataFrame, subject: str) -> Figure:
    """Rms radius of J² against the epoch, a line for each of what the models differ in.

    Args:
        table: ``jacobian_training``: seed, epoch (0: initial weights), evaluation_mask_ratio, rms_radius_squared (px),
            and every setting.
        subject: name of the evaluation.
    """
    epochs = table["epoch"]
    start = np.log2(epochs[epochs > 0].min()) - 1  # where epoch 0 stands, which the logarithm has no place for
    shown = table.assign(position=np.where(epochs > 0, np.log2(epochs.clip(lower=1)), start))
    compared = compare(shown)
    groups = _groups(compared, shown)
    figure, axes = _group_panels(len(groups), height=2.4)
    ticks = shown[["epoch", "position"]].drop_duplicates()
    ticks = ticks[ticks["epoch"].isin(theme.representative(ticks["epoch"], _N_EPOCHS))]
    for axis, (title, points) in zip(axes.flat, groups, strict=False):
        axis.set_title(title)
        for point in points:
            after, before = point.rows[point.rows["epoch"] > 0], point.rows[point.rows["epoch"] == 0]
            theme.draw_series(axis, after, "position", _REACH, point.style, point.label)
            alone = theme.Style(point.style.color, point.style.marker, "")
            theme.draw_series(axis, before, "position", _REACH, alone, "_untrained")
        axis.set_xticks(ticks["position"], [f"{epoch:g}" if epoch else "un-\ntrained" for epoch in ticks["epoch"]])
    theme.label_outer(axes, "epoch", "rms radius of J² (px)")
    theme.legend_above(figure, axes.flat)
    evaluated = f"{subject}, evaluated at ratio {_nearest(table):.2g}{_trained_at(compared)}"
    theme.note(figure, evaluated, state_seeds(shown, "epoch", _REACH), *state_centre(compared))
    return figure


@declare(
    tables=["second_order"],
    control_of="A11.1",
    caption="Do models use more than second moments? Above 0 they reconstruct better than the best linear prediction. "
    "The control was trained and evaluated on Gaussian images of the same moments, where nothing beats it; grey "
    "crosses are against a linear predictor fitted with a ridge, on the same test images ({subject}; claims A11). "
    "{seeds}",
    alt="Log-ratio of the linear bound and errors of trained models, {subject}.",
)
def beyond_second_order(table: pd.DataFrame, control_range: tuple[float | None, float | None], subject: str) -> Figure:
    """log(bound / model error) against what the models differ in: on test images, and the control on surrogate images.

    Above 0 a model beats the bound of second moments, which is the conditional mean's expected error: what claim A11.1
    judges, on images of both kinds. Less prominent: against the ridge predictor's error on the same test images.

    Args:
        table: ``second_order``: seed, images, log_ratio_expected, log_ratio_ridge, and every setting.
        control_range: least and largest value of a valid control; None: any.
        subject: name of the evaluation.
    """
    on_test = table[(table["surrogate"] == "none") & (table["images"] == "test")]
    control = table[(table["surrogate"] != "none") & (table["images"] == "surrogate")]
    series = {  # how, column, rows, and whether it is drawn in grey
        "test images": ("log_ratio_expected", on_test, False),
        "control: surrogate images": ("log_ratio_expected", control, False),
        "test images, ridge as bound": ("log_ratio_ridge", on_test, True),
    }
    # The control's models saw other images, without augmentation.
    compared = compare(table[table["surrogate"] == "none"])
    figure, axes = theme.panels(1, len(compared), height=2.3, sharex="none")
    for axis, comparison in zip(axes[0], compared, strict=True):
        drawn = [
            (f"{kind}, {line.label}" if line.label else kind, value, line.rows, grey)
            for kind, (value, rows, grey) in series.items()
            for line in comparison.lines(rows)
            if len(line.rows)
        ]
        styles = theme.category_styles([label for label, *_ in drawn])
        for label, value, rows, grey in drawn:
            style = replace(styles[label], linestyle=styles[label].linestyle if comparison.linestyle else "")
            style = replace(style, color=theme.GREY, marker="x") if grey else style
            theme.draw_series(axis, rows, ALONG, value, style, label)
        axis.axhline(0, color="black", linewidth=0.8, zorder=1, label="bound of second moments")
        comparison.set_axis(axis)
        axis.set_xlabel(comparison.label)
    if control_range != (None, None):
        for axis in axes[0]:
            _draw_band(axis, *control_range, "range of a valid control")
    axes[0, 0].set_ylabel("log (bound / model error)")
    theme.legend_above(figure, axes.flat)
    parts = [rows.assign(drawn=rows[value], kind=kind) for kind, (value, rows, _) in series.items()]
    seeds = state_seeds(pd.concat(parts), "kind", "drawn")
    theme.note(figure, f"{subject}, models on images of the kind they learned", seeds, *state_centre(compared))
    return figure


def _groups(compared: list[Comparison], table: pd.DataFrame) -> list[tuple[str, list[Line]]]:
    """Of each panel its title, and the models by what the axis of its comparison would hold."""
    return [
        (line.label if len(compared) == 1 else comparison.label, comparison.points(line))
        for comparison in compared
        for line in comparison.lines(table)
    ]


def _group_panels(count: int, *, height: float) -> tuple[Figure, np.ndarray]:
    """So many panels in rows of about equal length; axes that are left over are empty."""
    rows = -(-count // _COLUMNS)
    figure, axes = theme.panels(rows, -(-count // rows), height=height)
    for place in range(count, axes.size):
        axes.flat[place].set_axis_off()
        axes.flat[place - axes.shape[1]].tick_params(labelbottom=True)  # of the panel above, which has none below
    return figure, axes


def _trained_at(compared: list[Comparison]) -> str:
    """Says in a note what m in the legend is."""
    return ", trained at m" if any(comparison.setting == "mask_ratio" for comparison in compared) else ""


def _draw_models(axis: Axes, comparison: Comparison, table: pd.DataFrame, value: str) -> None:
    """Trained models in a comparison, with untrained ones and the linear predictor, which is a level."""
    for line in comparison.lines(table):
        label = line.label or comparison.subject
        theme.draw_series(axis, line.of("trained"), ALONG, value, line.style, label)
        color, label = (line.style.color, f"untrained, {line.label}") if line.label else (theme.GREY, "untrained")
        # Networks that differ in their masks alone are the same before training, and in the table once.
        draw_reference(axis, comparison, line.of("untrained"), value, theme.Style(color, "x", ":"), label)
    draw_level(axis, table.loc[table["predictor"] == "linear", value], _LINEAR, _LINEAR_LABEL)


def _draw_band(axis: Axes, low: float | None, high: float | None, label: str) -> None:
    """A band, to the frame where it has no end, which it leaves where it is."""
    bottom, top = axis.get_ylim()
    ends = (bottom if low is None else low, top if high is None else high)
    axis.axhspan(*ends, color=theme.GREY, alpha=0.15, linewidth=0, zorder=0.5, label=label)
    axis.set_ylim(min(bottom, ends[0]), max(top, ends[1]))


def _square(axis: Axes, values: pd.DataFrame) -> None:
    """The same limits and the same scale on both axes, which the columns are drawn along."""
    if len(values):
        low, high = float(values.min(axis=None)), float(values.max(axis=None))
        margin = 0.06 * (high - low) or 0.5
        axis.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    axis.set_aspect("equal")


def _at(table: pd.DataFrame, ratio: float) -> pd.DataFrame:
    """Rows under evaluation masks of one ratio."""
    return table[table["evaluation_mask_ratio"] == ratio]


def _nearest(table: pd.DataFrame) -> float:
    """The evaluation ratio that is shown where there is room for one."""
    return float(min(table["evaluation_mask_ratio"].unique(), key=lambda ratio: abs(ratio - SHOWN_RATIO)))


def _spearman(points: pd.DataFrame) -> str:
    """Rank correlation with the linear predictor, for the note."""
    x, y = points[f"{_REACH}_linear"], points[_REACH]
    if min(x.nunique(), y.nunique()) < 3:
        return "undefined (fewer than three values)"
    return f"{stats.spearmanr(x, y).statistic:.2f}"
