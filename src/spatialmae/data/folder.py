"""A user's own folder of images: PNG, JPEG and WebP of mixed sizes, modes and bit depths."""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps
from skimage.color import rgb2gray
from tqdm import tqdm

from spatialmae.data.dataset import ImageData, Split, stratified_splits
from spatialmae.errors import UserError

Resize = Literal["crop", "stretch"]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
PLAIN_MODES = ("1", "L", "P", "RGB", "CMYK")
# Pillow opens 16-bit grey PNG files as one of these, by its version.
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
BACKGROUND = (255, 255, 255)
# Larger images are taken for decompression bombs and never decoded.
MAX_PIXELS = 64_000_000
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


class _UnusableError(Exception):
    """Why an image is left out."""


@dataclass
class _Collection:
    """The usable images so far, and the files left out."""

    images: list[UInt8[np.ndarray, "h w c"]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)


def folder(
    path: Path | str,
    *,
    image_size: int,
    resize: Resize = "crop",
    grayscale: bool = False,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int,
) -> ImageData:
    """The PNG, JPEG and WebP images below ``path``, as uint8 (n, image_size, image_size, 3 or 1).

    Folders may be nested; hidden files are ignored, the others taken in the order of their names. If no usable
    image lies directly in ``path`` and at least two of its subfolders hold some, these subfolders are the
    classes of target ``label`` (int64) and splits are stratified by it.

    How pixels are read: the orientation in EXIF is applied; of an animation, the first frame; transparency is
    composited on white; grey of 16 bits is divided by 257 and rounded (colour of 16 bits is read by Pillow as
    its high byte); black and white, palette and CMYK become RGB; colour profiles are ignored. Grey images get
    three equal channels, or with ``grayscale`` colour images their luminance 0.2125 R + 0.7154 G + 0.0721 B.

    Left out, each with its reason in ``provenance["skipped"]`` (:func:`print_skipped` prints them): files
    of another kind, damaged, with a side below ``image_size`` (nothing is enlarged), of more than 64
    million pixels, or with the same bytes as an earlier file (which could put one image into two splits).

    Args:
        path: the folder.
        image_size: side in pixels.
        resize: ``crop``: the central square, averaged down; ``stretch``: the whole image averaged down,
            its proportions lost.
        grayscale: one channel in place of three.
        validation_fraction: of the usable images, in [0, 1).
        test_fraction: likewise; both together below 1.
        seed: of the splits.

    Raises:
        UserError: no such folder, an impossible value, or too few usable images for the splits.
    """
    path = Path(path)
    _check(path, image_size, resize, validation_fraction, test_fraction)
    collection = _collect(path, image_size, resize, grayscale)
    label, names = _classes(path, collection.files)
    splits = _split(path, collection, label, validation_fraction, test_fraction, seed)
    digest = hashlib.sha256("\n".join(sorted(collection.sha256)).encode()).hexdigest()
    options: dict[str, Any] = {"image_size": image_size, "resize": resize, "grayscale": grayscale, "seed": seed}
    options |= {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return ImageData(
        name=path.resolve().name,
        images=np.stack(collection.images),
        splits=splits,
        targets={"label": label} if names else {},
        class_names={"label": names} if names else {},
        provenance={
            "kind": "folder",
            "path": str(path),
            **options,
            "n_images": len(collection.images),
            "sha256": digest,
            "skipped": collection.skipped,
        },
    )


def print_skipped(data: ImageData) -> None:
    """Print which files :func:`folder` left out and why, first a count by reason."""
    skipped = data.provenance["skipped"]
    print(f"{data.provenance['n_images']} images used, {len(skipped)} files left out")
    for reason, count in Counter(entry["reason"] for entry in skipped).most_common():
        print(f"  {count} × {reason}")
    for entry in skipped:
        print(f"{entry['file']}: {entry['reason']}")


def _check(path: Path, image_size: int, resize: str, validation: float, test: float) -> None:
    """Raise UserError at the first impossible argument."""
    if not path.is_dir():
        raise UserError(path, "no such folder", "give the path of a folder of images")
    if image_size < 1:
        raise UserError("folder.image_size", f"{image_size} is no size", "use at least 1, e.g. 32")
    if resize not in get_args(Resize):
        raise UserError("folder.resize", f"{resize!r} is unknown", f"use one of {', '.join(get_args(Resize))}")
    if min(validation, test) < 0 or validation + test >= 1:
        problem = f"validation_fraction={validation} and test_fraction={test} leave nothing to train on"
        raise UserError("folder", problem, "use fractions from 0 whose sum is below 1")


def _collect(path: Path, image_size: int, resize: Resize, grayscale: bool) -> _Collection:
    """Read every usable image below ``path``."""
    collection = _Collection()
    first_with: dict[str, str] = {}
    for file in tqdm(sorted(_files(path)), desc=path.name, unit="file"):
        name = file.relative_to(path).as_posix()
        try:
            content = _content(file)
            sha256 = hashlib.sha256(content).hexdigest()
            if sha256 in first_with:
                raise _UnusableError(f"same bytes as {first_with[sha256]}")
            collection.images.append(_pixels(content, image_size, resize, grayscale))
        except _UnusableError as reason:
            collection.skipped.append({"file": name, "reason": str(reason)})
            continue
        first_with[sha256] = name
        collection.files.append(file)
        collection.sha256.append(sha256)
    return collection


def _files(path: Path) -> Iterator[Path]:
    """All files below a folder that are not hidden; links to folders are not followed."""
    for file in path.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if not hidden and file.is_file():
            yield file


def _content(file: Path) -> bytes:
    """The bytes of a file that claims to be an image."""
    if file.suffix.lower() not in SUFFIXES:
        raise _UnusableError("not named as PNG, JPEG or WebP")
    try:
        return file.read_bytes()
    except OSError as error:
        raise _UnusableError(f"cannot be read ({error.strerror})") from None


def _pixels(content: bytes, image_size: int, resize: Resize, grayscale: bool) -> UInt8[np.ndarray, "h w c"]:
    """Decode, convert and resize one image."""
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is checked below, by ours; other warnings tell of damaged metadata.
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                _check_size(image, image_size)
                upright = ImageOps.exif_transpose(image)
                plain = _plain(upright)
    except Image.DecompressionBombError:
        raise _UnusableError(f"more than {MAX_PIXELS} pixels") from None
    except DECODING_ERRORS as error:
        # Pillow's message on unknown content names an address in memory.
        reason = "not a PNG, JPEG or WebP" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise _UnusableError(f"damaged ({reason})") from None
    return _as_array(_resized(plain, image_size, resize), grayscale)


def _check_size(image: Image.Image, image_size: int) -> None:
    """Refuse, before anything is decoded, an image that is too large or too small."""
    if image.width * image.height > MAX_PIXELS:
        raise _UnusableError(f"more than {MAX_PIXELS} pixels")
    if min(image.size) < image_size:
        raise _UnusableError(f"smaller than {image_size} pixels")


def _plain(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB, 8 bits."""
    if image.mode in SIXTEEN_BIT_MODES:
        return Image.fromarray(np.rint(np.asarray(image, dtype=np.float64) / 257).astype(np.uint8))
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")
    if image.mode not in PLAIN_MODES:
        raise _UnusableError(f"mode {image.mode} is not supported")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _resized(image: Image.Image, size: int, resize: Resize) -> Image.Image:
    """``size`` × ``size`` by averaging over the area that each pixel covers."""
    if resize == "stretch":
        return image.resize((size, size), Image.Resampling.BOX)
    return ImageOps.fit(image, (size, size), Image.Resampling.BOX, centering=(0.5, 0.5))


def _as_array(image: Image.Image, grayscale: bool) -> UInt8[np.ndarray, "h w c"]:
    """Three channels, or one."""
    if not grayscale:
        return np.asarray(image.convert("RGB"))
    if image.mode == "L":
        return np.asarray(image)[..., None]
    luminance = rgb2gray(np.asarray(image, dtype=np.float64))
    return (luminance[..., None] + 0.5).astype(np.uint8)


def _classes(path: Path, files: list[Path]) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Label of each image by its first subfolder, and the classes' names; zeros and none if there are no classes."""
    parts = [file.relative_to(path).parts for file in files]
    names = tuple(sorted({part[0] for part in parts}))
    if len(names) < 2 or any(len(part) == 1 for part in parts):
        return np.zeros(len(files), np.int64), ()
    return np.array([names.index(part[0]) for part in parts], np.int64), names


def _split(
    path: Path,
    collection: _Collection,
    label: Int64[np.ndarray, " n"],
    validation: float,
    test: float,
    seed: int,
) -> dict[Split, Int64[np.ndarray, " _"]]:
    """Stratified splits, each with an image of every class if its fraction is not zero."""
    n, n_classes = len(label), len(np.unique(label))
    reasons = Counter(entry["reason"].partition(" (")[0] for entry in collection.skipped)
    left_out = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3)) or "none left out"
    mend = "add images, or change the fractions or image_size"
    few = [fraction for fraction in (validation, test) if fraction and round(n * fraction) < n_classes]
    if n == 0 or few:
        problem = f"{n} usable images ({left_out}) are too few to split into train, validation and test"
        raise UserError(path, problem, mend)
    try:
        return stratified_splits(label, validation=float(validation), test=float(test), seed=seed)
    except ValueError as error:
        raise UserError(path, f"{n} usable images ({left_out}) cannot be split: {error}", mend) from None
