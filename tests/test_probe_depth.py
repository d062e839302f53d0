"""The probe of pooled depth."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import block_reduce

from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.probe.depth import DepthProbe, pooled_depth, probe_depth
from spatialmae.probe.ridge import LinearCode, split_features


def scene(n=120, side=8, missing=()):
    """Images whose brightness is their depth, so that depth is linear in the pixels."""
    rng = np.random.default_rng(0)
    images = np.repeat(np.repeat(rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8), side // 4, 1), side // 4, 2)
    depth = images[..., 0].astype(np.float32) / 50 + 1
    for image in missing:
        depth[image, :2, :2] = np.nan
    splits = dict(zip(SPLITS, np.split(np.arange(n), [n // 2, 3 * n // 4]), strict=True))
    return ImageData(name="scene", images=images, splits=splits, targets={"depth": depth})


@given(seed=st.integers(0, 999), grid=st.sampled_from([1, 2, 4]))
def test_pooling_is_the_mean_of_a_cell(seed, grid):
    depth = np.random.default_rng(seed).normal(size=(3, 8, 12))
    expected = block_reduce(depth, (1, 8 // grid, 12 // grid), np.mean).reshape(3, -1)
    np.testing.assert_allclose(pooled_depth(depth, grid), expected)


def test_pooling_leaves_out_what_was_not_measured():
    depth = np.ones((1, 8, 8))
    depth[0, 0, 0], depth[0, 0, 1] = np.nan, 5.0
    depth[0, 1, 0] = np.inf
    depth[0, 2:4, :2] = np.nan
    cells = pooled_depth(depth)[0]
    assert cells[0] == 3.0
    assert np.isnan(cells[4])
    assert (np.delete(cells, [0, 4]) == 1).all()


def test_a_grid_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        pooled_depth(np.ones((1, 6, 8)))


def test_depth_that_is_linear_in_the_features_is_found():
    data = scene(n=2000)
    cells = np.kron(np.eye(16).reshape(16, 4, 4), np.ones((1, 2, 2))).reshape(16, 64).T
    table = probe_depth(data, cells, data.features("train").mean(axis=0), [1, 16])
    assert table["r2"].iloc[1] > 0.999
    # One of sixteen independent cells known: a sixteenth of the variance.
    assert table["r2"].iloc[0] == pytest.approx(1 / 16, abs=0.02)
    noise = ImageData("noise", np.random.default_rng(1).permutation(data.images), data.splits, data.targets)
    assert probe_depth(noise, cells, np.zeros(64), [16])["r2"].iloc[0] < 0.1


def test_images_without_a_measured_cell_are_left_out():
    data, missing = scene(missing=(3, 70, 100)), [3, 70, 100]
    without = {split: rows[~np.isin(rows, missing)] for split, rows in data.splits.items()}
    clean = ImageData(name="clean", images=data.images, splits=without, targets=data.targets)
    encoder, mean = np.random.default_rng(1).normal(size=(64, 6)), np.full(64, 0.4)
    table = probe_depth(data, encoder, mean, [2, 6])
    expected = probe_depth(clean, encoder, mean, [2, 6])
    pd.testing.assert_frame_equal(table, expected)
    assert list(table["n_train"]) == [59, 59]
    assert list(table["n_test"]) == [29, 29]


def test_one_probe_serves_many_encoders():
    data, rng = scene(), np.random.default_rng(2)
    probe, features = DepthProbe(data), split_features(data)
    for _ in range(2):
        encoder, mean = rng.normal(size=(64, 5)), rng.normal(size=64)
        table = probe.rows(LinearCode.project(features, encoder, mean), [1, 5])
        pd.testing.assert_frame_equal(table, probe_depth(data, encoder, mean, [1, 5]))
