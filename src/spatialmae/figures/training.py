"""Figures of training: losses of the runs of a stage, and what their models reconstruct."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatialmae.figures import theme
from spatialmae.model.config import MAEConfig
from spatialmae.train.settings import TrainConfig

_SETTINGS = [f.name for f in (*fields(MAEConfig), *fields(TrainConfig))]
_NAMES = {"mask_ratio": "m = {:.2g}", "patch_size": "patch {:.0f} px", "mask_unit": "mask unit {:.0f} px"}
_COLUMNS = 3  # of panels


def varied(runs: pd.DataFrame) -> list[str]:
    """The settings that differ between the runs of a stage.

    A mask unit that is the patch in every run varies with the patch, and is no setting of its own.
    """
    found = [name for name in _SETTINGS if name in runs and len(runs[name].unique()) > 1]
    if (runs["mask_unit"] == runs["patch_size"]).all():
        found = [name for name in found if name != "mask_unit"]
    return found


def setting_label(name: str, value: Any) -> str:
    """A setting as legends write it: m = 0.75, patch 4 px, encoder dim 64."""
    if value is None or value != value:
        return f"no {name.replace('_', ' ')}"
    if name in _NAMES:
        return _NAMES[name].format(value)
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return f"{name.replace('_', ' ')} {format(value, '.3g') if number else value}"


def loss_curves(
    runs: pd.DataFrame, training: pd.DataFrame, validation: pd.DataFrame, stage: str, *, height: float = 2.3
) -> Figure:
    """Loss against images seen: a line for each model, its seeds thin behind, validation as points with intervals.

    Models are coloured by masking ratio where it varies, else by the first setting that does; each combination of the
    others has its panel.

    Args:
        runs: ``runs``: name, seed, dataset and every setting.
        training: ``training``: name, images, loss (mean squared error; the variance of a pixel is 1).
        validation: ``validation``: the same columns.
        stage: name of the training stage.
        height: of a row of panels in inches.
    """
    names = varied(runs)
    colour = "mask_ratio" if "mask_ratio" in names else next(iter(names), "mask_ratio")
    others = [name for name in names if name != colour]
    styles, parts = _styles(runs[colour], colour), _parts(runs, others)
    columns = min(len(parts), _COLUMNS)
    figure, axes = theme.panels(-(-len(parts) // columns), columns, height=height)
    drawn = list(_draw_losses(axes, parts, colour, styles, training, validation))
    _set_loss_axis(axes[0, 0])
    # Intervals come last, on frozen limits: those of two seeds would stretch the axis over empty decades.
    for axis, style, points in drawn:
        axis.autoscale(False)
        axis.vlines(points["images"], points["low"], points["high"], color=style.color, linewidth=0.9)
    for axis in axes.flat[len(parts) :]:
        axis.set_axis_off()
    theme.label_outer(axes, "images seen (thousands)", "loss (variance of a pixel = 1)")
    theme.legend_above(figure, axes.flat)
    about = f"{stage}, trained on {', '.join(runs['dataset'].unique())}"
    theme.note(figure, about, _count(runs, [colour, *others]), "lines: training, points: validation")
    return figure


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
        for value, models in part.groupby(colour, dropna=False):
            label = setting_label(colour, value)
            style = styles[label]
            for _, curve in _of(training, models).groupby("seed"):
                axis.plot(curve["images"], curve["loss"], color=style.color, linewidth=0.4, alpha=0.3)
            mean = _of(training, models).groupby("images")["loss"].mean()
            axis.plot(mean.index, mean, color=style.color)
            points = theme.summarise(_of(validation, models), "images", "loss")
            axis.plot(points["images"], points["mean"], color=style.color, marker=style.marker, linestyle="")
            axis.plot([], [], color=style.color, marker=style.marker, label=label)
            yield axis, style, points.dropna(subset=["low", "high"])


def _set_loss_axis(axes: Axes) -> None:
    """Plain numbers on the logarithmic axis that the panels share."""
    low, high = axes.get_ylim()
    steps = (1, 2, 5) if high > 5 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    theme.plain_ticks(axes.yaxis, [step * 10.0**k for k in range(-6, 3) for step in steps])
    axes.set_ylim(low, high)


def _count(runs: pd.DataFrame, by: list[str]) -> str:
    """The number of seeds behind each mean, and how they and the interval are drawn."""
    seeds = runs.groupby(by, dropna=False)["seed"].nunique()
    low, high = int(seeds.min()), int(seeds.max())
    number = f"{low}" if low == high else f"{low}–{high}"
    if high == 1:
        return f"n = {number} seed (no interval)"
    return f"n = {number} seeds (thin lines: seeds, bars: 95 % t interval)"


def _parts(runs: pd.DataFrame, others: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The runs of each panel by its title."""
    if not others:
        return {"": runs}
    return {
        ", ".join(setting_label(name, value) for name, value in zip(others, values, strict=True)): part
        for values, part in runs.groupby(list(others), dropna=False)
    }


