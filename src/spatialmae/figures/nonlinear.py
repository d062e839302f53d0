"""Figures of trained models: their reach and its growth, their basis, the linear bound, and probes (A5, A9–A11, A13).

The tables hold every setting of the models. Those that differ in more than the masking ratio, in patch size say, have
lines (or panels) of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy import stats

from spatialmae.figures import theme
from spatialmae.figures.features import draw_tile
from spatialmae.figures.training import HIDDEN, setting_label, varied

SHOWN_RATIO = 0.75
"""Ratio of the evaluation masks, or the nearest there is, in figures of one ratio alone: what claims are judged at."""

_REACH = "rms_radius_squared"
_REACHES = {_REACH: "rms radius of J²\n(px)", "entropy": "entropy\n(nats)"}
_BASES = {
    "dispersion": ("Change from image to image", "dispersion (fraction)"),
    "object_log_ratio": ("Within objects / across borders", "log-ratio at equal distance"),
    "expansion_error": ("First-order expansion", "relative error"),
}
_RATIO = "training ratio m"
_COLUMNS = 3  # of panels
_N_EPOCHS = 6  # that are written at the axis, at most
_LINEAR = theme.Style("black", "", "--")
_LINEAR_LABEL = "best linear predictor"


@dataclass(frozen=True)
class _Model:
    """Models that differ in masking ratio and seed alone; ``label`` is empty where all do."""

    label: str
    style: theme.Style
    rows: pd.DataFrame

    def of(self, predictor: str) -> pd.DataFrame:
        """Rows of what was trained, or not."""
        return self.rows[self.rows["predictor"] == predictor]


def nonlinear_reach(table: pd.DataFrame, evaluation: str) -> Figure:
    """Rms radius of J² and spatial entropy against the training ratio; a column for each ratio of evaluation masks.

    Args:
        table: ``model_reach``: seed, predictor, evaluation_mask_ratio, the measures, and of models every setting.
        evaluation: its name.
    """
    ratios = sorted(table["evaluation_mask_ratio"].unique())
    figure, axes = theme.panels(2, len(ratios), height=1.6, sharey="row")
    for column, ratio in zip(axes.T, ratios, strict=True):
        column[0].set_title(f"evaluated at {ratio:.2g}")
        part = _at(table, ratio)
        for axis, value in zip(column, _REACHES, strict=True):
            _draw_models(axis, part, value)
            _ratio_axis(axis)
    theme.label_outer(axes, _RATIO, list(_REACHES.values()))
    theme.legend_above(figure, axes.flat)
    shown = table[table["predictor"] == "trained"]
    theme.note(figure, evaluation, _count(shown, "evaluation_mask_ratio", _REACH), "each column has masks of its own")
    return figure


def nonlinear_profile(table: pd.DataFrame, evaluation: str) -> Figure:
    """Mean |J| against distance by training ratio, and of the best linear predictor; a panel for each kind of model.

    Distances at which nothing is visible are left out, and the largest quarter, which few pairs of pixels have.

    Args:
        table: ``model_profile``: seed, predictor, evaluation_mask_ratio, distance (px), mean_abs (mean |J| over pixel
            pairs at that distance, 0 from hidden inputs), and of models every setting.
        evaluation: its name.
    """
    ratio = _nearest(table)
    near = table["distance"] <= 0.75 * table["distance"].max()
    shown = _at(table[near & (table["mean_abs"] > 0)], ratio)
    models = _models(shown)
    figure, axes = _model_panels(models, height=2.4)
    for axis, model in zip(axes.flat, models, strict=False):
        axis.set(title=model.label, yscale="log")
        for m, rows in model.of("trained").groupby("mask_ratio"):
            style, label = _ratio_style(float(m)), setting_label("mask_ratio", m)
            theme.draw_series(axis, rows, "distance", "mean_abs", style, label, interval="band")
        linear = shown[shown["predictor"] == "linear"]
        theme.draw_series(axis, linear, "distance", "mean_abs", _LINEAR, _LINEAR_LABEL, interval="band")
    theme.label_outer(axes, "distance (px)", "mean |J|")
    theme.legend_above(figure, axes.flat)
    n = _count(shown[shown["predictor"] == "trained"], "distance", "mean_abs", interval="bands")
    theme.note(figure, f"{evaluation}, evaluated at ratio {ratio:.2g}, trained at m", n)
    return figure


def agreement(table: pd.DataFrame, evaluation: str) -> Figure:
    """Rms radius of J² of each model at its own ratio against that of the best linear predictor under the same masks.

    Masks that hide more push influence outwards whatever the model does, so the rank correlation stands beside that
    of untrained networks, the control.

    Args:
        table: ``model_reach``, see :func:`nonlinear_reach`.
        evaluation: its name.
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
        axis.plot(untrained[f"{_REACH}_linear"], untrained[_REACH], **_dots(theme.GREY, "x"), label="untrained")
    for model in _models(trained):
        for m, points in model.rows.groupby("mask_ratio"):
            dots = _dots(theme.RATIO_COLORMAP(float(m)), model.style.marker)
            axis.plot(points[f"{_REACH}_linear"], points[_REACH], **dots, label=setting_label("mask_ratio", m))
        if model.label:
            axis.plot([], [], **_dots("black", model.style.marker), label=model.label)
    axis.axline((0, 0), slope=1, color=theme.GREY, linewidth=0.8, linestyle="--", zorder=1, label="identity")
    _square(axis, pd.concat([trained, untrained])[[_REACH, f"{_REACH}_linear"]])
    axis.set(xlabel=f"{_LINEAR_LABEL}, rms radius of J² (px)", ylabel="trained MAE, rms radius of J² (px)")
    theme.legend_above(figure, axes.flat)
    n = trained["seed"].nunique()
    facts = [f"{evaluation}, each at its training ratio", f"n = {n} seed{'s' if n != 1 else ''} (points: models)"]
    control = f", of untrained networks {_spearman(untrained)}" if len(untrained) else ""
    theme.note(figure, *facts, f"Spearman ρ of the models {_spearman(trained)}{control}")
    return figure


