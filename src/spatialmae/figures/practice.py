"""Figures of what trained encoders are good for: probes, reconstruction error as a proxy, fine-tuning (A12–A15, B7)."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatialmae.analysis.rank_correlation import RankCorrelation, rank_correlation
from spatialmae.analysis.settings import models_along, setting_label, varied
from spatialmae.figures import theme
from spatialmae.figures.declaration import declare
from spatialmae.figures.design import (
    ALONG,
    Comparison,
    Line,
    compare,
    compare_along,
    compare_at_once,
    configurations,
    draw_dots,
    draw_level,
    draw_reference,
    state_centre,
    state_grid_edges,
    state_seeds,
)

SECTION = "Non-linear MAE: analyses"
NOTEBOOK = "nonlinear"

_COSTS = {"seconds_per_step": "CPU time (s per step)", "memory_mib": "peak memory (MiB)"}

_LEGEND_HEIGHT = 0.1  # inches for each configuration


@declare(
    tables=["linear_probe", "linear_probe_neighbours"],
    papers="both",
    caption="What do frozen encoders know of the classes? Accuracy of a linear probe and of k nearest neighbours "
    "against what the models differ in, chance dotted ({subject}; claims A12, A13, B7). {seeds}",
    alt="Accuracy of probes of trained models, {subject}.",
)
def model_probe(linear: pd.DataFrame, neighbours: pd.DataFrame, subject: str) -> Figure:
    """Accuracy of a linear probe and of k nearest neighbours against what the models differ in; a row for each target.

    Of a cross each setting has a column, and each probe a row.

    Args:
        linear: ``linear_probe``: seed, target, accuracy and chance (fractions of the test images), at_grid_edge, and
            every setting.
        neighbours: ``linear_probe_neighbours``: the same columns.
        subject: name of the evaluation.
    """
    probes = {"linear probe": linear, "k nearest neighbours": neighbours}
    targets, compared = list(linear["target"].unique()), compare(linear)
    is_cross = len(compared) > 1
    rows, columns = (len(targets) * len(probes), len(compared)) if is_cross else (len(targets), len(probes))
    figure, axes = theme.panels(rows, columns, height=1.9, sharex="col", sharey="row")
    for line, target in zip(axes.reshape(len(targets), len(probes), len(compared)), targets, strict=True):
        for cells, (probe, table) in zip(line, probes.items(), strict=True):
            for axis, comparison in zip(cells, compared, strict=True):
                _draw_probe(axis, comparison, table[table["target"] == target])
                axis.set_title(probe if is_cross or target == targets[0] else "")
    theme.label_outer(
        axes, "", [f"accuracy, {target}\n(fraction)" for target in np.repeat(targets, rows // len(targets))]
    )
    for axis, comparison in zip(axes[-1], compared if is_cross else compared * columns, strict=True):
        axis.set_xlabel(comparison.label)
    theme.legend_above(figure, axes.flat)
    seeds = state_seeds(linear, "target", "accuracy")
    edges = state_grid_edges(linear, "the linear probe's penalty")
    theme.note(figure, f"{subject}, frozen encoders", seeds, *edges, *state_centre(compared))
    return figure


def _draw_probe(axis: Axes, comparison: Comparison, rows: pd.DataFrame) -> None:
    for line in comparison.lines(rows):
        theme.draw_series(axis, line.rows, ALONG, "accuracy", line.style, line.label or comparison.subject)
    axis.axhline(rows["chance"].mean(), color=theme.GREY, linestyle=":", label="chance")
    comparison.set_axis(axis)


@declare(
    tables=["linear_probe"],
    along="patch_size",
    caption="Do small patches train slower? Epochs until the validation loss had come nine tenths of its way from the "
    "mean image's loss to its last value, against the patch size ({subject}; claims A13). {seeds}",
    alt="Epochs to nine tenths of the way of the validation loss, {subject}.",
)
def convergence(linear: pd.DataFrame, subject: str) -> Figure:
    """Epochs that the validation loss took for nine tenths of its way, against the patch size.

    Args:
        linear: ``linear_probe``: seed, epochs_to_90, epochs, and every setting; models that others differ from in more
            than the patch size are not shown.
        subject: name of the evaluation.
    """
    rows = models_along(linear.drop_duplicates("name"), "patch_size")
    compared = compare_along(rows, "patch_size")
    figure, axes = theme.panels(1, 1, height=2.0)
    axis = axes[0, 0]
    for line in compared.lines(rows):
        theme.draw_series(axis, line.rows, ALONG, "epochs_to_90", line.style, line.label or compared.subject)
    compared.set_axis(axis)
    axis.set(xlabel=compared.label, ylabel="epochs to 90 % of the way")
    axis.set_ylim(bottom=0)
    theme.legend_above(figure, axes.flat)
    seeds = state_seeds(rows.assign(all=0), "all", "epochs_to_90")
    theme.note(figure, f"{subject}, of {rows['epochs'].max():g} epochs", seeds)
    return figure


@declare(
    tables=["linear_probe"],
    compares=True,
    caption="Does a model that reconstructs better know more of the classes? Accuracy of the linear probe against the "
    "error per hidden feature on test images, under masks that all models share; a dot is a model, of one seed. "
    "Within configurations, each one's means are taken off before ranks are correlated ({subject}; claims A15).",
    alt="Accuracy of a linear probe against reconstruction error, {subject}.",
)
def proxy(linear: pd.DataFrame, subject: str) -> Figure:
    """Accuracy of a linear probe against reconstruction error under common masks, a dot a model; a panel a target.

    Args:
        linear: ``linear_probe``: seed, target, accuracy (fraction of the test images), reconstruction_error (per
            hidden feature, in units of the channels' variance; missing where models predict normalised patches), and
            every setting.
        subject: name of the evaluation.
    """
    targets = list(linear["target"].unique())
    height = 2.2 + _LEGEND_HEIGHT * len(configurations(linear)) / len(targets)
    figure, axes = theme.panels(1, len(targets), height=height, sharey=False)
    facts = []
    for axis, target in zip(axes[0], targets, strict=True):
        rows = linear[linear["target"] == target]
        draw_dots(axis, compare_at_once(linear), rows, "reconstruction_error", "accuracy")
        axis.set(xlabel="reconstruction error (channel variance = 1)", ylabel=f"accuracy, {target} (fraction)")
        axis.locator_params(axis="x", nbins=5)
        about = f"{target}: " if len(targets) > 1 else ""
        facts.append(f"{about}Spearman ρ {_correlations(rows)}")
    theme.legend_above(figure, axes.flat)
    seeds = f"{theme.count_n([one.rows['seed'].nunique() for one in configurations(linear)])} (points: models)"
    if any("[" in fact for fact in facts):
        facts.append("95 % bootstrap intervals, resampling configurations")
    theme.note(figure, f"{subject}, linear probe", seeds, *facts, *state_centre(compare(linear)))
    return figure


def _correlations(rows: pd.DataFrame) -> str:
    """Rank correlation over all models of a target, and with the differences between configurations taken off."""
    found = enumerate(configurations(rows))
    cluster = pd.concat([pd.Series(place, index=one.rows["name"]) for place, one in found])
    error, accuracy = (rows[column].to_numpy(dtype=np.float64) for column in ("reconstruction_error", "accuracy"))
    clusters = cluster.loc[rows["name"]].to_numpy(dtype=np.int64)
    pooled, within = (rank_correlation(error, accuracy, clusters, within=within) for within in (False, True))
    return f"{_interval(pooled)} pooled, {_interval(within)} within configurations"


def _interval(found: RankCorrelation) -> str:
    if np.isnan(found.rho):
        return "undefined"
    if np.isnan(found.ci_low):
        return f"{found.rho:.2f} (no interval from {found.n_clusters} configurations)"
    return f"{found.rho:.2f} [{found.ci_low:.2f}, {found.ci_high:.2f}]"


@declare(
    tables=["fine_tuning", "costs/fine_tuning_{subject}"],
    caption="How much of the encoder must be fine-tuned? Accuracy on test images, with CPU time and memory of a step "
    "where the number of trained blocks varies, else against what the models differ in; grey: the same encoder trained "
    "from scratch. Learning rates were chosen on validation images ({subject}; claims A12, A14). {seeds}",
    alt="Accuracy and cost of fine-tuning encoders, {subject}.",
)
def fine_tuning(table: pd.DataFrame, costs: pd.DataFrame, subject: str) -> Figure:
    """Accuracy, time and memory against the blocks trained; where their number is one, accuracy against the models.

    Args:
        table: ``fine_tuning``: name, seed, target, accuracy (fraction of the test images; missing where training
            diverged), n_train, n_blocks, embedding_trained (and so the whole encoder), from_scratch, memory_bytes,
            at_grid_edge, every setting of the models, those of their training with the prefix ``pretraining_``.
        costs: ``costs`` of the same evaluation: name, n_blocks, embedding_trained, seconds_per_step.
        subject: name of the evaluation.
    """
    table = with_pretraining(with_times(table, costs))
    table = table.assign(blocks=_blocks(table), memory_mib=table["memory_bytes"] / 2**20)
    scratch = table["from_scratch"].astype(bool)
    tuned = table[~scratch]
    draw = _against_blocks if len(tuned["blocks"].unique()) > 1 else _against_models
    figure, facts = draw(tuned, table[scratch])
    kinds = tuned[["target", "blocks"]].astype(str).agg("-".join, axis=1)
    seeds = state_seeds(tuned.assign(kind=kinds), "kind", "accuracy")
    about = f"{subject}, fine-tuned on {tuned['n_train'].max():,} images"
    theme.legend_above(figure, figure.axes)
    theme.note(figure, about, seeds, *facts, *state_grid_edges(table, "learning rate"), *state_centre(compare(tuned)))
    return figure


def with_times(table: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """The table ``fine_tuning`` with ``seconds_per_step`` of its ``costs``; missing for models from scratch."""
    trained = ["name", "n_blocks", "embedding_trained"]
    return table.merge(costs[[*trained, "seconds_per_step"]], how="left", on=trained)


def with_pretraining(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the settings of the models' own training instead of those of fine-tuning of the same names."""
    prefix = "pretraining_"
    replaced = [name for name in table if f"{prefix}{name}" in table]
    return table.drop(columns=replaced).rename(columns=lambda name: name.removeprefix(prefix))


def _blocks(table: pd.DataFrame) -> pd.Series:
    """Number of blocks trained; a whole encoder, with its embedding, counts as one more than the deepest has."""
    whole = float(table["encoder_depth"].max()) + 1
    return table["n_blocks"].astype(float).where(~table["embedding_trained"].astype(bool), whole)


def _against_blocks(tuned: pd.DataFrame, scratch: pd.DataFrame) -> tuple[Figure, list[str]]:
    """Panels of accuracy, a target each, of time, and of memory, with what the note has to tell."""
    targets, models = list(tuned["target"].unique()), configurations(tuned)
    if len(models) == 1:
        models = [Line("pretrained", theme.Style(theme.PALETTE[0]), models[0].rows)]
    panels = [(target, "accuracy", f"accuracy, {target} (fraction)") for target in targets]
    panels += [(targets[0], value, label) for value, label in _COSTS.items()]  # they hardly depend on the target
    figure, axes = theme.panels(1, len(panels), height=2.2, sharey=False)
    for axis, (target, value, label) in zip(axes[0], panels, strict=True):
        for model in models:
            rows = model.rows[model.rows["target"] == target]
            theme.draw_series(axis, rows, "blocks", value, model.style, model.label)
        if value == "accuracy":
            _draw_scratch(axis, scratch[scratch["target"] == target])
        else:
            axis.set_ylim(bottom=0)
        axis.set(ylabel=label, xlabel="blocks trained")
        _set_blocks(axis, tuned)
    costs = f"time and memory: {targets[0]}; " if len(targets) > 1 else ""
    memory = f"{costs}memory is of weights, gradients, AdamW's moments and activations"
    return figure, ["0: the head alone, all: the whole encoder", memory]


def _set_blocks(axis: Axes, tuned: pd.DataFrame) -> None:
    """A tick at each number of blocks, at the whole encoder in words."""
    places = tuned[["blocks", "embedding_trained"]].drop_duplicates().sort_values("blocks")
    names = ["all" if whole else f"{place:g}" for place, whole in places.itertuples(index=False)]
    axis.set_xticks(places["blocks"], names)
    axis.set_xlim(places["blocks"].min() - 0.5, places["blocks"].max() + 0.5)


def _against_models(tuned: pd.DataFrame, scratch: pd.DataFrame) -> tuple[Figure, list[str]]:
    """A row for each target; of a cross each setting has a column."""
    targets, compared = list(tuned["target"].unique()), compare(tuned)
    figure, axes = theme.panels(len(targets), len(compared), height=2.2, sharex="col", sharey="row")
    for line, target in zip(axes, targets, strict=True):
        of_target, fresh = (rows[rows["target"] == target] for rows in (tuned, scratch))
        for axis, comparison in zip(line, compared, strict=True):
            for one in comparison.lines(of_target):
                theme.draw_series(axis, one.rows, ALONG, "accuracy", one.style, one.label or "pretrained")
            _draw_scratch(axis, comparison.placed(fresh), comparison)
            comparison.set_axis(axis)
    theme.label_outer(axes, "", [f"accuracy, {target}\n(fraction)" for target in targets])
    for axis, comparison in zip(axes[-1], compared, strict=True):
        axis.set_xlabel(comparison.label)
    first = tuned.iloc[0]
    last = f"the last {first['n_blocks']:g} blocks and the head"
    return figure, [f"trained: {'the whole encoder' if first['embedding_trained'] else last}"]


def _draw_scratch(axis: Axes, rows: pd.DataFrame, comparison: Comparison | None = None) -> None:
    """Encoders of the same architectures trained from fresh weights, by what these differ in.

    Args:
        axis: to draw on.
        rows: with their place in the comparison, if there is one.
        comparison: along the horizontal axis; None: another quantity is, and each is a level.
    """
    apart = [name for name in varied(rows) if comparison is None or name != comparison.setting]
    parts = rows.groupby(apart) if apart else [((), rows)]
    for (values, part), linestyle in zip(parts, itertools.cycle((":", "-.", "--"))):
        names = [setting_label(name, value) for name, value in zip(apart, values, strict=True)]
        style, label = theme.Style(theme.GREY, "x", linestyle), ", ".join(["from scratch", *names])
        if comparison is None:
            draw_level(axis, part["accuracy"], style, label)
        else:
            draw_reference(axis, comparison, part, "accuracy", style, label)
