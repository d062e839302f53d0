"""Digits: the mapping to bytes, and the splits."""

import numpy as np
from sklearn.datasets import load_digits

from spatialmae.data.digits import digits


def test_values_are_scikit_learns_on_another_scale():
    data, original = digits(seed=0), load_digits()
    assert data.images.shape == (1797, 8, 8, 1)
    mapping = np.array([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255])
    np.testing.assert_array_equal(data.images[..., 0], mapping[original.images.astype(int)])
    np.testing.assert_array_equal(data.targets["label"], original.target)
    assert (np.ptp(data.images.reshape(1797, 64), axis=0) == 0).sum() == 3


def test_splits_are_stratified_and_seeded():
    data = digits(seed=3)
    sizes = {name: len(rows) for name, rows in data.splits.items()}
    assert sizes == {"train": 1079, "validation": 359, "test": 359}
    shares = np.stack([np.bincount(data.target("label", name)) / size for name, size in sizes.items()])
    assert np.ptp(shares, axis=0).max() < 0.005
    again, other = digits(seed=3), digits(seed=4)
    for name, rows in data.splits.items():
        np.testing.assert_array_equal(rows, again.splits[name])
        assert not np.array_equal(rows, other.splits[name])