def basis(table: pd.DataFrame, evaluation: str) -> Figure:
    """How the Jacobian changes with the image, keeps to its objects, and predicts small changes, against the ratio.

    Args:
        table: ``model_basis``: seed, predictor, evaluation_mask_ratio, dispersion, object_log_ratio (missing where
            objects are not known), expansion_error, and of models every setting.
        evaluation: its name.
    """
    ratio = _nearest(table)
    shown = _at(table, ratio)
    trained = shown[shown["predictor"] == "trained"]
    values = [value for value in _BASES if trained[value].notna().any()]
    figure, axes = theme.panels(1, len(values), height=2.2, sharey=False)
    for axis, value in zip(axes[0], values, strict=True):
        title, label = _BASES[value]
        _draw_models(axis, shown, value)
        _ratio_axis(axis)
        axis.set(title=title, ylabel=label, xlabel=_RATIO)
    theme.legend_above(figure, axes.flat)
    control = shown.loc[shown["predictor"] == "trained, reversed", "expansion_error"]
    facts = [f"{evaluation}, evaluated at ratio {ratio:.2g}", _count(trained, "predictor", "dispersion")]
    if len(control):
        span = f"{control.min():.2g} to {control.max():.2g}"
        facts.append(f"control: with the Jacobian's inputs in reverse order the expansion's error is {span}")
    theme.note(figure, *facts)
    return figure


