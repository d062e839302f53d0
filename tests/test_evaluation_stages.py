"""Analyses of trained models as stages: which models, images and masks, and what the tables hold."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from spatialmae.analysis import second_order as analysis_second_order
from spatialmae.analysis.convergence import mean_image_loss
from spatialmae.analysis.jacobian import reconstruction_jacobian, singular_spectrum
from spatialmae.analysis.reach import Influence, mean_influence, rms_radius
from spatialmae.analysis.second_order import (
    IMAGES_PER_MASK,
    RIDGES,
    ConditionalMean,
    normalised_images,
    normalised_moments,
    share,
)
from spatialmae.artifacts import read_tensors
from spatialmae.config import parse_config
from spatialmae.errors import UserError
from spatialmae.evaluation import fitted_probe, jacobians
from spatialmae.evaluation.shared import common_masks
from spatialmae.evaluation.views import common_views, viewed_images
from spatialmae.layout import Layout
from spatialmae.model.masking import Masks
from spatialmae.model.patches import patchify
from spatialmae.model.trained import TrainedModel
from spatialmae.stages import evaluate
from spatialmae.stages.evaluate import open_evaluation
from spatialmae.tables import read_table
from spatialmae.train.runs import RunFolder
from trained_models import DIGITS, small_values

pytestmark = pytest.mark.slow  # whole stages

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    small = {"n_images": 3, "n_masks": 2, "mask_ratios": [0.5, 0.75]}
    evaluations = {
        "ratios": {
            "models": ["digits", "surrogate"],
            "analyses": ["jacobian", "second_order", "linear_probe"],
            **small,
        },
        "patches": {"models": ["patches", "digits"], "analyses": ["jacobian", "linear_probe"], "mask_unit": 4, **small},
    }
    return small_values(tmp_path_factory.mktemp("results"), ["digits", "patches", "surrogate"], evaluations)


@pytest.fixture(scope="module")
def config(values, trained_models):
    config = parse_config(values, "test")
    trained_models.provide(config)
    return config


def evaluated_of(config, name):
    return open_evaluation(config, name)[0]


def views_of(evaluated, seed, ratio):
    settings = evaluated.settings
    return common_views(evaluated.shared.data.image_shape, ratio, evaluated.mask_unit, settings.n_masks, seed)


def viewed(evaluated, seed):
    """The images that a seed's models are looked at with."""
    return evaluated.shared.data.images[viewed_images(evaluated.shared, evaluated.settings.n_images, seed)]


def table(config, measure, name, evaluation):
    evaluate.run(config, measure, evaluation)
    return read_table(Layout.of(config).table(name, evaluation))


def test_an_evaluation_has_each_run_once_though_stages_share_some(config):
    runs = config.evaluation_runs("patches")
    assert len(runs) == len(set(runs)) == 6
    assert set(runs) == {*config.training_runs("patches"), *config.training_runs("digits")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ["ratio"]}, "evaluations.ratios.models: 'ratio' is not among training; name one of these"),
        ({"models": ["patches"]}, "evaluations.ratios.mask_unit: patch sizes differ; give a multiple of all"),
        ({"mask_unit": 3}, "evaluations.ratios.mask_unit: 3 does not tile 8×8 px in whole patches; change it"),
        ({"analyses": ["jacobi"]}, "evaluations.ratios.analyses.0: "),
        ({"models": ["normalised"]}, "evaluations.ratios.analyses: jacobian is of pixels, and with norm_pix_loss "),
    ],
)
def test_impossible_evaluations_are_refused_by_name(values, change, message):
    normalised = {"normalised": DIGITS | {"model": DIGITS["model"] | {"norm_pix_loss": True}}}
    changed = values | {"training": values["training"] | normalised}
    changed |= {"evaluations": {"ratios": values["evaluations"]["ratios"] | change}}
    with pytest.raises(UserError) as error:
        parse_config(changed, "test")
    assert message in str(error.value)


