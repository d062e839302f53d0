"""Figures of paper B's experiments on images (B4–B6, B8–B11), and of its level beside paper A's reach.

The tables hold every setting of the models; :mod:`spatialmae.figures.design` finds in them what models are drawn along.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from spatialmae.analysis.reach_and_level import REACH, ReachAndLevel, Trend, Values, parts_of, with_log_ratio
from spatialmae.analysis.settings import models_along
from spatialmae.analysis.turning import Turn
from spatialmae.figures import theme
from spatialmae.figures.declaration import declare
from spatialmae.figures.design import (
    ALONG,
    Comparison,
    Line,
    compare,
    compare_along,
    configurations,
    draw_level,
    draw_reference,
    state_centre,
    state_grid_edges,
    state_seeds,
)
from spatialmae.figures.practice import with_pretraining
from spatialmae.figures.tiles import TITLE_HEIGHT, TITLE_LINE, Pictures, draw_bar, label_row, tile_grid

SECTION = "Latent hierarchies: experiments"
NOTEBOOK = "images"

_QUALITIES = {"ssim": "SSIM", "fsim": "FSIM", "psnr": "PSNR (dB)", "mse": "MSE (intensities 0–1)"}
_QUERIES = {"cls": "of [CLS]", "object": "of the object's tokens"}
_GROUPS = ("noise", "blur", "weather", "digital")
_SCORES = {"miou": "mIoU (higher is better)", "rmse": "RMSE (lower is better)"}
_COLUMNS = 3  # of panels
_SCATTERS = 5  # in a row
_TITLE_WIDTH = 22  # characters above a scatter
_REFERENCES = (":", "-.")  # line styles
_SAME = 1e-6  # relative difference of what is the same for all models


@dataclass(frozen=True)
class _Panel:
    """What one panel shows along a comparison.

    Attributes:
        ylabel: of its axis.
        kinds: rows and column of each kind of value; the name "" is for one that needs none.
        title: above it.
        references: what the values are held against.
    """

    ylabel: str
    kinds: Mapping[str, Values]
    title: str = ""
    references: Mapping[str, Values] = field(default_factory=dict)


@declare(
    tables=["image_quality"],
    papers="B",
    caption="What do models make of images of which nothing is masked? SSIM, FSIM, PSNR and squared error on test "
    "images against what the models differ in. A loss on hidden patches never trains the output at visible ones; "
    "FSIM's wavelengths exceed small images, so compare orders only ({subject}; claims B4). {seeds}",
    alt="Quality of reconstructed unmasked images, {subject}.",
)
def reconstruction(table: pd.DataFrame, subject: str) -> Figure:
    """SSIM, FSIM, PSNR and MSE of reconstructed unmasked images against what the models differ in.

    Args:
        table: ``image_quality``: seed, ssim, fsim, psnr (dB), mse (of intensities 0 … 1), clipped (share of the
            output), n_images, ssim_window, and every setting.
        subject: name of the evaluation.
    """
    compared = compare(table)
    panels = [_Panel(label, {"": (table, value)}) for value, label in _QUALITIES.items()]
    figure = _draw_panels([panels[:2], panels[2:]], compared, height=1.7)
    clipped = f"{100 * table['clipped'].min():.2g} to {100 * table['clipped'].max():.2g} %"
    theme.note(
        figure,
        f"{subject}, {table['n_images'].max():,} test images of which nothing is masked",
        state_seeds(table, "ssim_window", "ssim"),
        f"SSIM's window: {', '.join(table['ssim_window'].unique())}",
        f"{clipped} of a model's output lay outside the range of images and was clipped",
        *state_centre(compared),
    )
    return figure


@declare(
    tables=["attention"],
    papers="B",
    caption="Does attention keep to the object? Attention of the last block, averaged over heads, in images of leaves "
    "with known objects. Log-ratio: an image's own map against the mean map of other images, which knows positions "
    "alone, so that 0 is no more than the object's usual place; attention that is spread evenly has the dotted "
    "distance and entropy ({subject}; claims B5). {seeds}",
    alt="Attention of the last block of trained models, {subject}.",
)
def attention(table: pd.DataFrame, subject: str) -> Figure:
    """Attention of the last block: its preference for the object, its distance and its entropy.

    Args:
        table: ``attention``: seed, block, last_block, query (cls, object), object_attention_relative (the object's
            share of attention, over its share in other images' mean map), attention_distance (px; missing of cls),
            attention_entropy (nats), both with ``_uniform`` for uniform attention, n_images, and every setting.
        subject: name of the evaluation.
    """
    compared = compare(table)
    last = with_log_ratio(table[table["last_block"].astype(bool)])
    queries = {label: last[last["query"] == query] for query, label in _QUERIES.items()}
    uniform = queries[_QUERIES["object"]]
    panels = [
        _Panel(
            "log-ratio",
            {label: (rows, "log_ratio") for label, rows in queries.items()},
            "Attention on the object",
            {"position alone": (last.assign(none=0.0), "none")},
        ),
        *(
            _Panel(
                f"{name} ({unit})",
                {label: (rows, f"attention_{name}") for label, rows in queries.items()},
                f"Attention {name}",
                {"uniform attention": (uniform, f"attention_{name}_uniform")},
            )
            for name, unit in (("distance", "px"), ("entropy", "nats"))
        ),
    ]
    figure = _draw_panels([panels], compared, height=2.0)
    _note_attention(figure, table, subject, state_seeds(last, "query", "log_ratio"), "last block", compared)
    return figure


@declare(
    artifacts=["pictures/attention/{subject}.safetensors"],
    where="attention",
    papers="B",
    caption="Where do encoders look? Attention of [CLS] and of the object's tokens over the patches of a few images "
    "with a known object (outlined), last block, models of the first seed ({subject}; claims B5, whose verdicts go by "
    "the numbers in the figure before).",
    alt="Attention over the patches of images with a known object, {subject}.",
)
def attention_pictures(pictures: Pictures, subject: str) -> Figure:
    """Where models look: attention of [CLS] and of the object's tokens at each image, a column for each model.

    Args:
        pictures: arrays and what is said of them. Arrays: ``images`` uint8 (n, h, w, c), ``object`` bool (n, h, w),
            and for each model ``maps/<name>`` (n, 2, rows, columns), attention over patches, each map of sum 1. Said:
            ``models``, name and every setting of each.
        subject: name of the evaluation.
    """
    tensors, about = pictures
    models = [(one.label, one.rows["name"].iloc[0]) for one in configurations(pd.DataFrame(about["models"]))]
    images = tensors["images"]
    n, height, width, _ = images.shape
    # In units of uniform attention, which is the same for all patch sizes.
    maps = {name: tensors[f"maps/{name}"] * tensors[f"maps/{name}"][0, 0].size for _, name in models}
    largest = max(float(np.quantile(one, _SHOWN_ATTENTION)) for one in maps.values())
    scale = ScalarMappable(Normalize(0, largest), "magma")
    titles = [textwrap.fill(label, _COLUMN_TITLE_WIDTH) for label, _ in models]
    title_height = TITLE_HEIGHT + max(title.count("\n") for title in titles) * TITLE_LINE
    columns = max(1 + len(models), _LEAST_COLUMNS)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)  # of the image's pixels, whatever the patch
    figure, grid = tile_grid(n * len(_QUERIES), [1] * columns, height / width, title_height=title_height)
    for i, (query, label) in itertools.product(range(n), enumerate(_QUERIES.values())):
        line = grid[i * len(_QUERIES) + query]
        label_row(line[0], textwrap.fill(label, _ROW_LABEL_WIDTH))
        line[0].imshow(images[i].squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        for axis, (_, name) in zip(line[1:], models, strict=False):
            axis.imshow(scale.to_rgba(maps[name][i, query]), extent=extent, interpolation="nearest")
        for axis in line[: 1 + len(models)]:
            axis.contour(tensors["object"][i], levels=[0.5], colors=[theme.PALETTE[9]], linewidths=0.8)
    for axis, title in zip(grid[0, 1:], titles, strict=False):
        axis.set_title(title, fontsize=7)
    draw_bar(figure, grid[-1, 1], scale, "over uniform attention")
    theme.note(
        figure,
        f"{subject}, first seed, last block, mean over heads, unmasked images of leaves",
        "outlined: the object",
        f"brightest: the highest {1 - _SHOWN_ATTENTION:.0%} of all values of a model",
    )
    return figure


_SHOWN_ATTENTION = 0.99  # quantile of a model's values that is as bright as any above it
_ROW_LABEL_WIDTH, _COLUMN_TITLE_WIDTH = 11, 13  # characters
_LEAST_COLUMNS = 6  # fewer would make large tiles of little


@declare(
    tables=["attention"],
    papers="B",
    caption="Where along the encoder does attention keep to the object? The same log-ratio, and the distance of "
    "attention, by block ({subject}; no claim). {seeds}",
    alt="Attention of trained models by block, {subject}.",
)
def attention_blocks(table: pd.DataFrame, subject: str) -> Figure:
    """Attention on the object and attention distance by block, a line for each configuration.

    Args:
        table: ``attention``, see :func:`attention`.
        subject: name of the evaluation.
    """
    table = with_log_ratio(table)
    panels = [(query, "log_ratio", "log-ratio", f"On the object, {label}") for query, label in _QUERIES.items()]
    panels.append(("object", "attention_distance", "distance (px)", f"Distance, {_QUERIES['object']}"))
    figure, axes = theme.panels(1, len(panels), height=2.2, sharey="none")
    for axis, (query, value, ylabel, title) in zip(axes[0], panels, strict=True):
        for one in configurations(table):
            theme.draw_series(axis, one.rows[one.rows["query"] == query], "block", value, one.style, one.label)
        if value == "log_ratio":
            axis.axhline(0, color=theme.GREY, linestyle=":", label="position alone", zorder=1.8)
        axis.set(title=title, xlabel="block", ylabel=ylabel)
        axis.set_xticks(sorted(table["block"].unique()))
        axis.set_xlim(0.5, table["block"].max() + 0.5)
    theme.legend_above(figure, axes.flat)
    keyed = table.assign(drawn=table["query"] + table["block"].astype(str))
    _note_attention(figure, table, subject, state_seeds(keyed, "drawn", "log_ratio"), "all blocks", compare(table))
    return figure


@declare(
    tables=["attention_distance"],
    papers="B",
    caption="How far do attention heads look? Distance between a patch and those it attends to, weighted by attention, "
    "of each head (crosses), and the mean over heads, by block; dotted: attention that is spread evenly, after "
    "Dosovitskiy et al., 2021 ({subject}; no claim). {seeds}",
    alt="Distance of attention of each head of trained models by block, {subject}.",
)
def attention_distance(table: pd.DataFrame, subject: str) -> Figure:
    """Attention distance of each head, and its mean over heads, by block; a line for each configuration.

    Args:
        table: ``attention_distance``: seed, block, head, attention_distance and attention_distance_uniform (px),
            n_images, and every setting.
        subject: name of the evaluation.
    """
    figure, axes = theme.panels(1, 1, height=2.2)
    axis = axes[0, 0]
    for one in configurations(table):
        heads, distances = one.rows["block"], one.rows["attention_distance"]
        axis.scatter(heads, distances, s=10, marker="x", linewidths=0.5, alpha=0.5, color=[one.style.color])
        of_seeds = one.rows.groupby(["block", "seed"], as_index=False)["attention_distance"].mean()
        theme.draw_series(axis, of_seeds, "block", "attention_distance", one.style, one.label or "models")
    for uniform in table["attention_distance_uniform"].unique():
        axis.axhline(uniform, color=theme.GREY, linestyle=":", label="uniform attention", zorder=1.8)
    axis.set(xlabel="block", ylabel="distance (px)", xticks=sorted(table["block"].unique()))
    axis.set_xlim(0.5, table["block"].max() + 0.5)
    axis.set_ylim(bottom=0)
    theme.legend_above(figure, axes.flat)
    seeds = state_seeds(table, "block", "attention_distance")
    about = f"{subject}, {table['n_images'].max():,} unmasked test images, [CLS] left out"
    theme.note(figure, about, seeds, "crosses: heads", *state_centre(compare(table)))
    return figure


def _note_attention(
    figure: Figure, table: pd.DataFrame, subject: str, seeds: str, blocks: str, compared: Sequence[Comparison]
) -> None:
    theme.note(
        figure,
        f"{subject}, {blocks}, mean over heads and over {table['n_images'].max():,} unmasked images of leaves",
        seeds,
        "log-ratio: an image's own map against the mean map of other images",
        *state_centre(compared),
    )


@declare(
    tables=["separability_tsne"],
    papers="B",
    caption="Do classes separate in the embedding, to look at? t-SNE of frozen features of test images, coloured by "
    "class, models of the first seed. It shows clusters or none as its perplexity has it; the numbers are in the "
    "figure after it ({subject}; claims B6).",
    alt="t-SNE of features of test images, {subject}.",
)
def embedding(table: pd.DataFrame, subject: str) -> Figure:
    """A t-SNE of each model of the first seed, its points coloured by class.

    A row for each target, if the models fit into one; else the first target alone.

    Args:
        table: ``separability_tsne``: seed, x, y, the name of each point's class in a last column for each target, and
            every setting.
        subject: name of the evaluation.
    """
    models = configurations(table)
    targets = list(table.columns[table.columns.get_loc("y") + 1 :])
    if len(models) > _SCATTERS:
        targets = targets[:1]
    columns = min(len(models), _SCATTERS)
    cells = [(target, model) for target in targets for model in models]
    figure, axes = theme.panels(-(-len(cells) // columns), columns, height=1.5, sharex="none", sharey="none")
    styles = theme.category_styles([str(name) for target in targets for name in sorted(table[target].unique())])
    for place, (target, model) in enumerate(cells):
        axis = axes.flat[place]
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel("t-SNE 1" if place + columns >= len(cells) else "")
        axis.set_ylabel(f"{target}\nt-SNE 2" if place % columns == 0 else "")
        axis.set_title(textwrap.fill(model.label, _TITLE_WIDTH) if target == targets[0] else "", fontsize=7)
        for name, rows in model.rows.groupby(target):
            style = styles[str(name)]
            drawn = {"color": [style.color], "marker": style.marker, "s": 5, "linewidths": 0, "alpha": 0.7}
            axis.scatter(rows["x"], rows["y"], **drawn, label=str(name), rasterized=True)
    for axis in axes.flat[len(cells) :]:
        axis.set_axis_off()
    theme.legend_above(figure, axes.flat, " and ".join(targets))
    for handle in figure.legends[0].legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([20])
    points = len(models[0].rows)
    theme.note(
        figure,
        f"{subject}, seed {table['seed'].iloc[0]} alone, {points:,} test images",
        "axes have no unit; sizes of clusters and distances between them mean little, so numbers are judged instead",
        *state_centre(compare(table)),
    )
    return figure


@declare(
    tables=["separability"],
    papers="B",
    caption="Do classes separate in the embedding, in numbers? Accuracy of k nearest neighbours, chance dotted, and "
    "silhouette of the classes in frozen features of test images ({subject}; claims B6). {seeds}",
    alt="Separability of classes in features of trained models, {subject}.",
)
def separability(table: pd.DataFrame, subject: str) -> Figure:
    """Accuracy of k nearest neighbours and silhouette of classes in frozen features; a row for each target.

    Args:
        table: ``separability``: seed, target, knn_accuracy and chance (fractions of the images), silhouette (−1 … 1),
            n_neighbours, n_images, and every setting.
        subject: name of the evaluation.
    """
    compared = compare(table)
    panels = []
    for target, rows in parts_of(table, "target"):
        accuracy = f"accuracy, {target}\n(fraction)"
        chance = {"chance": (rows, "chance")}
        panels.append(
            [
                _Panel(accuracy, {"": (rows, "knn_accuracy")}, "k nearest neighbours", chance),
                _Panel(f"silhouette, {target}\n(−1 … 1)", {"": (rows, "silhouette")}, "Silhouette of classes"),
            ]
        )
    figure = _draw_panels(panels, compared, height=1.9)
    about = f"{subject}, frozen encoders, {table['n_images'].max():,} test images, k = {table['n_neighbours'].max()}"
    seeds = state_seeds(table, "target", "knn_accuracy")
    theme.note(figure, about, seeds, "nothing is fitted", *state_centre(compared))
    return figure


@declare(
    tables=["corruptions"],
    papers="B",
    caption="Does a probe of clean images hold on corrupted ones? Accuracy against severity, averaged over "
    "corruptions, and, averaged over severities, against what the models differ in, by kind of corruption ({subject}; "
    "claims B8, whose test sets are out of reach). {seeds}",
    alt="Accuracy of linear probes on corrupted images, {subject}.",
)
def probe_shift(table: pd.DataFrame, subject: str) -> Figure:
    """Accuracy of a linear probe against the severity of corruptions, and by their kind; a row for each target.

    Args:
        table: ``corruptions``: name, seed, target, corruption, group, severity, accuracy and clean_accuracy (fractions
            of the test images), n_test, and every setting.
        subject: name of the evaluation.
    """
    compared = compare(table)
    clean = table.assign(accuracy=table["clean_accuracy"], severity=0).drop_duplicates(["name", "target"])
    by_severity = pd.concat([clean, _average(table, ["target", "severity"], "accuracy")])
    kinds = {"not corrupted": clean, "all corruptions": _average(table, ["target"], "accuracy")}
    by_group = _average(table, ["target", "group"], "accuracy")
    kinds |= {group: by_group[by_group["group"] == group] for group in _GROUPS if (by_group["group"] == group).any()}
    targets = list(table["target"].unique())
    figure, axes = theme.panels(len(targets), 1 + len(compared), height=2.4, sharex="col", sharey="row")
    models = configurations(by_severity)
    styles = _styles_after(len(models) if models[0].style.color in theme.PALETTE else 0, list(kinds))
    for line, target in zip(axes, targets, strict=True):
        for one in configurations(by_severity[by_severity["target"] == target]):
            theme.draw_series(line[0], one.rows, "severity", "accuracy", one.style, one.label)
        line[0].set_xticks(sorted(by_severity["severity"].unique()))
        of_target = {kind: (rows[rows["target"] == target], "accuracy") for kind, rows in kinds.items()}
        for axis, comparison in zip(line[1:], compared, strict=True):
            _draw_kinds(axis, comparison, of_target, styles)
            comparison.set_axis(axis)
    theme.label_outer(axes, "", [f"accuracy, {target}\n(fraction)" for target in targets])
    for axis, label in zip(axes[-1], ["severity", *(comparison.label for comparison in compared)], strict=True):
        axis.set_xlabel(label)
    theme.legend_above(figure, axes.flat)
    theme.note(
        figure,
        f"{subject}, probes of clean training images on {table['n_test'].max():,} test images",
        state_seeds(by_severity, "target", "accuracy"),
        f"means over {table['corruption'].nunique()} corruptions, on the right also over severities; 0: not corrupted",
        *state_centre(compared),
    )
    return figure


@declare(
    tables=["shape_bias"],
    papers="B",
    caption="Do features go by shape or by texture? Of a probe's decisions for either of two conflicting cues, the "
    "share for the shape's. A probe that guesses comes near .5 as well, so how well it sees at all stands beside "
    "({subject}; claims B9, B11). {seeds}",
    alt="Shape bias of linear probes, {subject}.",
)
def shape_bias(table: pd.DataFrame, subject: str) -> Figure:
    """Shape bias, and how well its probe sees the images, against what the models differ in; a row for each stimuli.

    Args:
        table: ``shape_bias``: seed, stimuli, shape_bias (fraction of the decisions for either cue) with its interval
            low to high, n (images), n_classes, probe_accuracy with probe_chance, same_cue_accuracy (missing without
            images whose cues agree), and every setting.
        subject: name of the evaluation.
    """
    compared = compare(table)
    panels = []
    for stimuli, rows in parts_of(table, "stimuli"):
        shown, rows = _plain(stimuli), rows.assign(even=0.5, one_of_all=1 / rows["n_classes"])
        accuracies: dict[str, Values] = {"own test images": (rows, "probe_accuracy")}
        chances: dict[str, Values] = {"chance": (rows, "probe_chance")}
        if rows["same_cue_accuracy"].notna().any():
            accuracies["cues that agree"] = (rows, "same_cue_accuracy")
            chances["chance where cues agree"] = (rows, "one_of_all")
        bias = {"conflicting cues": (rows, "shape_bias")}
        even = {"as often shape as texture": (rows, "even")}
        panels.append(
            [
                _Panel(f"shape bias, {shown}\n(fraction)", bias, "Shape bias", even),
                _Panel(f"accuracy, {shown}\n(fraction)", accuracies, "The same probe", chances),
            ]
        )
    figure = _draw_panels(panels, compared, height=1.9)
    half = ((table["high"] - table["low"]) / 2).groupby(table["stimuli"], sort=False).max()
    wide = ", ".join(f"± {width:.2g} ({_plain(str(stimuli))})" for stimuli, width in half.items())
    theme.note(
        figure,
        f"{subject}, linear probes of frozen encoders",
        state_seeds(table, "stimuli", "shape_bias"),
        f"one model's own 95 % Wilson interval over images: at most {wide}",
        "a probe that guesses comes near .5",
        *state_centre(compared),
    )
    return figure


@declare(
    tables=["dense"],
    papers="B",
    caption="Do features serve dense prediction? Segmentation and depth of leaves by a linear head on patch tokens, of "
    "frozen and of fine-tuned encoders; dotted: the best answer that is the same for all images ({subject}; claims "
    "B10, COCO is out of reach). {seeds}",
    alt="Scores of segmentation and depth, {subject}.",
)
def dense_transfer(table: pd.DataFrame, subject: str) -> Figure:
    """Scores of segmentation and depth from frozen and fine-tuned encoders against what the models differ in.

    Args:
        table: ``dense``: seed, encoder (frozen, fine-tuned), target, metric, score (mIoU; of depth the root mean
            squared error, in units of its range; missing where training diverged), baseline (of a constant answer),
            n_train, at_grid_edge, every setting of the models, those of their training with the prefix
            ``pretraining_``.
        subject: name of the evaluation.
    """
    table = with_pretraining(table)
    compared = compare(table)
    panels = []
    for target, rows in parts_of(table, "target"):
        kinds = {f"{encoder} encoder": (part, "score") for encoder, part in parts_of(rows, "encoder")}
        score = _SCORES[rows["metric"].iloc[0]]
        constant = rows.drop_duplicates("name")  # whatever the encoder
        panels.append(_Panel(score, kinds, target.capitalize(), {"the same answer for all": (constant, "baseline")}))
    figure = _draw_panels([panels], compared, height=2.2)
    kinds = table["target"] + table["encoder"]
    theme.note(
        figure,
        f"{subject}, linear heads trained on {table['n_train'].max():,} images of leaves",
        state_seeds(table.assign(kind=kinds), "kind", "score"),
        "RMSE in units of depth's range",
        *(
            edge
            for encoder, rows in parts_of(table, "encoder")
            for edge in state_grid_edges(rows, f"learning rate of {encoder} encoders")
        ),
        *state_centre(compared),
    )
    return figure


@declare(
    tables=["linear_probe"],
    optional=["shape_bias"],
    along="loss_margin",
    papers="B",
    caption="Does it help to leave the mask's boundary out of the loss, as paper B suggests? Accuracy of a linear "
    "probe, and shape bias where it was measured, against the width left out; the control leaves out as many hidden "
    "pixels at random ({subject}; claims B11). {seeds}",
    alt="Probes of models whose loss leaves out a margin, {subject}.",
)
def boundary_loss(probe: pd.DataFrame, bias: pd.DataFrame | None, subject: str) -> Figure:
    """Accuracy of a linear probe and shape bias against the margin that the loss leaves out, beside its control.

    Models without a margin belong to both lines; those that others differ from in more are not shown.

    Args:
        probe: ``linear_probe``: seed, target, accuracy and chance (fractions of the test images), and every setting,
            ``loss_margin`` (px) and ``loss_margin_control`` among them.
        bias: ``shape_bias``, see :func:`shape_bias`; None: not measured.
        subject: name of the evaluation.
    """
    probe = models_along(probe, "loss_margin")
    compared = compare_along(probe, "loss_margin")
    panels = [
        _Panel("accuracy (fraction)", {"": (rows, "accuracy")}, f"Linear probe, {target}")
        for target, rows in parts_of(probe, "target")
    ]
    if bias is not None:
        for stimuli, rows in parts_of(models_along(bias, "loss_margin"), "stimuli"):
            title = f"Shape bias, {_plain(stimuli)}"
            panels.append(_Panel("shape bias (fraction)", {"": (rows, "shape_bias")}, title))
    figure = _draw_panels(_in_rows(panels), [compared], height=2.2)
    seeds = state_seeds(probe, "target", "accuracy")
    # Small effects are looked for, which levels far off would hide.
    chance = ", ".join(f"{rows['chance'].mean():.2g} ({target})" for target, rows in parts_of(probe, "target"))
    facts = ["margin 0: the loss is on all hidden pixels"] if 0 in compared.names else []
    facts.append(f"a probe that guesses has an accuracy of {chance}")
    theme.note(figure, f"{subject}, frozen encoders", seeds, *facts)
    return figure


@declare(
    tables=["jacobian_reach", "linear_probe"],
    optional=["image_quality", "attention", "shape_bias", "hierarchy_levels/hierarchy"],
    along="mask_ratio",
    papers="both",
    caption="Do reach and level go together? Paper A's reach, under masks that all models share, beside what stands "
    "for paper B's level of the latents in the same models, and the level itself on trees in theory, all against the "
    "ratio that models were trained at. Below: whether each turns back at the highest ratio ({subject}; no claim). "
    "{seeds}",
    alt="Reach and level of the same models against the masking ratio, {subject}.",
)
def reach_and_level(
    reach: pd.DataFrame,
    probe: pd.DataFrame,
    quality: pd.DataFrame | None,
    attention: pd.DataFrame | None,
    bias: pd.DataFrame | None,
    levels: pd.DataFrame | None,
    subject: str,
) -> Figure:
    """Paper A's reach and paper B's level of the same models against the ratio that they were trained at.

    The note says of each measure whether it turns back between the two highest ratios, by differences within seeds.

    Args:
        reach: ``jacobian_reach``; for all see :meth:`~spatialmae.analysis.reach_and_level.ReachAndLevel.of`.
        probe: ``linear_probe``.
        quality: ``image_quality``; None, as of the others: not measured.
        attention: ``attention``.
        bias: ``shape_bias``.
        levels: ``levels``, of theory.
        subject: name of the evaluation.
    """
    tables = {"jacobian_reach": reach, "linear_probe": probe, "image_quality": quality, "attention": attention}
    tables |= {"shape_bias": bias, "hierarchy_levels": levels}
    both = ReachAndLevel.of({name: table for name, table in tables.items() if table is not None})
    panels = [_Panel(one.unit, one.parts, f"{one.paper}: {one.name}") for one in both.measures]
    figure = _draw_panels(_in_rows(panels), [compare_along(both.models, "mask_ratio")], height=1.7)
    shown, _ = both.measures[0].parts[""]
    theme.note(
        figure,
        f"{subject}, reach under masks of ratio {shown['evaluation_mask_ratio'].iloc[0]:.2g} for all",
        state_seeds(shown, "evaluation_mask_ratio", REACH),
        *(["theory: patches of one leaf, points are simulations"] if levels is not None else []),
        *_state_trends(both.trends()),
    )
    return figure


def _plain(stimuli: str) -> str:
    return stimuli.replace("_", " ")


def _average(table: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """A row of each model for each combination of ``by``, with the mean of a column."""
    keys = ["name", *by]
    means = table.groupby(keys, as_index=False)[value].mean()
    return table.drop(columns=value).drop_duplicates(keys).merge(means, on=keys)


def _in_rows(panels: Sequence[_Panel]) -> list[list[_Panel]]:
    """Panels in rows of about equal length, the last perhaps shorter."""
    rows = -(-len(panels) // _COLUMNS)
    columns = -(-len(panels) // rows)
    return [list(panels[start : start + columns]) for start in range(0, len(panels), columns)]


def _draw_panels(panels: Sequence[Sequence[_Panel]], compared: Sequence[Comparison], *, height: float) -> Figure:
    """Rows of panels with one legend; of a cross each panel is a row, with a column for each setting.

    ``height`` is that of a row in inches.
    """
    is_cross = len(compared) > 1
    if is_cross:
        cells = [[(panel, comparison) for comparison in compared] for line in panels for panel in line]
    else:
        cells = [[(panel, compared[0]) for panel in line] for line in panels]
    styles = _styles(panels, compared)
    figure, axes = theme.panels(
        len(cells), len(cells[0]), height=height, sharex="none", sharey="row" if is_cross else "none"
    )
    for row, line in enumerate(cells):
        for place, (panel, comparison) in enumerate(line):
            axis = axes[row, place]
            _draw_kinds(axis, comparison, panel.kinds, styles)
            for linestyle, (label, reference) in zip(_REFERENCES, panel.references.items(), strict=False):
                _draw_against(axis, comparison, *reference, theme.Style(theme.GREY, "", linestyle), label)
            comparison.set_axis(axis)
            above, below = cells[row - 1 : row], cells[row + 1 : row + 2]
            axis.set_title(panel.title if not above or above[0][place][0].title != panel.title else "")
            axis.set_xlabel(comparison.label if not below or place >= len(below[0]) else "")
            axis.set_ylabel(panel.ylabel if place == 0 or not is_cross else "")
        for axis in axes[row, len(line) :]:
            axis.set_axis_off()
    theme.legend_above(figure, axes.flat)
    return figure


def _styles(panels: Sequence[Sequence[_Panel]], compared: Sequence[Comparison]) -> dict[str, theme.Style]:
    """Style of each named kind of the panels, apart from those of lines whose kind has no name."""
    every = [panel for line in panels for panel in line]
    named = list(dict.fromkeys(kind for panel in every for kind in panel.kinds if kind))
    unnamed = [rows for panel in every for kind, (rows, _) in panel.kinds.items() if not kind]
    return _styles_after(max(len(one.lines(unnamed[0])) for one in compared) if unnamed else 0, named)


def _styles_after(taken: int, names: Sequence[str]) -> dict[str, theme.Style]:
    """Styles of names, after so many that others have."""
    others = [f"_{place}" for place in range(taken)]
    return {name: style for name, style in theme.category_styles([*others, *names]).items() if name in names}


def _draw_kinds(
    axis: Axes, comparison: Comparison, kinds: Mapping[str, Values], styles: Mapping[str, theme.Style]
) -> None:
    """A line for each kind of value, in each line of the comparison: colours tell kinds apart, marks tell lines."""
    marked = {}
    for kind, (rows, value) in kinds.items():
        if rows[value].isna().all():
            continue
        for line in _lines(comparison, rows):
            style, label = line.style, line.label or kind or comparison.subject
            if kind:
                marks = line.style if line.label else styles[kind]
                linestyle = marks.linestyle if comparison.linestyle else ""
                style = theme.Style(styles[kind].color, marks.marker, linestyle)
            if kind and line.label:
                axis.plot([], [], color=style.color, linewidth=3, label=kind)
                marked[line.label] = style
                label = f"_{kind}, {line.label}"
            theme.draw_series(axis, line.rows, ALONG, value, style, label)
    for label, style in marked.items():
        axis.plot([], [], color="black", marker=style.marker, linestyle=style.linestyle, label=label)


def _lines(comparison: Comparison, rows: pd.DataFrame) -> list[Line]:
    """The lines of models; one of rows that are of no model, as theory's."""
    if "name" in rows:
        return comparison.lines(rows)
    return [Line("", theme.Style(theme.PALETTE[0]), rows.assign(**{ALONG: rows[str(comparison.setting)]}))]


def _draw_against(
    axis: Axes, comparison: Comparison, rows: pd.DataFrame, value: str, style: theme.Style, label: str
) -> None:
    """What models are held against: a level where it is the same for all of a seed."""
    spread = rows.groupby("seed")[value].agg(np.ptp).max()
    if spread <= _SAME * np.abs(rows[value]).max():
        draw_level(axis, rows[value], style, label)
        return
    for line in comparison.lines(rows):
        draw_reference(axis, comparison, line.rows, value, style, label)


def _state_trends(trends: Sequence[Trend]) -> list[str]:
    """Of each measure its difference between the two highest ratios, and whether it turns back there."""
    if not trends:
        return []
    _, low, high = trends[0].turn.places
    facts = [f"from m = {low:.2g} to {high:.2g}, mean differences within seeds with 95 % t intervals"]
    for one in trends:
        facts.append(f"{one.paper}: {', '.join(filter(None, (one.measure, one.models)))} {_state_turn(one.turn)}")
    return facts


def _state_turn(turn: Turn) -> str:
    """The last difference in words."""
    last = turn.last
    if np.isnan(last.mean):
        return turn.word
    if np.isnan(last.low):
        return f"{last.mean:+.2g} ({turn.word})"
    return f"{last.mean:+.2g} [{last.low:.2g}, {last.high:.2g}] {turn.word}"