def basis_pictures(tensors: Mapping[str, np.ndarray], about: Mapping[str, Any], evaluation: str) -> Figure:
    """What the basis looks like: a row for each image, and one for the best linear predictor, which is the same at all.

    Args:
        tensors: ``images`` uint8 (n, h, w, c), ``hidden`` bool (h, w), ``output`` (row, column), ``influence``
            (n, h, w), mean |J| of that output, ``inputs`` (n, k, h, w, c), leading input directions, and both of the
            linear predictor as ``linear/influence`` and ``linear/inputs``, without n.
        about: mask_ratio that the model was trained at, and evaluation_mask_ratio.
        evaluation: its name.
    """
    hidden, linear = tensors["hidden"], tensors["linear/inputs"]
    n, n_directions = tensors["inputs"].shape[:2]
    maps = [*tensors["influence"], tensors["linear/influence"]]
    directions = [*tensors["inputs"], linear]
    visible = np.full((*hidden.shape, 1), _VISIBLE)  # the linear predictor looks at no image
    seen = [*(tensors["images"] / 255), visible]
    labels = [*(f"trained MAE,\nimage {i + 1}" for i in range(n)), "best linear\npredictor,\nany image"]
    figure, grid = _tile_grid(n + 1, 2 + max(n_directions, len(linear)), hidden.shape[0] / hidden.shape[1])
    largest = max(float(one.max()) for one in maps) or 1.0
    # A linear scale would show the nearest pixels alone.
    scale = ScalarMappable(LogNorm(largest / _DYNAMIC_RANGE, largest), "magma")
    for line, label, image, influence, inputs in zip(grid, labels, seen, maps, directions, strict=True):
        beside = {"xycoords": "axes fraction", "xytext": (-4, 0), "textcoords": "offset points"}
        line[0].annotate(label, (0, 0.5), **beside, ha="right", va="center", fontsize=7)
        shown = scale.to_rgba(influence.clip(largest / _DYNAMIC_RANGE))[..., :3]
        for axis, picture in zip(line, (image, shown), strict=False):
            axis.imshow(np.where(hidden[..., None], HIDDEN, picture), interpolation="nearest")
            axis.plot(*tensors["output"][::-1], "o", markersize=3, markerfacecolor="none", color=theme.PALETTE[3])
        for axis, direction in zip(line[2:], inputs, strict=False):
            draw_tile(axis, direction)
    for axis, title in zip(grid[0], ("as seen", "|J| of one output", "leading input directions"), strict=False):
        axis.set_title(title, fontsize=8, loc="left")
    _draw_bar(figure, grid[-1, 1], scale, "mean |J|, log scale")
    weights = "luminance of the weights" if linear.shape[-1] == 3 else "weights"
    theme.note(
        figure,
        f"{evaluation}, first seed, trained at m = {about['mask_ratio']:.2g}",
        f"one mask of ratio {about['evaluation_mask_ratio']:.2g}, hidden pixels in blue-grey",
        "circle: the output",
        f"directions: {weights}, red above and blue below zero, each on its own scale",
    )
    return figure


_DYNAMIC_RANGE = 1000  # of influence that is shown; what is smaller is black
_VISIBLE = 0.92
_LABEL_WIDTH, _TITLE_HEIGHT, _FOOT_HEIGHT = 0.75, 0.22, 0.85  # inches


def _tile_grid(rows: int, columns: int, aspect: float) -> tuple[Figure, np.ndarray]:
    """Tiles of height/width ``aspect`` without axes; sizes are fixed, so no layout engine is used."""
    width = theme.DOUBLE_WIDTH
    tile = (width - _LABEL_WIDTH) / columns
    height = rows * tile * aspect + _TITLE_HEIGHT + _FOOT_HEIGHT
    figure = Figure(figsize=(width, height))
    sides = {"left": _LABEL_WIDTH / width, "right": 1 - 0.02 / width, "wspace": 0.06}
    ends = {"top": 1 - _TITLE_HEIGHT / height, "bottom": _FOOT_HEIGHT / height, "hspace": 0.06}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=sides | ends)
    for axis in grid.flat:
        axis.set_axis_off()
    return figure, grid


def _draw_bar(figure: Figure, above: Axes, scale: ScalarMappable, label: str) -> None:
    """A colour bar below a tile."""
    box, inch = above.get_position(), 1 / figure.get_figheight()
    bar = figure.add_axes((box.x0, box.y0 - 0.12 * inch, box.width, 0.07 * inch))
    figure.colorbar(scale, cax=bar, orientation="horizontal")
    bar.set_xlabel(label, fontsize=7)