def _styles(values: pd.Series, name: str) -> dict[str, theme.Style]:
    """A style for each value of the setting that colours, by its label."""
    ordered = sorted(values.unique(), key=lambda value: (value != value, value))
    labels = [setting_label(name, value) for value in ordered]
    if values.dtype.kind not in "if":
        return theme.category_styles(labels)
    steps = list(theme.sequence_styles(range(len(labels)), "viridis").values())
    if name == "mask_ratio":
        steps = [replace(step, color=theme.RATIO_COLORMAP(float(m))) for step, m in zip(steps, ordered, strict=True)]
    return dict(zip(labels, steps, strict=True))


def _of(curves: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """The curves of some runs, images in thousands."""
    chosen = curves[curves["name"].isin(models["name"])]
    return chosen.assign(images=chosen["images"] / 1000)


def reconstructions(tensors: Mapping[str, np.ndarray], runs: pd.DataFrame, stage: str) -> Figure:
    """What models make of masked images: originals on top, below a row for each model.

    Args:
        tensors: ``images`` uint8 (n, h, w, c), and of each model that is shown ``<run>/mask`` (n, h, w), 1 = hidden,
            and ``<run>/pred`` (n, h, w, c) on the scale [0, 1].
        runs: ``runs``: name, and every setting.
        stage: name of the training stage.
    """
    images, names = tensors["images"] / 255, varied(runs)
    shown = [row for row in runs.to_dict("records") if f"{row['name']}/pred" in tensors]
    tile = (theme.DOUBLE_WIDTH - _LABEL_WIDTH) / (len(images) * (2 + _GAP) - _GAP)
    tile_height = tile * images.shape[1] / images.shape[2]
    figure = Figure(figsize=(theme.DOUBLE_WIDTH, (len(shown) + 1) * 1.06 * tile_height + _NOTE_HEIGHT))
    grid = figure.subplots(len(shown) + 1, 3 * len(images) - 1, squeeze=False, gridspec_kw=_tiles(len(images), figure))
    for axis in grid.flat:
        axis.set_axis_off()
    _draw_row(grid[0], "original", None, images)
    for line, row in zip(grid[1:], shown, strict=True):
        label = ",\n".join(setting_label(name, row[name]) for name in names) or "model"
        mask, pred = tensors[f"{row['name']}/mask"], tensors[f"{row['name']}/pred"]
        _draw_row(line, label, np.where(mask[..., None] > 0, _HIDDEN, images), pred)
    how = "of each pair the left is what the model sees, the right what it makes of it"
    theme.note(figure, f"{stage}, validation images of {', '.join(runs['dataset'].unique())}, first seed", how)
    return figure


_LABEL_WIDTH, _NOTE_HEIGHT = 0.95, 0.35  # inches
_GAP = 0.15  # between images, in tiles
_HIDDEN = np.array([0.55, 0.62, 0.72])
"""Colour of hidden pixels, which gray images have not."""


def _tiles(n: int, figure: Figure) -> dict[str, Any]:
    """Two tiles for each image, and gaps; sizes are fixed, so no layout engine is used."""
    width, height = figure.get_size_inches()
    return {
        "width_ratios": ([1, 1, _GAP] * n)[:-1],
        "left": (_LABEL_WIDTH - 0.02) / width,
        "right": 1 - 0.02 / width,
        "top": 1 - 0.02 / height,
        "bottom": _NOTE_HEIGHT / height,
        "wspace": 0.03,
        "hspace": 0.06,
    }


def _draw_row(
    line: np.ndarray,
    label: str,
    left: Float[np.ndarray, "n h w 3"] | None,
    right: Float[np.ndarray, "n h w c"],
) -> None:
    """A pair of tiles for each image, the left perhaps empty; gray images are drawn as colour."""
    line[0].text(-0.1, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=7)
    for i, image in enumerate(right):
        if left is not None:
            line[3 * i].imshow(left[i], interpolation="nearest")
        line[3 * i + 1].imshow(np.broadcast_to(image, (*image.shape[:2], 3)), interpolation="nearest")
