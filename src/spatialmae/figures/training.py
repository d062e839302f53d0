"""Figures of training: losses of the runs of a training, and what their models reconstruct."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spatialmae.analysis.settings import setting_label, settings_label, varied
from spatialmae.figures import theme
from spatialmae.figures.declaration import declare
from spatialmae.figures.tiles import Pictures, label_row, tile_grid

SECTION = "Non-linear MAE: training"
NOTEBOOK = "training"

_COLUMNS = 3  # of panels
_ROW_HEIGHT, _TITLE_LINE = 2.3, 0.14  # inches
_LEAST_TICKS = 3  # of the loss


@declare(
    tables=["training_runs", "training", "training_validation"],
    papers="both",
    caption="Has training converged, and does it overfit? Loss against images seen, lines training, points validation "
    "({subject}). Thin lines are seeds, bars two-sided 95 % t intervals over them, the dotted line is what the mean "
    "image would give. Losses of different masks or patch sizes are of different tasks.",
    alt="Training and validation loss against images seen, {subject}.",
)
def loss_curves(runs: pd.DataFrame, training: pd.DataFrame, validation: pd.DataFrame, subject: str) -> Figure:
    """Loss against images seen: a line for each model, its seeds thin behind, validation as points with intervals.

    Models are coloured by masking ratio where it varies, else by the first setting that does; each combination of the
    others has its panel. A dotted line is the loss of the mean image.

    Args:
        runs: ``runs``: name, seed, dataset, mean_image_loss and every setting.
        training: ``training``: name, seed, images, loss (mean squared error; 1 is the variance of a channel over all
            pixels of the training images, or with norm_pix_loss that of the patch).
        validation: ``validation``: the same columns; losses that are missing are not drawn.
        subject: name of the training.
    """
    names = varied(runs)
    colour = "mask_ratio" if "mask_ratio" in names else next(iter(names), "mask_ratio")
    others = [name for name in names if name != colour]
    validation = validation[np.isfinite(validation["loss"])]
    styles, parts = _styles(runs[colour], colour), _parts(runs, others)
    columns = min(len(parts), _COLUMNS)
    title_height = _TITLE_LINE * max(0, len(others) - 1)
    figure, axes = theme.panels(-(-len(parts) // columns), columns, height=_ROW_HEIGHT + title_height)
    drawn = list(_draw_losses(axes, parts, colour, styles, training, validation))
    low, high = _set_loss_axis(axes[0, 0])
    # Intervals come last, on frozen limits: those of two seeds would stretch the axis over empty decades.
    for axis, style, points in drawn:
        axis.autoscale(False)
        axis.vlines(points["images"], points["low"], points["high"], color=style.color, linewidth=0.9)
    for axis in axes.flat[len(parts) :]:
        axis.set_axis_off()
    unit, remark = _loss_unit(runs)
    theme.label_outer(axes, "images seen (thousands)", unit)
    theme.legend_above(figure, axes.flat)
    about = f"{subject}, trained on {', '.join(runs['dataset'].unique())}"
    bars = pd.concat([points for _, _, points in drawn])
    cut = bool(((bars["low"] < low) | (bars["high"] > high)).any())
    marks = _marks(runs, validated=len(validation) > 0, bars=len(bars) > 0, cut=cut)
    theme.note(figure, about, _count(runs, [colour, *others]), marks, *remark)
    return figure


def _loss_unit(runs: pd.DataFrame) -> tuple[str, list[str]]:
    """Label of the loss axis, and what the note has to add to it."""
    by_patch = runs["norm_pix_loss"].astype(bool)
    if by_patch.all():
        return "loss (patch's own variance = 1)", []
    if not by_patch.any():
        return "loss (channel variance = 1)", []
    return "loss", ["loss 1 is the variance of a channel, with norm pix loss a patch's own"]


def _draw_losses(
    axes: np.ndarray,
    parts: Mapping[str, pd.DataFrame],
    colour: str,
    styles: Mapping[str, theme.Style],
    training: pd.DataFrame,
    validation: pd.DataFrame,
) -> Iterator[tuple[Axes, theme.Style, pd.DataFrame]]:
    """Draw all but the intervals; yields for each model its axes, its style, and its intervals."""
    for axis, (title, part) in zip(axes.flat, parts.items(), strict=False):
        axis.set(title=title, yscale="log")
        for level in part["mean_image_loss"].dropna().unique():
            axis.axhline(level, color=theme.GREY, linewidth=0.8, linestyle=":", zorder=1)
        for value, models in part.groupby(colour, dropna=False, sort=False):
            label = setting_label(colour, value)
            style = styles[label]
            for _, curve in _of(training, models).groupby("seed"):
                axis.plot(curve["images"], curve["loss"], color=style.color, linewidth=0.4, alpha=0.3)
            mean = _of(training, models).groupby("images")["loss"].mean()
            axis.plot(mean.index, mean, color=style.color)
            points = theme.summarise(_of(validation, models), "images", "loss")
            axis.plot(points["images"], points["mean"], color=style.color, marker=style.marker, linestyle="")
            axis.plot([], [], color=style.color, marker=style.marker if len(validation) else "", label=label)
            yield axis, style, points.dropna(subset=["low", "high"])


def _set_loss_axis(axes: Axes) -> tuple[float, float]:
    """Plain numbers on the logarithmic axis that the panels share; its limits, which are fixed."""
    low, high = axes.get_ylim()
    theme.plain_ticks(axes.yaxis, loss_ticks(low, high))
    axes.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
    axes.set_ylim(low, high)
    return low, high


def loss_ticks(low: float, high: float) -> list[float]:
    """Round numbers within the limits of a logarithmic axis, three at least: evenly spaced ones in a narrow range."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [step * 10.0**k for k in decades for step in steps if low <= step * 10.0**k <= high]
        if len(ticks) >= _LEAST_TICKS:
            return ticks
    even = MaxNLocator(5, min_n_ticks=_LEAST_TICKS).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high]


