"""A user's own folder of images: PNG, JPEG and WebP of mixed sizes, modes and bit depths, and NumPy arrays."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Int64, UInt8
from tqdm import tqdm

from spatialmae.data.dataset import ImageData, Split, stratified_splits
from spatialmae.data.decoding import SUFFIXES, Resize, UnusableImageError, squares
from spatialmae.errors import UserError, printable

SAME_BYTES = "same bytes as "  # how the reason to leave out a copy begins


@dataclass
class Collection:
    """The usable images below a folder, and the files left out.

    Attributes:
        images: squares of one size, one of each file, or its tiles.
        sources: of each square, the index of its file.
        files: the usable ones, in the order of their names.
        sha256: of their bytes.
        skipped: ``file`` and ``reason`` of each that was left out, both printable.
    """

    images: list[UInt8[np.ndarray, "s s c"]] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)


def folder(
    path: Path | str,
    *,
    image_size: int,
    resize: Resize = "crop",
    grayscale: bool = False,
    channels: int | None = None,
    classes: bool = True,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int,
) -> ImageData:
    """The PNG, JPEG, WebP and npy images below ``path``, as uint8 (n, image_size, image_size, 3 or 1 or ``channels``).

    Folders may be nested; hidden files are ignored, the others taken in the order of their names. If no usable
    image lies directly in ``path`` and at least two of its subfolders hold some, these subfolders are the
    classes of target ``label`` (int64) and splits are stratified by it.

    How pixels are read: the orientation in EXIF is applied; of an animation, the first frame; transparency is
    composited on white; grey of 16 bits is divided by 257 and rounded (colour of 16 bits is read by Pillow as
    its high byte); black and white, palette and CMYK become RGB; colour profiles are ignored. Arrays in npy files are
    (h, w) or (h, w, c), of uint8, uint16, or floats in [0, 1]. Grey images get three equal channels, or with
    ``grayscale`` colour images their luminance 0.2125 R + 0.7154 G + 0.0721 B.

    Left out, each with its reason in ``provenance["skipped"]``: files of another kind, damaged, with a side below
    ``image_size`` (nothing is enlarged), with other channels, of more than 64 million pixels, or with the same bytes as
    an earlier file (which could put one image into two splits).

    Args:
        path: the folder.
        image_size: side in pixels.
        resize: ``crop``: the central square, averaged down; ``stretch``: the whole image averaged down,
            its proportions lost; ``tiles``: up to 4 × 4 squares as they are, evenly spread, all in one split, and
            ``sources`` tells which image they are of.
        grayscale: one channel in place of three.
        channels: of arrays in npy files that are neither grey nor RGB; files of other channels are left out.
        classes: false: subfolders are no classes, whatever they hold.
        validation_fraction: of the usable images, in [0, 1).
        test_fraction: likewise; both together below 1.
        seed: of the splits.

    Raises:
        UserError: no such folder, an impossible value, or too few usable images for the splits.
    """
    path = Path(path)
    _check(path, image_size, resize, validation_fraction, test_fraction)
    if channels is not None and (grayscale or channels < 1):
        problem = f"{channels} channels{' and grayscale' if grayscale else ''} cannot be"
        raise UserError("folder.channels", problem, "use at least 1, and no grayscale")
    n_channels = channels or (1 if grayscale else 3)
    collection = read_folder(path, image_size=image_size, resize=resize, channels=n_channels)
    label, names = class_labels(path, collection.files) if classes else no_labels(collection.files)
    splits = _split(path, collection, label, names, validation_fraction, test_fraction, seed)
    sources = np.array(collection.sources, dtype=np.int64)
    options: dict[str, Any] = {"image_size": image_size, "resize": resize, "grayscale": grayscale}
    options |= {"channels": channels, "classes": classes, "seed": seed}
    options |= {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return ImageData(
        name=path.resolve().name,
        images=np.stack(collection.images),
        splits={split: np.flatnonzero(np.isin(sources, files)) for split, files in splits.items()},
        targets={"label": label[sources]} if names else {},
        class_names={"label": names} if names else {},
        sources=sources if resize == "tiles" else None,
        provenance={
            "kind": "folder",
            "path": str(path),
            **options,
            "n_images": len(collection.files),
            "sha256": hashlib.sha256("\n".join(sorted(collection.sha256)).encode()).hexdigest(),
            "skipped": collection.skipped,
        },
    )


def _check(path: Path, image_size: int, resize: str, validation: float, test: float) -> None:
    """Raise UserError at the first impossible argument."""
    check_folder(path)
    if image_size < 1:
        raise UserError("folder.image_size", f"{image_size} is no size", "use at least 1, e.g. 32")
    if resize not in get_args(Resize):
        raise UserError("folder.resize", f"{resize!r} is unknown", f"use one of {', '.join(get_args(Resize))}")
    if min(validation, test) < 0 or validation + test >= 1:
        problem = f"validation_fraction={validation} and test_fraction={test} leave nothing to train on"
        raise UserError("folder", problem, "use fractions from 0 whose sum is below 1")


def check_folder(path: Path) -> None:
    """Raise UserError if a path is no folder."""
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "no such folder"
        raise UserError(path, problem, "give the path of a folder of images")


def read_folder(
    path: Path, *, image_size: int, resize: Resize, channels: int, files: Iterable[Path] | None = None
) -> Collection:
    """Read every usable image below ``path``, or among ``files`` there; see :func:`folder`."""
    collection = Collection()
    first_with: dict[str, str] = {}
    for file in tqdm(image_files(path) if files is None else files, desc=printable(path.name), unit="file"):
        name = printable(file.relative_to(path).as_posix())
        try:
            content = read_content(file)
            sha256 = hashlib.sha256(content).hexdigest()
            if sha256 in first_with:
                raise UnusableImageError(f"{SAME_BYTES}{first_with[sha256]}")
            found = squares(content, file.suffix.lower(), image_size=image_size, resize=resize, channels=channels)
        except UnusableImageError as reason:
            collection.skipped.append({"file": name, "reason": printable(str(reason))})
            continue
        first_with[sha256] = name
        collection.images += found
        collection.sources += [len(collection.files)] * len(found)
        collection.files.append(file)
        collection.sha256.append(sha256)
    return collection


def kind_of(reason: str) -> str:
    """What reasons to leave a file out have in common that differ in a detail, such as the file with the same bytes."""
    if reason.startswith(SAME_BYTES):
        return f"{SAME_BYTES}another file"
    return "damaged" if reason.startswith("damaged (") else reason


def image_files(path: Path) -> list[Path]:
    """All files below a folder that are not hidden, in the order of their names."""
    return sorted(_files(path))


def _files(path: Path) -> Iterator[Path]:
    """All files below a folder that are not hidden; links to folders are not followed."""
    for file in path.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if not hidden and file.is_file():
            yield file


def read_content(file: Path) -> bytes:
    """The bytes of a file that claims to be an image.

    Raises:
        UnusableImageError: it does not, or cannot be read.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise UnusableImageError("not named as PNG, JPEG, WebP or npy")
    try:
        return file.read_bytes()
    except OSError as error:
        raise UnusableImageError(f"cannot be read ({error.strerror})") from None


