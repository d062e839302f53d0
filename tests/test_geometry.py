"""Patch geometry and masks."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialmae.geometry import patch_labels, patch_members, pixel_coordinates, pixel_distances
from spatialmae.masks import bernoulli_masks, fixed_count_masks, n_visible


@given(rows=st.integers(1, 4), columns=st.integers(1, 4), patch_size=st.integers(1, 3), channels=st.integers(1, 3))
def test_labels_agree_with_cutting_the_image(rows, columns, patch_size, channels):
    shape = (rows * patch_size, columns * patch_size, channels)
    labels = patch_labels(int(np.prod(shape)), patch_size, shape).reshape(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            assert (labels[i, j] == (i // patch_size) * columns + j // patch_size).all()


@given(st.integers(1, 50), st.integers(1, 9))
def test_members_partition_the_features(n_features, patch_size):
    members = patch_members(patch_labels(n_features, patch_size))
    assert np.array_equal(np.sort(np.concatenate(members)), np.arange(n_features))
    assert all(len(rows) == patch_size for rows in members[:-1])
    assert len(members[-1]) == (n_features - 1) % patch_size + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((12, 0, None), "patch_size=0"),
        ((12, 2, (3, 4)), "does not tile"),
        ((12, 2, (4, 4)), "does not hold"),
    ],
)
def test_impossible_patches_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        patch_labels(*arguments)


def test_distances_are_euclidean_between_pixels():
    distances = pixel_distances((3, 5, 2))
    coordinates = pixel_coordinates((3, 5, 2))
    assert distances.shape == (15, 15)
    assert distances[0, 14] == pytest.approx(np.hypot(2, 4))
    assert np.array_equal(coordinates[7], [1, 2])


@given(st.integers(1, 500), st.integers(0, 99))
def test_visible_count_is_exact(n_patches, percent):
    exact = n_patches * (1 - Fraction(percent, 100)) // 1
    if exact < 1:
        with pytest.raises(ValueError, match="leaves none"):
            n_visible(n_patches, percent / 100)
    else:
        assert n_visible(n_patches, percent / 100) == exact


def test_visible_count_where_floats_err():
    assert n_visible(100, 0.9) == 10
    assert int(100 * (1 - 0.9)) == 9


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5])
def test_impossible_ratios_are_refused(ratio):
    with pytest.raises(ValueError, match="mask_ratio"):
        n_visible(4, ratio)


def test_fixed_masks_have_the_count_and_are_uniform():
    masks = fixed_count_masks(20_000, 6, 0.5, np.random.default_rng(0))
    assert (masks.sum(axis=1) == 3).all()
    patterns, counts = np.unique(masks, axis=0, return_counts=True)
    assert len(patterns) == 20
    assert np.abs(counts / 1000 - 1).max() < 0.15


def test_bernoulli_masks_are_independent_with_the_ratio():
    masks = bernoulli_masks(20_000, 5, 0.3, np.random.default_rng(0)).astype(float)
    assert np.abs(masks.mean(axis=0) - 0.3).max() < 0.02
    assert np.abs(np.corrcoef(masks.T) - np.eye(5)).max() < 0.03