def _marks(runs: pd.DataFrame, *, validated: bool, bars: bool, cut: bool) -> str:
    """What the marks of the losses are."""
    marks = ["lines: training, thin ones: seeds" if len(set(runs["seed"])) > 1 else "lines: training"]
    if validated:
        marks.append("points: validation")
    if bars:
        marks.append("bars: 95 % t interval" + (", cut at the frame" if cut else ""))
    if runs["mean_image_loss"].notna().any():
        marks.append("dotted: the mean image")
    return "; ".join(marks)


def _count(runs: pd.DataFrame, by: list[str]) -> str:
    """The number of seeds behind each mean."""
    counts = runs.groupby(by, dropna=False)["seed"].nunique().tolist()
    return theme.count_n(counts) + (" (no interval)" if max(counts) == 1 else "")


def _parts(runs: pd.DataFrame, others: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The runs of each panel by its title, a setting a line; in the order of the table."""
    if not others:
        return {"": runs}
    return {
        settings_label(others, values, ",\n"): part
        for values, part in runs.groupby(list(others), dropna=False, sort=False)
    }


def _styles(values: pd.Series, name: str) -> dict[str, theme.Style]:
    """A style for each value of the setting that colours, by its label."""
    if values.dtype.kind not in "if":
        return theme.category_styles([setting_label(name, value) for value in values.unique()])
    ordered = sorted(values.unique(), key=lambda value: (value != value, value))
    labels = [setting_label(name, value) for value in ordered]
    steps = list(theme.sequence_styles(range(len(labels)), "viridis").values())
    if name == "mask_ratio":
        steps = [replace(step, color=theme.RATIO_COLORMAP(float(m))) for step, m in zip(steps, ordered, strict=True)]
    return dict(zip(labels, steps, strict=True))


def _of(curves: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """The curves of some runs, images in thousands."""
    chosen = curves[curves["name"].isin(models["name"])]
    return chosen.assign(images=chosen["images"] / 1000)


@declare(
    tables=["training_runs"],
    artifacts=["training/{subject}.safetensors"],
    papers="both",
    caption="What do the models make of masked images? Validation images, as the model sees them and as it completes "
    "them; visible pixels are the image's own where the loss is on hidden ones ({subject}).",
    alt="Masked images and what the models make of them, {subject}.",
)
def reconstructions(runs: pd.DataFrame, pictures: Pictures, subject: str) -> Figure:
    """What models make of masked images: originals on top, below a row for each model.

    Args:
        runs: ``runs``: name, and every setting.
        pictures: arrays, of which nothing is said: ``images`` uint8 (n, h, w, c), and of each model that is shown
            ``<run>/mask`` (n, h, w), 1 = hidden, and ``<run>/seen`` and ``<run>/pred`` (n, h, w, c) in [0, 1].
        subject: name of the training.
    """
    tensors, _ = pictures
    images, names = tensors["images"] / 255, varied(runs)
    shown = [row for row in runs.to_dict("records") if f"{row['name']}/pred" in tensors]
    labels = [settings_label(names, [row[name] for name in names], ",\n") or "model" for row in shown]
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    label_width = max(_LABEL_WIDTH, longest / _LABEL_CHARACTERS_PER_INCH)
    columns = ([1, 1, _GAP] * len(images))[:-1]
    aspect = images.shape[1] / images.shape[2]
    space = {"label_width": label_width, "title_height": _TOP, "foot_height": _NOTE_HEIGHT}
    figure, grid = tile_grid(len(shown) + 1, columns, aspect, **space)
    _draw_row(grid[0], "original", None, images)
    for line, label, row in zip(grid[1:], labels, shown, strict=True):
        mask, seen, pred = (tensors[f"{row['name']}/{name}"] for name in ("mask", "seen", "pred"))
        _draw_row(line, label, np.where(mask[..., None] > 0, HIDDEN, seen), pred)
    how = "of each pair the left is what the model sees, the right what it makes of it"
    theme.note(figure, f"{subject}, validation images of {', '.join(runs['dataset'].unique())}, first seed", how)
    return figure


_LABEL_WIDTH, _TOP, _NOTE_HEIGHT = 0.95, 0.02, 0.35  # inches; longer labels take more
_LABEL_CHARACTERS_PER_INCH = 16.0
_GAP = 0.15  # between images, in tiles
HIDDEN = np.array([0.55, 0.62, 0.72])
"""Colour of hidden pixels, which gray images have not."""


def _draw_row(
    line: np.ndarray,
    label: str,
    left: Float[np.ndarray, "n h w 3"] | None,
    right: Float[np.ndarray, "n h w c"],
) -> None:
    """A pair of tiles for each image, the left perhaps empty; gray images are drawn as colour."""
    label_row(line[0], label)
    for i, image in enumerate(right):
        if left is not None:
            line[3 * i].imshow(left[i], interpolation="nearest")
        line[3 * i + 1].imshow(np.broadcast_to(image, (*image.shape[:2], 3)), interpolation="nearest")
