"""What a practitioner sees of the evidence: masked examples, the correlation of pixels, and a map of the settings."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatialmae.figures import theme
from spatialmae.figures.setting_grid import draw_grid, frame
from spatialmae.geometry import patch_labels
from spatialmae.masks import fixed_count_masks
from spatialmae.recommend.advice import Advice
from spatialmae.recommend.answer import length_says
from spatialmae.recommend.evidence import MAPS
from spatialmae.recommend.images import FolderImages

N_EXAMPLES = 6
HIDDEN = 128  # grey level of what a mask hides


def draw(advice: Advice, images: FolderImages) -> dict[str, Figure]:
    """Figures ``examples``, ``correlation`` and ``map``."""
    theme.use_theme()
    return {
        "examples": masked_examples(images.images, *advice.setting),
        "correlation": correlation_curve(advice),
        "map": setting_map(advice),
    }


def masked_examples(images: UInt8[np.ndarray, "n s s c"], patch_size: int, mask_ratio: float) -> Figure:
    """Some of the images, evenly taken, above what a model would see of them under random masks."""
    shown = images[np.linspace(0, len(images) - 1, N_EXAMPLES).round().astype(int)]
    side = images.shape[1]
    labels = patch_labels(side**2, patch_size, (side, side)).reshape(side, side)
    masks = fixed_count_masks(N_EXAMPLES, (side // patch_size) ** 2, mask_ratio, np.random.default_rng(0))
    figure, axes = theme.panels(2, N_EXAMPLES, height=1.1)
    for column, (image, mask) in enumerate(zip(shown, masks, strict=True)):
        seen = np.where(mask[labels][..., None], np.uint8(HIDDEN), image)
        for axis, picture in zip(axes[:, column], (image, seen), strict=True):
            axis.imshow(_visible(picture), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_axis_off()
    axes[0, 0].set_title("images", loc="left")
    axes[1, 0].set_title(f"patches of {patch_size} px, {mask_ratio:.0%} hidden", loc="left")
    return figure


def _visible(image: UInt8[np.ndarray, "s s c"]) -> Shaped[np.ndarray, "s s *c"]:
    """Colour, or the mean of channels that are no colours."""
    return image if image.shape[-1] == 3 else image.mean(axis=-1)


def correlation_curve(advice: Advice) -> Figure:
    """Correlation of pixels against their distance, the patch sizes that were compared marked."""
    found = advice.correlations
    figure, axes = theme.panels(1, 1, height=2.0)
    axis = axes[0, 0]
    axis.plot(found.distances, found.correlation, color=theme.PALETTE[0], marker="o")
    axis.axhline(np.exp(-1), color=theme.GREY, linestyle=":", linewidth=0.8)
    if not np.isnan(found.length):
        axis.axvline(found.length, color=theme.GREY, linestyle=":", linewidth=0.8)
    _mark_patch_sizes(axis, advice)
    axis.set_xlabel("distance of two pixels (px)")
    axis.set_ylabel("correlation")
    axis.set_title(f"1/e at {length_says(advice)}; ticks above: patch sizes", loc="left")
    return figure


def _mark_patch_sizes(axis: Axes, advice: Advice) -> None:
    for patch_size in advice.grid.patch_sizes:
        bold = patch_size == advice.setting[0]
        axis.axvline(patch_size, ymin=0.97, color=theme.PALETTE[3] if bold else "0.3", linewidth=2 if bold else 1)


def setting_map(advice: Advice) -> Figure:
    """Reach and unexplained share of every setting; framed: the setting to follow, and others that were picked."""
    figure, axes = theme.panels(1, len(MAPS), height=0.28 * len(advice.grid.patch_sizes) + 1.1, sharey=True)
    for axis, (value, (title, digits)) in zip(axes[0], MAPS.items(), strict=True):
        table = draw_grid(axis, advice.cells, value, digits)
        axis.set(xlabel="masking ratio", ylabel="", title=title)
        for setting in dict.fromkeys([*advice.picks, advice.setting]):
            frame(axis, table, setting, linewidth=2.0 if setting == advice.setting else 0.9)
    axes[0, 0].set_ylabel("patch size (px)")
    return figure
