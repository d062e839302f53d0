"""Gaussian random fields: their covariance is the one they claim, and classes differ in nothing else."""

import numpy as np
import pytest
from scipy.stats import kurtosis

from refusals import refused
from spatialmae.analysis.statistics import correlation_length, correlation_profile
from spatialmae.data.dataset import ImageData
from spatialmae.data.random_fields import MEAN, ORIENTATIONS, STD, field_covariance, random_fields, torus_lags
from spatialmae.linear.moments import Moments


def make(n: int = 4000, seed: int = 0, **options: object) -> ImageData:
    return random_fields(n_train=n, n_validation=20, n_test=30, seed=seed, **options)


@pytest.fixture(scope="module")
def fields() -> ImageData:
    return make()


def standardised(data: ImageData, label: int) -> np.ndarray:
    return (data.images[data.targets["orientation"] == label, ..., 0] - MEAN) / STD


def test_shapes_dtypes_and_splits(fields):
    assert fields.images.shape == (4050, 16, 16, 1) and fields.images.dtype == np.uint8
    assert {split: len(rows) for split, rows in fields.splits.items()} == {"train": 4000, "validation": 20, "test": 30}
    assert fields.targets["orientation"].dtype == np.int64
    assert fields.class_names == {"orientation": ORIENTATIONS}
    assert set(fields.targets["orientation"]) == set(range(4))


@pytest.mark.parametrize("label", range(4))
@pytest.mark.parametrize("lag", [(0, 1), (1, 0), (2, 2), (-2, 2), (0, 5), (6, 1)])
def test_the_covariance_of_each_class_is_the_one_it_claims(fields, label, lag):
    x = standardised(fields, label)
    rows, columns = (slice(max(-d, 0), 16 - max(d, 0)) for d in lag)
    later = tuple(slice(max(d, 0), 16 - max(-d, 0)) for d in lag)
    products = (x[:, rows, columns] * x[:, *later]).mean(axis=(1, 2))
    claimed = field_covariance(np.array([lag], dtype=float), 4.0, 2.0, label)[0]
    assert abs(products.mean() - claimed) < 5 * products.std() / np.sqrt(len(x)) + 0.01  # clipping and rounding: .01


def test_classes_differ_in_no_pixels_mean_or_variance(fields):
    for label in range(4):
        x = standardised(fields, label)
        assert np.abs(x.mean(axis=0)).max() < 5 / np.sqrt(len(x))
        assert np.abs(x.var(axis=0) - 1).max() < 5 * np.sqrt(2 / len(x)) + 0.01
    assert abs(kurtosis(standardised(fields, 0)[:, 0, 0])) < 0.5


@pytest.mark.parametrize("fraction", [0.08, 0.25, 0.4])
def test_the_measured_correlation_length_follows_the_one_asked_for(fraction):
    data = make(3000, correlation_length=fraction, anisotropy=1.01)
    moments = Moments.from_batches([data.features("train")])
    length = correlation_length(*correlation_profile(moments.covariance, data.image_shape))
    assert length == pytest.approx(fraction * 16, rel=0.15)


@pytest.mark.parametrize("fraction", [0.05, 0.25, 0.5])
@pytest.mark.parametrize("label", range(4))
def test_hardly_any_of_the_spectrum_is_cut_off(fraction, label):
    spectrum = np.fft.fft2(field_covariance(torus_lags(64), fraction * 16, 2.0, label)).real
    assert -spectrum[spectrum < 0].sum() < 0.01 * spectrum.sum()


def test_the_seed_decides_all():
    assert np.array_equal(make(50).images, make(50).images)
    assert not np.array_equal(make(50).images, make(50, seed=1).images)


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("image_size", 4, "at least 8"),
        ("correlation_length", 0.6, "0.25"),
        ("anisotropy", 1.0, "e.g. 2"),
        ("anisotropy", np.inf, "e.g. 2"),
    ],
)
def test_impossible_values_are_named(option, value, hint):
    with refused(f"random_fields.{option}", hint):
        make(10, **{option: value})
