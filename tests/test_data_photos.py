"""Patches of the wheels' images: no pixel in two splits, depth against its formula, no network."""

import socket

import numpy as np
import pytest
from skimage.data import stereo_motorcycle

import spatialmae.data.photos as module
from refusals import refused
from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.data.photos import PHOTOS, TEXTURES, depth, photos, textures


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def numbered(shape: tuple[int, int]) -> np.ndarray:
    """A picture in which no two pixels are alike."""
    number = np.arange(shape[0] * shape[1]).reshape(shape)
    return np.stack([number >> 16, number >> 8 & 255, number & 255], axis=-1).astype(np.float64)


def number(images: np.ndarray) -> np.ndarray:
    return images.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


@pytest.mark.slow
@pytest.mark.parametrize("source", [photos, textures, depth])
@pytest.mark.parametrize("stride", [11, 16])
def test_no_pixel_is_in_two_splits_or_two_sources(source, stride, monkeypatch):
    monkeypatch.setattr(module, "_picture", lambda name, grayscale: numbered((320, 480)))
    data = source(image_size=16, stride=stride)
    # Blocks of one picture share its numbers; the pictures of photos and textures each have their own.
    picture = data.sources if source is photos else data.targets.get("label", np.zeros(len(data.images), int))
    split = np.empty(len(data.images), dtype=np.int64)
    for index, name in enumerate(SPLITS):
        split[data.splits[name]] = index
    pixel = picture[:, None, None] * (1 << 24) + number(data.images)
    unit = np.broadcast_to((data.sources * len(SPLITS) + split)[:, None, None], pixel.shape)
    used = np.unique(np.stack([pixel.ravel(), unit.ravel()]), axis=1)
    assert len(np.unique(used[0])) == used.shape[1]


@pytest.mark.parametrize("source", [photos, textures, depth])
def test_every_source_has_every_split(source):
    data = source(image_size=16, stride=8)
    for split in SPLITS:
        sources = np.unique(data.sources[data.splits[split]])
        if source is depth:  # a block without enough measured depth may lack a split
            assert len(sources) > 0.7 * len(np.unique(data.sources))
        else:
            np.testing.assert_array_equal(sources, np.unique(data.sources))
    assert sum(len(rows) for rows in data.splits.values()) == len(data.images)


def test_photos_are_the_photographs():
    data = photos(image_size=32, stride=32)
    assert data.image_shape == (32, 32, 3) and set(data.sources) == set(range(len(PHOTOS)))
    assert [entry["name"] for entry in data.provenance["files"]] == list(PHOTOS)
    assert all(len(entry["sha256"]) == 64 and entry["version"] for entry in data.provenance["files"])
    left = stereo_motorcycle()[0]
    patch = data.images[data.sources == PHOTOS.index("motorcycle")][0]
    np.testing.assert_array_equal(patch, left[:32, :32])


def test_downscaling_averages_and_grey_is_luminance():
    fine = photos(image_size=32, stride=32)
    coarse = photos(image_size=16, stride=16, downscale=2)
    first = fine.images[0].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse.images[0], first, atol=0.5)
    grey = photos(image_size=32, stride=32, grayscale=True)
    assert grey.image_shape == (32, 32, 1)
    np.testing.assert_allclose(grey.images[0, ..., 0], fine.images[0] @ [0.2125, 0.7154, 0.0721], atol=0.51)


def test_textures_are_labelled_by_photograph():
    data = textures(image_size=16, stride=16)
    assert data.image_shape == (16, 16, 1) and data.class_names == {"label": TEXTURES}
    assert len(np.unique(data.sources)) == 3 * 6 * 6
    for source in np.unique(data.sources):
        assert len(np.unique(data.targets["label"][data.sources == source])) == 1


def test_depth_is_the_calibrated_depth_of_the_measured_pixels():
    data = depth(image_size=16, stride=16, max_invalid=0.2)
    disparity = stereo_motorcycle()[2].astype(np.float64)
    metres = (994.978 * 0.193001 / (disparity[np.isfinite(disparity)] + 31.086)).astype(np.float32)
    measured = data.targets["valid"] == 1
    assert data.targets["depth"].dtype == np.float32 and np.isfinite(data.targets["depth"]).all()
    assert np.isin(data.targets["depth"][measured], metres).all()
    assert 2 < metres.min() < metres.max() < 5.1 and data.provenance["depth_unit"] == "m"
    assert 0 < (~measured).mean(axis=(1, 2)).max() <= 0.2


def test_unmeasured_pixels_take_the_nearest_measured_depth():
    window = np.full((4, 4), np.nan, np.float32)
    window[0, 0], window[3, 3] = 2.0, 4.0
    filled = module._filled(window)
    assert filled[0, 1] == filled[1, 0] == 2 and filled[3, 2] == filled[2, 3] == 4


def test_a_lower_limit_drops_more_patches():
    kept = [depth(image_size=16, stride=16, max_invalid=limit) for limit in (0.0, 0.05, 0.5)]
    sizes = [len(data.images) for data in kept]
    assert sizes == sorted(set(sizes)) and (kept[0].targets["valid"] == 1).all()
    assert len({size + data.provenance["dropped"] for size, data in zip(sizes, kept, strict=True)}) == 1


def test_downscaled_depth_averages_what_was_measured():
    metres = np.array([[1.0, np.nan, np.nan, 5.0], [3.0, 2.0, np.nan, np.nan]])
    np.testing.assert_allclose(module._downscaled_depth(metres, 2), [[2.0, np.nan]])


def test_a_file_missing_from_the_wheel_is_never_downloaded(monkeypatch):
    monkeypatch.setitem(module.FILES, "chelsea", ("skimage", "scikit-image", "data", "eagle.png"))
    with refused("eagle.png", "install another version of scikit-image"):
        photos(image_size=16, stride=16)


@pytest.mark.parametrize(
    ("call", "field", "hint"),
    [
        (lambda: photos(image_size=100, stride=8), "photos.image_size", "lower image_size"),
        (lambda: photos(image_size=16, stride=0), "photos.stride", "at least 1"),
        (lambda: textures(image_size=16, stride=8, downscale=0), "textures.downscale", "at least 1"),
        (lambda: textures(image_size=16, stride=8, grayscale=False), "textures.grayscale", "grayscale: true"),
        (lambda: textures(image_size=16, stride=8, block_size=79), "textures.block_size", "at least"),
        (lambda: textures(image_size=128, stride=8), "textures", "lower image_size"),
        (lambda: depth(image_size=16, stride=8, max_invalid=1.0), "depth.max_invalid", "0.05"),
    ],
)
def test_impossible_values_are_refused(call, field, hint):
    with refused(field, hint):
        call()


def test_replicates_leave_out_whole_sources():
    data = textures(image_size=16, stride=16)
    everything = set(np.unique(data.sources))
    replicates = [data.leave_out(group, 4, rng_seed=0) for group in range(4)]
    kept = [set(data.sources[np.concatenate(list(part.splits.values()))]) for part in replicates]
    left_out = [everything - sources for sources in kept]
    assert sum(map(len, left_out)) == len(everything)
    assert set.union(*left_out) == everything
    assert all(isinstance(part, ImageData) for part in replicates)