def class_labels(path: Path, files: list[Path]) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Label of each image by its first subfolder, and the classes' names; zeros and none if there are no classes."""
    parts = [file.relative_to(path).parts for file in files]
    names = tuple(sorted({part[0] for part in parts}))
    if len(names) < 2 or any(len(part) == 1 for part in parts):
        return no_labels(files)
    return np.array([names.index(part[0]) for part in parts], np.int64), names


def no_labels(files: list[Path]) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """What :func:`class_labels` gives where there are no classes."""
    return np.zeros(len(files), np.int64), ()


def class_sizes(label: Int64[np.ndarray, " n"], names: tuple[str, ...]) -> dict[str, int]:
    """Images of each class, by what :func:`class_labels` gives; empty if there are no classes."""
    return dict(zip(names, np.bincount(label).tolist(), strict=True)) if names else {}


def _split(
    path: Path,
    collection: Collection,
    label: Int64[np.ndarray, " n"],
    names: tuple[str, ...],
    validation: float,
    test: float,
    seed: int,
) -> dict[Split, Int64[np.ndarray, " _"]]:
    """Stratified splits of the files."""
    n, n_classes = len(label), max(1, len(names))
    n_splits = 1 + sum(fraction > 0 for fraction in (validation, test))
    for name, count in class_sizes(label, names).items():
        if count < n_splits:
            problem = f"{count} usable images cannot be split {n_splits} ways as a class"
            raise UserError(path / name, problem, "add images there, remove the folder, or set source.classes: false")
    reasons = Counter(kind_of(entry["reason"]) for entry in collection.skipped)
    left_out = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3)) or "none left out"
    hint = "add images, or change the fractions or image_size"
    few = [fraction for fraction in (validation, test) if fraction and round(n * fraction) < n_classes]
    if n == 0 or few:
        of_classes = f" of {n_classes} classes" if names else ""
        problem = f"{n} usable images{of_classes} ({left_out}) are too few to split into train, validation and test"
        raise UserError(path, problem, hint)
    try:
        return stratified_splits(label, validation=float(validation), test=float(test), seed=seed)
    except ValueError as error:
        raise UserError(path, f"{n} usable images ({left_out}) cannot be split: {error}", hint) from None
