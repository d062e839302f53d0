from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from figure_checks import check_text, labels, level, line
from model_tables import (
    AUTOENCODER,
    CROSS,
    OBJECTIVES,
    RATIOS,
    make_fine_tuning,
    make_models,
    make_probe,
    make_runs,
    split_costs,
)
from spatialmae.figures import practice, theme

BLOCKS = (0, 1, 2, 3, None)
CASES = {
    "several ratios": make_runs(),
    "one ratio of one seed": make_runs((0.75,), 1),
    "two patch sizes": make_runs(RATIOS[2:4], 2, (2, 4)),
    "patch sizes at one ratio": make_runs((0.75,), 2, (2, 4, 8)),
    "a cross": make_models(CROSS, 2),
    "objectives": make_models(OBJECTIVES, 2),
}


def fine_tuning(table: pd.DataFrame, subject: str) -> Figure:
    return practice.fine_tuning(*split_costs(table), subject)


def draw(runs: pd.DataFrame) -> dict[str, Callable[[], Figure]]:
    """All figures of some runs."""
    probes = make_probe(runs)
    return {
        "model_probe": lambda: practice.model_probe(probes, probes, "x"),
        "proxy": lambda: practice.proxy(probes, "x"),
        "fine_tuning": lambda: fine_tuning(make_fine_tuning(runs), "x"),
        "blocks": lambda: fine_tuning(make_fine_tuning(runs, BLOCKS, ("shape", "texture")), "x"),
    }


@pytest.fixture(autouse=True, scope="module")
def themed() -> None:
    theme.use_theme()


@pytest.mark.parametrize("name", list(draw(make_runs())))
@pytest.mark.parametrize("case", CASES)
def test_figure_draws_without_warnings_and_its_text_is_readable_and_inside(name: str, case: str) -> None:
    figure = check_text(draw(CASES[case])[name])
    assert f"n = {CASES[case]['seed'].nunique()} seed" in note(figure)


