from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from figure_checks import check_text, labels, level, line, run_notebook_cells
from model_tables import (
    AUTOENCODER,
    CORRUPTIONS,
    CROSS,
    MARGINS,
    OBJECTIVES,
    RATIOS,
    make_agreement_tables,
    make_attention,
    make_attention_distance,
    make_corruptions,
    make_dense,
    make_levels,
    make_models,
    make_probe,
    make_quality,
    make_reach,
    make_runs,
    make_separability,
    make_shape_bias,
    make_tsne,
)
from spatialmae.analysis.settings import models_along
from spatialmae.artifacts import write_tensors
from spatialmae.config import Config, load_config
from spatialmae.figures import images, theme
from spatialmae.figures.declaration import declared_figures, drawn_figures
from spatialmae.figures.design import ALONG, compare, compare_along, configurations
from spatialmae.layout import Layout
from spatialmae.tables import write_table

pytestmark = pytest.mark.slow  # many pictures
ROOT = Path(__file__).parents[1]
CASES = {
    "several ratios": make_runs(),
    "one ratio of one seed": make_runs((0.75,), 1),
    "two patch sizes": make_runs(RATIOS[2:4], 2, (2, 4)),
    "a cross": make_models(CROSS, 2),
    "objectives": make_models(OBJECTIVES, 2),
    "margins": make_models(MARGINS, 2),
}
BOTH = ("boundary left out", "as many random pixels left out")


