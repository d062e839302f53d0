"""Corruptions damage as published, more with severity; the probe that is scored under them is the clean one."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.color import rgb2hsv
from skimage.filters import gaussian

from small_models import small_model
from spatialmae.data.dataset import ImageData, consecutive_splits
from spatialmae.data.dead_leaves import dead_leaves
from spatialmae.model.trained import TrainedModel
from spatialmae.probe import corruptions
from spatialmae.probe.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    CorruptedImages,
    corrupt,
    corruption_rows,
    disk,
    plasma,
)
from spatialmae.probe.linear_probe import ProbeTask, fit_linear_probe
from spatialmae.probe.representation import represent, represent_splits

# CIFAR-10-C's, from make_cifar_c.py of github.com/hendrycks/robustness.
PUBLISHED = {
    "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.10],
    "shot_noise": [500, 250, 100, 75, 50],
    "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07],
    "gaussian_blur": [0.4, 0.6, 0.7, 0.8, 1],
    "defocus_blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    "motion_blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
    "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
    "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
    "saturate": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
    "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    "jpeg_compression": [80, 65, 58, 50, 40],
}
RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog")
every_corruption = pytest.mark.parametrize("name", CORRUPTIONS)


@pytest.fixture(scope="module")
def images():
    return dead_leaves(n_train=40, n_validation=0, n_test=0, image_size=32, seed=0).images


def damage(images: np.ndarray, corrupted: np.ndarray) -> float:
    return float(np.mean((corrupted.astype(float) - images) ** 2))


def grey(value: int, n: int = 20) -> np.ndarray:
    return np.full((n, 32, 32, 3), value, dtype=np.uint8)


def shares(corrupted: np.ndarray) -> np.ndarray:
    return corrupted / 255


def test_parameters_are_the_published_ones():
    assert {name: list(corruption.parameters) for name, corruption in CORRUPTIONS.items()} == PUBLISHED
    assert {corruption.group for corruption in CORRUPTIONS.values()} == {"noise", "blur", "weather", "digital"}


@every_corruption
def test_severity_0_is_the_identity_and_damage_grows_with_severity(images, name):
    assert np.array_equal(corrupt(images, name, 0, seed=1), images)
    found = [damage(images, corrupt(images, name, severity, seed=1)) for severity in SEVERITIES]
    if name == "saturate":  # first less colour than there was, then more
        assert found[1] > found[0] > 1 and found[4] > found[3] > found[2] > 1
    elif name == "motion_blur":  # 3 and 4 have one σ, and radii beyond 3 σ
        assert found[3] == pytest.approx(found[2], rel=0.01)
        assert all(np.diff([0.5, *found[:3], found[4]]) > 0)
    else:
        assert all(np.diff([0.5, *found]) > 0)


@every_corruption
def test_a_seed_gives_the_same_images_and_another_seed_others_where_there_is_chance(images, name):
    before = images.copy()
    first = corrupt(images, name, 3, seed=1)
    assert first.dtype == np.uint8 and first.shape == images.shape
    assert np.array_equal(corrupt(images, name, 3, seed=1), first)
    assert np.array_equal(corrupt(images, name, 3, seed=2), first) == (name not in RANDOM)
    assert np.array_equal(images, before)


@every_corruption
def test_images_are_corrupted_each_by_itself_whatever_the_chunks(images, monkeypatch, name):
    whole = corrupt(images, name, 5, seed=1)
    monkeypatch.setattr(corruptions, "CHUNK_SIZE", 16)
    parts = corrupt(images, name, 5, seed=1)
    assert parts.shape == whole.shape
    # A chunk's random state is its own; without chance there is nothing that chunks could change.
    assert np.array_equal(parts, whole) == (name not in RANDOM)
    if name in RANDOM:
        same = np.repeat(images[:1], 40, axis=0)
        assert len({picture.tobytes() for picture in corrupt(same, name, 5, seed=1)}) > 5


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_published_size(severity):
    std = PUBLISHED["gaussian_noise"][severity - 1]
    noise = shares(corrupt(grey(128), "gaussian_noise", severity, 0)) - 128 / 255
    assert noise.std() == pytest.approx(std, rel=0.02) and abs(noise.mean()) < 0.002
    photons, value = PUBLISHED["shot_noise"][severity - 1], 64 / 255
    noise = shares(corrupt(grey(64), "shot_noise", severity, 0)) - value
    assert noise.std() == pytest.approx(np.sqrt(value / photons), rel=0.03) and abs(noise.mean()) < 0.002
    found = corrupt(grey(128), "impulse_noise", severity, 0)
    amount = PUBLISHED["impulse_noise"][severity - 1]
    for extreme in (0, 255):
        assert np.mean(found == extreme) == pytest.approx(amount / 2, rel=0.15)
    assert np.mean(found == 128) == pytest.approx(1 - amount, rel=0.01)
    # Of single numbers, not of whole pixels.
    assert np.mean((found != 128).any(axis=3)) > 2 * amount


def test_gaussian_blur_is_scikit_images(images):
    for severity, sigma in zip(SEVERITIES, PUBLISHED["gaussian_blur"], strict=True):
        found = corrupt(images[:3], "gaussian_blur", severity, 0)
        for image, blurred in zip(images[:3], found, strict=True):
            expected = 255 * gaussian(image / 255, sigma, channel_axis=2)
            assert np.abs(blurred - expected).max() < 0.5001


def test_the_disk_of_defocus_blur_by_hand():
    plus = np.zeros((17, 17))
    plus[8, 7:10] = plus[7:10, 8] = 1 / 5
    np.testing.assert_allclose(disk(1.0, 1e-2), plus, atol=1e-12)
    block = np.zeros((17, 17))
    block[7:10, 7:10] = 1 / 9  # diagonals lie within 1.5 px
    np.testing.assert_allclose(disk(1.5, 1e-2), block, atol=1e-12)
    taps = np.exp([-1 / (2 * 0.4**2), 0, -1 / (2 * 0.4**2)])
    np.testing.assert_allclose(disk(0.3, 0.4)[7:10, 7:10], np.outer(taps, taps) / taps.sum() ** 2, atol=1e-12)
    assert disk(1.5, 0.1).sum() == pytest.approx(1)


def test_defocus_blur_spreads_a_point_by_its_disk():
    point = grey(0, 1)
    point[0, 16, 16] = 255
    found = corrupt(point, "defocus_blur", 5, 0)[0, 8:25, 8:25, 1]
    np.testing.assert_allclose(found, 255 * disk(1.5, 0.1), atol=0.5001)


def test_motion_blur_by_hand_along_a_row(monkeypatch, images):
    monkeypatch.setattr(corruptions, "LARGEST_ANGLE", 0.0)
    weights = np.exp(-(np.arange(13) ** 2) / (2 * 2.0**2))
    weights /= weights.sum()
    found = corrupt(images[:2], "motion_blur", 3, 0)
    for row, column in ((0, 0), (10, 7), (31, 28), (5, 31)):
        taps = images[1, row, np.minimum(column + np.arange(13), 31)]
        np.testing.assert_allclose(found[1, row, column], weights @ taps, atol=0.5001)


def test_motion_blur_goes_in_directions_up_to_45_degrees():
    point = grey(0, 200)
    point[:, 16, 20] = 255
    found = corrupt(point, "motion_blur", 5, 0)[..., 0].astype(float)
    assert np.all(found[:, :, 21:] == 0) and np.all(found[:, 16, 20] > 0)
    rows, columns = np.mgrid[:32, :32]
    rise, run = (found * (rows - 16)).sum(axis=(1, 2)), (found * (20 - columns)).sum(axis=(1, 2))
    angles = np.degrees(np.arctan2(rise, run))
    assert np.abs(angles).max() < 50 and angles.min() < -35 and angles.max() > 35 and abs(angles.mean()) < 6


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_saturation_and_contrast_move_what_they_name_and_nothing_else(images, severity):
    hsv = rgb2hsv(images)
    added = PUBLISHED["brightness"][severity - 1]
    found = rgb2hsv(corrupt(images, "brightness", severity, 0))
    assert np.abs(found[..., 2] - np.minimum(hsv[..., 2] + added, 1)).max() < 0.003
    assert np.abs(found[..., 1] - hsv[..., 1])[hsv[..., 2] > 0.5].max() < 0.01
    factor, offset = PUBLISHED["saturate"][severity - 1]
    found = rgb2hsv(corrupt(images, "saturate", severity, 0))
    bright = hsv[..., 2] > 0.5
    assert np.abs(found[..., 1] - np.minimum(hsv[..., 1] * factor + offset, 1))[bright].max() < 0.01
    assert np.abs(found[..., 2] - hsv[..., 2]).max() < 0.003
    found, share = corrupt(images, "contrast", severity, 0) / 1.0, PUBLISHED["contrast"][severity - 1]
    assert np.abs(found.mean(axis=(1, 2)) - images.mean(axis=(1, 2))).max() < 0.5
    assert np.allclose(found.std(axis=(1, 2)), share * images.std(axis=(1, 2)), atol=0.5)


def test_fog_brightens_towards_the_brightest_and_hides_contrast(images):
    found = corrupt(images, "fog", 5, 0)
    assert np.all(found.max(axis=(1, 2, 3)) <= images.max(axis=(1, 2, 3)))
    # (x + 1.5 f) m / (m + 1.5) of a white image lies between its values at f = 0 and f = 1.
    white = shares(corrupt(grey(255), "fog", 5, 0))
    assert white.min() == pytest.approx(1 / 2.5, abs=0.002) and white.max() == 1.0
    assert np.all(corrupt(grey(0), "fog", 5, 0) == 0)


def test_clouds_fill_0_to_1_differ_and_are_smoother_with_more_decay():
    def roughness(decay: float) -> float:
        clouds = plasma(50, 32, decay, np.random.default_rng(0))
        assert clouds.shape == (50, 32, 32)
        assert np.all(clouds.min(axis=(1, 2)) == 0) and np.all(clouds.max(axis=(1, 2)) == 1)
        assert len({cloud.tobytes() for cloud in clouds}) == 50
        # Periodic: the step over the border is like any other.
        inside, across = np.abs(np.diff(clouds, axis=2)).mean(), np.abs(clouds[:, :, 0] - clouds[:, :, -1]).mean()
        assert across == pytest.approx(inside, rel=0.3)
        return float(inside)

    assert roughness(3.0) < roughness(2.0) < roughness(1.5)


def test_fog_and_pixels_take_images_of_any_side():
    odd = np.random.default_rng(0).integers(0, 256, (2, 12, 20, 3), dtype=np.uint8)
    for name in CORRUPTIONS:
        assert corrupt(odd, name, 4, 0).shape == odd.shape


def test_pixelated_images_have_as_many_distinct_columns_as_their_share():
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for severity, share in zip(SEVERITIES, PUBLISHED["pixelate"], strict=True):
        found = corrupt(noise, "pixelate", severity, 0)
        for picture in found:
            n_rows, n_columns = (np.unique(picture, axis=axis).shape[axis] for axis in (0, 1))
            assert n_rows == n_columns == int(32 * share)


def test_what_cannot_be_corrupted_is_refused(images):
    with pytest.raises(ValueError, match="corruption: 'frost' is unknown; use one of gaussian_noise, "):
        corrupt(images, "frost", 1, 0)
    with pytest.raises(ValueError, match="severity: 6 is unknown; use 0–5"):
        corrupt(images, "fog", 6, 0)
    with pytest.raises((ValueError, TypeError), match="channels|images"):
        corrupt(images[..., :1], "fog", 1, 0)


@pytest.fixture(scope="module")
def probed():
    """A model, and a probe of it that tells images in two colours apart; features of the test images."""
    model = small_model(torch.float32, channels=3).eval()
    run = TrainedModel(model, (0.5,) * 3, (0.3,) * 3)
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 300)
    pictures = rng.integers(90, 150, (300, 8, 8, 3)) + 12 * np.stack([label, 0 * label, -label], axis=1)[:, None, None]
    data = ImageData("colours", pictures.astype(np.uint8), consecutive_splits(150, 50, 100), {"label": label})
    features = represent_splits(run, data.images, dict(data.splits.items()))
    return run, data, fit_linear_probe(ProbeTask.of(features, data, "label", "mean"), [1e-2])


def test_rows_score_the_clean_probe_on_corrupted_images(probed):
    run, data, probe = probed
    images, labels = data.images[data.splits["test"]], data.target("label", "test")
    test = CorruptedImages.of(images, 3, corruptions=("saturate", "fog"), severities=(0, 2, 5))
    rows = corruption_rows(run, probe, test, labels)
    assert [(row["corruption"], row["severity"]) for row in rows] == [
        (name, severity) for name in ("saturate", "fog") for severity in (0, 2, 5)
    ]
    classifier: Callable = probe.predict
    for row in rows:
        assert row["clean_accuracy"] == probe.row["accuracy"] > 0.85
        shown = corrupt(images, row["corruption"], row["severity"], 3)
        assert row["accuracy"] == np.mean(classifier(represent(run, shown)) == labels)
        assert row["group"] == CORRUPTIONS[row["corruption"]].group
        assert (row["n_test"], row["target"], row["corruption_seed"]) == (100, "label", 3)
    assert rows[0]["accuracy"] == rows[0]["clean_accuracy"]
    assert rows[-1]["accuracy"] < rows[-1]["clean_accuracy"] - 0.1
    assert set(CorruptedImages.of(images[:4], 0).corrupted) == set(itertools.product(CORRUPTIONS, SEVERITIES))