def note(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


def test_probes_have_a_row_for_each_target_and_chance() -> None:
    linear = make_probe(make_runs())
    neighbours = linear.assign(accuracy=linear["accuracy"] - 0.1, chance=0.2)
    axes = practice.model_probe(linear, neighbours, "ratios").axes
    assert [axis.get_title() for axis in axes] == ["linear probe", "k nearest neighbours", "", ""]
    assert [axes[i].get_ylabel() for i in (0, 2)] == ["accuracy, shape\n(fraction)", "accuracy, texture\n(fraction)"]
    cells = itertools.product(("shape", "texture"), (linear, neighbours))
    for axis, (target, table) in zip(axes, cells, strict=True):
        rows = table[table["target"] == target]
        expected = rows.groupby("mask_ratio")["accuracy"].mean()
        np.testing.assert_allclose(line(axis, "trained MAE"), np.column_stack([expected.index, expected]))
        assert level(axis, "chance") == pytest.approx(rows["chance"].mean())


def test_probes_of_a_cross_have_a_column_for_each_setting_with_the_others_at_the_centre() -> None:
    linear = make_probe(make_models(CROSS), ("label",))
    neighbours = linear.assign(accuracy=linear["accuracy"] - 0.1)
    figure = practice.model_probe(linear, neighbours, "depth")
    assert [axis.get_title() for axis in figure.axes] == ["linear probe"] * 2 + ["k nearest neighbours"] * 2
    assert [axis.get_xlabel() for axis in figure.axes[2:]] == ["encoder depth (blocks)", "decoder depth (blocks)"]
    cells = itertools.product(
        (linear, neighbours), (("encoder_depth", "decoder_depth", 2), ("decoder_depth", "encoder_depth", 6))
    )
    for axis, (table, (setting, other, centre)) in zip(figure.axes, cells, strict=True):
        expected = table[table[other] == centre].groupby(setting)["accuracy"].mean()
        np.testing.assert_allclose(line(axis, "trained MAE"), np.column_stack([expected.index, expected]))
    assert "baseline: encoder depth 6, decoder depth 2" in note(figure)


def test_models_that_differ_in_any_setting_are_told_apart_by_it() -> None:
    runs = make_models(
        [{"mask_ratio": m} | own for m in (0.5, 0.75) for own in ({}, {"masking": "bernoulli", "bottleneck": 8.0})]
    )
    axis = practice.model_probe(make_probe(runs), make_probe(runs), "both").axes[0]
    assert labels(axis) == ["masking bernoulli, bottleneck 8", "masking fixed, no bottleneck", "chance"]


def test_proxy_has_a_dot_for_each_model_and_states_the_correlations() -> None:
    runs = make_runs()
    table = make_probe(runs, ("shape",))
    # Across ratios accuracy falls with the error, and within one it rises.
    within = np.tile(np.arange(5.0), len(RATIOS))
    table["reconstruction_error"] = 10 * table["mask_ratio"] + within / 100
    table["accuracy"] = 0.9 - table["mask_ratio"] / 2 + within / 1000
    table.loc[3, "reconstruction_error"] = np.nan  # a model of normalised patches
    figure = practice.proxy(table.sample(frac=1, random_state=0), "ratios")
    axis = figure.axes[0]
    assert labels(axis) == [f"m = {m:g}" for m in RATIOS]
    expected = table[table["mask_ratio"] == 0.9].sort_values("reconstruction_error")
    drawn = line(axis, "m = 0.9")
    np.testing.assert_allclose(
        drawn[drawn[:, 0].argsort()], expected[["reconstruction_error", "accuracy"]].to_numpy(dtype=float)
    )
    kept = table.dropna(subset=["reconstruction_error"])
    pooled = stats.spearmanr(kept["reconstruction_error"], kept["accuracy"]).statistic
    found = re.search(r"ρ (\S+) \[(\S+), (\S+)\] pooled, (\S+) \[(\S+), (\S+)\] within", note(figure))
    assert found is not None
    rho, low, high, inside, *_ = map(float, found.groups())
    assert low <= rho <= high
    assert rho == pytest.approx(pooled, abs=0.005)
    assert rho < -0.8
    assert inside > 0.9


def test_few_configurations_give_a_correlation_without_interval_and_one_constant_none() -> None:
    text = note(practice.proxy(make_probe(make_runs((0.5, 0.75)), ("label",)), "x"))
    assert "(no interval from 2 configurations) pooled" in text
    assert "bootstrap" not in text
    flat = make_probe(make_runs((0.5, 0.75)), ("label",)).assign(accuracy=0.5)
    assert "undefined pooled, undefined within" in note(practice.proxy(flat, "x"))


def test_proxy_counts_the_seeds_of_each_configuration() -> None:
    table = make_probe(make_runs((0.5, 0.75)))
    assert "n = 5 seeds (points: models)" in note(practice.proxy(table, "x"))
    fewer = table[(table["mask_ratio"] == 0.5) | (table["seed"] < 2)]
    assert "n = 2–5 seeds (points: models)" in note(practice.proxy(fewer, "x"))
    assert "n = 1 seed (points: models)" in note(practice.proxy(table[table["seed"] == 0], "x"))


def test_proxy_without_any_error_has_empty_panels() -> None:
    table = make_probe(make_runs()).assign(reconstruction_error=np.nan)
    assert "undefined" in note(check_text(lambda: practice.proxy(table, "x")))


def test_fine_tuning_shows_accuracy_time_and_memory_against_blocks_and_the_whole_encoder_last() -> None:
    table = make_fine_tuning(make_runs((0.75,)), BLOCKS)
    figure = fine_tuning(table, "blocks")
    tuned = table[~table["from_scratch"]].assign(mib=lambda t: t["memory_bytes"] / 2**20)
    places = np.where(tuned["embedding_trained"], 7, tuned["n_blocks"])
    for axis, value in zip(figure.axes, ("accuracy", "seconds_per_step", "mib"), strict=True):
        expected = tuned.groupby(places)[value].mean()
        np.testing.assert_allclose(line(axis, "pretrained"), np.column_stack([expected.index, expected]))
        assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "1", "2", "3", "all"]
    assert labels(figure.axes[1]) == ["pretrained"]
    assert level(figure.axes[0], "from scratch") == pytest.approx(table.loc[table["from_scratch"], "accuracy"].mean())
    assert "fine-tuned on 10,000 images" in note(figure)


def test_choices_at_an_end_of_their_grid_are_counted() -> None:
    table = make_fine_tuning(make_runs((0.75,), 2), (0, None), from_scratch=False)
    edges = pd.Series([True, False, np.nan, True], table.index)  # nothing was trained for the third
    assert "learning rate chosen at an end of its grid: 2 of 3" in note(
        fine_tuning(table.assign(at_grid_edge=edges), "x")
    )
    assert "grid" not in note(fine_tuning(table.assign(at_grid_edge=False), "x"))
    probes = make_probe(make_runs())
    assert "grid" not in note(practice.model_probe(probes, probes, "x"))
    edges = probes["target"] == "shape"
    stated = note(practice.model_probe(probes.assign(at_grid_edge=edges), probes, "x"))
    assert f"the linear probe's penalty chosen at an end of its grid: {edges.sum()} of {len(edges)}" in stated


