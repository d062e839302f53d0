"""CIFAR-10's reader on small archives in the official layout, whole and damaged."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from skimage.transform import downscale_local_mean

import spatialmae.data.cifar10 as module
from conftest import write_archive
from refusals import refused
from spatialmae.data.cifar10 import FOLDER, NAMES_FILE, RECORD_BYTES, TEST_FILE, TRAIN_FILES, cifar10

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_FILE = 60


def official_files() -> dict[str, bytes]:
    """Records whose label is their position modulo 10, with random pixels."""
    rng = np.random.default_rng(0)
    files = {}
    for name in (*TRAIN_FILES, TEST_FILE):
        records = rng.integers(256, size=(PER_FILE, RECORD_BYTES), dtype=np.uint8)
        records[:, 0] = np.arange(PER_FILE) % 10
        files[name] = records.tobytes()
    return files | {NAMES_FILE: ("\n".join(NAMES) + "\n\n").encode()}


def write_published(folder: Path, files: dict[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    placed = {f"{FOLDER}/{name}": content for name, content in files.items()}
    return write_archive(folder / module.PUBLISHED.name, "w:gz", placed, extra)


def load(**options: object) -> module.ImageData:
    return cifar10(cache="cache", **({"seed": 0, "n_validation": 50} | options))


def test_every_image_and_label_is_read_and_placed_once(mirror):
    files = official_files()
    write_published(mirror, files)
    data = load()
    assert data.images.shape == (6 * PER_FILE, 32, 32, 3) and data.images.dtype == np.uint8
    train = b"".join(files[name] for name in TRAIN_FILES)
    records = np.frombuffer(train + files[TEST_FILE], np.uint8).reshape(-1, RECORD_BYTES)
    np.testing.assert_array_equal(data.targets["label"], records[:, 0])
    for image, record in zip(data.images[:70], records[:70], strict=True):
        for row, column, channel in ((0, 0, 0), (3, 5, 0), (3, 5, 1), (31, 0, 2), (31, 31, 2)):
            assert image[row, column, channel] == record[1 + 1024 * channel + 32 * row + column]
    np.testing.assert_array_equal(data.splits["test"], np.arange(5 * PER_FILE, 6 * PER_FILE))
    assert data.class_names == {"label": NAMES}
    assert data.provenance["official"] is False and len(data.provenance["sha256"]) == 64


def test_splits_are_stratified_seeded_and_drawn_from_the_right_images(mirror):
    write_published(mirror, official_files())
    whole = load()
    data = load(n_train=100, n_validation=20, n_test=30)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 100, "validation": 20, "test": 30}
    assert len(data.images) == 150
    for split, size in (("train", 10), ("validation", 2), ("test", 3)):
        np.testing.assert_array_equal(np.bincount(data.target("label", split)), [size] * 10)
    fitted = {image.tobytes() for image in whole.images[: 5 * PER_FILE]}
    tested = {image.tobytes() for image in whole.images[5 * PER_FILE :]}
    for split, allowed in (("train", fitted), ("validation", fitted), ("test", tested)):
        assert {image.tobytes() for image in data.images[data.splits[split]]} <= allowed
    again, other = load(), load(seed=1)
    np.testing.assert_array_equal(again.splits["validation"], whole.splits["validation"])
    assert not np.array_equal(other.splits["validation"], whole.splits["validation"])


def test_nothing_is_extracted_to_disk(mirror, tmp_path):
    escaping = tarfile.TarInfo("../escaped")
    escaping.size = 10
    write_published(mirror, official_files(), extra=(escaping,))
    load()
    assert [path.name for path in tmp_path.rglob("*")] == ["mirror", module.PUBLISHED.name]


def test_a_truncated_archive_is_refused(mirror):
    path = write_published(mirror, official_files())
    path.write_bytes(path.read_bytes()[:-2000])
    with refused(module.PUBLISHED.name, "copy or download it again"):
        load()


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_changed_byte_is_refused(mirror, place):
    path = write_published(mirror, official_files())
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with refused(module.PUBLISHED.name, "copy or download it again"):
        load()


def test_a_file_that_is_no_archive_is_refused(mirror):
    (mirror / module.PUBLISHED.name).write_bytes(b"<html>not found</html>")
    with refused(module.PUBLISHED.name, "copy or download it again"):
        load()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({TEST_FILE: None}, "test_batch.bin"),
        ({"data_batch_3.bin": bytes(RECORD_BYTES + 1)}, "data_batch_3.bin"),
        ({"data_batch_3.bin": b""}, "data_batch_3.bin"),
        ({"data_batch_1.bin": bytes([10]) * RECORD_BYTES}, "label"),
        ({NAMES_FILE: b"one two"}, NAMES_FILE),
    ],
)
def test_wrong_members_are_refused(mirror, change, problem):
    files = {name: content for name, content in (official_files() | change).items() if content is not None}
    write_published(mirror, files)
    with refused(module.PUBLISHED.name, "copy or download it again", about=problem):
        load()


def test_links_and_huge_members_are_never_read(mirror, monkeypatch):
    link = tarfile.TarInfo(f"{FOLDER}/{TEST_FILE}")
    link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
    write_published(mirror, official_files(), extra=(link,))
    with refused(module.PUBLISHED.name, "copy or download it again", about="is not a file"):
        load()
    write_published(mirror, official_files())
    monkeypatch.setattr(module, "MAX_FILE_BYTES", PER_FILE * RECORD_BYTES - 1)
    with refused(module.PUBLISHED.name, "copy or download it again", about="is not a file"):
        load()


@pytest.mark.parametrize(
    "options",
    [
        {"n_train": 300},
        {"n_validation": 300},
        {"n_validation": -1},
        {"n_validation": 5},
        {"n_test": 61},
        {"n_test": 55},
    ],
)
def test_impossible_counts_are_refused(mirror, options):
    write_published(mirror, official_files())
    with refused("cifar10", "10 or more"):
        load(**options)


def test_downscaled_images_are_block_means_rounded_once(mirror):
    write_published(mirror, official_files())
    full, half = load(), load(downscale=2)
    assert half.images.shape == (6 * PER_FILE, 16, 16, 3)
    means = np.stack([downscale_local_mean(image.astype(float), (2, 2, 1)) for image in full.images])
    np.testing.assert_array_equal(half.images, np.floor(means + 0.5))
    assert all(np.array_equal(half.splits[split], full.splits[split]) for split in full.splits)
    with refused("cifar10.downscale", "use 1, 2, 4 or 8"):
        load(downscale=3)
