"""The identifiability experiment: regressions against oracles, what predictors may not see, controls on small cells."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import r2_score as sklearn_r2

from spatialmae.hierarchy import regression
from spatialmae.hierarchy.identifiability import MASKS, Cell, Observables, identifiability_rows
from spatialmae.hierarchy.mechanisms import GRAPHS, HierarchicalModel
from spatialmae.hierarchy.predictors import (
    FixedMaskPredictor,
    RandomMaskPredictor,
    Training,
    random_masks,
    train_fixed_mask,
    train_random_masks,
)
from spatialmae.hierarchy.regression import KernelRegression, whitened
from spatialmae.hierarchy.shared import shared_latents

QUICK = Training(n_train=8000, steps=300, random_mask_steps=300, width=64)
SMALL = {"training": QUICK, "n_regression": 1000, "n_validation": 400, "n_test": 800}


def splits(values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(
        zip(("train", "validation", "test"), np.split(values, [len(values) // 2, 3 * len(values) // 4]), strict=True)
    )


def table(cell: Cell, seed: int = 0) -> pd.Series:
    rows = pd.DataFrame(identifiability_rows(cell, seed))
    return rows.set_index(["masked", "predictor", "predicted"])["r2"]


@pytest.fixture(scope="module")
def small_cell() -> pd.Series:
    return table(Cell("uneven_tree", 0.5, (("x2",), ("x4", "x5")), **SMALL))


def test_kernel_regression_is_kernel_ridge_where_every_training_point_is_a_landmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(regression, "WIDTHS", (0.5,))
    monkeypatch.setattr(regression, "PENALTIES", (1e-3,))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2)) * [1.0, 5.0]
    y = np.stack([np.sin(x[:, 0] * x[:, 1]), x[:, 0] + rng.standard_normal(400)], axis=1)
    inputs, targets = splits(x), splits(y)
    mean, std = inputs["train"].mean(axis=0), inputs["train"].std(axis=0)
    peer = KernelRidge(kernel="rbf", gamma=0.5 / 2, alpha=1e-3 * len(inputs["train"]))
    centre = targets["train"].mean(axis=0)
    peer.fit((inputs["train"] - mean) / std, targets["train"] - centre)
    within = np.clip(inputs["test"], inputs["train"].min(axis=0), inputs["train"].max(axis=0))
    prediction = peer.predict((within - mean) / std) + centre
    expected = sklearn_r2(targets["test"], prediction, multioutput="raw_values")
    np.testing.assert_allclose(KernelRegression(inputs, seed=0).r2(targets), expected, atol=1e-6)


def test_kernel_regression_finds_a_curved_dependence_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 3))
    y = np.stack([np.tanh(3 * x[:, 0]) * x[:, 1], x[:, 2], rng.standard_normal(4000)], axis=1)
    curved, linear, noise = KernelRegression(splits(x), seed=0).r2(splits(y))
    assert curved > 0.97
    assert linear > 0.999
    assert -0.02 < noise < 0.02


def test_an_outlier_of_the_input_does_not_spoil_a_regression():
    x = np.random.default_rng(0).standard_normal((4000, 1))
    y = np.sin(2 * x)
    x[-1] = 8.0
    assert KernelRegression(splits(x), seed=0).r2(splits(y))[0] > 0.99


def test_width_and_penalty_are_chosen_on_the_validation_split():
    x = np.random.default_rng(0).uniform(-1, 1, (400, 1))
    targets = splits(x**2)
    regression = KernelRegression(splits(x), seed=0)
    assert regression.r2(targets)[0] > 0.99
    # A validation split that asks for no dependence gets the strongest penalty, whatever the test split would like.
    mean = targets["train"].mean(axis=0)
    flat = targets | {"validation": mean + 1e-3 * (targets["validation"] - mean)}
    assert regression.r2(flat)[0] < 0.1


def test_r2_of_a_whitened_representation_ignores_how_its_coordinates_are_scaled_and_mixed():
    rng = np.random.default_rng(0)
    c, other = rng.standard_normal((2000, 2)), rng.standard_normal((2000, 1))
    code = np.concatenate([np.tanh(c[:, :1]), other], axis=1)
    mixed = code @ np.array([[100.0, 3.0], [0.5, 1e-2]]) + 7.0
    regression = KernelRegression(splits(c), seed=0)
    plain, other_basis = (regression.r2(whitened(splits(each))).mean() for each in (code, mixed))
    assert plain == pytest.approx(0.5, abs=0.02)  # half of it is c
    assert other_basis == pytest.approx(plain, abs=0.01)
    np.testing.assert_allclose(np.cov(whitened(splits(mixed))["train"].T), np.eye(2), atol=1e-9)


def test_a_direction_without_variance_is_left_out_of_a_representation():
    code = np.random.default_rng(0).standard_normal((100, 2)) @ np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0]])
    assert whitened(splits(code))["train"].shape == (50, 2)


def test_representations_do_not_depend_on_what_is_masked():
    owner = torch.tensor([0, 0, 1, 2, 2])
    masks = torch.tensor([[True, False, True]]).expand(6, -1)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    hidden, visible = x.clone(), x.clone()
    hidden[:, [0, 1, 3, 4]] += 1.0
    visible[:, 2] += 1.0
    fixed = FixedMaskPredictor(masks[0][owner], 2, QUICK)
    assert torch.equal(fixed.encode(x), fixed.encode(hidden))
    assert not torch.equal(fixed.encode(x), fixed.encode(visible))
    shared = RandomMaskPredictor(owner, 2, QUICK)
    assert torch.equal(shared.encode(x, masks), shared.encode(hidden, masks))
    assert not torch.equal(shared.encode(x, masks), shared.encode(visible, masks))
    assert not torch.equal(shared.encode(x, masks), shared.encode(x, ~masks))


def test_random_masks_hide_every_number_of_observables_equally_often_but_never_none_or_all():
    masks = random_masks(30_000, 4, torch.Generator().manual_seed(0))
    counts = torch.bincount(masks.sum(dim=1), minlength=5) / len(masks)
    torch.testing.assert_close(counts, torch.tensor([0, 1 / 3, 1 / 3, 1 / 3, 0]), atol=0.01, rtol=0)
    torch.testing.assert_close(masks.float().mean(dim=0), torch.full((4,), 0.5), atol=0.01, rtol=0)


@pytest.mark.slow
def test_both_predictors_learn_a_copy_through_the_representation():
    # Observables 0 and 1 are equal, observable 2 is noise: each of the first two can be told from the other.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator)
    x[:, 1] = x[:, 0]
    training = replace(QUICK, steps=200, random_mask_steps=400, weight_decay=0.0)
    mask = torch.tensor([True, False, False])
    fixed, shared = FixedMaskPredictor(mask, 1, training), RandomMaskPredictor(torch.arange(3), 2, training)
    train_fixed_mask(fixed, x, training, seed=0)
    train_random_masks(shared, x, training, seed=0)
    with torch.no_grad():
        assert ((fixed(x)[:, 0] - x[:, 0]) ** 2).mean() < 0.01
        prediction = shared(x, mask.expand(len(x), -1))
        assert ((prediction[:, 0] - x[:, 0]) ** 2).mean() < 0.05
        # Without its twin nothing is known of it but the mean.
        prediction = shared(x, torch.tensor([True, True, False]).expand(len(x), -1))
        assert prediction[:, :2].square().mean() < 0.05


def test_observables_lie_side_by_side_in_the_order_of_their_names():
    model = HierarchicalModel(GRAPHS["two_roots"](), noise_scale=1.0, seed=0)
    sample = model.sample(500, seed=0)
    observables = Observables(model, sample)
    assert observables.nodes == [f"x{i}" for i in range(1, 7)]
    x4 = observables.of(sample)[:, observables.mask(["x4"])[observables.owner]].numpy()
    value = sample.values["x4"]
    np.testing.assert_allclose(x4, (value - value.mean(axis=0)) / value.std(axis=0), atol=1e-5)


def test_masks_worth_asking_about_share_low_and_high_latents_one_and_several():
    shared = {
        graph: [set(shared_latents(GRAPHS[graph](), masked).c) for masked in masks] for graph, masks in MASKS.items()
    }
    assert shared == {
        "binary_tree": [{"z4"}, {"z1"}, {"z4", "z5", "z6"}],
        "uneven_tree": [{"z2"}, {"z4"}, {"z3"}],
        "two_roots": [{"z4"}, {"z1", "z2"}, {"z1"}],
    }


@pytest.mark.slow
@pytest.mark.parametrize("masked", ["x2", "x4 x5"])
def test_a_masked_predictor_finds_c_and_little_else(small_cell: pd.Series, masked: str):
    r2 = small_cell[masked]
    assert r2["fixed mask", "c"] > 0.95
    assert r2["fixed mask", "representation"] > 0.95
    assert r2["random masks", "c"] > 0.9
    assert abs(r2["fixed mask", "s_visible"]) < 0.05
    for predictor in ("fixed mask", "random masks", "untrained", "visible observables"):
        assert abs(r2[predictor, "s_masked"]) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("masked", ["x2", "x4 x5"])
def test_controls_tell_a_trained_encoder_from_none(small_cell: pd.Series, masked: str):
    r2 = small_cell[masked]
    assert r2["untrained", "c"] < 0.8
    assert r2["untrained", "representation"] < 0.8
    assert r2["visible observables", "c"] > 0.95
    assert r2["visible observables", "s_visible"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("masked", ["x2", "x4 x5"])
def test_predictions_come_near_the_best_that_c_allows(small_cell: pd.Series, masked: str):
    r2 = small_cell[masked]
    assert r2["c", "x_masked"] - 0.1 < r2["fixed mask", "x_masked"] < r2["c", "x_masked"] + 0.05
    assert r2["untrained", "x_masked"] < 0.1 < r2["random masks", "x_masked"]


@pytest.mark.slow
def test_a_mean_that_hides_c_and_spare_coordinates_break_what_the_theorem_promises(small_cell: pd.Series):
    cell = Cell("uneven_tree", 0.5, (("x2",),), **SMALL)
    turned, wide = table(replace(cell, turned=("x2",)))["x2"], table(replace(cell, extra_dims=2))["x2"]
    plain = small_cell["x2"]
    assert turned["fixed mask", "c"] < plain["fixed mask", "c"] - 0.1
    assert turned["visible observables", "c"] > 0.95
    assert wide["fixed mask", "c"] > 0.95
    assert wide["fixed mask", "representation"] < plain["fixed mask", "representation"] - 0.1
    assert wide["fixed mask", "s_visible"] > plain["fixed mask", "s_visible"] + 0.05


@pytest.mark.slow
def test_a_cell_depends_on_its_seed_alone_and_leaves_the_random_state():
    training = replace(QUICK, n_train=500, steps=3, random_mask_steps=3)
    cell = Cell("two_roots", 1.0, (("x3",),), training=training, n_regression=350, n_validation=50, n_test=50)
    state = torch.get_rng_state()
    first, again, other = (pd.DataFrame(identifiability_rows(cell, seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    pd.testing.assert_frame_equal(first, again)
    assert not np.allclose(first["r2"], other["r2"])
    assert not first.duplicated(["masked", "predictor", "predicted"]).any()


@pytest.mark.parametrize(
    ("graph", "masked", "named"),
    [
        ("oak", ("x1",), "graph"),
        ("binary_tree", ("x9",), "masked"),
        ("uneven_tree", ("x1", "x2", "x3", "x4", "x5"), "masks"),
    ],
)
def test_cells_that_ask_nothing_are_refused_by_name(graph: str, masked: tuple[str, ...], named: str):
    with pytest.raises(ValueError, match=named):
        identifiability_rows(Cell(graph, 1.0, (masked,)), seed=0)
