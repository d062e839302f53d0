"""CIFAR-10 from its official binary archive (Krizhevsky, 2009)."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int64, UInt8

from spatialmae.data.dataset import ImageData, stratified_splits
from spatialmae.data.download import Archive, Published, fetch_archive
from spatialmae.errors import UserError
from spatialmae.geometry import block_means

PUBLISHED = Published(
    name="cifar-10-binary.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE, NAMES_FILE = "test_batch.bin", "batches.meta.txt"
N_CLASSES = 10
SIDE = 32
IMAGE_BYTES = 3 * SIDE**2
RECORD_BYTES = 1 + IMAGE_BYTES
MAX_FILE_BYTES = 10_000 * RECORD_BYTES


def cifar10(
    *,
    cache: Path | str,
    seed: int,
    n_train: int | None = None,
    n_validation: int = 5000,
    n_test: int | None = None,
    downscale: int = 1,
) -> ImageData:
    """CIFAR-10 with target ``label`` (int64, 0–9); images uint8 (n, 32, 32, 3), or averaged down.

    The validation split is cut from the training images; the test split is the official one. Both, and any
    smaller number of training or test images, are drawn by ``seed`` and stratified by label. The archive
    comes from a folder of ``SPATIALMAE_MIRRORS``, from ``cache``, or from its official address
    (:func:`spatialmae.data.download.fetch_archive`); ``provenance`` records its hash and whether that is the
    official one. A mirror's archive in another order draws other images for the same seed.

    Args:
        cache: folder for the download.
        seed: of the validation split and of smaller splits.
        n_train: images to train on; None: all but the validation images.
        n_validation: images to validate on, taken from the 50,000 training images.
        n_test: test images; None: all 10,000.
        downscale: factor by which images are averaged down, a divisor of 32.

    Raises:
        UserError: an impossible factor, the archive is not to be had or is damaged, or more images are asked for than
            there are.
    """
    if downscale < 1 or SIDE % downscale:
        raise UserError("cifar10.downscale", f"{downscale} does not divide {SIDE}", "use 1, 2, 4 or 8")
    archive = fetch_archive(PUBLISHED, cache)
    members = _read_members(archive)
    train_label, train_images = _records(archive.path, members, TRAIN_FILES)
    test_label, test_images = _records(archive.path, members, (TEST_FILE,))
    fitted = _draw(train_label, n_train, n_validation, seed)
    tested = _draw(test_label, n_test, 0, seed)["train"]
    rows = np.sort(np.concatenate([fitted["train"], fitted["validation"]]))
    n_fit = len(rows)
    return ImageData(
        name="cifar10",
        images=_downscaled(np.concatenate([train_images[rows], test_images[tested]]), downscale),
        splits={
            "train": np.searchsorted(rows, fitted["train"]).astype(np.int64),
            "validation": np.searchsorted(rows, fitted["validation"]).astype(np.int64),
            "test": np.arange(n_fit, n_fit + len(tested), dtype=np.int64),
        },
        targets={"label": np.concatenate([train_label[rows], test_label[tested]])},
        class_names={"label": _class_names(archive.path, members)},
        provenance={"kind": "cifar10", "seed": seed, "downscale": downscale, **archive.provenance()},
    )


def _downscaled(images: UInt8[np.ndarray, "n h w c"], factor: int) -> UInt8[np.ndarray, "n h2 w2 c"]:
    """Mean over blocks of ``factor``, rounded once."""
    if factor == 1:
        return images
    return (block_means(images, factor) + 0.5).astype(np.uint8)


def _draw(
    label: Int64[np.ndarray, " n"], n_train: int | None, n_validation: int, seed: int
) -> dict[str, Int64[np.ndarray, " _"]]:
    """Disjoint stratified draws of ``n_train`` (None: all the rest) and ``n_validation`` images."""
    wanted = n_train if n_train is not None else len(label) - n_validation
    surplus = len(label) - n_validation - wanted
    if wanted < N_CLASSES or surplus < 0 or 0 < n_validation < N_CLASSES or n_validation < 0:
        problem = f"{wanted} + {n_validation} of {len(label)} images cannot be drawn"
        raise UserError("cifar10", problem, f"ask for fewer, but {N_CLASSES} or more, images in each split")
    if 0 < surplus < N_CLASSES:
        problem = f"{wanted} + {n_validation} of {len(label)} images cannot be drawn class by class"
        raise UserError("cifar10", problem, f"take all images, or leave out {N_CLASSES} or more")
    drawn = stratified_splits(label, validation=n_validation, test=surplus, seed=seed)
    return {"train": drawn["train"], "validation": drawn["validation"]}


def _read_members(archive: Archive) -> dict[str, bytes]:
    """The archive's expected files, read into memory; nothing is written to disk.

    Raises:
        UserError: the archive is damaged, or lacks a file or holds one of impossible size.
    """
    expected = {f"{FOLDER}/{name}": name for name in (*TRAIN_FILES, TEST_FILE, NAMES_FILE)}
    members = {}
    try:
        with gzip.open(archive.path) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    name = expected.get(str(PurePosixPath(member.name)))
                    if name is not None:
                        members[name] = _read_member(archive.path, tar, member)
            # gzip checks its sum only at the end of the stream, which tar does not read.
            while stream.read(1 << 20):
                pass
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise _damaged(archive.path, str(error)) from None
    missing = sorted(set(expected.values()) - set(members))
    if missing:
        raise _damaged(archive.path, f"{missing[0]} is missing")
    return members


def _read_member(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of a regular file no larger than an official one."""
    file = tar.extractfile(member) if member.isreg() else None
    if file is None or member.size > MAX_FILE_BYTES:
        raise _damaged(path, f"{member.name} is not a file of at most {MAX_FILE_BYTES} bytes")
    return file.read()


def _records(
    path: Path, members: dict[str, bytes], names: tuple[str, ...]
) -> tuple[Int64[np.ndarray, " n"], UInt8[np.ndarray, "n 32 32 3"]]:
    """Labels and images of some files; a record is a label byte and a channel-major image."""
    for name in names:
        if not members[name] or len(members[name]) % RECORD_BYTES:
            raise _damaged(path, f"{name} has {len(members[name])} bytes, no multiple of {RECORD_BYTES}")
    records = np.frombuffer(b"".join(members[name] for name in names), np.uint8).reshape(-1, RECORD_BYTES)
    label = records[:, 0].astype(np.int64)
    if label.max() >= N_CLASSES:
        raise _damaged(path, f"a label is {label.max()}, above {N_CLASSES - 1}")
    return label, records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _class_names(path: Path, members: dict[str, bytes]) -> tuple[str, ...]:
    """The ten names, in label order."""
    names = tuple(members[NAMES_FILE].decode("ascii", errors="replace").split())
    if len(names) != N_CLASSES:
        raise _damaged(path, f"{NAMES_FILE} holds {len(names)} names, not {N_CLASSES}")
    return names


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(path, f"damaged archive: {problem}", "delete it, and copy or download it again")
