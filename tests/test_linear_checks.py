"""The checks of the closed form pass where it is right, and their controls fail."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from spatialmae.linear.checks import check_gradient_descent, check_monte_carlo, check_pca


@pytest.mark.slow
def test_checks_tell_right_from_wrong():
    X = load_digits().data[:400] / 16
    S = np.cov(X.T, bias=True)
    descent = check_gradient_descent(S, (8, 8), 0.75, 2, 4, 3, seed=0)
    pca = check_pca(X, (8, 8), 0.75, 2, 4)
    random = check_monte_carlo(X, (8, 8), 0.75, 2, 4, 4, n_masks=200, seed=0)
    assert descent["claim"] < 1e-6 < 1e-2 < descent["control"]
    assert pca["claim"] < 1e-8 < 1e-2 < pca["control"]
    assert random["claim"] < 0.01 < 0.05 < random["control"]
