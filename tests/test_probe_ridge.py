"""The ridge probe, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spatialmae.linear.estimator import LinearDAE
from spatialmae.probe.classification import indicators
from spatialmae.probe.ridge import (
    ALPHAS,
    LinearCode,
    indicator_accuracy,
    nested_ridge,
    ridge_probe,
    variance_weighted_r2,
)

SIZES = {"train": 80, "validation": 40, "test": 50}


def regression(rng, n_features=12, n_targets=5, noise=1.0):
    """Features of unequal scale and mean, correlated, with targets that depend on some of them."""
    mixing = rng.normal(size=(n_features, n_features)) * np.logspace(0, -2, n_features)
    weights = rng.normal(size=(n_features, n_targets)) * (rng.random(n_features) < 0.5)[:, None]
    features, targets = {}, {}
    for split, n in SIZES.items():
        features[split] = rng.normal(size=(n, n_features)) @ mixing + 3.0
        targets[split] = features[split] @ weights + noise * rng.normal(size=(n, n_targets)) - 1.0
    return features, targets


def flat(features, targets):
    return [array for split in SIZES for array in (features[split], targets[split])]


def by_scikit_learn(features, targets, alphas, model, score):
    """Fit every penalty from scratch, select on validation, score test."""
    fitted = [
        make_pipeline(StandardScaler(), model(alpha)).fit(features["train"], targets["train"]) for alpha in alphas
    ]
    validation = [score(targets["validation"], fit.predict(features["validation"])) for fit in fitted]
    best = int(np.argmax(validation))
    return alphas[best], score(targets["test"], fitted[best].predict(features["test"]))


def weighted(truth, prediction):
    return r2_score(truth, prediction, multioutput="variance_weighted")


@settings(max_examples=20)
@given(seed=st.integers(0, 999), noise=st.sampled_from([0.01, 1.0, 10.0]))
def test_nested_ranks_equal_scikit_learns_ridge(seed, noise):
    features, targets = regression(np.random.default_rng(seed), noise=noise)
    probes = nested_ridge(LinearCode(features), targets, [1, 4, 12])
    for probe in probes:
        first = {split: array[:, : probe.n_components] for split, array in features.items()}
        alpha, score = by_scikit_learn(first, targets, ALPHAS, Ridge, weighted)
        assert probe.alpha == alpha
        assert probe.score == pytest.approx(score, abs=1e-9)
        assert (probe.n_train, probe.n_test) == (80, 50)


@settings(max_examples=20)
@given(seed=st.integers(0, 999), n_classes=st.integers(2, 5), alpha=st.sampled_from(ALPHAS))
def test_indicators_equal_scikit_learns_ridge_classifier(seed, n_classes, alpha):
    rng = np.random.default_rng(seed)
    features, targets = regression(rng, n_targets=n_classes)
    labels = {split: array.argmax(axis=1) for split, array in targets.items()}
    classes = np.unique(labels["train"])
    encoded = {split: indicators(array, classes) for split, array in labels.items()}
    probe = ridge_probe(*flat(features, encoded), [alpha], indicator_accuracy)
    _, expected = by_scikit_learn(features, labels, [alpha], RidgeClassifier, accuracy_score)
    assert probe.score == pytest.approx(expected)


def test_more_features_than_images():
    rng = np.random.default_rng(0)
    features, targets = regression(rng, n_features=120)
    alpha, score = by_scikit_learn(features, targets, ALPHAS, Ridge, weighted)
    probe = ridge_probe(*flat(features, targets))
    assert probe.alpha == alpha
    assert probe.score == pytest.approx(score, abs=1e-7)


def test_the_test_split_has_no_part_in_the_choice():
    rng = np.random.default_rng(0)
    features, targets = regression(rng, noise=5.0)
    probe = ridge_probe(*flat(features, targets))
    shuffled = targets | {"test": rng.permutation(targets["test"])}
    moved = features | {"test": 100 * features["test"]}
    assert ridge_probe(*flat(features, shuffled)).alpha == probe.alpha
    assert ridge_probe(*flat(moved, targets)).alpha == probe.alpha
    assert ridge_probe(*flat(features, shuffled)).score < probe.score


def test_validation_makes_the_choice():
    rng = np.random.default_rng(0)
    features, targets = regression(rng, noise=0.01)
    assert ridge_probe(*flat(features, targets)).alpha == min(ALPHAS)
    opposed = targets | {"validation": -targets["validation"]}
    assert ridge_probe(*flat(features, opposed)).alpha == max(ALPHAS)


def test_the_strongest_penalty_wins_a_tie():
    features, _ = regression(np.random.default_rng(0))
    separable = {split: np.where(array[:, :1] > 3, [[1.0, -1.0]], [[-1.0, 1.0]]) for split, array in features.items()}
    one = {split: np.sign(array[:, :1] - 3) for split, array in features.items()}
    probe = ridge_probe(*flat(one, separable), [0.1, 1.0, 0.01], indicator_accuracy)
    assert (probe.alpha, probe.score) == (1.0, 1.0)


def test_a_linear_target_is_found_and_random_features_are_not_informative():
    rng = np.random.default_rng(0)
    features, targets = regression(rng, noise=0.0)
    assert ridge_probe(*flat(features, targets)).score > 0.9999
    random = {split: rng.normal(size=(n, 12)) for split, n in SIZES.items()}
    assert abs(ridge_probe(*flat(random, targets)).score) < 0.1


def test_ignoring_units_of_the_features():
    rng = np.random.default_rng(0)
    features, targets = regression(rng)
    scale, shift = rng.uniform(0.01, 100, 12), rng.normal(size=12)
    scaled = {split: array * scale + shift for split, array in features.items()}
    expected = ridge_probe(*flat(features, targets))
    probe = ridge_probe(*flat(scaled, targets))
    assert (probe.alpha, probe.score) == (expected.alpha, pytest.approx(expected.score, abs=1e-9))


@pytest.mark.parametrize("rounding", [0.0, 1e-15])
def test_a_constant_feature_stays_zero(rounding):
    rng = np.random.default_rng(0)
    features, targets = regression(rng)
    constant = {split: np.full((n, 1), 7.0) for split, n in SIZES.items()}
    constant["train"] = rounding * rng.normal(size=(80, 1))
    wider = {split: np.hstack([constant[split], array]) for split, array in features.items()}
    code = LinearCode(wider)
    assert all((array[:, 0] == 0).all() for array in code.features.values())
    assert nested_ridge(code, targets, [13])[0].score == pytest.approx(ridge_probe(*flat(features, targets)).score)
    assert nested_ridge(code, targets, [1])[0].score <= 0.0


def test_the_code_is_the_projection_of_centred_images():
    rng = np.random.default_rng(0)
    features, _ = regression(rng)
    encoder, mean = rng.normal(size=(12, 4)), rng.normal(size=12)
    code = LinearCode.project(features, encoder, mean)
    scaler = StandardScaler().fit((features["train"] - mean) @ encoder)
    for split in SIZES:
        expected = scaler.transform((features[split] - mean) @ encoder)
        np.testing.assert_allclose(code.features[split], expected, atol=1e-10)


def test_the_probe_cannot_tell_a_denoiser_from_principal_components():
    features, targets = regression(np.random.default_rng(0))

    def probes(noise_std):
        model = LinearDAE(noise_std=noise_std).fit(features["train"])
        return nested_ridge(LinearCode.project(features, model.encoder_, model.mean_), targets, [1, 3, 12])

    for plain, denoiser in zip(probes(0.0), probes(0.7), strict=True):
        assert denoiser.alpha == plain.alpha
        assert denoiser.score == pytest.approx(plain.score, abs=1e-9)


@given(seed=st.integers(0, 999))
def test_r2_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(20, 4)) * rng.uniform(0.1, 10, 4)
    target[:, rng.integers(4)] = 2.0
    prediction = target + rng.normal(size=(3, 20, 4))
    expected = [weighted(target, one) for one in prediction]
    np.testing.assert_allclose(variance_weighted_r2(target, prediction), expected, atol=1e-12)


def test_r2_of_constant_targets_is_undefined():
    assert np.isnan(variance_weighted_r2(np.ones((5, 2)), np.zeros((3, 5, 2)))).all()


def test_an_image_of_an_unseen_class_is_wrong():
    target = indicators(np.array([0, 1, 2]), np.array([0, 1]))
    np.testing.assert_allclose(indicator_accuracy(target, np.array([[[1.0, 0], [0, 1], [1, 0]]])), [2 / 3])


def test_the_row_carries_the_contract():
    features, targets = regression(np.random.default_rng(0))
    row = ridge_probe(*flat(features, targets)).row("r2", sigma=2.0)
    assert list(row)[:3] == ["n_components", "sigma", "r2"]
    contract = {name: row[name] for name in ("feature", "normalisation", "regulariser", "selected_on")}
    assert contract == {
        "feature": "linear code, nothing hidden",
        "normalisation": "standardised on train",
        "regulariser": "ridge",
        "selected_on": "validation",
    }


def test_impossible_arguments_are_refused():
    features, targets = regression(np.random.default_rng(0))
    code = LinearCode(features)
    for ranks in ([0], [13], [4, -1]):
        with pytest.raises(ValueError, match="n_components"):
            nested_ridge(code, targets, ranks)
    for alphas in ([], [0.0, 1.0]):
        with pytest.raises(ValueError, match="alphas"):
            nested_ridge(code, targets, [1], alphas)
    with pytest.raises(ValueError, match="split validation"):
        LinearCode(features | {"validation": np.empty((0, 12))})
