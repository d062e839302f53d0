"""Figures of the linear features: what they keep (claim A2) and what they look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from skimage.color import rgb2gray

from spatialmae.artifacts import read_tensors
from spatialmae.figures import theme
from spatialmae.figures.declaration import declare
from spatialmae.figures.tiles import label_row, tile_grid

SECTION = "Linear MAE, and the images"
NOTEBOOK = "features"


@declare(
    tables=["features"],
    caption="What do features keep? Variance against redundancy across patches, the line following the masking ratio "
    "({subject}; claims A2). {units}",
    alt="Variance kept against cross-patch redundancy of the reconstruction, {subject}.",
)
def redundancy(table: pd.DataFrame, subject: str) -> Figure:
    """Variance kept against cross-patch redundancy: AE, DAE, and the path of the MAE over the masking ratio.

    Args:
        table: ``features``: seed, method, noise_std, mask_ratio, patch_size, n_components, variance_kept,
            redundancy (fractions). A row of panels for each rank, a column for each patch size.
        subject: name of the data set.
    """
    ranks, patches = (sorted(table[key].unique()) for key in ("n_components", "patch_size"))
    figure, axes = theme.panels(len(ranks), len(patches), height=1.7, sharey="row")
    for (rank, patch_size), rows in table.groupby(["n_components", "patch_size"]):
        axis = axes[ranks.index(rank), patches.index(patch_size)]
        axis.set_title(f"patch {patch_size} px, k = {rank}")
        _draw_path(axis, rows)
    theme.label_outer(axes, "redundancy of the\nreconstruction (fraction)", "variance kept (fraction)")
    ratios = ScalarMappable(cmap=theme.RATIO_COLORMAP)
    figure.colorbar(ratios, ax=axes, label="MAE mask ratio m", aspect=25, pad=0.02)
    theme.legend_above(figure, axes.flat)
    theme.note(figure, subject, theme.state_n(table, _KEYS, "redundancy"))
    return figure


_KEYS = ["method", "noise_std", "mask_ratio", "patch_size", "n_components"]


def _draw_path(axes: Axes, rows: pd.DataFrame) -> None:
    for label, style, points in theme.iterate_methods(rows):
        x, y = (theme.summarise(points, "method", value) for value in ("redundancy", "variance_kept"))
        axes.scatter(points["redundancy"], points["variance_kept"], s=3, color=[style.color], alpha=0.3, linewidths=0)
        axes.hlines(y["mean"], x["low"], x["high"], color=style.color, linewidth=0.9)
        axes.vlines(x["mean"], y["low"], y["high"], color=style.color, linewidth=0.9)
        name = "MAE" if label.startswith("MAE") else label
        axes.plot(x["mean"], y["mean"], color=style.color, marker=style.marker, linestyle="", label=name)
    path = rows[rows["method"] == "mae"].groupby("mask_ratio")[["redundancy", "variance_kept"]].mean()
    axes.plot(path["redundancy"], path["variance_kept"], color=theme.GREY, linewidth=0.7, zorder=1)


@declare(
    artifacts=["linear/{subject}"],
    where="features",
    caption="Leading encoder columns and decoder rows from all training images ({subject}); each tile on its own "
    "scale, red and blue of opposite sign.",
    alt="Encoder columns and decoder rows as images, {subject}.",
)
def gallery(solutions: Path, subject: str) -> Figure:
    """Encoder columns and decoder rows of AE, DAE and MAE as images, from all training images.

    Args:
        solutions: folder of the encoders and decoders of a data set.
        subject: name of the data set.
    """
    tensors, metadata = read_tensors(solutions / "all.safetensors")
    return draw_gallery(gallery_rows(tensors, metadata["image_shape"]), subject)


def gallery_rows(
    tensors: Mapping[str, np.ndarray], image_shape: Sequence[int]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Encoder columns and decoder rows as images, for AE, DAE and MAE at a few masking ratios.

    Args:
        tensors: "<method>/encoder" (d, k) and "<method>/decoder" (k, d), where <method> is "ae", "dae" or
            "mae/p<patch_size>/m<mask_ratio>"; others are ignored.
        image_shape: (h, w, c) with h·w·c = d, in C order.

    Returns:
        For each method, by its label, two arrays (k, h, w, c).
    """
    encoders = [name for name in tensors if name.endswith("/encoder")]
    names = sorted((name.removesuffix("/encoder") for name in encoders), key=_method_order)
    ratios = theme.representative([_method_order(name)[2] for name in names if name.startswith("mae/")])
    shown = [name for name in names if not name.startswith("mae/") or _method_order(name)[2] in ratios]
    shape = (-1, *image_shape)
    return {
        _method_title(name): (
            tensors[f"{name}/encoder"].T.reshape(shape),
            tensors[f"{name}/decoder"].reshape(shape),
        )
        for name in shown
    }


def draw_gallery(
    rows: Mapping[str, tuple[Float[np.ndarray, "k h w c"], Float[np.ndarray, "k h w c"]]],
    subject: str,
) -> Figure:
    """Encoder columns (left) and decoder rows (right) as images, a row for each method.

    Every tile has its own diverging scale, symmetric about zero. Colour images show the luminance of the
    weights, as :func:`skimage.color.rgb2gray` weighs the channels.

    Args:
        rows: for each method, by its label, encoder and decoder images; see :func:`gallery_rows`.
        subject: name of the data set.
    """
    shown = min(_COMPONENTS, *(len(encoder) for encoder, _ in rows.values()))
    columns = [1.0] * shown + [_GAP] + [1.0] * shown
    figure, grid = tile_grid(len(rows), columns, label_width=_LABEL_WIDTH, foot_height=_NOTE_HEIGHT)
    for line, (label, halves) in zip(grid, rows.items(), strict=True):
        label_row(line[0], label)
        for half, images in zip((line[:shown], line[shown + 1 :]), halves, strict=True):
            for axis, image in zip(half, images, strict=False):
                draw_tile(axis, image)
    grid[0, 0].set_title("encoder columns", loc="left", fontsize=8)
    grid[0, shown + 1].set_title("decoder rows", loc="left", fontsize=8)
    weights = "luminance of the weights" if next(iter(rows.values()))[0].shape[-1] == 3 else "weights"
    scale = f"{weights}, red above and blue below zero, each tile on its own scale"
    theme.note(figure, f"{subject}, from all training images, the leading {shown} components", scale)
    return figure


_COMPONENTS = 8  # that are shown, at most
_LABEL_WIDTH, _NOTE_HEIGHT = 1.3, 0.35  # inches
_GAP = 0.5  # between the halves, in tiles


def draw_tile(axes: Axes, image: Float[np.ndarray, "h w c"]) -> None:
    """Weights as an image, luminance in colour, red above and blue below zero, on a scale of their own."""
    shown = rgb2gray(image) if image.shape[-1] == 3 else image.mean(axis=-1)
    limit = float(np.abs(shown).max()) or 1.0
    axes.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _method_order(name: str) -> tuple[int, int, float]:
    """Sort key of "ae", "dae", "mae/p4/m0.75": method, patch size, masking ratio."""
    method, *cell = name.split("/")
    if not cell:
        return (0 if method == "ae" else 1), 0, 0.0
    return 2, int(cell[0].removeprefix("p")), float(cell[1].removeprefix("m"))


def _method_title(name: str) -> str:
    method, patch_size, ratio = _method_order(name)
    return f"MAE p = {patch_size} px, m = {ratio:.2g}" if method == 2 else name.upper()