def basis_training(table: pd.DataFrame, evaluation: str) -> Figure:
    """Rms radius of J² against the epoch, a line for each training ratio; a panel for each kind of model.

    Args:
        table: ``reach_in_training``: seed, epoch (0: initial weights), evaluation_mask_ratio, rms_radius_squared (px),
            and every setting.
        evaluation: its name.
    """
    epochs = table["epoch"]
    start = np.log2(epochs[epochs > 0].min()) - 1  # where epoch 0 stands, which the logarithm has no place for
    shown = table.assign(position=np.where(epochs > 0, np.log2(epochs.clip(lower=1)), start))
    models = _models(shown)
    figure, axes = _model_panels(models, height=2.4)
    ticks = shown[["epoch", "position"]].drop_duplicates()
    ticks = ticks[ticks["epoch"].isin(theme.representative(ticks["epoch"], _N_EPOCHS))]
    for axis, model in zip(axes.flat, models, strict=False):
        axis.set_title(model.label)
        for m, rows in model.rows.groupby("mask_ratio"):
            style = _ratio_style(float(m))
            after = rows[rows["epoch"] > 0]
            theme.draw_series(axis, after, "position", _REACH, style, setting_label("mask_ratio", m))
            alone = theme.Style(style.color, style.marker, "")
            theme.draw_series(axis, rows[rows["epoch"] == 0], "position", _REACH, alone, "_untrained")
        axis.set_xticks(ticks["position"], [f"{epoch:g}" if epoch else "un-\ntrained" for epoch in ticks["epoch"]])
    theme.label_outer(axes, "epoch", "rms radius of J² (px)")
    theme.legend_above(figure, axes.flat)
    evaluated = f"{evaluation}, evaluated at ratio {_nearest(table):.2g}, trained at m"
    theme.note(figure, evaluated, _count(shown, "epoch", _REACH))
    return figure


def beyond_second_order(
    table: pd.DataFrame, evaluation: str, low: float | None = None, high: float | None = None
) -> Figure:
    """log(bound / model error) against the ratio: of models on test images, and of the control on surrogate images.

    Above 0 a model beats the bound of second moments: on test images its expectation, on surrogate images the
    conditional mean's error on the same ones.

    Args:
        table: ``second_order``: seed, images, log_ratio, log_ratio_expected, and every setting.
        evaluation: its name.
        low: least value of a valid control; None: any.
        high: largest value of a valid control; None: any.
    """
    parts = {
        "test images": ("log_ratio_expected", table[(table["surrogate"] == "none") & (table["images"] == "test")]),
        "control: surrogate images": (
            "log_ratio",
            table[(table["surrogate"] != "none") & (table["images"] == "surrogate")],
        ),
    }
    series = [(kind, value, m) for kind, (value, part) in parts.items() for m in _models(part) if len(part)]
    labels = [f"{kind}, {model.label}" if model.label else kind for kind, _, model in series]
    styles = theme.category_styles(labels)
    figure, axes = theme.panels(1, 1, height=2.3)
    axis = axes[0, 0]
    for label, (_, value, model) in zip(labels, series, strict=True):
        theme.draw_series(axis, model.rows, "mask_ratio", value, styles[label], label)
    axis.axhline(0, color="black", linewidth=0.8, zorder=1, label="bound of second moments")
    if low is not None or high is not None:
        _draw_band(axis, low, high, "range of a valid control")
    _ratio_axis(axis)
    axis.set(xlabel=_RATIO, ylabel="log (bound / model error)")
    theme.legend_above(figure, axes.flat)
    drawn = pd.concat([model.rows.assign(drawn=model.rows[value], kind=kind) for kind, value, model in series])
    theme.note(figure, f"{evaluation}, models on images of the kind they learned", _count(drawn, "kind", "drawn"))
    return figure


def model_probe(linear: pd.DataFrame, neighbours: pd.DataFrame, evaluation: str) -> Figure:
    """Accuracy of a linear probe and of k nearest neighbours against the ratio; a row for each target.

    Args:
        linear: ``linear_probe``: seed, target, accuracy and chance (fractions of the test images), and every setting.
        neighbours: ``nearest_neighbours``: the same columns.
        evaluation: its name.
    """
    probes = {"linear probe": linear, "k nearest neighbours": neighbours}
    targets = list(linear["target"].unique())
    figure, axes = theme.panels(len(targets), len(probes), height=1.9, sharey="row")
    for line, target in zip(axes, targets, strict=True):
        for axis, table in zip(line, probes.values(), strict=True):
            rows = table[table["target"] == target]
            for model in _models(rows):
                label = model.label or "trained MAE"
                theme.draw_series(axis, model.rows, "mask_ratio", "accuracy", model.style, label)
            axis.axhline(rows["chance"].mean(), color=theme.GREY, linestyle=":", label="chance")
            _ratio_axis(axis)
    for axis, title in zip(axes[0], probes, strict=True):
        axis.set_title(title)
    theme.label_outer(axes, _RATIO, [f"accuracy, {target}\n(fraction)" for target in targets])
    theme.legend_above(figure, axes.flat)
    theme.note(figure, f"{evaluation}, frozen encoders", _count(linear, "target", "accuracy"))
    return figure