def test_masks_hide_the_same_pixels_for_all_patch_sizes_and_more_at_higher_ratios(config):
    evaluated = evaluated_of(config, "patches")
    two, four = (next(s.spec for s in evaluated.runs if s.spec.model.patch_size == p) for p in (2, 4))
    for low, high in zip(views_of(evaluated, 1, 0.5), views_of(evaluated, 1, 0.75), strict=True):
        assert (high.visible <= low.visible).all()
        assert high.visible.sum() == 16 and low.visible.sum() == 32
        assert len(high.geometry.outputs) > 0
        assert not high.visible[high.geometry.outputs].any()
        for spec in (two, four):
            p = spec.model.patch_size
            mask = common_masks(spec.model, 0.5, 4, low.noise).mask.reshape(spec.model.grid).numpy()
            np.testing.assert_array_equal(mask.repeat(p, 0).repeat(p, 1).ravel() == 0, low.visible)


def test_a_models_objective_has_no_part_in_common_masks(config):
    evaluated = evaluated_of(config, "ratios")  # of units of 2 px
    model = evaluated.runs[0].spec.model
    margin = replace(model, image_size=16, mask_unit=8, loss_margin=3, loss_margin_control=True)
    plain = replace(model, image_size=16, mask_unit=8)
    noise = torch.rand(3, 64, generator=torch.Generator().manual_seed(0))
    found = [common_masks(one, 0.5, 2, noise).mask for one in (margin, plain)]
    assert torch.equal(*found)


def test_a_seeds_images_and_masks_are_its_own_and_come_from_the_test_split(config):
    evaluated = evaluated_of(config, "ratios")
    first, second = (viewed_images(evaluated.shared, 3, seed) for seed in (0, 1))
    assert set(first) | set(second) <= set(evaluated.shared.data.splits["test"])
    assert set(first) != set(second)
    assert not np.array_equal(views_of(evaluated, 0, 0.5)[0].visible, views_of(evaluated, 1, 0.5)[0].visible)
    np.testing.assert_array_equal(viewed_images(evaluated.shared, 3, 0), first)


def test_reach_is_that_of_the_jacobians_by_hand(config):
    rows = table(config, "jacobian", "jacobian_reach", "ratios")
    evaluated = evaluated_of(config, "ratios")
    spec = evaluated.runs[0].spec
    run, images = evaluated.runs[0].load(), viewed(evaluated, spec.seed)
    radii = []
    for view in views_of(evaluated, spec.seed, 0.75):
        masks = common_masks(spec.model, 0.75, evaluated.mask_unit, view.noise.expand(3, -1))
        found = reconstruction_jacobian(
            run.model, run.normalise(torch.from_numpy(images)), masks, torch.from_numpy(view.geometry.outputs)
        )
        influence = mean_influence([Influence.of_jacobian(one.double().numpy(), 1) for one in found])
        radii.append(rms_radius(influence.squared, view.geometry))
    keys = {"name": spec.name, "predictor": "trained", "evaluation_mask_ratio": 0.75}
    chosen = rows[(rows[list(keys)] == pd.Series(keys)).all(axis=1)]
    assert chosen["rms_radius_squared"].item() == pytest.approx(np.mean(radii))


def test_untrained_and_linear_predictors_stand_beside_the_trained_ones(config):
    rows = table(config, "jacobian", "jacobian_reach", "ratios")
    # Two seeds and two evaluation ratios: six runs, the initial weights that they share, and the linear predictor.
    assert rows.groupby("predictor").size().to_dict() == {"trained": 12, "untrained": 4, "linear": 4}
    basis = read_table(Layout.of(config).table("jacobian_basis", "ratios")).set_index("predictor")
    assert basis.loc["linear", "dispersion"].abs().max() < 1e-12
    assert basis.loc["trained", "dispersion"].min() > 1e-6
    assert (basis.loc["trained", "expansion_error"].max() < basis.loc["trained, reversed", "expansion_error"]).all()
    training = read_table(Layout.of(config).table("jacobian_training", "ratios"))
    assert training.groupby("name")["epoch"].apply(list).map(sorted).tolist() == [[0, 1, 2]] * 6


