"""A practitioner's folder of images, read at one size by a rule that is stated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
from jaxtyping import Int64, UInt8

from spatialmae.data.decoding import SUFFIXES, Resize, UnusableImageError, shorter_side
from spatialmae.data.folder import (
    check_folder,
    class_labels,
    class_sizes,
    image_files,
    kind_of,
    read_content,
    read_folder,
)
from spatialmae.errors import UserError
from spatialmae.recommend.evidence import LEAST_SIDE, MAX_SIDE, averaged_sides

MAX_IMAGES = 10_000
LEAST_IMAGES = 100
USUAL_SIZE = 64  # px
SIZE_STEP = 4  # px: patches of 2 px tile every size
TILED_FROM = 8  # times the image size: larger images are cut up rather than shrunk
N_LOOKED_AT = 1000  # images whose size decides


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder at one size.

    Attributes:
        path: the folder.
        images: uint8 squares, one of each file, or its tiles.
        sources: of each square, the index of its file.
        resize: how files became squares.
        sizes_say: the rule that chose size and resizing, in a sentence.
        n_files: that were read.
        n_in_folder: all that it holds, as far as they are not known to be unusable: more where some were not read.
        class_sizes: of these, in each of its subfolders; empty if they are no classes.
        skipped: ``file`` and ``reason`` of each that was left out.
    """

    path: Path
    images: UInt8[np.ndarray, "n s s c"]
    sources: Int64[np.ndarray, " n"]
    resize: Resize
    sizes_say: str
    n_files: int
    n_in_folder: int
    class_sizes: dict[str, int]
    skipped: list[dict[str, str]]

    @property
    def image_size(self) -> int:
        """Side in px."""
        return self.images.shape[1]

    @property
    def channels(self) -> int:
        """Numbers of a pixel."""
        return self.images.shape[-1]

    @property
    def usual_levels(self) -> int:
        """Grey levels from the darkest to the brightest value of an image, the median of all: 1 to 256."""
        axes = (1, 2, 3)
        return int(np.median(self.images.max(axis=axes).astype(np.int64) - self.images.min(axis=axes))) + 1


def read_images(
    path: Path | str, *, image_size: int | None = None, resize: str | None = None, max_images: int = MAX_IMAGES
) -> FolderImages:
    """Read up to ``max_images`` files, evenly taken from all below a folder that are named as images.

    Args:
        path: the folder; see :func:`~spatialmae.data.folder.folder` for what is read and what is left out.
        image_size: side in px that images are analysed at, a multiple of 4; None: 64, or less if more than one image in
            twenty is smaller.
        resize: None: the central square of each image, averaged down; of images whose shorter side is typically 8 times
            the image size or more, up to 4 × 4 tiles as they are.
        max_images: at least 100.

    Raises:
        UserError: no such folder, too few usable images, or an impossible value.
    """
    path = Path(path)
    check_folder(path)
    _check(image_size, resize, max_images)
    found = image_files(path)
    if not found:
        raise UserError(
            path, "holds no files", f"give a folder of PNG, JPEG, WebP or npy files, {LEAST_IMAGES} or more"
        )
    named = [file for file in found if file.suffix.lower() in SUFFIXES]
    files = _evenly(named, max_images)
    sides, channels = _look_at(path, files or found)
    size = image_size or _usual_size(path, sides)
    chosen = cast(Resize, resize or ("tiles" if np.median(sides) >= TILED_FROM * size else "crop"))
    others = set(found) - set(named)  # are left out with their reason
    read = sorted([*files, *others])
    collection = read_folder(path, image_size=size, resize=chosen, channels=channels, files=read)
    if len(collection.files) < LEAST_IMAGES:
        reasons = [entry["reason"] for entry in collection.skipped]
        raise _too_few(path, len(collection.files), reasons, is_sample=len(files) < len(named))
    unusable = set(read) - set(collection.files)
    usable = [file for file in named if file not in unusable]
    label, names = class_labels(path, usable)
    return FolderImages(
        path=path,
        images=np.stack(collection.images),
        sources=np.array(collection.sources, dtype=np.int64),
        resize=chosen,
        sizes_say=_sizes_say(sides, size, chosen),
        n_files=len(collection.files),
        n_in_folder=len(usable),
        class_sizes=class_sizes(label, names),
        skipped=collection.skipped,
    )


