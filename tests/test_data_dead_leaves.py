"""Dead leaves: spectrum, occlusion against a brute-force rasteriser, targets, cues, independence."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.stats import kurtosis, linregress
from skimage.measure import points_in_poly
from sklearn.svm import SVC

from refusals import refused
from spatialmae.data.dataset import ImageData
from spatialmae.data.dead_leaves import (
    CHUNK_SIZE,
    OBJECT_RADIUS,
    SHAPES,
    TEXTURES,
    World,
    _draw_leaves,
    _front_leaf,
    _shape_polygons,
    _texture_table,
    dead_leaves,
)
from spatialmae.errors import UserError


def make(n_train: int = 64, n_validation: int = 0, n_test: int = 0, seed: int = 0, **options: object) -> ImageData:
    return dead_leaves(n_train=n_train, n_validation=n_validation, n_test=n_test, seed=seed, **options)


@pytest.fixture(scope="module")
def many() -> ImageData:
    return make(2000)


def grey(images: np.ndarray) -> np.ndarray:
    return images.mean(axis=-1) / 255


def power(images: np.ndarray) -> np.ndarray:
    return (np.abs(np.fft.fft2(images - images.mean())) ** 2).mean(axis=0)


def radial_fit(images: np.ndarray) -> tuple[float, float]:
    """Exponent and R² of the radially averaged power spectrum on log-log axes."""
    n = images.shape[1]
    ring = np.rint(n * np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n))).astype(int)
    cycles = np.arange(1, n // 2 + 1)
    spectrum = power(images)
    fit = linregress(np.log(cycles), np.log([spectrum[ring == k].mean() for k in cycles]))
    return fit.slope, fit.rvalue**2


def test_shapes_dtypes_and_ranges(many):
    assert many.images.shape == (2000, 32, 32, 3) and many.images.dtype == np.uint8
    assert many.images.min() < 10 and many.images.max() > 245
    depth, segmentation = many.targets["depth"], many.targets["segmentation"]
    assert depth.dtype == np.float32 and depth.min() == 0 and depth.max() == 1
    assert segmentation.dtype == np.uint8 and set(np.unique(segmentation)) == {0, 1}
    assert many.class_names == {"shape": SHAPES, "texture": TEXTURES}
    for name in ("shape", "texture"):
        assert many.targets[name].dtype == np.int64
        assert np.bincount(many.targets[name], minlength=5).min() > 300


def test_power_spectrum_is_a_power_law(many):
    exponent, r_squared = radial_fit(grey(many.images))
    assert -3.0 < exponent < -2.0
    assert r_squared > 0.99


def test_shuffled_pixels_have_no_such_spectrum(many):
    shuffled = np.random.default_rng(0).permuted(grey(many.images).reshape(2000, -1), axis=1)
    exponent, _ = radial_fit(shuffled.reshape(-1, 32, 32))
    assert abs(exponent) < 0.1


def test_structure_beyond_second_order(many):
    images = grey(many.images)
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=images.shape))
    gaussian = np.fft.ifft2(noise * np.sqrt(power(images))).real
    assert kurtosis(np.diff(gaussian, axis=2).ravel()) < 0.2
    assert kurtosis(np.diff(images, axis=2).ravel()) > 3


def test_a_smaller_size_exponent_gives_larger_leaves():
    neighbours = []
    for exponent in (1.0, 5.0):
        images = grey(make(300, size_exponent=exponent).images)
        neighbours.append(np.corrcoef(images[:, :, :-4].ravel(), images[:, :, 4:].ravel())[0, 1])
    assert neighbours[0] > neighbours[1] + 0.1


def test_the_object_is_in_front_and_nothing_else_is(many):
    np.testing.assert_array_equal(many.targets["depth"] == 0, many.targets["segmentation"] == 1)
    area = many.targets["segmentation"].mean(axis=(1, 2))
    low, high = (np.pi * radius**2 for radius in OBJECT_RADIUS)
    # Objects may stick out of the image a little; their area is that of the disc of their radius.
    assert 0.8 * low < area.min() and area.max() < 1.1 * high


def test_front_leaf_against_brute_force():
    world = World(24, 40, 3.0, 1 / 16, 1.0, "independent", False)
    chunk = _draw_leaves(world, np.random.default_rng(5))
    front = _front_leaf(world, chunk)
    polygons, _ = _shape_polygons()
    y, x = np.mgrid[: world.samples_per_side, : world.samples_per_side] + 0.5
    for image in range(3):
        first = image * world.n_layers
        expected = np.full(x.shape, first)
        for leaf in range(first + 1, first + world.n_layers):
            dx, dy = x - chunk.x[leaf], y - chunk.y[leaf]
            cosine, sine = np.cos(chunk.angle[leaf]), np.sin(chunk.angle[leaf])
            own = np.stack([dx * cosine + dy * sine, dy * cosine - dx * sine], axis=-1) / chunk.radius[leaf]
            inside = points_in_poly(own.reshape(-1, 2), polygons[chunk.shape[leaf]]).reshape(x.shape)
            expected[inside] = leaf
        assert (front[image] == expected).mean() > 0.98  # the shapes' table rounds their outlines


def test_plain_objects_have_one_colour_and_others_do_not(many):
    inside = binary_erosion(many.targets["segmentation"], np.ones((1, 3, 3)))
    spread = np.array([np.ptp(image[mask], axis=0).max() for image, mask in zip(many.images, inside, strict=True)])
    plain = many.targets["texture"] == TEXTURES.index("plain")
    assert (spread[plain] <= 1).all()
    assert (spread[~plain] > 5).mean() > 0.99


def test_shapes_can_be_told_apart_by_their_outline(many):
    outline, shape = many.targets["segmentation"].reshape(2000, -1), many.targets["shape"]
    reader = SVC(C=10).fit(outline[:1500], shape[:1500])
    assert reader.score(outline[1500:], shape[1500:]) > 0.9


def test_textures_differ_only_beyond_mean_and_variance():
    table = _texture_table().reshape(len(TEXTURES), -1)
    np.testing.assert_allclose(table.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(table[1:].std(axis=1), 0.5, rtol=1e-5)
    assert np.abs(np.corrcoef(table[1:]) - np.eye(4)).max() < 0.2


def test_shapes_have_equal_area():
    grid = np.linspace(-1.6, 1.6, 400)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    for polygon in _shape_polygons()[0]:
        assert points_in_poly(points, polygon).mean() * 3.2**2 == pytest.approx(np.pi, rel=0.02)


def test_cues():
    independent, matched, conflict = (
        make(400, image_size=8, cues=cues).targets for cues in ("independent", "matched", "conflict")
    )
    np.testing.assert_array_equal(matched["shape"], matched["texture"])
    assert not (conflict["shape"] == conflict["texture"]).any()
    assert len(set(zip(conflict["shape"], conflict["texture"], strict=True))) == 20
    assert len(set(zip(independent["shape"], independent["texture"], strict=True))) == 25
    np.testing.assert_array_equal(independent["shape"], conflict["shape"])


def test_an_image_depends_on_the_seed_and_its_place_in_the_split_only():
    small = make(CHUNK_SIZE + 3, 2, 4, image_size=16)
    large = make(2 * CHUNK_SIZE + 5, 7, CHUNK_SIZE + 9, image_size=16)
    for split in ("train", "validation", "test"):
        n = len(small.splits[split])
        np.testing.assert_array_equal(small.images[small.splits[split]], large.images[large.splits[split]][:n])
        for target in small.targets:
            np.testing.assert_array_equal(small.target(target, split), large.target(target, split)[:n])
    assert len(np.unique(large.images.reshape(len(large.images), -1), axis=0)) == len(large.images)
    other = make(CHUNK_SIZE + 3, 2, 4, image_size=16, seed=1)
    assert not (other.images == small.images).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("size", [8, 17])
def test_any_size_grey_or_coloured(size):
    coloured, greyed = make(5, image_size=size), make(5, image_size=size, grayscale=True)
    assert coloured.image_shape == (size, size, 3) and greyed.image_shape == (size, size, 1)
    difference = coloured.images.mean(axis=-1) - greyed.images[..., 0]
    assert np.abs(difference).max() <= 1
    np.testing.assert_array_equal(coloured.targets["depth"], greyed.targets["depth"])


def test_resolution_only_samples_the_world():
    coarse, fine = make(20, image_size=16), make(20, image_size=32)
    averaged = grey(fine.images).reshape(20, 16, 2, 16, 2).mean(axis=(2, 4))
    assert np.corrcoef(averaged.ravel(), grey(coarse.images).ravel())[0, 1] > 0.95


def test_saving_keeps_everything(tmp_path):
    data = make(3, 1, 1, image_size=8)
    data.save(tmp_path / "leaves.safetensors")
    loaded = ImageData.load(tmp_path / "leaves.safetensors")
    np.testing.assert_array_equal(loaded.images, data.images)
    assert loaded.provenance == data.provenance and loaded.provenance["seed"] == 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"image_size": 7}, "image_size"),
        ({"n_leaves": -1}, "n_leaves"),
        ({"size_exponent": float("nan")}, "size_exponent"),
        ({"min_radius": 0.0}, "min_radius"),
        ({"min_radius": 0.5, "max_radius": 0.4}, "max_radius"),
        ({"n_train": 0}, "train"),
        ({"n_test": -1}, "test"),
    ],
)
def test_impossible_values_are_refused(options, field):
    with pytest.raises(UserError, match=field):
        make(**options)


def test_unknown_cues_are_refused():
    with refused("leaves.cues", "independent, matched, conflict"):
        World(16, 10, 3.0, 0.1, 1.0, "both", False).check()
