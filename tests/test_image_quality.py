"""Image quality: FSIM against the authors' code and its own properties, SSIM by hand, unmasked reconstructions."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from small_models import small_model
from spatialmae.analysis.fsim import feature_similarity, phase_congruency
from spatialmae.analysis.image_quality import image_quality, quality_row, reconstruct_unmasked
from spatialmae.model.trained import TrainedModel

MEASURES = ("mse", "psnr", "ssim", "fsim", "fsimc", "clipped")


def drawn_pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Waves over a checkerboard, and the same with less contrast, another brightness and another wave."""
    i, j, channel = np.ogrid[:height, :width, :3]
    image = 120 + 70 * np.sin(0.31 * i + 0.17 * j + channel) + 40 * ((i // 7 + j // 5) % 2)
    other = 0.8 * image + 20 + 15 * np.sin(0.9 * i - 1.3 * j + 2 * channel)
    return image[None] / 255, other[None] / 255


# FSIM and FSIMc in colour, FSIM of the first channel alone: by the authors' FeatureSIM.m, version 1.0 (Zhang et al.,
# 2010), unchanged, under GNU Octave 7.3 (with fspecial('average', n) = ones(n) / n²), on these very pairs. Even and odd
# sides; the last two are averaged down, by 2 and (640 / 256 = 2.5, rounded up) by 3.
FEATURE_SIM_M = {
    (32, 32): (0.964434767901, 0.954376258641, 0.931755560267),
    (16, 16): (0.972742512938, 0.962829901183, 0.937428316192),
    (31, 45): (0.963138209747, 0.953162469578, 0.927208630110),
    (390, 400): (0.976370204988, 0.970740668667, 0.973227029798),
    (640, 648): (0.991856595294, 0.989531243849, 0.990680376666),
}


@pytest.mark.parametrize(("size", "expected"), FEATURE_SIM_M.items(), ids=str)
def test_fsim_is_that_of_the_authors_code(size, expected):
    image, other = drawn_pair(*size)
    colour, grey = feature_similarity(image, other), feature_similarity(image[..., :1], other[..., :1])
    found = [colour.fsim[0], colour.fsimc[0], grey.fsim[0]]
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert grey.fsimc[0] == grey.fsim[0]


def test_fsimc_of_opposite_hues_is_that_of_the_authors_code():
    i, j, channel = np.ogrid[:20, :24, :3]
    wave = 0.4 * i + 0.3 * j
    image, other = 120 + 110 * np.sin(wave + 2.1 * channel), 120 + 110 * np.sin(wave - 2.1 * channel + 0.5)
    found = feature_similarity(image[None] / 255, other[None] / 255)
    assert found.fsim[0] == pytest.approx(0.920865775509, abs=1e-10)
    assert found.fsimc[0] == pytest.approx(0.897852725083, abs=1e-10)


@pytest.fixture(scope="module")
def textures():
    """Smooth random images, uint8 values on the scale [0, 1]."""
    noise = np.random.default_rng(0).random((6, 32, 32, 3))
    smooth = gaussian_filter(noise, (0, 1.5, 1.5, 0.5))
    low, high = smooth.min(axis=(1, 2, 3), keepdims=True), smooth.max(axis=(1, 2, 3), keepdims=True)
    return np.rint(255 * (smooth - low) / (high - low)) / 255


def test_fsim_is_one_of_the_same_images_symmetric_and_the_same_one_by_one(textures):
    others = np.random.default_rng(1).permutation(textures)
    same = feature_similarity(textures, textures)
    np.testing.assert_allclose([same.fsim, same.fsimc], 1, atol=1e-12)
    there, back = feature_similarity(textures, others), feature_similarity(others, textures)
    np.testing.assert_allclose(there.fsim, back.fsim, atol=1e-12)
    np.testing.assert_allclose(there.fsimc, back.fsimc, atol=1e-12)
    alone = [feature_similarity(textures[i : i + 1], others[i : i + 1]).fsim[0] for i in range(len(textures))]
    np.testing.assert_allclose(alone, there.fsim, atol=1e-12)


@pytest.mark.parametrize("damage", ["noise", "blur"])
def test_fsim_falls_with_noise_and_with_blur(textures, damage):
    noise = np.random.default_rng(2).normal(size=textures.shape)

    def damaged(size: float) -> np.ndarray:
        return textures + size / 10 * noise if damage == "noise" else gaussian_filter(textures, (0, size, size, 0))

    found = [feature_similarity(textures, damaged(size)) for size in (0.5, 1.0, 2.0)]
    for name in ("fsim", "fsimc"):
        values = np.stack([getattr(one, name) for one in found])
        assert (np.diff(values, axis=0) < 0).all()
        assert (values > 0).all() and (values < 1).all()


def test_fsimc_sees_colour_that_fsim_does_not(textures):
    # Along a hue that has no luminance.
    recoloured = textures + 0.2 * np.array([0.587, -0.299, 0.0])
    found = feature_similarity(textures, recoloured)
    np.testing.assert_allclose(found.fsim, 1, atol=1e-9)
    assert (found.fsimc < 0.995).all()


def test_phase_congruency_ignores_contrast_and_brightness_and_is_high_at_a_step_alone(textures):
    luminance = 255 * textures.mean(axis=3)
    np.testing.assert_allclose(phase_congruency(0.4 * luminance + 90), phase_congruency(luminance), atol=1e-4)
    step = np.zeros((1, 64, 64))
    step[:, :, 20:44] = 100
    profile = phase_congruency(step)[0].mean(axis=0)
    assert profile.max() <= 1
    assert set(np.argsort(profile)[-4:]) == {19, 20, 43, 44}
    assert profile[[19, 20, 43, 44]].min() > 5 * profile[[6, 57]].max()


def test_constant_images_are_alike_without_a_warning():
    grey = np.full((2, 16, 16, 3), 0.3)
    found = feature_similarity(grey, np.zeros_like(grey))
    np.testing.assert_allclose(feature_similarity(grey, grey).fsimc, 1)
    # Gradients at the border alone tell them apart.
    assert (found.fsim > 0.5).all() and (found.fsim < 1).all()


def test_fsim_is_refused_for_two_channels(textures):
    with pytest.raises(ValueError, match="2 channels"):
        feature_similarity(textures[..., :2], textures[..., :2])


def ssim_by_hand(x: np.ndarray, y: np.ndarray, window: np.ndarray) -> float:
    """Wang et al.'s formula at each whole window of one channel, in loops."""
    size, values = len(window), []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            a, b = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            values.append(luminance * (2 * covariance + 0.03**2) / (var_a + var_b + 0.03**2))
    return float(np.mean(values))


@pytest.mark.parametrize("side", [16, 32])
def test_measures_are_their_formulas_by_hand(textures, side):
    images = np.rint(255 * textures[:2, :side, :side]).astype(np.uint8)
    predicted = (0.9 * textures[2:4, :side, :side] - 0.05).astype(np.float32)
    predicted[:, 0, 0, 0] = 1.5
    found = image_quality(images, predicted)
    assert set(found) == set(MEASURES)
    one_sided = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    wang = np.outer(one_sided, one_sided) / one_sided.sum() ** 2
    window = wang if side == 32 else np.full((7, 7), 1 / 49)
    for i in range(2):
        x, y = images[i] / 255, predicted[i].astype(np.float64).clip(0, 1)
        by_channel = [ssim_by_hand(x[..., c], y[..., c], window) for c in range(3)]
        assert found["ssim"][i] == pytest.approx(np.mean(by_channel), abs=1e-9)
        mse = sum((p - q) ** 2 for p, q in zip(x.ravel(), y.ravel(), strict=True)) / x.size
        assert found["mse"][i] == pytest.approx(mse)
        assert found["psnr"][i] == pytest.approx(-10 * np.log10(mse))
        outside = np.mean((predicted[i] < 0) | (predicted[i] > 1))
        assert found["clipped"][i] == pytest.approx(outside) and outside > 0


def test_a_perfect_reconstruction_has_perfect_measures(textures):
    images = np.rint(255 * textures).astype(np.uint8)
    found = image_quality(images, (images / 255).astype(np.float32))
    assert (found["mse"] < 1e-14).all() and (found["psnr"] > 140).all() and not found["clipped"].any()
    for name in ("ssim", "fsim", "fsimc"):
        np.testing.assert_allclose(found[name], 1, atol=1e-6)
    zeros = image_quality(0 * images[:1], np.zeros((1, 32, 32, 3), np.float32))
    assert zeros["psnr"][0] == np.inf and zeros["fsimc"][0] == zeros["ssim"][0] == 1


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="6×9 px"):
        image_quality(np.zeros((1, 6, 9, 1), np.uint8), np.zeros((1, 6, 9, 1), np.float32))


@pytest.fixture
def run():
    model = small_model(torch.float32, image_size=16, patch_size=4, channels=3, noise_std=0.5).eval()
    return TrainedModel(model, (0.2, 0.6, 0.5), (0.5, 0.25, 0.3))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def test_unmasked_reconstructions_see_all_patches_and_no_noise(run, images):
    mean, std = np.array([0.2, 0.6, 0.5]), np.array([0.5, 0.25, 0.3])
    normalised = torch.from_numpy(((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        expected = run.model.reconstruct(normalised).numpy().transpose(0, 2, 3, 1) * std + mean
    with torch.autocast("cpu", torch.bfloat16):  # a caller's
        found = reconstruct_unmasked(run, images, batch_size=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    changed = images.copy()
    changed[:, -4:, -4:] = 255 - changed[:, -4:, -4:]
    assert np.abs(reconstruct_unmasked(run, changed) - found)[:, :4, :4].max() > 1e-3


def test_a_row_holds_means_over_images_and_does_not_depend_on_the_batch(run, images):
    row = quality_row(run, images, batch_size=2)
    of_images = image_quality(images, reconstruct_unmasked(run, images))
    for name in MEASURES:
        assert row[name] == pytest.approx(of_images[name].mean(), rel=1e-5)
    assert row["n_images"] == 5 and row["ssim_window"] == "uniform, 7 px"
    assert quality_row(run, images, batch_size=2) == row
    with pytest.raises(ValueError, match="there are none"):
        quality_row(run, images[:0])


def test_predictions_that_are_no_image_are_refused(images):
    model = small_model(torch.float32, image_size=16, patch_size=4, channels=3, norm_pix_loss=True)
    run = TrainedModel(model.eval(), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match="norm_pix_loss"):
        quality_row(run, images)