def _check(image_size: int | None, resize: str | None, max_images: int) -> None:
    if image_size is not None and (image_size < 8 or image_size % SIZE_STEP):
        raise UserError("--image-size", f"{image_size} is no multiple of {SIZE_STEP} px from 8 on", "use e.g. 32 or 64")
    if image_size is not None and not averaged_sides(image_size):
        near = [size for size in range(image_size - 20, image_size + 21, SIZE_STEP) if averaged_sides(size)]
        nearest = sorted(sorted(near, key=lambda size: abs(size - image_size))[:2])
        raise UserError(
            "--image-size",
            f"{image_size} px cannot be averaged down by a whole factor to {LEAST_SIDE} to {MAX_SIDE} px",
            f"use e.g. {' or '.join(map(str, nearest))}",
        )
    if resize is not None and resize not in get_args(Resize):
        raise UserError("--resize", f"{resize!r} is unknown", f"use one of {', '.join(get_args(Resize))}")
    if max_images < LEAST_IMAGES:
        raise UserError("--max-images", f"{max_images} are too few", f"use at least {LEAST_IMAGES}")


def _evenly(files: list[Path], most: int) -> list[Path]:
    return [files[i] for i in np.linspace(0, len(files) - 1, min(len(files), most)).round().astype(int)]


def _too_few(path: Path, n_usable: int, reasons: list[str], *, is_sample: bool = False) -> UserError:
    left_out = ", ".join(f"{n} left out: {why}" for why, n in Counter(map(kind_of, reasons)).most_common(2))
    problem = f"{n_usable} usable {'image' if n_usable == 1 else 'images'}{left_out and f' ({left_out})'}"
    smaller = ", or a smaller --image-size" if any(why.startswith("smaller") for why in reasons) else ""
    larger = ", or a larger --max-images, since not all files were read" if is_sample else ""
    return UserError(path, f"{problem}, too few", f"give at least {LEAST_IMAGES}{smaller}{larger}")


def _look_at(path: Path, files: list[Path]) -> tuple[Int64[np.ndarray, " n"], int]:
    """Shorter sides of some of the images, and the channels that most of them have; of grey and colour, colour."""
    found, reasons = [], []
    for file in files[:: -(-len(files) // N_LOOKED_AT) or 1]:
        try:
            found.append(shorter_side(read_content(file), file.suffix.lower()))
        except UnusableImageError as reason:
            reasons.append(str(reason))  # those of all files are named when they are read
    if not found:
        raise _too_few(path, 0, reasons)
    channels = Counter(own for _, own in found)
    most = channels.most_common(1)[0][0]
    return np.array([side for side, _ in found]), 3 if most == 1 and channels[3] else most


def _usual_size(path: Path, sides: Int64[np.ndarray, " n"]) -> int:
    size = min(USUAL_SIZE, int(np.percentile(sides, 5)) // SIZE_STEP * SIZE_STEP)
    if size < 8:
        raise UserError(
            path, f"most images are smaller than 8 px (median {np.median(sides):.0f})", "give larger images"
        )
    return size


def _sizes_say(sides: Int64[np.ndarray, " n"], size: int, resize: Resize) -> str:
    averaged = f", averaged down to {size} × {size} px" if sides.max() > size else ""
    how = {
        "crop": f"the central square of each{averaged}",
        "stretch": f"each averaged down to {size} × {size} px, its proportions lost",
        "tiles": f"up to 4 × 4 tiles of {size} × {size} px of each, as they are",
    }[resize]
    used = sides[sides >= size] if sides.max() >= size else sides  # smaller ones are left out
    low, high = used.min(), used.max()
    return f"shorter sides of {low} to {high} px; {how}" if low < high else f"shorter sides of {low} px; {how}"