def test_the_linear_predictors_ridge_is_that_of_least_validation_error(config):
    rows = table(config, "jacobian", "jacobian_reach", "ratios").query("predictor == 'linear'")
    evaluated = evaluated_of(config, "ratios")
    run, splits = evaluated.runs[0].load(), evaluated.shared.data.splits
    moments = normalised_moments(run, evaluated.shared.data.images[splits["train"]])
    validation = normalised_images(run, evaluated.shared.data.images[splits["validation"]]).reshape(-1, 64)
    for ratio, found in rows.groupby("evaluation_mask_ratio")["ridge"]:
        hidden = [~view.visible for view in views_of(evaluated, config.first_seed, ratio)]
        means = [ConditionalMean(moments.mean, moments.covariance, ridge) for ridge in RIDGES]
        errors = [sum(mean.predictor(mask).error(validation) for mask in hidden) for mean in means]
        assert set(found) == {RIDGES[int(np.argmin(errors))]}


def test_each_network_is_measured_once_under_each_ratio_and_cached(config, monkeypatch):
    measured, measure = [], jacobians.measure

    def counted(predictor, settings, seed, shared):
        of = f"linear, seed {seed}"
        if isinstance(predictor, TrainedModel):
            of = b"".join(tensor.numpy().tobytes() for tensor in predictor.model.state_dict().values())
        measured.append((of, settings["mask_ratio"]))
        return measure(predictor, settings, seed, shared)

    monkeypatch.setattr(jacobians, "measure", counted)
    cached = Layout.of(config).cache("jacobian")
    shutil.rmtree(cached, ignore_errors=True)
    training = table(config, "jacobian", "jacobian_training", "ratios")
    # Six runs: two ratios at the end, one after the first epoch; two ratios of the weights that each seed begins with,
    # and of the linear predictor under its masks.
    n_measured = 6 * 3 + 2 * 2 + 2 * 2
    assert len(measured) == len(set(measured)) == n_measured
    damaged = sorted(cached.iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-8])
    pd.testing.assert_frame_equal(table(config, "jacobian", "jacobian_training", "ratios"), training)
    assert len(measured) == n_measured + 1
    # Rows of initial weights are those of the untrained network, for every run of the seed.
    untrained = read_table(Layout.of(config).table("jacobian_reach", "ratios")).query("predictor == 'untrained'")
    expected = untrained[untrained["evaluation_mask_ratio"] == 0.75].set_index("seed")["rms_radius_squared"]
    for seed, rows in training[training["epoch"] == 0].groupby("seed"):
        np.testing.assert_array_equal(rows["rms_radius_squared"], expected[seed])


def test_equal_weights_with_other_heads_are_another_network(config):
    evaluated = evaluated_of(config, "ratios")
    one, other = evaluated.runs[::2][:2]  # of one seed
    assert one.identity != other.identity
    assert one.snapshots[0].identity == other.snapshots[0].identity
    assert one.snapshots[1].identity != other.snapshots[1].identity
    headed = replace(other.spec, model=replace(other.spec.model, encoder_heads=2))
    folder = RunFolder(Layout.of(config).runs / other.name)
    assert evaluate.trained_run(folder, headed).snapshots[0].identity != one.snapshots[0].identity


