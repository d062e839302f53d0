"""Figures of latent hierarchies (paper B): Theorem 1 on random graphs, level of the shared latents, Theorem 2."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from spatialmae.figures import theme
from spatialmae.figures.declaration import declare

SECTION = "Latent hierarchies: theory"
NOTEBOOK = "hierarchy"

_CHECKS = {"minimal_set": "smallest set c", "independence": "independence of sₘ"}
_ROLES = {"claim": "hierarchy_theorem", "control": "control, must fail"}
_HEIGHTS = {"mean_height": "mean height\n(levels)", "max_height": "largest height\n(levels)"}
_TREES = {"binary": "binary tree over a line", "quad": "quad-tree over an image"}
_VARIANTS = {
    "plain": "as many coordinates as c",
    "wider": "two coordinates more",
    "turned": "mean hides part of c",
}
_PREDICTORS = {
    "fixed mask": "predictor of this mask",
    "random masks": "predictor of random masks",
    "untrained": "untrained",
    "visible observables": "all that is visible",
}
_PREDICTED = {
    "c": "c",
    "representation": "represen-\ntation\nfrom c",
    "s_visible": "noise of\nvisible\npart",
    "s_masked": "noise of\nmasked\npart",
}
_SHIFT = 0.16  # between predictors at one place


@declare(
    tables=["hierarchy_theorem"],
    papers="B",
    caption="Is the smallest set of shared latents right? Share of random graphs and masks on which Theorem 1's set "
    "differs from enumeration with d-separation, and on which the masked part's own noise is not independent of the "
    "rest; beside each a control that must fail (claims B1). Points are seeds, each with graphs of its own.",
    alt="Theorem 1 against enumeration, {subject}.",
)
def theorem(table: pd.DataFrame, subject: str) -> Figure:
    """Share of graphs and masks that disagree with Theorem 1, beside the controls.

    Args:
        table: ``hierarchy_theorem``: check, role (claim, control), seed, n_graphs, n_masks, relative_error (share,
            0 … 1).
        subject: name of the simulation.
    """
    figure, axes = theme.panels(1, len(_CHECKS), height=1.9)
    styles = theme.category_styles(list(_ROLES.values()))
    for axis, (check, title) in zip(axes[0], _CHECKS.items(), strict=True):
        for place, (role, label) in enumerate(_ROLES.items()):
            rows = table[(table["check"] == check) & (table["role"] == role)].assign(place=float(place))
            style = theme.Style(styles[label].color, styles[label].marker, "")
            theme.draw_series(axis, rows, "place", "relative_error", style, label)
        axis.set(title=title, xlim=(-0.5, 1.5), ylim=(-0.04, 1.04))
        axis.set_xticks(range(len(_ROLES)), [label.replace(", ", ",\n") for label in _ROLES.values()])
    theme.label_outer(axes, "", "disagreements\n(share of masks)")
    number = int((table["n_graphs"] * table["n_masks"]).iloc[0])
    n = theme.state_n(table, ["check", "role"], "relative_error", unit="seed")
    theme.note(figure, f"{subject}, {number} masks of random graphs a seed", n)
    return figure


@declare(
    tables=["hierarchy_levels"],
    papers="B",
    caption="What moves the level of the shared latents? Mean and largest height of c above the pixels against the "
    "masking ratio, by patch size, on a binary tree over a line and a quad-tree over an image. The law of c is the "
    "same at ratios r and 1 − r: the theorem implies no peak at .75. A patch is a subtree, so that doubling its side "
    "adds one level by construction (claims B2). Points are seeds, bars their mean and two-sided 95 % t interval.",
    alt="Level of the shared latents, {subject}.",
)
def levels(table: pd.DataFrame, subject: str) -> Figure:
    """Mean and largest height of the shared latents against the masking ratio, by patch size; a column for each tree.

    Args:
        table: ``levels``: tree (binary, quad), depth, patch_size (leaves along a side), mask_ratio, seed, mean_height
            and max_height (levels above the leaves).
        subject: name of the simulation.
    """
    trees = [tree for tree in _TREES if (table["tree"] == tree).any()]
    figure, axes = theme.panels(len(_HEIGHTS), len(trees), height=1.7, sharey="none")
    styles = theme.patch_styles(table)
    for column, tree in zip(axes.T, trees, strict=True):
        rows = table[table["tree"] == tree]
        column[0].set_title(f"{_TREES[tree]}, depth {rows['depth'].iloc[0]}")
        for axis, value in zip(column, _HEIGHTS, strict=True):
            for patch_size, part in rows.groupby("patch_size"):
                theme.draw_series(axis, part, "mask_ratio", value, styles[int(patch_size)], f"patch {patch_size} px")
            axis.set(xlim=(-0.04, 1.04), xticks=(0, 0.5, 1))
    theme.label_outer(axes, "mask ratio m", list(_HEIGHTS.values()))
    # Each tree has patch sizes of its own.
    theme.legend_above(figure, axes.flat, order=[f"patch {size} px" for size in sorted(table["patch_size"].unique())])
    n = theme.state_n(table, ["tree", "patch_size", "mask_ratio"], "mean_height", unit="seed")
    theme.note(figure, subject, n)
    return figure


@declare(
    tables=["identifiability"],
    papers="B",
    caption="What does masked prediction identify of known latents? R² on held-out samples of non-linear regressions: "
    "of c and of either side's own noises from a representation, and of the representation from c. Predictors of one "
    "mask have as many coordinates as c; one of random masks needs room for all latents. From what is visible both c "
    "and its own noises could be had (claims B3). Points are seeds, means over graphs and masks, bars their mean and "
    "two-sided 95 % t interval.",
    alt="What is identified, {subject}.",
)
def identifiability(table: pd.DataFrame, subject: str) -> Figure:
    """Held-out R² of what follows from what; a row of panels for each variant, a column for each noise scale.

    Args:
        table: ``identifiability``: variant, graph, masked, noise_scale, predictor, predicted, seed, r2.
        subject: name of the simulation.
    """
    variants = [variant for variant in _VARIANTS if (table["variant"] == variant).any()]
    scales = sorted(table["noise_scale"].unique())
    shown = table[table["predicted"].isin(_PREDICTED) & table["predictor"].isin(_PREDICTORS)]
    # One number for each seed: the mean over graphs and masks.
    keys = ["variant", "noise_scale", "predictor", "predicted"]
    means = shown.groupby([*keys, "seed"], as_index=False)["r2"].mean()
    figure, axes = theme.panels(len(variants), len(scales), height=2.3)
    styles = theme.category_styles(list(_PREDICTORS))
    for line, variant in zip(axes, variants, strict=True):
        for axis, scale in zip(line, scales, strict=True):
            part = means[(means["variant"] == variant) & (means["noise_scale"] == scale)]
            for i, (predictor, label) in enumerate(_PREDICTORS.items()):
                places = {name: place + (i - 1.5) * _SHIFT for place, name in enumerate(_PREDICTED)}
                rows = part[part["predictor"] == predictor]
                rows = rows.assign(place=rows["predicted"].map(places))
                style = theme.Style(styles[predictor].color, styles[predictor].marker, "")
                theme.draw_series(axis, rows, "place", "r2", style, label)
            axis.set_title(f"{_VARIANTS[variant]}, noise {scale:g}" if len(part) else "")
            axis.set_xticks(range(len(_PREDICTED)), list(_PREDICTED.values()))
            axis.set_visible(len(part) > 0)
    for column in axes.T:
        visible = column[[axis.get_visible() for axis in column]]
        visible[-1].tick_params(labelbottom=True)
    theme.label_outer(axes, "", "R² on held-out samples")
    theme.legend_above(figure, axes.flat)
    theme.note(figure, subject, theme.state_n(means, keys, "r2", unit="seed"))
    return figure
