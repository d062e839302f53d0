"""The probe of class labels, on real digits."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.probe.classification import chance_accuracy, label_targets, probe_class
from spatialmae.probe.ridge import ALPHAS


@pytest.fixture(scope="module")
def digits():
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    labels = bunch.target.astype(np.int64)
    return ImageData(
        name="digits",
        images=(bunch.images * 15).astype(np.uint8)[..., None],
        splits=dict(zip(SPLITS, np.split(order, [900, 1300]), strict=True)),
        targets={"digit": labels, "odd": labels % 2, "depth": bunch.images, "segments": bunch.images.astype(np.int64)},
    )


@pytest.fixture(scope="module")
def pca(digits):
    return PCA(32, svd_solver="full").fit(digits.features("train"))


def test_labels_are_the_int64_targets_of_one_value_an_image(digits):
    assert label_targets(digits) == ["digit", "odd"]


def test_accuracy_is_scikit_learns(digits, pca):
    table = probe_class(digits, np.ascontiguousarray(pca.components_.T), pca.mean_, [4, 32])
    assert list(table["target"]) == ["digit", "digit", "odd", "odd"]
    for _, row in table.iterrows():
        k, name = int(row["n_components"]), str(row["target"])
        code = {split: pca.transform(digits.features(split))[:, :k] for split in SPLITS}
        scaler = StandardScaler().fit(code["train"])
        fits = [RidgeClassifier(a).fit(scaler.transform(code["train"]), digits.target(name, "train")) for a in ALPHAS]
        scores = {
            split: [fit.score(scaler.transform(code[split]), digits.target(name, split)) for fit in fits]
            for split in ("validation", "test")
        }
        strongest = max(np.flatnonzero(np.array(scores["validation"]) == max(scores["validation"])))
        assert row["alpha"] == ALPHAS[strongest]
        assert row["accuracy"] == pytest.approx(scores["test"][strongest])
    digit, odd = table[table["n_components"] == 32]["accuracy"]
    assert digit > 0.88
    assert odd > 0.85


def test_chance_is_the_majority_class_of_train(digits):
    train, test = digits.target("digit", "train"), digits.target("digit", "test")
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(train), 1)), train)
    assert chance_accuracy(train, test) == pytest.approx(dummy.score(np.zeros((len(test), 1)), test))
    assert chance_accuracy(np.array([3, 3, 1]), np.array([1, 1, 3, 2])) == 0.25


def test_features_without_information_stay_at_chance(digits):
    noise = replace(digits, images=np.random.default_rng(0).integers(0, 256, digits.images.shape, dtype=np.uint8))
    table = probe_class(noise, np.eye(64)[:, :8].copy(), np.zeros(64), [8])
    # Five binomial standard errors around one class in ten, one in two.
    np.testing.assert_allclose(table["accuracy"], [0.1, 0.5], atol=5 * np.sqrt(0.25 / 497))
    assert table["accuracy"].iloc[0] < 0.2


def test_shuffled_test_labels_leave_the_choice_alone(digits, pca):
    encoder = np.ascontiguousarray(pca.components_.T)
    labels = digits.targets["digit"].copy()
    rows = digits.splits["test"]
    labels[rows] = np.random.default_rng(0).permutation(labels[rows])
    shuffled = replace(digits, targets={"digit": labels})
    table = probe_class(shuffled, encoder, pca.mean_, [4, 16, 32])
    expected = probe_class(digits, encoder, pca.mean_, [4, 16, 32], targets=["digit"])
    pd.testing.assert_series_equal(table["alpha"], expected["alpha"])
    assert (table["accuracy"] < 0.2).all()
