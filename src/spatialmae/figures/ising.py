"""Figures of Ising data (claim A3): where within a patch the linear masked autoencoder puts its weight."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spatialmae.figures import theme
from spatialmae.figures.declaration import declare

SECTION = "Linear MAE, and the images"
NOTEBOOK = "ising"

_MATRICES = ("encoder", "decoder")
_POSITION = {1: "position in the patch (px)", 2: "distance from the patch's border (px)"}
"""What the table's ``position`` is, by dimension."""


@declare(
    tables=["ising"],
    caption="On Ising chains, does the encoder's weight sit at patch boundaries? Edge/centre energy against the "
    "masking ratio, 0 being the AE (claims A3). Points are independent simulations.",
    alt="Edge/centre energy against masking ratio, {subject}, 1-D.",
)
def edge_ratio_1d(table: pd.DataFrame, subject: str) -> Figure:
    """Chains: see :func:`edge_ratio`."""
    return edge_ratio(table, 1, subject)


@declare(
    tables=["ising_profile"],
    caption="Energy of the weights by position within the patch, Ising chains (A3).",
    alt="Energy by position in the patch, {subject}, 1-D.",
)
def energy_profile_1d(table: pd.DataFrame, subject: str) -> Figure:
    """Chains: see :func:`energy_profile`."""
    return energy_profile(table, 1, subject)


@declare(
    tables=["ising"],
    caption="The same ratio on a two-dimensional Ising lattice (no claim).",
    alt="Edge/centre energy against masking ratio, {subject}, 2-D.",
)
def edge_ratio_2d(table: pd.DataFrame, subject: str) -> Figure:
    """Lattices: see :func:`edge_ratio`."""
    return edge_ratio(table, 2, subject)


@declare(
    tables=["ising_profile"],
    caption="Energy of the weights by distance from the patch's border, lattice.",
    alt="Energy by position in the patch, {subject}, 2-D.",
)
def energy_profile_2d(table: pd.DataFrame, subject: str) -> Figure:
    """Lattices: see :func:`energy_profile`."""
    return energy_profile(table, 2, subject)


def energy_profile(table: pd.DataFrame, dimension: int, subject: str) -> Figure:
    """Energy of encoder (top) and decoder (bottom) by position in the patch, by masking ratio.

    Shown at the middle coupling and rank of the table, a column for each patch size.

    Args:
        table: ``ising_profile``: seed, dimension, coupling, patch_size, mask_ratio, n_components,
            matrix, position (px: along the patch of a chain, from the border of a lattice's patch), energy (mean
            squared weight, 1 on average over the patch).
        dimension: 1 for chains, 2 for lattices.
        subject: name of the simulation.
    """
    table = table[table["dimension"] == dimension]
    coupling, rank = theme.middle(table["coupling"]), theme.middle(table["n_components"])
    chosen = table[(table["coupling"] == coupling) & (table["n_components"] == rank)]
    chosen = chosen[chosen["mask_ratio"].isin(theme.representative(chosen["mask_ratio"], 6))]
    patches = sorted(chosen["patch_size"].unique())
    figure, axes = theme.panels(2, len(patches), height=1.6, sharex="col", sharey="row")
    for (matrix, patch_size, ratio), rows in chosen.groupby(["matrix", "patch_size", "mask_ratio"]):
        axis = axes[_MATRICES.index(str(matrix)), patches.index(patch_size)]
        style = theme.method_style("mae", ratio)
        theme.draw_series(axis, rows, "position", "energy", style, f"m = {ratio:.2g}")
    for axis, patch_size in zip(axes[0], patches, strict=True):
        axis.set_title(f"patch {patch_size} px")
    for axis in axes.flat:
        axis.axhline(1, color=theme.GREY, linestyle=":", linewidth=0.8)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    theme.label_outer(axes, _POSITION[dimension], [f"{name} energy\n(relative)" for name in _MATRICES])
    theme.legend_above(figure, axes.flat, "mask ratio")
    keys = ["matrix", "patch_size", "mask_ratio", "position"]
    n = theme.state_n(chosen, keys, "energy", unit="simulation")
    theme.note(figure, f"{subject}, {dimension}-D, coupling J = {coupling:g}, k = {rank}", n)
    return figure


def edge_ratio(table: pd.DataFrame, dimension: int, subject: str) -> Figure:
    """Energy at the patch's edge over that at its centre, against masking ratio, by coupling.

    A row of panels for each rank, a column for each patch size; encoder solid, decoder dashed.

    Args:
        table: ``ising``: seed, dimension, coupling, patch_size, mask_ratio, n_components, matrix, edge_centre_ratio.
        dimension: 1 for chains, 2 for lattices.
        subject: name of the simulation.
    """
    table = table[table["dimension"] == dimension]
    ranks, patches = (sorted(table[key].unique()) for key in ("n_components", "patch_size"))
    styles = theme.sequence_styles(table["coupling"].unique().tolist(), "cividis")
    figure, axes = theme.panels(len(ranks), len(patches), height=1.6)
    # Coupling first, encoder before decoder: a legend in two rows then pairs them.
    ordered = table.assign(matrix=pd.Categorical(table["matrix"], _MATRICES))
    for (coupling, matrix, rank, patch_size), rows in ordered.groupby(
        ["coupling", "matrix", "n_components", "patch_size"], observed=True
    ):
        axis = axes[ranks.index(rank), patches.index(patch_size)]
        style = replace(styles[coupling], linestyle="-" if matrix == "encoder" else "--")
        theme.draw_series(axis, rows, "mask_ratio", "edge_centre_ratio", style, f"{matrix} J = {coupling:g}")
        axis.set_title(f"patch {patch_size} px, k = {rank}")
    for axis in axes.flat:
        axis.set_yscale("log")
        axis.axhline(1, color=theme.GREY, linestyle=":", linewidth=0.8)
    theme.label_outer(axes, "mask ratio m", "edge / centre energy")
    theme.legend_above(figure, axes.flat)
    keys = ["matrix", "n_components", "patch_size", "coupling", "mask_ratio"]
    theme.note(figure, f"{subject}, {dimension}-D", theme.state_n(table, keys, "edge_centre_ratio", unit="simulation"))
    return figure