def test_pictures_are_of_the_jacobians_by_hand(config):
    evaluate.run(config, "jacobian", "ratios")
    tensors, about = read_tensors(Layout.of(config).pictures("jacobian", "ratios"))
    evaluated = evaluated_of(config, "ratios")
    model = next(s for s in evaluated.runs if s.columns["mask_ratio"] == 0.75 and s.seed == config.first_seed)
    spec = model.spec
    assert about == {"run": spec.name, "mask_ratio": 0.75, "evaluation_mask_ratio": 0.75}
    run, view = model.load(), views_of(evaluated, spec.seed, 0.75)[0]
    images, outputs = viewed(evaluated, spec.seed), view.geometry.outputs
    np.testing.assert_array_equal(tensors["images"], images)
    hidden = tensors["hidden"].ravel()
    np.testing.assert_array_equal(hidden, ~view.visible)
    row, column = tensors["output"]
    place = list(outputs).index(row * 8 + column)
    distances = np.hypot(*(np.array(divmod(outputs, 8)) - 3.5))
    assert distances[place] == distances.min()
    masks = common_masks(spec.model, 0.75, evaluated.mask_unit, view.noise.expand(3, -1))
    found = reconstruction_jacobian(
        run.model, run.normalise(torch.from_numpy(images)), masks, torch.from_numpy(outputs)
    )
    np.testing.assert_allclose(tensors["influence"].reshape(3, 64), found[:, :, place].abs(), rtol=1e-5)
    moments = normalised_moments(run, evaluated.shared.data.images[evaluated.shared.data.splits["train"]])
    reach = read_table(Layout.of(config).table("jacobian_reach", "ratios"))
    ridge = reach.loc[(reach["predictor"] == "linear") & (reach["evaluation_mask_ratio"] == 0.75), "ridge"].unique()
    weights = ConditionalMean(moments.mean, moments.covariance, ridge.item()).predictor(hidden).weights
    linear = np.zeros((64, len(outputs)))
    linear[~hidden] = weights[:, np.isin(np.flatnonzero(hidden), outputs)]
    np.testing.assert_allclose(tensors["linear/influence"].ravel(), np.abs(linear[:, place]), rtol=1e-5)
    for prefix, one, i in [("", found[1].double(), 1), ("linear/", torch.from_numpy(linear), ...)]:
        inputs, made = (tensors[f"{prefix}{name}"][i].reshape(-1, 64) for name in ("inputs", "outputs"))
        assert len(inputs) == min(4, len(outputs))
        assert not inputs[:, hidden].any()
        assert not np.delete(made, outputs, axis=1).any()
        # A change along an input direction moves the outputs along its partner.
        expected = singular_spectrum(one, 4).values[:4, None].numpy() * made[:, outputs]
        np.testing.assert_allclose(inputs @ one.numpy(), expected, atol=1e-5 * np.abs(expected).max())


def test_patch_sizes_are_compared_under_common_masks(config):
    rows = table(config, "jacobian", "jacobian_reach", "patches")
    assert set(rows.loc[rows["predictor"] == "trained", "patch_size"]) == {2, 4}


def test_second_order_rows_hold_both_kinds_of_images_for_every_run(config):
    rows = table(config, "second_order", "second_order", "ratios")
    assert rows.groupby(["name", "images"]).size().tolist() == [1] * 12
    assert rows["n_masks"].eq(40).all()
    # Barely trained models are far above the bound, on both.
    assert (rows["log_ratio"] < 0).all()
    linear = rows[rows["images"] == "surrogate"]
    np.testing.assert_allclose(linear["linear_error"], linear["linear_expected"], rtol=0.1)


def test_models_compared_before_need_no_linear_side_again(config, monkeypatch):
    made = table(config, "second_order", "second_order", "ratios")
    monkeypatch.setattr(analysis_second_order, "LinearBound", None)
    pd.testing.assert_frame_equal(table(config, "second_order", "second_order", "ratios"), made, check_exact=True)
    monkeypatch.setattr(evaluate, "fingerprint", lambda *modules: "other")
    with pytest.raises(AttributeError, match="NoneType"):
        evaluate.run(config, "second_order", "ratios")


