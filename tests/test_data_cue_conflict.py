"""The reader of cue-conflict stimuli, on the archive where a mirror has it, and on made-up ones."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spatialmae.data.cue_conflict as module
from conftest import write_archive
from refusals import refused
from spatialmae.data.cue_conflict import CLASSES, PUBLISHED, cue_conflict, with_classes_of
from spatialmae.data.download import MIRRORS_VARIABLE

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FIRST = "cue-conflict-64/airplane/airplane1-airplane2.png"
NOISE = "cue-conflict-64/cat/cat2-oven3.png"


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def stimuli() -> dict[str, bytes]:
    """Five of each pair of classes, as published; a picture's colour tells its classes."""
    files = {}
    for i, shape in enumerate(CLASSES):
        for j, texture in enumerate(CLASSES):
            content = png(np.full((64, 64, 3), (10 * i, 10 * j, 0), dtype=np.uint8))
            files |= {f"cue-conflict-64/{shape}/{shape}{k}-{texture}{1 + k % 3}.png": content for k in range(1, 6)}
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return files | {NOISE: png(picture)}


def write_published(folder: Path, files: dict[str, bytes], extra: tuple[tarfile.TarInfo, ...] = (), mode="w") -> Path:
    return write_archive(folder / PUBLISHED.name, mode, files, extra)


def load(**options: object) -> module.ImageData:
    return cue_conflict(cache="cache", **options)


def published_or_made_up(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with the published archive if a mirror has it, else with one of the same structure."""
    for name in filter(None, os.environ.get(MIRRORS_VARIABLE, "").split(os.pathsep)):
        if (Path(name) / PUBLISHED.name).is_file():
            return Path(name)
    write_published(folder, files)
    return folder


def test_of_the_stimuli_245_have_two_classes_of_cifar10_and_210_of_them_conflict(tmp_path, monkeypatch, stimuli):
    monkeypatch.setenv(MIRRORS_VARIABLE, str(published_or_made_up(tmp_path, stimuli)))
    data = load()
    assert data.images.shape == (1280, 32, 32, 3)
    assert len(data.splits["test"]) == 1280 and not len(data.splits["train"])
    assert np.sum(data.targets["shape"] == data.targets["texture"]) == 80
    usable = with_classes_of(data, CIFAR10)
    shape, texture = usable.targets["shape"], usable.targets["texture"]
    assert (len(shape), np.sum(shape == texture), np.sum(shape != texture)) == (245, 35, 210)
    names = {CIFAR10[label] for label in np.union1d(shape, texture)}
    assert names == {"airplane", "automobile", "bird", "cat", "dog", "ship", "truck"}
    assert np.bincount(shape, minlength=10).tolist() == [35, 35, 35, 35, 0, 35, 0, 0, 35, 35]


@pytest.mark.slow
def test_labels_belong_to_their_images_and_pixels_are_means_of_blocks(mirror, stimuli):
    write_published(mirror, stimuli)
    for image_size in (64, 32, 16):
        data = load(image_size=image_size)
        assert data.class_names == {"shape": CLASSES, "texture": CLASSES}
        plain = data.images.std(axis=(1, 2)).max(axis=1) == 0
        assert plain.sum() == 1279
        labels = np.stack([data.targets["shape"], data.targets["texture"]], axis=1)
        np.testing.assert_array_equal(data.images[plain, 0, 0, :2], 10 * labels[plain])
        (odd,) = data.images[~plain]
        with Image.open(io.BytesIO(stimuli[NOISE])) as image:
            pixels = np.asarray(image) / 1.0
        factor = 64 // image_size
        for row, column in ((0, 0), (3, 1), (15, 15)):
            block = pixels[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            assert np.abs(odd[row, column] - block.mean(axis=(0, 1))).max() <= 0.5
    usable = with_classes_of(load(), CIFAR10)
    boat, car = 10 * CLASSES.index("boat"), 10 * CLASSES.index("car")
    expected = (usable.targets["shape"] == CIFAR10.index("ship")) & (
        usable.targets["texture"] == CIFAR10.index("automobile")
    )
    np.testing.assert_array_equal(np.all(usable.images[:, 0, 0, :2] == (boat, car), axis=1), expected)
    assert usable.provenance["sha256"] == data.provenance["sha256"] and not usable.provenance["official"]


def test_the_order_of_the_archive_does_not_matter(mirror, stimuli):
    write_published(mirror, stimuli)
    first = load()
    write_published(mirror, dict(reversed(stimuli.items())))
    np.testing.assert_array_equal(load().images, first.images)
    np.testing.assert_array_equal(load().targets["texture"], first.targets["texture"])


def test_nothing_is_extracted_and_other_files_are_passed_over(mirror, tmp_path, stimuli):
    others = [
        tarfile.TarInfo(name) for name in ("../escaped.png", "cue-conflict-64/README", "cue-conflict-64/cat/x.png")
    ]
    others.append(tarfile.TarInfo("cue-conflict-64/cat/dog1-cat1.png"))  # in the folder of another shape
    for member in others:
        member.size = 10
    write_published(mirror, stimuli, extra=tuple(others))
    assert len(load().images) == 1280
    assert [path.name for path in tmp_path.rglob("*")] == ["mirror", PUBLISHED.name]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({FIRST: None}, "1279"),
        ({FIRST.replace("2.png", "9.png"): png(np.zeros((64, 64, 3), np.uint8))}, "1281"),
        ({FIRST: png(np.zeros((32, 64, 3), np.uint8))}, "64 × 32 px"),
        ({FIRST: png(np.zeros((64, 64, 3), np.uint8), "BMP")}, "no PNG"),
        ({FIRST: png(np.zeros((64, 64, 3), np.uint8))[:60]}, "no PNG"),
        ({FIRST: bytes(1 << 16)}, "is not a file"),
    ],
)
def test_wrong_stimuli_are_refused(mirror, stimuli, change, problem):
    files = {name: content for name, content in (stimuli | change).items() if content is not None}
    write_published(mirror, files)
    with refused(PUBLISHED.name, "copy it again", about=problem):
        load()


def test_links_are_never_followed(mirror, stimuli):
    link = tarfile.TarInfo(FIRST)
    link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
    write_published(mirror, stimuli, extra=(link,))
    with refused(PUBLISHED.name, "copy it again", about="is not a file"):
        load()


def test_a_cut_or_compressed_archive_is_refused(mirror, stimuli):
    path = write_published(mirror, stimuli)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with refused(PUBLISHED.name, "copy it again"):
        load()
    write_published(mirror, stimuli, mode="w:gz")
    with refused(PUBLISHED.name, "copy it again"):
        load()


def test_without_a_mirror_the_user_learns_where_the_stimuli_are(mirror):
    with refused(PUBLISHED.name, f"set {MIRRORS_VARIABLE}", about="rgeirhos/texture-vs-shape"):
        load()


def test_impossible_sizes_and_classes_are_refused(mirror, stimuli):
    for size in (0, 24, 128):
        with refused("cue_conflict.image_size", "use a divisor of 64"):
            load(image_size=size)
    write_published(mirror, stimuli)
    with pytest.raises(ValueError, match="class_names: airplane is not among cat, dog"):
        with_classes_of(load(), ("cat", "dog"))
