"""The recommender's calibration on trained models: evidence and accuracy of the same settings, side by side."""

import numpy as np
import pytest

from figure_checks import check_text, run_notebook_cells
from spatialmae.analysis.lags import LagCovariance
from spatialmae.config import parse_config
from spatialmae.data.dataset import ImageData
from spatialmae.errors import UserError
from spatialmae.figures import calibration as figures
from spatialmae.layout import Layout
from spatialmae.recommend.evidence import Grid, theory_cells
from spatialmae.recommend.rules import leave_one_out
from spatialmae.stages import calibration, evaluate
from spatialmae.tables import read_table, write_table
from test_recommend_rules import calibration as made_up
from trained_models import LEAVES, SOURCES, TRAININGS, changed

pytestmark = pytest.mark.slow  # whole stages

DATASETS = ("leaves", "fields")
TRAININGS_OF = {"leaves_4": "ratios", "leaves_8": "leaves_8", "fields_4": "fields", "fields_8": "fields_8"}


def settings(results: str) -> dict:
    dataset = {"groups": 2, "patch_sizes": [4], "n_components": [4], "analyses": []}
    return {
        "name": "small",
        "results": results,
        "seeds": {"first": 0, "count": 2},
        "datasets": {name: dataset | {"source": SOURCES[name]} for name in DATASETS},
        "linear": {"mask_ratios": [0.5]},
        "checks": {"dataset": "leaves"},
        "ising": {"couplings": [1.0], "patch_sizes": [8], "n_components": [4], "n_samples": 50},
        "training": {name: TRAININGS[own] for name, own in TRAININGS_OF.items()},
        "evaluations": {
            name: {"models": [f"{name}_4", f"{name}_8"], "analyses": ["linear_probe"], "mask_unit": 8}
            for name in DATASETS
        },
        "calibration": list(DATASETS),
    }


@pytest.fixture(scope="module")
def layout(tmp_path_factory, trained_models) -> Layout:
    config = parse_config(settings(str(tmp_path_factory.mktemp("results"))), "test")
    trained_models.provide(config)
    for name in DATASETS:
        evaluate.run(config, "linear_probe", name)
    calibration.run(config)
    return Layout.of(config)


def test_each_setting_that_was_trained_has_its_evidence_and_accuracy(layout):
    cells = read_table(layout.table("calibration", "cells"))
    for name in DATASETS:
        own = cells[cells["dataset"] == name]
        assert list(zip(own["patch_size"], own["mask_ratio"], strict=True)) == [(4, 0.5), (4, 0.75), (8, 0.25)]
        assert (own["n_seeds"] == 2).all() and own["n_visible"].tolist() == [8, 4, 3]
        images = ImageData.load(layout.data(name))
        covariance = LagCovariance.of(images.images[images.splits["train"]], 1).covariance()
        expected = theory_cells(covariance, Grid(16, (4,), (0.5, 0.75)))
        np.testing.assert_allclose(own["reach"][:2], expected["reach"])
        probe = read_table(layout.table("linear_probe", name))
        first = probe[(probe["patch_size"] == 4) & (probe["mask_ratio"] == 0.5)]
        for column in ("accuracy", "validation_accuracy"):
            assert own[column].iloc[0] == pytest.approx(first.groupby("seed")[column].mean().mean())
        assert own["accuracy_std"].iloc[0] == pytest.approx(first.groupby("seed")["accuracy"].mean().std())


def test_what_is_held_out_and_compared_follows_from_the_cells(layout):
    cells, held_out, comparison = (
        read_table(layout.table("calibration", name)) for name in ("cells", "held_out", "comparison")
    )
    again = leave_one_out(cells)
    assert list(held_out.columns) == list(again.columns) and len(held_out) == len(again)
    assert comparison["baseline"].tolist() == ["default", "fixed", "random"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calibration": ["nothing"]}, "calibration: 'nothing' is not among evaluations"),
        ({"calibration": ["leaves", "again"]}, "calibration: two evaluations are of one data set"),
        ({"calibration": ["deep"]}, "calibration: models of deep differ in encoder_depth"),
        ({"calibration": ["reconstructed"]}, "calibration: evaluations.reconstructed.analyses lacks linear_probe"),
    ],
)
def test_what_cannot_calibrate_is_refused_by_name(tmp_path, change, message):
    values = settings(str(tmp_path))
    values["training"]["deep"] = changed(LEAVES, LEAVES["grid"], encoder_depth=2)
    values["evaluations"]["again"] = values["evaluations"]["leaves"]
    values["evaluations"]["deep"] = {"models": ["leaves_4", "deep"], "analyses": ["linear_probe"]}
    values["evaluations"]["reconstructed"] = {"models": ["leaves_4"], "analyses": ["image_quality"]}
    with pytest.raises(UserError, match=message):
        parse_config(values | change, "test")


def test_figures_show_every_data_set_and_baseline(tmp_path):
    cells = made_up(5).assign(n_seeds=3)
    held_out = leave_one_out(cells)
    for name, table in {"cells": cells, "held_out": held_out}.items():
        write_table(tmp_path / "tables" / "calibration" / f"{name}.csv", table)
    run_notebook_cells("calibration", tmp_path, {"calibration_grids": [], "calibration_regrets": []})
    grids = check_text(lambda: figures.calibration_grids(cells, held_out))
    assert [axis.get_title(loc="left") for axis in grids.axes if axis.axison] == [f"set{i} (16 px)" for i in range(5)]
    regrets = check_text(lambda: figures.calibration_regrets(held_out))
    first = regrets.axes[0].lines[0].get_ydata()
    row = held_out.iloc[0]
    np.testing.assert_allclose(
        first, 100 * row[["regret", "regret_default", "regret_fixed", "regret_random"]].to_numpy(float)
    )


def test_figures_of_a_calibration_that_says_nothing_are_drawn_too():
    cells = made_up(2).assign(n_seeds=2, accuracy=0.5, validation_accuracy=0.5)
    held_out = leave_one_out(cells)
    check_text(lambda: figures.calibration_grids(cells, held_out))
    check_text(lambda: figures.calibration_regrets(held_out))