def test_probes_have_a_row_for_each_run_and_target(config):
    rows = table(config, "linear_probe", "linear_probe", "ratios")
    assert rows["name"].tolist() == [run.name for run in config.evaluation_runs("ratios")]
    assert (rows["accuracy"] > 2 * rows["chance"]).all()
    # Two epochs of a tiny model do not get below the mean image's loss.
    runs = Layout.of(config).runs
    last = [pd.read_csv(runs / name / "validation.csv")["loss"].iloc[-1] for name in rows["name"]]
    assert min(last) > mean_image_loss(evaluated_of(config, "ratios").shared.data)
    assert rows["epochs_to_90"].isna().all()
    assert len(read_table(Layout.of(config).table("linear_probe_neighbours", "ratios"))) == len(rows)


def test_a_model_is_probed_once_and_evaluations_share_its_probes(config, monkeypatch):
    calls, represent_splits = [], fitted_probe.represent_splits
    first = table(config, "linear_probe", "linear_probe", "ratios")

    def counted(*args):
        calls.append(args)
        return represent_splits(*args)

    monkeypatch.setattr(fitted_probe, "represent_splits", counted)
    pd.testing.assert_frame_equal(table(config, "linear_probe", "linear_probe", "ratios"), first)
    assert not calls
    for cached in ("linear_probe", "fitted_probe"):  # of the same model
        min(Layout.of(config).cache(cached).iterdir()).unlink()
    pd.testing.assert_frame_equal(table(config, "linear_probe", "linear_probe", "ratios"), first, check_exact=True)
    assert len(calls) == 1
    patches = table(config, "linear_probe", "linear_probe", "patches").set_index("name")
    shared = first.set_index("name").loc[first["name"].isin(patches.index).to_numpy()]
    assert len(shared) == 4
    assert (patches.loc[shared.index, "accuracy"] == shared["accuracy"]).all()
    # Under other masks the same models err otherwise.
    assert (patches.loc[shared.index, "reconstruction_error"] != shared["reconstruction_error"]).all()


def test_reconstruction_errors_beside_probes_are_of_the_same_pixels_for_all_patch_sizes(config):
    rows = table(config, "linear_probe", "linear_probe", "patches").set_index("name")
    assert rows["evaluation_mask_ratio"].eq(0.75).all()
    evaluated = evaluated_of(config, "patches")
    for model in evaluated.runs:
        run, spec = model.load(), model.spec
        test = normalised_images(run, evaluated.shared.data.images[evaluated.shared.data.splits["test"]])
        draw = torch.Generator().manual_seed(spec.seed)
        masks = common_masks(spec.model, 0.75, 4, torch.rand(40, 4, generator=draw))  # 4 units of 4 px
        # One visible unit of four: the hidden three are the same pixels at either patch size.
        assert masks.mask.mean() == 0.75
        total = count = 0.0
        for i in range(40):
            images = torch.from_numpy(share(test, i, 40, IMAGES_PER_MASK)).permute(0, 3, 1, 2)
            rows_of = [i] * len(images)
            alike = Masks(masks.ids_keep[rows_of], masks.ids_restore[rows_of], masks.mask[rows_of])
            with torch.no_grad():
                found = run.model.reconstruct(images, alike)
            per_patch = patchify(found - images, spec.model.patch_size).square()[:, masks.mask[i] > 0]
            total, count = total + float(per_patch.sum()), count + per_patch.numel()
        assert rows.loc[spec.name, "reconstruction_error"] == pytest.approx(total / count, rel=1e-4)


def test_a_data_set_without_test_images_is_refused(config, values, tmp_path):
    changed = parse_config(values | {"results": str(tmp_path)}, "test")
    images = evaluated_of(config, "ratios").shared.data
    none = replace(images, splits=images.splits | {"test": images.splits["test"][:0]})
    none.save(Layout.of(changed).data("digits"))
    with pytest.raises(UserError, match="split test has no images"):
        evaluate.run(changed, "linear_probe", "ratios")
