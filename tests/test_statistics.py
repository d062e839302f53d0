"""Spatial statistics of images, against brute force and fields of known statistics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2gray

from spatialmae.analysis.statistics import correlation_length, correlation_profile, power_spectrum, spectrum_fit
from spatialmae.geometry import pixel_distances
from spatialmae.luminance import luminance


def covariance_of(rng, n_features, n_samples=60):
    return np.cov(rng.normal(size=(n_samples, n_features)) @ rng.normal(size=(n_features, n_features)), rowvar=False)


def brute_force_profile(S, image_shape):
    height, width, channels = image_shape
    sums: dict[int, list[float]] = {}
    for a in np.ndindex(height, width, channels):
        for b in np.ndindex(height, width, channels):
            i, j = np.ravel_multi_index(a, image_shape), np.ravel_multi_index(b, image_shape)
            distance = round(np.hypot(a[0] - b[0], a[1] - b[1]))
            if a[2] == b[2] and S[i, i] > 0 and S[j, j] > 0 and distance < max(height, width):
                sums.setdefault(distance, []).append(S[i, j] / np.sqrt(S[i, i] * S[j, j]))
    return np.array(sorted(sums)), np.array([np.mean(sums[distance]) for distance in sorted(sums)])


@settings(max_examples=25)
@given(height=st.integers(1, 4), width=st.integers(2, 5), channels=st.integers(1, 3), seed=st.integers(0, 99))
def test_profile_is_the_mean_over_pixel_pairs(height, width, channels, seed):
    rng = np.random.default_rng(seed)
    shape = (height, width, channels)
    S = covariance_of(rng, height * width * channels)
    constant = rng.integers(len(S))
    S[constant] = S[:, constant] = 0
    distances, correlation = correlation_profile(S, shape)
    expected_distances, expected = brute_force_profile(S, shape)
    np.testing.assert_array_equal(distances, expected_distances)
    np.testing.assert_allclose(correlation, expected, atol=1e-12)


def test_profile_ignores_the_scale_of_the_pixels_and_rounding_error_of_constant_ones():
    rng = np.random.default_rng(0)
    S = covariance_of(rng, 16)
    scale = rng.uniform(0.1, 10, 16)
    _, expected = correlation_profile(S, (4, 4, 1))
    np.testing.assert_allclose(correlation_profile(scale[:, None] * S * scale, (4, 4, 1))[1], expected)
    S[0] = S[:, 0] = 0
    rounding = S.copy()
    rounding[0, 0], rounding[0, 1] = 1e-20, 1e-12
    np.testing.assert_array_equal(correlation_profile(rounding, (4, 4, 1))[1], correlation_profile(S, (4, 4, 1))[1])


def test_a_distance_without_a_pair_is_dropped():
    S = np.zeros((5, 5))
    S[[0, 2], [0, 2]] = 1.0
    distances, correlation = correlation_profile(S, (1, 5, 1))
    np.testing.assert_array_equal(distances, [0, 2])
    np.testing.assert_array_equal(correlation, [1, 0])
    empty = correlation_profile(np.zeros((4, 4)), (2, 2, 1))
    assert [len(values) for values in empty] == [0, 0]


def test_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="does not hold"):
        correlation_profile(np.eye(5), (2, 2, 1))


def test_white_pixels_correlate_with_themselves_only():
    _, correlation = correlation_profile(np.diag(np.random.default_rng(0).uniform(1, 2, 48)), (4, 4, 3))
    np.testing.assert_array_equal(correlation, [1, 0, 0, 0])


@pytest.mark.parametrize("length", [1.5, 4.0, 9.0])
def test_length_of_an_exponential_covariance(length):
    chain = np.exp(-pixel_distances((1, 64)) / length)
    # Linear between integer distances, so the length is right to the curvature of one pixel.
    assert correlation_length(*correlation_profile(chain, (1, 64, 1))) == pytest.approx(length, abs=0.1)
    # On a lattice the bin of 1 px also holds the diagonal neighbours, 1.41 px away.
    square = np.exp(-pixel_distances((32, 32)) / length)
    assert correlation_length(*correlation_profile(square, (32, 32, 1))) == pytest.approx(length, abs=0.15)


def test_length_is_the_first_crossing_interpolated_linearly():
    distances = np.arange(5.0)
    assert correlation_length(distances, np.array([1.0, 0.6, 0.1, 0.9, 0.0])) == pytest.approx(
        1 + (0.6 - np.exp(-1)) / 0.5
    )
    assert np.isnan(correlation_length(distances, np.array([1.0, 0.9, 0.8, 0.7, 0.6])))
    assert np.isnan(correlation_length(np.array([]), np.array([])))


def as_bytes(field):
    scaled = 127.5 + 30 * field / field.std()
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)[..., None]


def power_law_images(exponent, n, size, rng):
    """Periodic Gaussian fields, cut from fields four times as large so that nothing wraps in the image."""
    radius = np.hypot(np.fft.fftfreq(4 * size)[:, None], np.fft.fftfreq(4 * size)[None, :])
    radius[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.normal(size=(n, 4 * size, 4 * size))) * radius ** (-exponent / 2)
    return as_bytes(np.fft.ifft2(spectrum).real[:, :size, :size])


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_exponent_of_filtered_noise(exponent):
    images = power_law_images(exponent, 200, 32, np.random.default_rng(0))
    fitted, r2 = spectrum_fit(*power_spectrum(images))
    assert fitted == pytest.approx(exponent, abs=0.2)
    assert r2 > 0.98


@pytest.mark.parametrize("shape", [(32, 32), (16, 40), (40, 16), (1, 64), (7, 7)])
def test_white_noise_has_its_variance_at_every_frequency(shape):
    images = as_bytes(np.random.default_rng(0).normal(size=(3000, *shape)))
    frequencies, power = power_spectrum(images)
    side = max(shape)
    np.testing.assert_allclose(frequencies, np.arange(1, side // 2 + 1) / side)
    # Removing each image's mean takes power from the lowest frequency.
    np.testing.assert_allclose(power[1:], (30 / 255) ** 2, rtol=0.08)
    assert abs(spectrum_fit(frequencies, power)[0]) < 0.2


def test_a_grating_peaks_at_its_frequency():
    wave = np.cos(2 * np.pi * np.arange(32) * 6 / 32)
    for field in (np.tile(wave, (32, 1)), np.tile(wave[:, None], (1, 32))):
        frequencies, power = power_spectrum(as_bytes(field[None]))
        assert frequencies[np.argmax(power)] == 6 / 32


def test_constant_images_have_no_exponent():
    images = np.full((3, 8, 8, 3), 200, dtype=np.uint8)
    fit = spectrum_fit(power_spectrum(images)[0], np.zeros(4))
    assert np.isnan(fit).all()
    assert power_spectrum(images)[1].max() < 1e-25


def test_more_images_than_one_slice_average_as_one():
    images = as_bytes(np.random.default_rng(1).normal(size=(1500, 6, 6)))
    halves = [power_spectrum(part)[1] for part in np.split(images, 2)]
    np.testing.assert_allclose(power_spectrum(images)[1], np.mean(halves, axis=0))


def test_luminance_of_bytes_and_of_features_agree():
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    np.testing.assert_allclose(luminance(images), luminance(images / 255.0))
    np.testing.assert_allclose(luminance(images), rgb2gray(images))
    np.testing.assert_allclose(luminance(images[..., :2]), images[..., :2].mean(axis=-1) / 255)
