"""Measures of reach against brute force and maps of known reach."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialmae.analysis.reach import (
    Influence,
    ReachGeometry,
    exponential_fit,
    influence_profile,
    median_radius,
    reach_measures,
    rms_radius,
    share_outside,
    spatial_entropy,
    uniform_measures,
)
from spatialmae.geometry import pixel_coordinates


def test_ceiling_of_a_32_px_image_is_that_of_the_note():
    assert uniform_measures(ReachGeometry.of((32, 32, 3), 4))["rms_radius_uniform"] == pytest.approx(14.57, abs=0.005)


def test_local_map_has_no_reach():
    geometry = ReachGeometry.of((8, 8), 2)
    measures = reach_measures(Influence.of_linear(np.eye(64), np.eye(64), geometry), geometry)
    for name in ("rms_radius_abs", "rms_radius_squared", "median_radius", "entropy", "share_outside_abs"):
        assert measures[name] == 0


def test_uniform_map_sits_at_the_ceiling():
    geometry = ReachGeometry.of((8, 8, 2), 4)
    measures = reach_measures(Influence.of_linear(np.ones((128, 1)), np.ones((1, 128)), geometry), geometry)
    ceilings = uniform_measures(geometry)
    assert measures["rms_radius_squared"] == pytest.approx(ceilings["rms_radius_uniform"])
    assert measures["median_radius"] == pytest.approx(ceilings["median_radius_uniform"])
    assert measures["entropy"] == pytest.approx(np.log(64))
    assert measures["share_outside_relative"] == pytest.approx(1)
    assert measures["entropy_outside_relative"] == pytest.approx(0, abs=1e-12)


@settings(max_examples=20)
@given(
    height=st.sampled_from([1, 4, 8]),
    width=st.sampled_from([4, 8]),
    channels=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_measures_equal_loops_over_pixels(height, width, channels, seed):
    rng, d = np.random.default_rng(seed), height * width * channels
    A, B = rng.normal(size=(d, 3)), rng.normal(size=(3, d))
    if height == 1:
        geometry = ReachGeometry.of((1, width, channels), 1)
    else:
        geometry = ReachGeometry.of((height, width, channels), 4)
    influence = Influence.of_linear(A, B, geometry)
    J = np.abs(A @ B).reshape(height * width, channels, height * width, channels).mean(axis=(1, 3))
    xy, size = pixel_coordinates((height, width)), np.array([height, width])
    patch = 1 if height == 1 else 4
    radii, medians, entropies, shares = [], [], [], []
    for j, place in enumerate(xy):
        if not all(n // 4 <= c < np.ceil(3 * n / 4) for c, n in zip(place, size, strict=True)):
            continue
        p, r = J[:, j] / J[:, j].sum(), np.linalg.norm(xy - place, axis=1)
        outside = np.any(xy // patch != place // patch, axis=1)
        radii.append(np.sqrt((p * r**2).sum()))
        order = np.argsort(r, kind="stable")
        medians.append(r[order][np.argmax(np.cumsum(p[order]) >= 0.5 - 1e-12)])
        entropies.append(-(p * np.log(p)).sum())
        shares.append(p[outside].sum())
    assert rms_radius(influence.absolute, geometry) == pytest.approx(np.mean(radii))
    assert median_radius(influence.absolute, geometry) == pytest.approx(np.mean(medians))
    assert spatial_entropy(influence.absolute) == pytest.approx(np.mean(entropies))
    assert share_outside(influence.absolute, geometry) == pytest.approx(np.mean(shares))


def test_linear_and_general_jacobian_agree():
    rng, geometry = np.random.default_rng(0), ReachGeometry.of((4, 4, 3), 2)
    A, B = rng.normal(size=(48, 5)), rng.normal(size=(5, 48))
    general = Influence.of_jacobian(A @ B, 3)
    linear = Influence.of_linear(A, B, geometry)
    np.testing.assert_allclose(linear.absolute, general.absolute[:, geometry.outputs])
    np.testing.assert_allclose(linear.squared, general.squared[:, geometry.outputs])


def test_exponential_map_has_its_rate():
    geometry = ReachGeometry.of((16, 16), 4)
    weights = 0.5 * np.exp(-geometry.distances / 3)
    distances, mean_abs = influence_profile(Influence(weights, weights**2), geometry)
    assert list(distances[:3]) == [0, 1, 2]
    fit = exponential_fit(distances, mean_abs, 8)
    assert fit.rate == pytest.approx(1 / 3, rel=0.05)
    exact = exponential_fit(distances, 0.5 * np.exp(-distances / 3), 8)
    assert (exact.rate, np.exp(exact.intercept), exact.r_squared) == pytest.approx((1 / 3, 0.5, 1))


def test_a_profile_has_the_mean_of_the_pairs_nearest_to_each_whole_distance():
    geometry = ReachGeometry.of((8, 8), 2)
    distances, mean = influence_profile(Influence(geometry.distances, geometry.distances**2), geometry)
    for distance, found in zip(distances, mean, strict=True):
        assert found == pytest.approx(geometry.distances[abs(geometry.distances - distance) < 0.5].mean())


def test_a_map_that_grows_with_distance_has_a_negative_rate():
    distances = np.arange(6.0)
    assert exponential_fit(distances, np.exp(distances / 4), 5).rate == pytest.approx(-0.25)


def test_distances_without_influence_are_left_out_of_the_fit():
    distances = np.arange(6.0)
    values = np.exp(-distances / 2) * (distances != 3)
    assert exponential_fit(distances, values, 5).rate == pytest.approx(0.5)
