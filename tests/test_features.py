"""Variance kept and redundancy against regressions done by hand."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from spatialmae.analysis.features import patch_redundancy, redundancy_share, variance_kept
from spatialmae.geometry import patch_labels


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    return rng.normal(size=(500, 12)) @ rng.normal(size=(12, 12))


def test_variance_kept_by_pca_is_what_pca_says(X):
    pca = PCA(5).fit(X)
    kept = variance_kept(np.cov(X.T), pca.components_.T, [1, 3, 5])
    np.testing.assert_allclose(kept, np.cumsum(pca.explained_variance_ratio_)[[0, 2, 4]])


def test_variance_kept_is_the_r2_of_a_regression_on_the_features(X):
    A = np.random.default_rng(1).normal(size=(12, 4))
    centred = X - X.mean(axis=0)
    predicted = LinearRegression().fit(centred @ A, centred).predict(centred @ A)
    expected = np.sum(predicted**2) / np.sum(centred**2)
    assert variance_kept(np.cov(X.T), A, [4]) == pytest.approx([expected])
    mixed = A @ np.random.default_rng(2).normal(size=(4, 4))
    assert variance_kept(np.cov(X.T), mixed, [4]) == pytest.approx([expected])


def test_variance_kept_survives_a_feature_of_zeros(X):
    A = np.random.default_rng(1).normal(size=(12, 3))
    with_zeros = np.column_stack([A, np.zeros(12)])
    assert variance_kept(np.cov(X.T), with_zeros, [4]) == pytest.approx(variance_kept(np.cov(X.T), A, [3]))


def test_redundancy_is_what_a_regression_on_other_patches_predicts(X):
    labels = patch_labels(12, 4)
    train, test = (rows - rows.mean(axis=0) for rows in (X[:300], X[300:]))
    R = patch_redundancy(np.cov(train.T, bias=True), np.cov(test.T, bias=True), labels, ridge=1e-12)
    for patch in range(3):
        own, others = labels == patch, labels != patch
        residual = test[:, own] - LinearRegression(fit_intercept=False).fit(train[:, others], train[:, own]).predict(
            test[:, others]
        )
        expected = np.cov(test[:, own].T, bias=True) - residual.T @ residual / len(test)
        np.testing.assert_allclose(R[np.ix_(own, own)], expected, atol=1e-6)
    assert np.all(R[labels[:, None] != labels[None, :]] == 0)


def test_the_ridge_of_redundancy_is_in_units_of_the_mean_variance():
    c, ridge = 0.6, 0.5
    S = 4 * np.array([[1.0, c], [c, 1.0]])
    weight = c / (1 + ridge)  # of the other pixel
    np.testing.assert_allclose(
        patch_redundancy(S, S, patch_labels(2, 1), ridge=ridge), 4 * (2 * weight * c - weight**2) * np.eye(2)
    )


def test_redundancy_of_independent_and_of_copied_patches():
    labels = patch_labels(6, 3)
    block = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 1.5]])
    independent, copied = np.kron(np.eye(2), block), np.kron(np.ones((2, 2)), block)
    directions = np.random.default_rng(0).normal(size=(6, 2))
    for S, expected in ((independent, 0.0), (copied, 1.0)):
        R = patch_redundancy(S, S, labels, ridge=1e-6)
        assert redundancy_share(R, S, labels, directions, [1, 2]) == pytest.approx([expected] * 2, abs=1e-4)


def test_redundancy_depends_on_the_span_alone(X):
    labels, S = patch_labels(12, 4), np.cov(X.T)
    R = patch_redundancy(S, S, labels)
    A = np.random.default_rng(1).normal(size=(12, 3))
    mixed = A @ np.random.default_rng(2).normal(size=(3, 3))
    assert redundancy_share(R, S, labels, A, [3]) == pytest.approx(redundancy_share(R, S, labels, mixed, [3]))
