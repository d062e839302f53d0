"""Conditional means and their errors against least squares, Monte Carlo, ridge regression and models that know them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from small_models import SMALL, small_model
from spatialmae.analysis.second_order import (
    ConditionalMean,
    LinearBound,
    choose_ridge,
    common_masks,
    comparison_rows,
    gaussian_images,
    hidden_features,
    normalised_images,
    normalised_moments,
    reconstruction_errors,
    share,
)
from spatialmae.linear.moments import Moments
from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.model.patches import patchify
from spatialmae.model.trained import TrainedModel

D = 12
SHAPE = (4, 4, 2)
CONFIG = MAEConfig(**SMALL | {"image_size": 4, "mask_ratio": 0.5})


def gaussian_moments(d: int = D, seed: int = 0, n: int = 1_000_000) -> Moments:
    """Moments of correlated features, as if of n images."""
    rng = np.random.default_rng(seed)
    factor, mean = rng.normal(size=(d, d)), rng.normal(size=d)
    return Moments(n, mean, factor @ factor.T / d + np.outer(mean, mean))


def random_mask(d: int = D, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(d) < d // 2)


def run_of(model: MaskedAutoencoder) -> TrainedModel:
    channels = model.config.channels
    return TrainedModel(model.eval(), (0.5,) * channels, (0.25,) * channels)


class KnowsMoments(MaskedAutoencoder):
    """A model that predicts the conditional mean, and scrambles the visible pixels, which no error counts."""

    def __init__(self, config: MAEConfig, moments: Moments) -> None:
        super().__init__(config)
        self.conditional_mean = ConditionalMean.of(moments)

    def reconstruct(self, images, masks=None):
        hidden = hidden_features(self.config, masks)
        assert (hidden == hidden[0]).all()
        rows = images.permute(0, 2, 3, 1).flatten(1).numpy()
        pred = np.full_like(rows, 1e3)
        pred[:, hidden[0]] = self.conditional_mean.predictor(hidden[0]).predict(rows)
        return torch.from_numpy(pred).reshape(-1, *SHAPE).permute(0, 3, 1, 2)


def bound_of(moments: Moments, images: dict[str, np.ndarray], **settings) -> LinearBound:
    rng = np.random.default_rng(1)
    validation = gaussian_images(moments, 50, rng).reshape(-1, *SHAPE)
    return LinearBound.of(CONFIG, common_masks(CONFIG, 5, 0), moments, validation, images, **settings)


def test_two_pixels_by_hand():
    moments = Moments(20, np.array([1.0, -1.0]), np.array([[5.0, 2.0], [2.0, 6.0]]))
    predictor = ConditionalMean.of(moments).predictor(np.array([False, True]))
    assert predictor.weights == pytest.approx(0.75)
    assert predictor.intercept == pytest.approx(-1.75)
    assert predictor.expected_error == pytest.approx(5 - 9 / 4)
    assert predictor.predict(np.array([[3.0, 9.0]], dtype=np.float32)) == pytest.approx(0.5)
    ridge = ConditionalMean.of(moments, ridge=2 / 4.5).predictor(np.array([False, True]))
    assert ridge.weights == pytest.approx(0.5)
    assert ridge.expected_error == pytest.approx(5 - 2 * 0.5 * 3 + 0.25 * 4)


def test_conditional_mean_is_least_squares_on_the_images_its_moments_come_from():
    images, hidden = gaussian_images(gaussian_moments(), 500, np.random.default_rng(0)), random_mask()
    predictor = ConditionalMean.of(Moments.from_batches([images])).predictor(hidden)
    rows = images.astype(np.float64)
    design = np.column_stack([rows[:, ~hidden], np.ones(len(rows))])
    solution, squares, _, _ = np.linalg.lstsq(design, rows[:, hidden])
    np.testing.assert_allclose(predictor.weights, solution[:-1], atol=1e-5)
    np.testing.assert_allclose(predictor.intercept, solution[-1], atol=1e-5)
    assert predictor.expected_error == pytest.approx(squares.mean() / len(rows), rel=1e-6)
    assert predictor.error(images) == pytest.approx(predictor.expected_error, rel=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_expected_error_is_that_of_monte_carlo(ridge):
    moments, hidden = gaussian_moments(), random_mask()
    predictor = ConditionalMean.of(moments, ridge).predictor(hidden)
    images = gaussian_images(moments, 200_000, np.random.default_rng(0))
    assert predictor.error(images) == pytest.approx(predictor.expected_error, rel=0.01)


def test_ridge_is_that_of_ridge_regression():
    images, hidden = gaussian_images(gaussian_moments(), 300, np.random.default_rng(0)), random_mask()
    moments = Moments.from_batches([images])
    predictor = ConditionalMean.of(moments, ridge=0.1).predictor(hidden)
    alpha = 0.1 * np.diagonal(moments.covariance).mean() * len(images)
    rows = images.astype(np.float64)
    regression = Ridge(alpha=alpha).fit(rows[:, ~hidden], rows[:, hidden])
    np.testing.assert_allclose(predictor.weights, regression.coef_.T, atol=1e-6)
    np.testing.assert_allclose(predictor.predict(images), regression.predict(rows[:, ~hidden]), atol=1e-5)
    assert predictor.error(images) == pytest.approx(predictor.expected_error, rel=1e-6)


@given(seed=st.integers(0, 1000), size=st.floats(1e-2, 1))
def test_no_other_weights_have_a_lower_expected_error(seed, size):
    rng, hidden = np.random.default_rng(seed), random_mask(seed=seed)
    moments = gaussian_moments(seed=seed)
    predictor = ConditionalMean.of(moments).predictor(hidden)
    change = size * rng.normal(size=predictor.weights.shape)
    # With E[(1, x)ᵀ(1, x)] whole, the intercept is changed too.
    extended = np.block([[np.ones((1, 1)), moments.mean[None]], [moments.mean[:, None], moments.second_moment]])
    weights = np.zeros((D + 1, D // 2))
    weights[0] = predictor.intercept + size * rng.normal(size=D // 2)
    weights[1:][~hidden] = predictor.weights + change
    weights[1:][hidden] = -np.eye(D // 2)
    error = np.trace(weights.T @ extended @ weights) / (D // 2)
    assert error > predictor.expected_error


def test_constant_and_repeated_pixels_change_nothing():
    moments, hidden = gaussian_moments(), random_mask()
    images = gaussian_images(moments, 2000, np.random.default_rng(0))
    predictor = ConditionalMean.of(Moments.from_batches([images])).predictor(hidden)
    # A constant visible pixel, two repeated visible ones, and a constant hidden one, whose error is 0.
    visible = images[:, ~hidden]
    wider = np.column_stack([images, np.full(len(images), 0.7, dtype=np.float32), visible[:, :2], images[:, 0] * 0 + 3])
    singular = ConditionalMean.of(Moments.from_batches([wider])).predictor(np.append(hidden, [False] * 3 + [True]))
    assert singular.error(wider) * 7 == pytest.approx(predictor.error(images) * 6, rel=1e-5)
    assert singular.expected_error * 7 == pytest.approx(predictor.expected_error * 6, rel=1e-5)
    np.testing.assert_allclose(singular.predict(wider)[:, -1], 3, atol=1e-6)
    # Nor where other images vary in what was constant.
    wider[:, D] = 10.7
    assert singular.error(wider) * 7 == pytest.approx(predictor.error(images) * 6, rel=1e-5)


def test_fewer_images_than_ten_for_each_feature_are_refused():
    few = gaussian_moments(n=10 * D - 1)
    with pytest.raises(ValueError, match="119 images are fewer than 10 × 12 features; give more or smaller images"):
        ConditionalMean.of(few)
    with pytest.raises(ValueError, match="119 images are fewer"):
        gaussian_images(few, 1, np.random.default_rng(0))
    ConditionalMean.of(replace(few, n_samples=10 * D))


def test_images_that_are_all_the_same_are_refused():
    with pytest.raises(ValueError, match="the images are all the same"):
        ConditionalMean.of(Moments(100, np.zeros(3), np.zeros((3, 3))))


@pytest.mark.parametrize("hidden", [[True] * D, [False] * D])
def test_mask_must_hide_some_and_not_all(hidden):
    with pytest.raises(ValueError, match="hide some and not all"):
        ConditionalMean.of(gaussian_moments()).predictor(np.array(hidden))


def test_gaussian_images_have_the_moments_of_singular_data_and_keep_constant_pixels():
    rng = np.random.default_rng(0)
    factor, mean = rng.normal(size=(D, 3)), rng.normal(size=D)
    factor[3] = 0
    moments = Moments(1000, mean, factor @ factor.T + np.outer(mean, mean))
    images = gaussian_images(moments, 200_000, rng)
    assert images.dtype == np.float32
    drawn = Moments.from_batches([images])
    np.testing.assert_allclose(drawn.mean, mean, atol=0.03)
    np.testing.assert_allclose(drawn.covariance, moments.covariance, atol=0.1)
    np.testing.assert_allclose(images[:, 3], mean[3], atol=1e-5)
    standard = (images[:, 0] - drawn.mean[0]) / np.sqrt(drawn.covariance[0, 0])
    assert (standard**4).mean() == pytest.approx(3, abs=0.1)
    assert len(np.unique(images[:1000, 0])) > 990


def test_ridge_is_chosen_where_validation_images_want_it():
    images = gaussian_images(gaussian_moments(40, seed=2), 400, np.random.default_rng(0))
    few = ConditionalMean.of(Moments.from_batches([images]))
    others = gaussian_images(gaussian_moments(40, seed=2), 4000, np.random.default_rng(1))
    hidden, ridges = np.stack([random_mask(40, seed) for seed in range(3)]), (0.0, 0.01, 100.0)
    errors = [np.mean([replace(few, ridge=r).predictor(row).error(others) for row in hidden]) for r in ridges]
    assert choose_ridge(few, others, hidden, len(others), ridges) == ridges[int(np.argmin(errors))] == 0.01
    # On the images that the moments come from nothing is better than no ridge.
    assert choose_ridge(few, images, hidden, len(images), ridges) == 0


def test_common_masks_are_the_same_for_other_models_and_nested_across_ratios():
    config = MAEConfig(**SMALL | {"mask_ratio": 0.5})
    other = replace(config, encoder_depth=1, masking="bernoulli", loss_on="all")
    masks = common_masks(config, 7, 3)
    assert torch.equal(masks.mask, common_masks(other, 7, 3).mask)
    assert (masks.mask.sum(dim=1) == 8).all()
    assert (common_masks(replace(config, mask_ratio=0.75), 7, 3).mask >= masks.mask).all()
    assert not torch.equal(masks.mask, common_masks(config, 7, 4).mask)
    assert len(torch.unique(masks.mask, dim=0)) == 7


def test_hidden_features_are_the_pixels_that_the_model_does_not_see():
    run = run_of(small_model(torch.float32, mask_ratio=0.5))
    config, masks = run.model.config, common_masks(run.model.config, 2, 0)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype(np.float32)
    hidden = hidden_features(config, masks)
    changed = np.where(hidden.reshape(2, 8, 8, 2), images + 1, images).astype(np.float32)
    before, after = (
        run.model.reconstruct(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), masks) for x in (images, changed)
    )
    assert torch.equal(before, after)
    assert hidden.mean() == 0.5


@pytest.mark.parametrize("settings", [{}, {"mask_unit": 4}, {"loss_on": "all", "masking": "bernoulli"}])
def test_errors_of_a_model_are_its_losses_under_each_mask(settings):
    model = small_model(torch.float32, mask_ratio=0.5, **settings)
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 2)).astype(np.float32)
    masks = common_masks(model.config, 4, 0)
    errors = reconstruction_errors(run_of(model), images, masks, batch_size=2)  # fewer images than a share: all
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    fixed = replace(model.config, masking="fixed", loss_on="hidden")
    for error, mask in zip(errors, masks.mask, strict=True):
        same = MaskedAutoencoder(fixed)
        same.load_state_dict(model.state_dict())
        noise = mask.expand(5, -1)
        if "mask_unit" in settings:
            noise = noise.reshape(5, 2, 2, 2, 2)[:, :, 0, :, 0].reshape(5, 4)
        assert error == pytest.approx(same(x, noise).loss.item(), rel=1e-5)


def test_masks_share_the_images_evenly_and_the_model_is_measured_on_the_same_shares():
    rows = np.arange(40, dtype=np.float32).reshape(40, 1)
    assert sorted(x.item() for i in range(4) for x in share(rows, i, 4, 10)) == list(range(40))
    counts = np.bincount(np.concatenate([share(rows, i, 4, 30)[:, 0] for i in range(4)]).astype(int))
    assert (counts == 3).all()
    model = small_model(torch.float32, mask_ratio=0.5)
    images = np.random.default_rng(0).normal(size=(12, 8, 8, 2)).astype(np.float32)
    masks = common_masks(model.config, 4, 0)
    errors = reconstruction_errors(run_of(model), images, masks, images_per_mask=6, batch_size=4)
    for i in range(4):
        own = reconstruction_errors(run_of(model), share(images, i, 4, 6), masks)
        assert errors[i] == pytest.approx(own[i], rel=1e-5)


def test_model_that_predicts_normalised_patches_has_no_error_to_compare():
    model = small_model(torch.float32, norm_pix_loss=True)
    with pytest.raises(ValueError, match="norm_pix_loss"):
        reconstruction_errors(run_of(model), np.zeros((1, 8, 8, 2), np.float32), common_masks(model.config, 1, 0))


def test_model_that_predicts_the_conditional_mean_ties_with_it():
    moments, rng = gaussian_moments(32), np.random.default_rng(2)
    kinds = {"test": 300, "surrogate": 20_000}
    images = {kind: gaussian_images(moments, n, rng).reshape(-1, *SHAPE) for kind, n in kinds.items()}
    rows = comparison_rows(run_of(KnowsMoments(CONFIG, moments)), bound_of(moments, images, images_per_mask=4000))
    counts = [[row[name] for name in ("images", "n_images", "n_masks", "images_per_mask")] for row in rows]
    assert counts == [["test", 300, 5, 300], ["surrogate", 20_000, 5, 4000]]
    for row in rows:
        assert row["evaluation_mask_ratio"] == 0.5
        assert row["log_ratio"] == pytest.approx(0, abs=1e-5)
        assert row["log_ratio_expected"] == pytest.approx(np.log(row["linear_expected"] / row["model_error"]))
    assert rows[1]["log_ratio_expected"] == pytest.approx(0, abs=0.03)


def test_model_that_uses_more_than_second_moments_beats_the_conditional_mean():
    class KnowsSquares(KnowsMoments):
        """Pixels are squares of the one left of them, which no linear map can tell."""

        def reconstruct(self, images, masks=None):
            left = images.roll(1, 3)
            return left.square() - 0.9

    rng = np.random.default_rng(0)
    odd = rng.normal(size=(4000, 4, 2, 2)).astype(np.float32)
    images = np.stack([odd, odd**2 - 1], axis=3).reshape(-1, *SHAPE)
    moments = Moments.from_batches([images.reshape(len(images), -1)])
    config = replace(CONFIG, patch_size=1, mask_ratio=0.5)
    columns = torch.tensor([0.0, 1.0, 0.0, 1.0]).repeat(4)[None]
    masks = replace(common_masks(config, 1, 0), mask=columns)
    bound = LinearBound.of(config, masks, moments, images[:100], {"test": images[100:]})
    row = comparison_rows(run_of(KnowsSquares(config, moments)), bound)[0]
    assert row["model_error"] == pytest.approx(0.01, rel=1e-4)
    assert row["log_ratio"] == pytest.approx(np.log(row["linear_error"] / 0.01), rel=1e-4)
    assert row["log_ratio_expected"] == pytest.approx(np.log(2 / 0.01), abs=0.1)


def test_ridge_errors_and_expected_errors_are_of_the_same_masks():
    moments = gaussian_moments(32)
    images = {"test": gaussian_images(moments, 100, np.random.default_rng(3)).reshape(-1, *SHAPE)}
    bound = bound_of(moments, images, images_per_mask=30)
    rows = images["test"].reshape(100, -1)
    ridge = ConditionalMean.of(moments, bound.ridge)
    for i, hidden in enumerate(hidden_features(CONFIG, bound.masks)):
        plain, chosen = ConditionalMean.of(moments).predictor(hidden), share(rows, i, 5, 30)
        assert bound.expected[i] == pytest.approx(plain.expected_error)
        assert bound.errors["test"][i] == pytest.approx(plain.error(chosen))
        assert bound.ridge_errors["test"][i] == pytest.approx(ridge.predictor(hidden).error(chosen))


def test_moments_are_of_images_as_the_model_sees_them():
    run = run_of(small_model(torch.float32))
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 2), dtype=np.uint8)
    seen = run.normalise(torch.from_numpy(images))
    # Patches of one pixel are the pixels in C order of (h, w, c).
    rows = patchify(seen, 1).flatten(1).numpy()
    np.testing.assert_array_equal(normalised_images(run, images).reshape(7, -1), rows)
    moments = normalised_moments(run, images, batch_size=3)
    assert moments.n_samples == 7
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), atol=1e-6)
