"""Covariances by lag against loops and known fields, and what noise makes of a known covariance."""

import numpy as np
import pytest

from spatialmae.analysis.lags import LagCovariance, sampled_covariance
from spatialmae.config import parse_config
from spatialmae.data.random_fields import field_covariance, random_fields
from spatialmae.geometry import pixel_coordinates
from spatialmae.layout import Layout
from spatialmae.linear.moments import Moments
from spatialmae.stages import data, sampling
from spatialmae.tables import read_table


def noise_images(n: int, side: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(n, side, side, channels), dtype=np.uint8)


def field_images(n: int = 2000, side: int = 16, seed: int = 0) -> np.ndarray:
    counts = {"n_train": n, "n_validation": 0, "n_test": 0}
    return random_fields(**counts, image_size=side, correlation_length=0.2, anisotropy=1.01, seed=seed).images


def exact_covariance(side: int, length: float) -> np.ndarray:
    at = pixel_coordinates((side, side))
    return field_covariance(at[:, None] - at, length, 1.01, 0)


def test_the_covariance_of_a_lag_is_that_of_a_loop_over_pairs():
    images = noise_images(30, 5, channels=2)
    found = LagCovariance.of(images, 1).by_lag()
    deviation = images / 255 - (images / 255).mean(axis=0)
    variance = np.square(deviation).mean(axis=(0, 1, 2))
    for down, right in ((0, 0), (2, -3), (-4, 4), (1, 0)):
        pairs = [
            (deviation[:, y, x] * deviation[:, y + down, x + right]).mean(axis=0) / variance
            for y in range(5)
            for x in range(5)
            if 0 <= y + down < 5 and 0 <= x + right < 5
        ]
        assert found[4 + down, 4 + right] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_leaving_a_group_out_is_having_the_others():
    images = field_images(200, 8)
    group = np.arange(200) % 4
    apart = LagCovariance.of(images, 1, group)
    np.testing.assert_allclose(apart.covariance(), LagCovariance.of(images, 1).covariance(), atol=1e-12)
    without = LagCovariance.of(images[group != 2], 1).covariance()
    np.testing.assert_allclose(apart.covariance(2), without, atol=1e-12)
    assert np.abs(without - apart.covariance()).max() > 1e-3


def test_the_covariance_of_a_field_is_the_one_it_was_drawn_with():
    covariance = LagCovariance.of(field_images(4000), 1).covariance()
    np.testing.assert_allclose(covariance, exact_covariance(16, 3.2), atol=0.03)


def test_channels_count_alike_and_constant_ones_not_at_all():
    grey = field_images(300, 8)
    dim = (grey // 4).astype(np.uint8)
    constant = np.full_like(grey, 7)
    alone = LagCovariance.of(grey, 1).covariance()
    np.testing.assert_allclose(LagCovariance.of(np.concatenate([grey, constant], -1), 1).covariance(), alone, atol=1e-9)
    np.testing.assert_allclose(LagCovariance.of(np.concatenate([grey, dim], -1), 1).covariance(), alone, atol=0.01)
    with pytest.raises(ValueError, match="all the same"):
        LagCovariance.of(constant, 1).covariance()


def test_no_covariance_has_a_negative_eigenvalue():
    # A brighter left half is the same nowhere else: its covariance depends on more than the lag.
    images = noise_images(50, 8)
    images[:, :, :4] = np.random.default_rng(1).integers(0, 256, (50, 1, 1, 1), dtype=np.uint8)
    assert np.linalg.eigvalsh(LagCovariance.of(images, 1).covariance()).min() > 0


def test_images_that_are_drawn_have_the_covariance_they_are_drawn_with():
    truth, n = exact_covariance(6, 2.0), 2500
    draws = np.stack([sampled_covariance(truth, n, np.random.default_rng(seed)) for seed in range(40)])
    np.testing.assert_allclose(draws.mean(axis=0), truth * (1 - 1 / n), atol=0.02)
    # Of a Gaussian, entry ij has the variance (Σ_ii Σ_jj + Σ_ij²) / n (Wishart).
    np.testing.assert_allclose(draws.var(axis=0).mean(), (1 + truth**2).mean() / n, rtol=0.2)
    np.testing.assert_array_equal(draws[3], sampled_covariance(truth, n, np.random.default_rng(3)))


def test_few_images_are_drawn_as_one_sample():
    truth = exact_covariance(3, 1.0)
    drawn = np.random.default_rng(0).standard_normal((7, 9)) @ np.linalg.cholesky(truth).T
    expected = Moments.from_batches([drawn]).covariance
    np.testing.assert_allclose(sampled_covariance(truth, 7, np.random.default_rng(0)), expected)


def settings(results: str) -> dict:
    return {
        "name": "small",
        "results": results,
        "seeds": {"first": 0, "count": 3},
        "datasets": {
            "fields": {
                "source": {"kind": "random_fields", "image_size": 16, "n_train": 600, "n_validation": 10, "n_test": 10},
                "groups": 2,
                "patch_sizes": [2, 8],
                "n_components": [4, 32],
                "analyses": ["sampling"],
            }
        },
        "linear": {"mask_ratios": [0.25, 0.75]},
        "checks": {"dataset": "fields"},
        "ising": {"couplings": [1.0], "patch_sizes": [8], "n_components": [4], "n_samples": 50},
    }


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    config = parse_config(settings(str(tmp_path_factory.mktemp("results"))), "test")
    data.run(config, "fields")
    sampling.run(config, "fields")
    layout = Layout.of(config)
    names = ("sampling_lags", "sampling_lags_all", "sampling_draws")
    return config, layout, {name: read_table(layout.table(name, "fields")) for name in names}


def test_every_setting_has_its_reach_from_the_covariance_and_from_draws(tables):
    *_, read = tables
    lags, whole, sampled = (read[name] for name in ("sampling_lags", "sampling_lags_all", "sampling_draws"))
    assert len(lags) == 2 * 4 and len(whole) == 4 and len(sampled) == 3 * 4
    for table in (lags, whole, sampled):
        assert set(zip(table["patch_size"], table["mask_ratio"], strict=True)) == {
            *((2, 0.25), (2, 0.75), (8, 0.25), (8, 0.75))
        }
        assert (table["n_components"] == 32).all()
    assert set(lags["seed"]) == {0, 1} and set(sampled["seed"]) == {0, 1, 2}
    assert (sampled["n_images"] == 600).all()
    exact = whole.set_index(["patch_size", "mask_ratio"])["rms_radius_squared"]
    rows = sampled.set_index(["patch_size", "mask_ratio"])
    np.testing.assert_allclose(rows["rms_radius_squared"] - exact.loc[rows.index], rows["lengthening"])


def test_noise_lengthens_the_reach(tables):
    *_, read = tables
    lengthening = read["sampling_draws"].groupby(["patch_size", "mask_ratio"])["lengthening"].agg(["mean", "std"])
    assert (lengthening["mean"] > 3 * lengthening["std"]).all()


def test_the_reach_by_lag_is_that_of_the_fields_own_covariance(tables):
    config, _, read = tables
    at = pixel_coordinates((16, 16))
    exact = np.mean([field_covariance(at[:, None] - at, 0.25 * 16, 2.0, k) for k in range(4)], axis=0)
    expected = sampling.reach_of(config, "fields", exact)
    found = expected.merge(read["sampling_lags_all"], on=["patch_size", "mask_ratio"], suffixes=("", "_found"))
    np.testing.assert_allclose(found["rms_radius_squared_found"], expected["rms_radius_squared"], rtol=0.15)