def test_the_last_block_of_all_is_not_the_whole_encoder() -> None:
    figure = fine_tuning(make_fine_tuning(make_runs((0.75,)), (6, None)), "blocks")
    assert line(figure.axes[0], "pretrained")[:, 0].tolist() == [6, 7]


def test_fine_tuning_of_whole_encoders_is_drawn_against_what_the_models_differ_in() -> None:
    table = make_fine_tuning(make_models(CROSS))
    assert set(table["n_blocks"]) == {2, 4, 6}, "the depth of each encoder, and no setting"
    encoders, decoders = fine_tuning(table, "depth").axes
    tuned, fresh = table[~table["from_scratch"]], table[table["from_scratch"]]
    for axis, setting, other, centre in (
        (encoders, "encoder_depth", "decoder_depth", 2),
        (decoders, "decoder_depth", "encoder_depth", 6),
    ):
        expected = tuned[tuned[other] == centre].groupby(setting)["accuracy"].mean()
        np.testing.assert_allclose(line(axis, "pretrained"), np.column_stack([expected.index, expected]))
    scratch = fresh.groupby("encoder_depth")["accuracy"].mean()
    np.testing.assert_allclose(line(encoders, "from scratch"), np.column_stack([scratch.index, scratch]))
    assert level(decoders, "from scratch") == pytest.approx(scratch[6])


def test_each_architecture_from_scratch_has_a_level_of_its_own_where_the_axis_has_not() -> None:
    runs = make_models([{"patch_size": 4}, {"patch_size": 8}])
    table = make_fine_tuning(runs, (0, None))
    axis = fine_tuning(table, "blocks").axes[0]
    assert labels(axis) == ["patch 4 px", "patch 8 px", "from scratch, patch 4 px", "from scratch, patch 8 px"]
    means = table[table["from_scratch"]].groupby("patch_size")["accuracy"].mean()
    assert level(axis, "from scratch, patch 8 px") == pytest.approx(means[8])


def test_runs_that_diverged_leave_gaps() -> None:
    table = make_fine_tuning(make_runs((0.75,), 3), BLOCKS)
    lost = (table["n_blocks"] == 2) | ((table["n_blocks"] == 1) & (table["seed"] > 0)) | table["from_scratch"]
    table.loc[lost, "accuracy"] = np.nan
    figure = check_text(lambda: fine_tuning(table, "blocks"))
    assert line(figure.axes[0], "pretrained")[:, 0].tolist() == [0, 1, 3, 7]
    assert line(figure.axes[1], "pretrained")[:, 0].tolist() == [0, 1, 2, 3, 7]
    assert labels(figure.axes[0]) == ["pretrained"]
    assert "n = 1–3 seeds" in note(figure)
    all_lost = table.assign(accuracy=np.nan)
    check_text(lambda: fine_tuning(all_lost, "blocks"))
    whole = make_fine_tuning(make_models([{}, AUTOENCODER], 2)).assign(accuracy=np.nan)
    check_text(lambda: fine_tuning(whole, "objectives"))


def test_settings_of_fine_tuning_are_not_taken_for_those_of_the_models() -> None:
    runs = make_models([{}, {"base_lr": 0.1}])
    axis = fine_tuning(make_fine_tuning(runs), "rates").axes[0]
    assert axis.get_xlabel() == "base lr"
    assert sorted(line(axis, "pretrained")[:, 0]) == [0.008, 0.1]


def test_the_speed_of_training_is_drawn_along_the_patch_size_once_for_each_model() -> None:
    runs = make_models([*({"patch_size": size} for size in (2, 4, 8)), {"mask_ratio": 0.9}])
    table = make_probe(runs)
    figure = check_text(lambda: practice.convergence(table, "patches"))
    axis = figure.axes[0]
    shown = table[(table["mask_ratio"] == 0.75) & (table["target"] == "shape")]
    expected = shown.groupby("patch_size")["epochs_to_90"].mean()
    np.testing.assert_allclose(line(axis, "trained MAE"), np.column_stack([expected.index, expected]))
    assert axis.get_xlabel() == "patch size (px)" and "n = 5 seeds" in note(figure)
