"""Published cue-conflict stimuli: the shape of one object with the texture of another (Geirhos et al., ICLR 2019).

Style transfer made them of photographs of 16 classes; 80 of the 1,280 have both cues of one class. Their repository
holds them at 224 pixels, as single files; an archive of them at 64 pixels is read here, and only a mirror has it.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from spatialmae.data.dataset import ImageData, Split
from spatialmae.data.decoding import DECODING_ERRORS
from spatialmae.data.download import MIRRORS_VARIABLE, Archive, Published, find_archive
from spatialmae.errors import UserError

PUBLISHED = Published(
    name="cue-conflict-64.tar",
    url="https://github.com/rgeirhos/texture-vs-shape",  # of the originals
    sha256="d8f225346a76796fce3372d041998d3ced6097cc28f4b09f36c0d0bed2c831c4",
)
CLASSES = (
    *("airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat"),
    *("chair", "clock", "dog", "elephant", "keyboard", "knife", "oven", "truck"),
)
# The stimuli's classes that CIFAR-10 has too, by its names for them.
CIFAR10_NAMES = {
    **{name: name for name in ("airplane", "bird", "cat", "dog", "truck")},
    "car": "automobile",
    "boat": "ship",
}
N_STIMULI = 1280
SIDE = 64
MAX_FILE_BYTES = 1 << 15
_ONE = "|".join(CLASSES)
NAME = re.compile(rf"cue-conflict-64/(?P<shape>{_ONE})/(?P=shape)\d+-(?P<texture>{_ONE})\d+\.png")


class _Stimulus(NamedTuple):
    """One image, and the classes of its cues."""

    shape: str
    texture: str
    pixels: UInt8[np.ndarray, "64 64 3"]


def cue_conflict(*, cache: Path | str, image_size: int = 32) -> ImageData:
    """The stimuli, all of them test images, with targets ``shape`` and ``texture`` (int64, classes :data:`CLASSES`).

    Images are uint8 (1280, image_size, image_size, 3), each pixel the mean of a block of the archive's, in the order of
    their names. The archive comes from a folder of ``SPATIALMAE_MIRRORS`` or from ``cache``; ``provenance`` records its
    hash and whether it is the one known here.

    Args:
        cache: folder for downloads.
        image_size: side in pixels, a divisor of 64.

    Raises:
        UserError: the archive is not to be had or is damaged, or the size is no divisor.
    """
    if image_size < 1 or SIDE % image_size:
        problem = f"blocks of {SIDE} px images do not tile {image_size} px"
        raise UserError("cue_conflict.image_size", problem, f"use a divisor of {SIDE}")
    archive = _find(cache)
    stimuli = [stimulus for _, stimulus in sorted(_read(archive.path).items())]
    labels = {
        "shape": [CLASSES.index(stimulus.shape) for stimulus in stimuli],
        "texture": [CLASSES.index(stimulus.texture) for stimulus in stimuli],
    }
    return ImageData(
        name="cue_conflict",
        images=_block_means(np.stack([stimulus.pixels for stimulus in stimuli]), SIDE // image_size),
        splits=_all_test(len(stimuli)),
        targets={cue: np.array(values, dtype=np.int64) for cue, values in labels.items()},
        class_names={"shape": CLASSES, "texture": CLASSES},
        provenance={"kind": "cue_conflict", "image_size": image_size, **archive.provenance()},
    )


def with_classes_of(data: ImageData, class_names: Sequence[str], names: Mapping[str, str] = CIFAR10_NAMES) -> ImageData:
    """The stimuli both of whose cues are classes of another data set, labelled as they are there.

    Of CIFAR-10's classes there are 245, of which 35 have the same cue twice.

    Args:
        data: of :func:`cue_conflict`.
        class_names: of the other data set, in label order.
        names: for some of :data:`CLASSES` the other data set's name.

    Raises:
        ValueError: the other data set lacks a class.
    """
    missing = sorted(set(names.values()) - set(class_names))
    if missing:
        raise ValueError(f"class_names: {missing[0]} is not among {', '.join(class_names)}; name classes it has")
    label = np.array([class_names.index(names[name]) if name in names else -1 for name in CLASSES], dtype=np.int64)
    labels = {cue: label[data.targets[cue]] for cue in ("shape", "texture")}
    rows = np.flatnonzero((labels["shape"] >= 0) & (labels["texture"] >= 0))
    return ImageData(
        name=data.name,
        images=data.images[rows],
        splits=_all_test(len(rows)),
        targets={cue: values[rows] for cue, values in labels.items()},
        class_names={cue: tuple(class_names) for cue in labels},
        provenance=data.provenance | {"classes": dict(names)},
    )


def _all_test(n: int) -> dict[Split, Int64[np.ndarray, " _"]]:
    """Splits of images that are never trained on."""
    rows = np.arange(n, dtype=np.int64)
    return {"train": rows[:0], "validation": rows[:0], "test": rows}


def _find(cache: Path | str) -> Archive:
    archive = find_archive(PUBLISHED, cache)
    if archive is None:
        problem = f"in no mirror, and published as single files alone ({PUBLISHED.url})"
        raise UserError(PUBLISHED.name, problem, f"set {MIRRORS_VARIABLE} to a folder that holds the archive")
    return archive


def _read(path: Path) -> dict[str, _Stimulus]:
    """The stimuli by name, read into memory; nothing is written to disk, and other files are passed over.

    Raises:
        UserError: the archive is damaged, or holds fewer or more stimuli than were published.
    """
    stimuli = {}
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                name = NAME.fullmatch(str(PurePosixPath(member.name)))
                if name is not None:
                    stimuli[name[0]] = _Stimulus(name["shape"], name["texture"], _read_member(path, tar, member))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _damaged(path, str(error)) from None
    if len(stimuli) != N_STIMULI:
        raise _damaged(path, f"it holds {len(stimuli)} stimuli, not {N_STIMULI}")
    return stimuli


def _read_member(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> UInt8[np.ndarray, "64 64 3"]:
    """One image, from a regular file of possible size."""
    file = tar.extractfile(member) if member.isreg() else None
    if file is None or member.size > MAX_FILE_BYTES:
        raise _damaged(path, f"{member.name} is not a file of at most {MAX_FILE_BYTES} bytes")
    try:
        with Image.open(BytesIO(file.read()), formats=("PNG",)) as image:
            # Known before the pixels are decoded.
            size, pixels = image.size, np.asarray(image.convert("RGB")) if image.size == (SIDE, SIDE) else None
    except (*DECODING_ERRORS, Image.DecompressionBombError) as error:
        raise _damaged(path, f"{member.name} is no PNG image ({error})") from None
    if pixels is None:
        raise _damaged(path, f"{member.name} has {size[0]} × {size[1]} px, not {SIDE} × {SIDE}")
    return pixels


def _block_means(images: UInt8[np.ndarray, "n H W 3"], factor: int) -> UInt8[np.ndarray, "n h w 3"]:
    """Mean of each ``factor`` × ``factor`` block, halves rounded up."""
    n, height, width, channels = images.shape
    blocks = images.reshape(n, height // factor, factor, width // factor, factor, channels)
    return ((blocks.sum(axis=(2, 4), dtype=np.int64) + factor**2 // 2) // factor**2).astype(np.uint8)


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(path, f"damaged archive: {problem}", "delete it, and copy it again")