def make_tables(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All that :func:`images.reach_and_level` can show."""
    return make_agreement_tables(runs) | {"hierarchy_levels": make_levels(runs["seed"].nunique())}


def reach_and_level(tables: Mapping[str, pd.DataFrame], subject: str) -> Figure:
    names = ("jacobian_reach", "linear_probe", "image_quality", "attention", "shape_bias", "hierarchy_levels")
    return images.reach_and_level(*(tables.get(name) for name in names), subject)


def draw(runs: pd.DataFrame) -> dict[str, Callable[[], Figure]]:
    """The figures of any runs."""
    return {
        "reconstruction": lambda: images.reconstruction(make_quality(runs), "x"),
        "attention": lambda: images.attention(make_attention(runs), "x"),
        "attention_blocks": lambda: images.attention_blocks(make_attention(runs), "x"),
        "attention_distance": lambda: images.attention_distance(make_attention_distance(runs), "x"),
        "separability": lambda: images.separability(make_separability(runs), "x"),
        "embedding": lambda: images.embedding(make_tsne(runs), "x"),
        "probe_shift": lambda: images.probe_shift(make_corruptions(runs), "x"),
        "shape_bias": lambda: images.shape_bias(make_shape_bias(runs), "x"),
        "dense_transfer": lambda: images.dense_transfer(make_dense(runs), "x"),
    }


@pytest.fixture(autouse=True, scope="module")
def themed() -> None:
    theme.use_theme()


def note(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


def panel(figure: Figure, title: str) -> Axes:
    """The first panel with a title."""
    return next(axis for axis in figure.axes if axis.get_title() == title)


def means(rows: pd.DataFrame, value: str, by: str = "mask_ratio") -> np.ndarray:
    """Points (place, mean over seeds) that a line should have."""
    expected = rows.groupby(by)[value].mean()
    return np.column_stack([expected.index, expected])


@pytest.mark.parametrize("name", list(draw(make_runs())))
@pytest.mark.parametrize("case", CASES)
def test_figure_draws_without_warnings_and_its_text_is_readable_and_inside(name: str, case: str) -> None:
    figure = check_text(draw(CASES[case])[name])
    seeds = CASES[case]["seed"].nunique()
    assert ("seed 0 alone" if name == "embedding" else f"n = {seeds} seed") in note(figure)


@pytest.mark.parametrize("case", ["several ratios", "two patch sizes"])
def test_figures_of_one_setting_draw_without_warnings_too(case: str) -> None:
    check_text(lambda: reach_and_level(make_tables(CASES[case]), "x"))
    runs = CASES["margins"]
    check_text(lambda: images.boundary_loss(make_probe(runs), make_shape_bias(runs), "x"))
    check_text(lambda: images.boundary_loss(make_probe(runs, ("label",)), None, "x"))


def test_reconstruction_has_a_panel_for_each_measure_and_says_under_what_it_was_taken() -> None:
    table = make_quality(make_runs())
    figure = images.reconstruction(table, "ratios")
    for axis, value in zip(figure.axes, ("ssim", "fsim", "psnr", "mse"), strict=True):
        np.testing.assert_allclose(line(axis, "trained MAE"), means(table, value))
    for fact in ("nothing is masked", "Gaussian, σ 1.5 px", "was clipped"):
        assert fact in note(figure)


def test_models_of_a_loss_on_all_pixels_stand_beside_those_of_hidden_ones() -> None:
    runs = make_models([{"mask_ratio": m, "loss_on": on} for m in RATIOS for on in ("hidden", "all")], 2)
    axis = images.reconstruction(make_quality(runs), "x").axes[0]
    assert labels(axis) == ["loss on all", "loss on hidden"]


def test_attention_is_that_of_the_last_block_against_position_and_uniform_attention() -> None:
    table = make_attention(make_models(CROSS[:3]))
    last = table[table["block"] == table["encoder_depth"]]
    last = last.assign(ratio=np.log(last["object_attention_relative"]))
    preference, distance, entropy = images.attention(table, "x").axes
    for query, label in (("cls", "of [CLS]"), ("object", "of the object's tokens")):
        rows = last[last["query"] == query]
        np.testing.assert_allclose(line(preference, label), means(rows, "ratio", "encoder_depth"))
        np.testing.assert_allclose(line(entropy, label), means(rows, "attention_entropy", "encoder_depth"))
    assert level(preference, "position alone") == 0
    assert labels(distance) == ["of the object's tokens", "uniform attention"], "[CLS] has no place"
    assert level(distance, "uniform attention") == 13.5
    assert level(entropy, "uniform attention") == pytest.approx(np.log(64))


def test_uniform_entropy_follows_the_patch_size_where_that_varies() -> None:
    entropy = images.attention(make_attention(make_runs((0.75,), 2, (2, 4, 8))), "x").axes[2]
    np.testing.assert_allclose(line(entropy, "uniform attention"), [[p, 2 * np.log(32 / p)] for p in (2, 4, 8)])


def make_attention_pictures(runs: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict]:
    """Maps of the first seed's models at two images with a square object, which attention is drawn to."""
    first = runs[runs["seed"] == runs["seed"].min()]
    inside = np.zeros((2, 16, 16), bool)
    inside[:, 4:12, 4:12] = True
    tensors = {"images": np.full((2, 16, 16, 3), 90, np.uint8), "object": inside}
    for name, patch_size in first[["name", "patch_size"]].itertuples(index=False):
        weight = 1.0 + inside[:, ::patch_size, ::patch_size]
        tensors[f"maps/{name}"] = np.repeat((weight / weight.sum((1, 2), keepdims=True))[:, None], 2, axis=1)
    return tensors, {"models": first.astype(object).where(first.notna(), None).to_dict("records")}


@pytest.mark.parametrize("case", CASES)
def test_pictures_of_attention_have_a_column_for_each_model_and_a_row_for_each_query(case: str) -> None:
    runs = CASES[case]
    tensors, about = make_attention_pictures(runs)
    figure = check_text(lambda: images.attention_pictures((tensors, about), "x"))
    n_models = len(about["models"])
    tiles = [axes for axes in figure.axes if axes.images]
    assert len(tiles) == 2 * 2 * (1 + n_models)
    assert [axes.texts[0].get_text() for axes in tiles[:: 1 + n_models]] == ["of [CLS]", "of the\nobject's\ntokens"] * 2
    shown = tiles[1].images[0].get_array()[..., :3].sum(axis=-1)
    assert shown[len(shown) // 2, len(shown) // 2] > shown[0, 0], "the object is the brighter"


def test_attention_by_block_has_a_line_for_each_configuration_as_long_as_its_encoder() -> None:
    axis = images.attention_blocks(make_attention(make_models(CROSS[:3])), "x").axes[0]
    for depth in (2, 4, 6):
        assert line(axis, f"encoder depth {depth}")[:, 0].tolist() == list(range(1, depth + 1))


def test_attention_distance_shows_each_head_and_the_mean_over_heads_of_each_configuration() -> None:
    table = make_attention_distance(make_models(CROSS[:3], 2))
    axis = images.attention_distance(table, "x").axes[0]
    crosses = [one.get_offsets() for one in axis.collections if len(one.get_offsets()) % 3 == 0]
    shown = np.concatenate(crosses)
    assert {tuple(row) for row in table[["block", "attention_distance"]].to_numpy()} <= {tuple(row) for row in shown}
    for depth in (2, 4, 6):
        expected = table[table["encoder_depth"] == depth].groupby("block")["attention_distance"].mean()
        mean = np.column_stack([expected.index, expected])
        np.testing.assert_allclose(line(axis, f"encoder depth {depth}"), mean)
    assert level(axis, "uniform attention") == 16.7


def test_separability_has_a_row_for_each_target_with_chance() -> None:
    table = make_separability(make_runs())
    axes = images.separability(table, "x").axes
    cells = itertools.product(("shape", "texture"), ("knn_accuracy", "silhouette"))
    for axis, (target, value) in zip(axes, cells, strict=True):
        np.testing.assert_allclose(line(axis, "trained MAE"), means(table[table["target"] == target], value))
    assert level(axes[0], "chance") == pytest.approx(table["chance"].mean())
    assert "chance" not in labels(axes[1])


def test_embedding_has_a_panel_for_each_model_and_a_row_for_each_target_if_models_fit_into_one() -> None:
    table = make_tsne(make_runs((0.5, 0.75)))
    axes = images.embedding(table, "x").axes
    assert [axis.get_title() for axis in axes] == ["m = 0.5", "m = 0.75", "", ""]
    for axis, (target, ratio) in zip(axes, itertools.product(("shape", "texture"), (0.5, 0.75)), strict=True):
        of_model = table[table["mask_ratio"] == ratio]
        assert len(axis.collections) == 10
        for label, points in enumerate(axis.collections):
            expected = of_model.loc[of_model[target] == f"{target} {label}", ["x", "y"]]
            np.testing.assert_allclose(np.asarray(points.get_offsets()), expected)
    many = images.embedding(make_tsne(make_models(CROSS)), "x")
    assert [axis.get_ylabel() for axis in many.axes if axis.axison and axis.get_ylabel()] == ["shape\nt-SNE 2"] * 2


def test_ten_classes_differ_in_colour_and_marker() -> None:
    axis = images.embedding(make_tsne(make_runs((0.75,))), "x").axes[0]
    kinds = {(tuple(points.get_facecolor()[0]), len(points.get_paths()[0])) for points in axis.collections}
    assert len(kinds) == 10


def test_shift_averages_corruptions_at_each_severity_and_severities_in_each_group() -> None:
    table = make_corruptions(make_runs())
    by_severity, by_group = images.probe_shift(table, "x").axes
    drawn = line(by_severity, "m = 0.9")
    rows = table[table["mask_ratio"] == 0.9]
    np.testing.assert_allclose(drawn[1:], means(rows, "accuracy", "severity"))
    assert drawn[0].tolist() == [0, pytest.approx(rows["clean_accuracy"].mean())]
    np.testing.assert_allclose(line(by_group, "not corrupted"), means(table, "clean_accuracy"))
    np.testing.assert_allclose(line(by_group, "all corruptions"), means(table, "accuracy"))
    assert set(CORRUPTIONS.values()) < set(labels(by_group))
    for group in CORRUPTIONS.values():
        np.testing.assert_allclose(line(by_group, group), means(table[table["group"] == group], "accuracy"))


def test_every_label_of_a_legend_has_one_look() -> None:
    for name in ("attention", "probe_shift", "shape_bias", "dense_transfer"):
        for case in ("several ratios", "margins", "objectives"):
            looks: dict[str, set] = {}
            for axis in draw(CASES[case])[name]().axes:
                for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                    looks.setdefault(label, set()).add((str(handle.get_color()), handle.get_marker()))
            assert all(len(found) == 1 for found in looks.values()), (name, case)
            shared = [look for found in looks.values() for look in found if look[0] != theme.GREY]
            assert len(set(shared)) == len(shared), (name, case)


def test_shape_bias_has_a_row_for_each_stimuli_beside_what_its_probe_sees() -> None:
    table = make_shape_bias(make_runs())
    figure = images.shape_bias(table, "x")
    rows = {stimuli: part for stimuli, part in table.groupby("stimuli")}
    bias, probe, other_bias, other_probe = figure.axes
    for axis, stimuli in ((bias, "leaves"), (other_bias, "cue_conflict")):
        np.testing.assert_allclose(line(axis, "conflicting cues"), means(rows[stimuli], "shape_bias"))
        assert level(axis, "as often shape as texture") == 0.5
    assert labels(probe) == ["own test images", "chance"], "its images have no cues that agree"
    assert level(probe, "chance") == pytest.approx(0.2)
    np.testing.assert_allclose(line(other_probe, "cues that agree"), means(rows["cue_conflict"], "same_cue_accuracy"))
    assert level(other_probe, "chance where cues agree") == pytest.approx(1 / 7)
    assert "± 0.045 (leaves), ± 0.045 (cue conflict)" in note(figure)


def test_dense_transfer_is_drawn_along_the_models_own_settings_not_those_of_their_heads() -> None:
    table = make_dense(make_runs())
    figure = images.dense_transfer(table, "x")
    segmentation, depth = figure.axes
    assert segmentation.get_xlabel() == depth.get_xlabel() == "training ratio m"
    assert "higher is better" in segmentation.get_ylabel()
    assert "lower is better" in depth.get_ylabel()
    for axis, target in ((segmentation, "segmentation"), (depth, "depth")):
        for encoder in ("frozen", "fine-tuned"):
            rows = table[(table["target"] == target) & (table["encoder"] == encoder)]
            np.testing.assert_allclose(line(axis, f"{encoder} encoder"), means(rows, "score"))
        assert level(axis, "the same answer for all") == pytest.approx(rows["baseline"].mean())
    half = len(table) // 2
    assert f"learning rate of fine-tuned encoders chosen at an end of its grid: {half} of {half}" in note(figure)
    assert "of frozen encoders" not in note(figure)


def test_heads_that_diverged_leave_gaps() -> None:
    table = make_dense(make_runs())
    table.loc[(table["mask_ratio"] == 0.5) & (table["encoder"] == "fine-tuned"), "score"] = np.nan
    figure = check_text(lambda: images.dense_transfer(table, "x"))
    assert len(line(figure.axes[0], "fine-tuned encoder")) == len(RATIOS) - 1
    table.loc[table["encoder"] == "fine-tuned", "score"] = np.nan
    figure = check_text(lambda: images.dense_transfer(table, "x"))
    assert "fine-tuned encoder" not in labels(figure.axes[0])


def test_models_without_a_margin_belong_to_the_boundary_and_to_its_control() -> None:
    runs = make_models(MARGINS)
    probe, bias = make_probe(runs, ("label",)), make_shape_bias(runs, ("leaves",))
    figure = images.boundary_loss(probe, bias, "x")
    for axis, (table, value) in zip(figure.axes, ((probe, "accuracy"), (bias, "shape_bias")), strict=True):
        for label, control in zip(BOTH, (False, True), strict=True):
            rows = table[(table["loss_margin"] == 0) | (table["loss_margin_control"] == control)]
            np.testing.assert_allclose(line(axis, label), means(rows, value, "loss_margin"))
    assert figure.axes[0].get_xlabel() == "margin left out of the loss (px)"
    assert "accuracy of 0.12 (label)" in note(figure)


def test_one_width_beside_its_control_alone_has_a_figure_too() -> None:
    runs = make_models(MARGINS[1:3], 2)
    figure = check_text(lambda: images.boundary_loss(make_probe(runs), make_shape_bias(runs), "x"))
    assert [line(figure.axes[0], label)[:, 0].tolist() for label in BOTH] == [[1], [1]]
    assert "margin 0" not in note(figure)


@pytest.mark.parametrize("widths", [(2,), (1, 2, 3)])
def test_a_sweep_of_the_margin_is_one_comparison_whatever_its_length(widths: tuple[int, ...]) -> None:
    own = [{"loss_margin": px, "loss_margin_control": control} for px in widths for control in (False, True)]
    runs = make_models([{}, *own], 2)
    (comparison,) = compare(runs)
    assert comparison.setting == "loss_margin"
    lines = comparison.lines(runs.sample(frac=1, random_state=0))
    assert [one.label for one in lines] == list(BOTH)
    for one in lines:
        assert sorted(set(one.rows[ALONG])) == [0, *widths]
        assert not one.rows.duplicated(["seed", ALONG]).any()
    assert len(configurations(runs)) == 1 + 2 * len(widths), "none is counted twice"


def test_margins_beside_another_setting_are_one_of_two_comparisons_from_models_without_a_margin() -> None:
    runs = make_models([*({"mask_unit": unit} for unit in (4, 8, 16)), *MARGINS[1:]], 2).sample(frac=1, random_state=0)
    units, margins = compare(runs)
    assert (units.setting, units.held) == ("mask_unit", {"loss_margin": 0})
    assert [sorted(set(one.rows[ALONG])) for one in units.lines(runs)] == [[4, 8, 16]]
    assert (margins.setting, margins.held) == ("loss_margin", {"mask_unit": 8})
    assert [(one.label, sorted(set(one.rows[ALONG]))) for one in margins.lines(runs)] == [(b, [0, 1, 2]) for b in BOTH]
    found = configurations(runs)
    assert [one.label for one in found] == [
        *("baseline", "mask unit 4 px", "mask unit 16 px"),
        *(f"margin {px} px, {label}" for label in BOTH for px in (1, 2)),
    ]
    assert sum(len(one.rows) for one in found) == len(runs)
    assert len({(tuple(one.style.color), one.style.marker) for one in found}) == len(found)
    for figure in draw(runs).values():
        check_text(figure)


def test_models_along_a_setting_leave_out_those_that_differ_in_more() -> None:
    runs = make_models([*({"mask_ratio": m} for m in (0.5, 0.75)), {"patch_size": 8}, AUTOENCODER], 2)
    found = models_along(runs, "mask_ratio")
    assert set(found["mask_ratio"]) == {0.5, 0.75}
    assert set(found["patch_size"]) == {4}
    assert compare_along(found, "mask_ratio").apart == []
    assert models_along(make_models(OBJECTIVES), "mask_ratio").empty
    units = [margin | {"mask_unit": unit} for unit in (8, 16) for margin in MARGINS]
    both = models_along(make_models([*units, {"mask_unit": 4}], 2), "loss_margin")
    assert set(both["mask_unit"]) == {8, 16}
    assert {one.label for one in compare_along(both, "loss_margin").lines(both)} == {
        f"mask unit {unit} px, {label}" for unit in (8, 16) for label in BOTH
    }


def test_reach_and_level_shows_the_same_models_under_common_masks_beside_theory() -> None:
    tables = make_tables(make_runs())
    figure = reach_and_level(tables, "ratios")
    reach = tables["jacobian_reach"]
    reach = reach[(reach["predictor"] == "trained") & (reach["evaluation_mask_ratio"] == 0.75)]
    np.testing.assert_allclose(line(panel(figure, "A: reach"), "trained MAE"), means(reach, "rms_radius_squared"))
    attention = tables["attention"]
    attention = attention[attention["last_block"] & (attention["query"] == "cls")]
    attention = attention.assign(ratio=np.log(attention["object_attention_relative"]))
    shown = {
        "B: linear probe, label": (tables["linear_probe"], "accuracy"),
        "B: SSIM, nothing masked": (tables["image_quality"], "ssim"),
        "B: [CLS] on the object": (attention, "ratio"),
        "B: shape bias, leaves": (tables["shape_bias"], "shape_bias"),
    }
    for title, (rows, value) in shown.items():
        np.testing.assert_allclose(line(panel(figure, title), "trained MAE"), means(rows, value))
    levels = tables["hierarchy_levels"]
    for tree, label in (("binary", "binary tree"), ("quad", "quad-tree")):
        rows = levels[(levels["tree"] == tree) & (levels["patch_size"] == 1)]
        np.testing.assert_allclose(line(panel(figure, "B: level in theory"), label), means(rows, "mean_height"))
    assert len({axis.get_xlim() for axis in figure.axes}) == 1


def test_the_note_says_what_turns_back_by_differences_within_seeds() -> None:
    runs = make_runs()
    tables = make_tables(runs)
    probe = tables["linear_probe"]
    # Seeds differ by far more than ratios: between seeds nothing could be told.
    probe["accuracy"] = 0.3 - (probe["mask_ratio"] - 0.75).abs() / 10 + probe["seed"] / 20
    probe["accuracy"] += np.where(probe["mask_ratio"] == 0.9, probe["seed"] / 1000, 0)
    tables["shape_bias"]["shape_bias"] = 0.5 + tables["shape_bias"]["seed"] / 100
    tables["image_quality"]["ssim"] = tables["image_quality"]["mask_ratio"]
    text = note(reach_and_level(tables, "ratios"))
    assert "from m = 0.75 to 0.9" in text
    by_seed = probe.pivot_table(index="seed", columns="mask_ratio", values="accuracy")
    difference = by_seed[0.9] - by_seed[0.75]
    half = stats.t.ppf(0.975, 4) * stats.sem(difference)
    mean = difference.mean()
    assert f"B: linear probe, label {mean:+.2g} [{mean - half:.2g}, {mean + half:.2g}] turns back" in text
    assert "B: SSIM, nothing masked +0.15 [0.15, 0.15] goes on" in text
    assert "B: shape bias, leaves +0 [0, 0] undecided" in text


@pytest.mark.parametrize(
    ("by_ratio", "word"),
    [
        ({0.25: 0.0, 0.5: 1.0, 0.75: 2.0}, "goes on"),
        ({0.25: 0.0, 0.5: -1.0, 0.75: -2.0}, "goes on"),
        ({0.25: 2.0, 0.5: 1.0, 0.75: 2.0}, "turns back"),
        ({0.25: 1.0, 0.5: 1.0, 0.75: 2.0}, "rises"),
        ({0.25: 1.0, 0.5: 1.0, 0.75: 0.0}, "falls"),
        ({0.25: 0.0, 0.5: 1.0, 0.75: 1.0}, "undecided"),
        ({0.5: 1.0, 0.75: 2.0}, "rises"),
    ],
)
def test_what_turns_back_went_the_other_way_before(by_ratio: dict[float, float], word: str) -> None:
    runs = make_runs(tuple(by_ratio))
    probe = make_probe(runs, ("label",))
    # Seeds go different ways, by little.
    away = 0.1 * (probe["seed"] - probe["seed"].mean()) * (probe["mask_ratio"] - 0.5)
    tables = {"jacobian_reach": make_reach(runs), "linear_probe": probe}
    probe["accuracy"] = probe["mask_ratio"].map(by_ratio) + away
    text = note(reach_and_level(tables, "x"))
    assert text.split("B: linear probe, label ")[1].rstrip(".").endswith(word)


def test_one_seed_alone_decides_nothing() -> None:
    text = note(reach_and_level(make_tables(make_runs(RATIOS, 1)), "x"))
    assert text.count("(one seed)") == 7
    assert not any(word in text for word in ("turns back", "goes on", "rises", "falls", "undecided"))


def config_of(grid: dict[str, list], analyses: list[str]) -> Config:
    """The smoke configuration with one evaluation, of models of a grid."""
    config = load_config(ROOT / "config" / "smoke.yaml")
    stage = config.training["ratios"].model_copy(update={"grid": grid})
    evaluation = config.evaluations["ratios"].model_copy(update={"analyses": analyses, "models": ["ratios"]})
    return config.model_copy(update={"training": {"ratios": stage}, "evaluations": {"one": evaluation}})


def test_an_evaluation_has_the_figures_of_its_tables_and_of_the_settings_that_its_models_differ_in() -> None:
    def stems(config: Config) -> set[str]:
        return {figure.stem.removesuffix("_one") for figure in drawn_figures(config, "images")}

    ratios = {"mask_ratio": [0.5, 0.75]}
    assert stems(config_of(ratios, ["jacobian", "linear_probe"])) == {"reach_and_level"}
    assert stems(config_of(ratios, ["jacobian"])) == set()
    assert stems(config_of({"mask_ratio": [0.5]}, ["jacobian", "linear_probe"])) == set()
    assert stems(config_of({"mask_unit": [8], "loss_margin": [0, 1]}, ["linear_probe"])) == {"boundary_loss"}
    one_width = {"mask_unit": [8], "loss_margin": [1], "loss_margin_control": [False, True]}
    assert stems(config_of(one_width, ["linear_probe"])) == {"boundary_loss"}
    assert stems(config_of({"mask_unit": [4, 8]}, ["linear_probe"])) == set()
    assert stems(config_of(ratios, ["attention", "separability"])) == {
        *("attention", "attention_pictures", "attention_blocks", "embedding", "separability")
    }


def test_cells_of_the_notebook_write_the_figures_of_the_tables_there_are(tmp_path: Path) -> None:
    runs, margins = make_runs((0.5, 0.75), 2), make_models(MARGINS, 2)
    tables = make_tables(runs) | {
        "attention_distance": make_attention_distance(runs),
        "separability": make_separability(runs),
        "separability_tsne": make_tsne(runs),
        "corruptions": make_corruptions(runs),
        "dense": make_dense(runs),
    }
    write_table(tmp_path / "tables" / "hierarchy_levels" / "hierarchy.csv", tables.pop("hierarchy_levels"))
    for name, table in tables.items():
        write_table(tmp_path / "tables" / name / "ratios.csv", table)
    for name, table in {"linear_probe": make_probe(margins), "jacobian_reach": make_reach(margins)}.items():
        write_table(tmp_path / "tables" / name / "margins.csv", table)
    write_tensors(Layout(tmp_path, tmp_path).pictures("attention", "ratios"), *make_attention_pictures(runs))
    figures = [kind.name for kind in declared_figures().values() if kind.notebook == "images"]
    run_notebook_cells("images", tmp_path, dict.fromkeys(figures, ("ratios",)) | {"boundary_loss": ["margins"]})