def _models(table: pd.DataFrame) -> list[_Model]:
    """The models of a table, told apart by all that varies except ratio and seed."""
    rows = table[table["name"].notna()]  # the linear predictor is of no run
    names = [name for name in varied(rows) if name != "mask_ratio"]
    if not names:
        return [_Model("", theme.Style(theme.PALETTE[0]), rows)]
    parts = {
        ", ".join(setting_label(name, value) for name, value in zip(names, values, strict=True)): part
        for values, part in rows.groupby(names, dropna=False)
    }
    if names == ["patch_size"]:
        styles = list(theme.sequence_styles(range(len(parts)), "flare_r").values())
    else:
        styles = list(theme.category_styles(list(parts)).values())
    return [_Model(label, style, part) for style, (label, part) in zip(styles, parts.items(), strict=True)]


def _model_panels(models: list[_Model], *, height: float) -> tuple[Figure, np.ndarray]:
    """A panel for each kind of model; those left over are empty."""
    columns = min(len(models), _COLUMNS)
    figure, axes = theme.panels(-(-len(models) // columns), columns, height=height)
    for axis in axes.flat[len(models) :]:
        axis.set_axis_off()
    return figure, axes


def _draw_models(axis: Axes, table: pd.DataFrame, value: str) -> None:
    """Trained models against their ratio; untrained ones and the linear predictor, which have none, as levels."""
    for model in _models(table):
        trained = model.of("trained")
        theme.draw_series(axis, trained, "mask_ratio", value, model.style, model.label or "trained MAE")
        color, label = (model.style.color, f"untrained, {model.label}") if model.label else (theme.GREY, "untrained")
        _draw_level(axis, model.of("untrained")[value], theme.Style(color, "", ":"), label)
    _draw_level(axis, table.loc[table["predictor"] == "linear", value], _LINEAR, _LINEAR_LABEL)


def _draw_level(axis: Axes, values: pd.Series, style: theme.Style, label: str) -> None:
    """A horizontal line at the mean over seeds, if there is any."""
    if values.notna().any():
        axis.axhline(values.mean(), color=style.color, linestyle=style.linestyle, label=label, zorder=1.8)


def _draw_band(axis: Axes, low: float | None, high: float | None, label: str) -> None:
    """A band, to the frame where it has no end, which it leaves where it is."""
    bottom, top = axis.get_ylim()
    ends = (bottom if low is None else low, top if high is None else high)
    axis.axhspan(*ends, color=theme.GREY, alpha=0.15, linewidth=0, zorder=0.5, label=label)
    axis.set_ylim(min(bottom, ends[0]), max(top, ends[1]))


def _ratio_axis(axis: Axes) -> None:
    """The same axis of ratios in every panel: one ratio alone would be shown to many digits."""
    axis.set(xlim=(-0.04, 1.04), xticks=(0, 0.5, 1))
    axis.set_xticks((0.25, 0.75), minor=True)


def _square(axis: Axes, values: pd.DataFrame) -> None:
    """The same limits and the same scale on both axes, which the columns are drawn along."""
    if len(values):
        low, high = float(values.min(axis=None)), float(values.max(axis=None))
        margin = 0.06 * (high - low) or 0.5
        axis.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    axis.set_aspect("equal")


def _ratio_style(ratio: float) -> theme.Style:
    return theme.Style(theme.RATIO_COLORMAP(ratio))


def _dots(color: object, marker: str) -> dict:
    return {"color": color, "marker": marker, "linestyle": "", "alpha": 0.8}


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


def _count(table: pd.DataFrame, by: str, value: str, *, interval: str = "bars") -> str:
    """The number of seeds behind each mean: of all rows that differ in ``by`` and in what varies."""
    settings = varied(table)
    # A setting that is missing (no bottleneck) is one of its values.
    keyed = table.assign(**{name: table[name].astype(str) for name in settings})
    return theme.state_n(keyed, [by, *settings], value, unit="seed", interval=interval)
