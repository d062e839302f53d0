"""The Gabor bank and the probe of its responses."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2gray
from sklearn.decomposition import PCA

from spatialmae.data.dataset import ImageData
from spatialmae.probe.gabor import (
    ORIENTATIONS,
    PHASES,
    GaborProbe,
    gabor_bank,
    gabor_targets,
    probe_gabor,
    sigma_range,
    wavelength,
)
from spatialmae.probe.ridge import LinearCode, split_features

CENTRE = 4  # the middle of the nine positions


def shaped(bank):
    """(positions, orientations, phases, pixels)."""
    return bank.reshape(-1, len(ORIENTATIONS), len(PHASES), bank.shape[-1])


def grating(shape, orientation, length, phase=0.0):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    wave = np.cos(2 * np.pi * (columns * np.cos(orientation) + rows * np.sin(orientation)) / length + phase)
    return (0.5 + 0.25 * wave).reshape(1, -1)


def energy(shape, sigma, image):
    """Quadrature energy of the central filters, per orientation."""
    return (gabor_targets(image, shape, sigma).reshape(9, len(ORIENTATIONS), 2)[CENTRE] ** 2).sum(axis=-1)


def textured(n=90, side=16, channels=3):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, side, side, channels), dtype=np.uint8)
    splits = dict(zip(("train", "validation", "test"), np.split(np.arange(n), [n // 2, 3 * n // 4]), strict=True))
    return ImageData(name="noise", images=images, splits=splits)


@settings(max_examples=30)
@given(height=st.integers(8, 24), width=st.integers(8, 24), share=st.floats(0, 1))
def test_filters_have_zero_mean_and_unit_norm(height, width, share):
    shape = (height, width, 3)
    smallest, largest = sigma_range(shape)
    bank = gabor_bank(shape, smallest + share * (largest - smallest))
    np.testing.assert_allclose(bank.sum(axis=1), 0, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1)
    assert bank.shape[1] == height * width
    assert len(bank) % (len(ORIENTATIONS) * len(PHASES)) == 0


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0, 8.0])
def test_central_filters_are_in_quadrature(sigma):
    even, odd = np.moveaxis(shaped(gabor_bank((32, 32, 1), sigma))[-1 if sigma == 8 else CENTRE], 1, 0)
    np.testing.assert_allclose((even * odd).sum(axis=1), 0, atol=1e-12)
    mirrored = even.reshape(4, 32, 32)[:, ::-1, ::-1].reshape(4, -1)
    np.testing.assert_allclose(mirrored, even, atol=1e-12)
    mirrored = odd.reshape(4, 32, 32)[:, ::-1, ::-1].reshape(4, -1)
    np.testing.assert_allclose(mirrored, -odd, atol=1e-12)


def test_quadrature_makes_the_energy_independent_of_phase():
    length = wavelength(2.5)
    energies = [energy((32, 32, 1), 2.5, grating((32, 32), 0.0, length, phase))[0] for phase in (0.0, 0.7, 1.5, 3.0)]
    np.testing.assert_allclose(energies, energies[0], rtol=0.05)


@pytest.mark.parametrize("sigma", [1.5, 3.0])
@pytest.mark.parametrize("index", range(len(ORIENTATIONS)))
def test_a_filter_prefers_its_own_orientation_and_wavelength(sigma, index):
    shape, orientation = (40, 40, 1), ORIENTATIONS[index]
    own = energy(shape, sigma, grating(shape, orientation, wavelength(sigma)))
    assert np.argmax(own) == index
    assert own[index] > 5 * np.delete(own, index).max()
    lengths = wavelength(sigma) * 2.0 ** np.linspace(-1, 1, 41)
    tuning = [energy(shape, sigma, grating(shape, orientation, length))[index] for length in lengths]
    assert lengths[np.argmax(tuning)] == pytest.approx(wavelength(sigma), rel=0.1)


def test_the_bandwidth_is_1_4_octaves_at_half_height():
    """Amplitude exp(−2π²σ²(f − f₀)²) falls to a half at frequencies 1.4 octaves apart."""
    half_width = np.sqrt(2 * np.log(2)) / (2 * np.pi * 3.0)
    f0 = 1 / wavelength(3.0)
    assert np.log2((f0 + half_width) / (f0 - half_width)) == pytest.approx(1.4)


def test_positions_keep_their_envelope_inside():
    for sigma, expected in [(1.0, 8.0), (6.0, 4.0)]:
        energy_map = (shaped(gabor_bank((32, 32, 1), sigma)) ** 2).sum(axis=(1, 2)).reshape(9, 32, 32)
        weights = energy_map / energy_map.sum(axis=(1, 2), keepdims=True)
        rows = (weights.sum(axis=2) * np.arange(32)).sum(axis=1) - 15.5
        np.testing.assert_allclose(rows, np.repeat([-expected, 0, expected], 3), atol=0.3)
    assert len(gabor_bank((32, 32, 1), 8.0)) == 8


def test_responses_are_of_the_luminance():
    data = textured(8)
    X = data.features("train")
    grey = rgb2gray(data.images[data.splits["train"]]).reshape(len(X), -1)
    expected = gabor_targets(grey, (16, 16, 1), 2.0)
    np.testing.assert_allclose(gabor_targets(X, (16, 16, 3), 2.0), expected, atol=1e-12)
    brighter = gabor_targets(X + 0.1, (16, 16, 3), 2.0)
    np.testing.assert_allclose(brighter, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "sigma"), [((32, 32, 3), 0.5), ((32, 32, 3), 8.5), ((8, 32, 1), 3.0), ((1, 64, 1), 1)]
)
def test_a_scale_the_image_cannot_hold_is_refused(shape, sigma):
    with pytest.raises(ValueError, match="sigma"):
        gabor_bank(shape, float(sigma))


def test_features_that_contain_the_filters_predict_them():
    """The filters are linear in the image: with their own columns as the encoder R² is 1."""
    data = textured(side=8, channels=1)
    bank = gabor_bank((8, 8, 1), 2.0)
    encoder = np.hstack([bank.T, gabor_bank((8, 8, 1), 1.0).T])
    table = probe_gabor(data, encoder, np.zeros(64), [1, len(bank)], [2.0])
    assert list(table["n_components"]) == [1, len(bank)]
    assert table["r2"].iloc[1] > 0.999
    assert table["r2"].iloc[0] < 0.5


def test_rows_are_the_same_prepared_once_or_not():
    data = textured()
    pca = PCA(12).fit(data.features("train"))
    encoder = np.ascontiguousarray(pca.components_.T)
    table = GaborProbe(data, [1.0, 3.0]).rows(LinearCode.project(split_features(data), encoder, pca.mean_), [2, 12])
    pd.testing.assert_frame_equal(table, probe_gabor(data, encoder, pca.mean_, [2, 12], [1.0, 3.0]))
    assert list(table["sigma"]) == [1.0, 1.0, 3.0, 3.0]
    assert set(table["selected_on"]) == {"validation"}
    assert (table["r2"] < 0.3).all()
