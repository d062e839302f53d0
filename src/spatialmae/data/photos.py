"""Patches of the real photographs, textures and stereo scene inside the wheels of scikit-image and scikit-learn.

Offline: files are read from the installed packages and nothing is ever downloaded. An image, or a block of
it, is cut into bands, one split each, and patches never straddle two bands: no pixel is in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.color import rgb2gray
from skimage.transform import downscale_local_mean

from spatialmae.data.dataset import SPLITS, ImageData, Split
from spatialmae.errors import UserError

# name: (package, distribution, file inside the package)
_SKIMAGE, _SKLEARN = ("skimage", "scikit-image", "data"), ("sklearn", "scikit-learn", "datasets/images")
FILES = {
    "astronaut": (*_SKIMAGE, "astronaut.png"),
    "chelsea": (*_SKIMAGE, "chelsea.png"),
    "coffee": (*_SKIMAGE, "coffee.png"),
    "rocket": (*_SKIMAGE, "rocket.jpg"),
    "motorcycle": (*_SKIMAGE, "motorcycle_left.png"),
    "china": (*_SKLEARN, "china.jpg"),
    "flower": (*_SKLEARN, "flower.jpg"),
    "brick": (*_SKIMAGE, "brick.png"),
    "grass": (*_SKIMAGE, "grass.png"),
    "gravel": (*_SKIMAGE, "gravel.png"),
    "disparity": (*_SKIMAGE, "motorcycle_disp.npz"),
}
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle", "china", "flower")
TEXTURES = ("brick", "grass", "gravel")

# Bands of a photograph from left to right: 60 % train, 20 % validation, 20 % test, the last two inside.
PHOTO_BANDS: tuple[Split, ...] = ("train", "validation", "train", "test", "train")
# Bands of a block, which is too small for so many: their order changes from block to block.
BLOCK_BANDS: tuple[tuple[Split, float], ...] = (("train", 0.6), ("validation", 0.2), ("test", 0.2))
PATCHES_ACROSS_BLOCK = 5

# Calibration of the motorcycle pair at the resolution in scikit-image (its docstring; Scharstein et al., 2014).
FOCAL_LENGTH_PX, BASELINE_M, PRINCIPAL_POINT_OFFSET_PX = 994.978, 0.193001, 31.086


@dataclass(frozen=True)
class Band:
    """A rectangle of one source that belongs to one split: rows and columns as half-open intervals."""

    source: int
    split: Split
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True)
class Location:
    """Upper left corner of a patch, and where it belongs."""

    band: Band
    row: int
    column: int


def photos(*, image_size: int, stride: int, downscale: int = 1, grayscale: bool = False) -> ImageData:
    """Patches of seven photographs: :data:`PHOTOS`.

    A photograph is cut from left to right into five bands of equal width, :data:`PHOTO_BANDS`. ``sources``
    is the index of the photograph: intervals resample photographs.

    Args:
        image_size: side of a patch in pixels, after downscaling.
        stride: distance of neighbouring patches in pixels, after downscaling; below ``image_size`` they overlap
            (within their band).
        downscale: factor by which photographs are averaged down first.
        grayscale: one channel (luminance 0.2125 R + 0.7154 G + 0.0721 B) in place of three.

    Raises:
        UserError: an impossible value, a band that holds no patch, or a file missing from the wheels.
    """
    _check("photos", image_size, stride, downscale)
    pictures = [_downscaled(_picture(name, grayscale), downscale) for name in PHOTOS]
    bands = [band for source, picture in enumerate(pictures) for band in _photo_bands(picture, source)]
    patches = [(_locations(band, image_size, stride), pictures[band.source]) for band in bands]
    _check_filled("photos", patches, image_size)
    options = {"image_size": image_size, "stride": stride, "downscale": downscale, "grayscale": grayscale}
    return _image_data("photos", patches, image_size, _provenance("photos", PHOTOS, options))


def textures(
    *,
    image_size: int,
    stride: int,
    downscale: int = 1,
    grayscale: bool = True,
    block_size: int | None = None,
) -> ImageData:
    """Grey patches of three photographed textures, :data:`TEXTURES`, with target ``label``.

    The photographs have one channel. Each is cut into square blocks of about ``block_size``, and every block
    into three bands, 60 % train, 20 % validation, 20 % test. ``sources`` is the index of the block.

    Args:
        image_size: side of a patch in pixels, after downscaling.
        stride: distance of neighbouring patches in pixels, after downscaling.
        downscale: factor by which photographs are averaged down first.
        grayscale: True; three channels would be copies of one.
        block_size: least side of a block in pixels, after downscaling; None: 5 ``image_size``, the smallest
            whose bands all hold a patch.

    Raises:
        UserError: an impossible value, a photograph that holds no block, or a file missing from the wheels.
    """
    _check("textures", image_size, stride, downscale)
    if not grayscale:
        raise UserError("textures.grayscale", "these photographs are grey", "set grayscale: true")
    block_size = _block_size("textures", block_size, image_size)
    pictures = [_downscaled(_picture(name, grayscale=True), downscale) for name in TEXTURES]
    patches, label, n_blocks = [], [], 0
    for index, picture in enumerate(pictures):
        bands = list(_block_bands("textures", picture.shape[:2], block_size, n_blocks))
        n_blocks = bands[-1].source + 1
        patches += [(_locations(band, image_size, stride), picture) for band in bands]
        label += [index] * sum(len(locations) for locations, _ in patches[-len(bands) :])
    _check_filled("textures", patches, image_size)
    options = {"image_size": image_size, "stride": stride, "downscale": downscale, "block_size": block_size}
    provenance = _provenance("textures", TEXTURES, options)
    targets = {"label": np.array(label, dtype=np.int64)}
    return _image_data("textures", patches, image_size, provenance, targets, {"label": TEXTURES})


def depth(
    *,
    image_size: int,
    stride: int,
    downscale: int = 1,
    grayscale: bool = False,
    block_size: int | None = None,
    max_invalid: float = 0.05,
) -> ImageData:
    """Patches of the Middlebury motorcycle scene with measured depth.

    Target ``depth`` is float32 (n, h, w) in metres, z = f B / (disparity + c) with the pair's calibration,
    2.1 m (nearest) to 5.0 m. Where no disparity was measured, depth is that of the nearest measured pixel
    *of the patch*, and target ``valid`` (uint8 (n, h, w)) is 0; patches with more than a fraction
    ``max_invalid`` of such pixels are dropped. Blocks, bands and ``sources`` are as in :func:`textures`.
    One scene: it carries no verdict about a population.

    Args:
        image_size: side of a patch in pixels, after downscaling.
        stride: distance of neighbouring patches in pixels, after downscaling.
        downscale: factor by which picture and depth are averaged down first; depth over measured pixels,
            and it counts as measured where at least half of them are.
        grayscale: one channel (luminance) in place of three.
        block_size: least side of a block, as in :func:`textures`.
        max_invalid: largest fraction of unmeasured pixels in a patch that is kept, in [0, 1).

    Raises:
        UserError: an impossible value, a scene that holds no block, or a file missing from the wheels.
    """
    _check("depth", image_size, stride, downscale)
    if not 0 <= max_invalid < 1:
        raise UserError("depth.max_invalid", f"{max_invalid} is not a fraction below 1", "use about 0.05")
    block_size = _block_size("depth", block_size, image_size)
    picture = _downscaled(_picture("motorcycle", grayscale), downscale)
    metres = _downscaled_depth(_metric_depth(), downscale)
    bands = list(_block_bands("depth", picture.shape[:2], block_size, 0))
    located = [_locations(band, image_size, stride) for band in bands]
    kept = [[at for at in band if _invalid(metres, at, image_size) <= max_invalid] for band in located]
    patches = [(locations, picture) for locations in kept]
    windows = [_window(metres, at, image_size) for locations in kept for at in locations]
    if any(not any(at.band.split == split for band in kept for at in band) for split in SPLITS):
        problem = f"no patch of {image_size} pixels has enough measured depth in some split"
        raise UserError("depth", problem, "raise max_invalid or lower image_size")
    targets = {
        "depth": np.stack([_filled(window) for window in windows]),
        "valid": np.stack([np.isfinite(window) for window in windows]).astype(np.uint8),
    }
    options: dict[str, Any] = {"image_size": image_size, "stride": stride, "downscale": downscale}
    options |= {"grayscale": grayscale, "block_size": block_size, "max_invalid": max_invalid}
    provenance = _provenance("depth", ("motorcycle", "disparity"), options)
    provenance |= {"depth_unit": "m", "dropped": sum(map(len, located)) - len(windows)}
    return _image_data("depth", patches, image_size, provenance, targets)


def _check(source: str, image_size: int, stride: int, downscale: int) -> None:
    """Raise UserError for a size that is not at least 1."""
    for name, value in (("image_size", image_size), ("stride", stride), ("downscale", downscale)):
        if value < 1:
            raise UserError(f"{source}.{name}", f"{value} is not a number of pixels", "use at least 1")


def _block_size(source: str, block_size: int | None, image_size: int) -> int:
    """``block_size`` or its default, checked so that each of a block's bands holds a patch."""
    least = PATCHES_ACROSS_BLOCK * image_size
    if block_size is not None and block_size < least:
        problem = f"{block_size} leaves a split of a block without a patch of {image_size} pixels"
        raise UserError(f"{source}.block_size", problem, f"use at least {least}")
    return block_size or least


def _package_file(name: str) -> Path:
    """Path of a file carried in a wheel.

    Raises:
        UserError: the wheel does not carry it (nothing is downloaded in its place).
    """
    package, distribution, folder, file = FILES[name]
    with as_file(files(package).joinpath(folder, file)) as path:
        if not path.is_file():
            problem = f"{distribution} {version(distribution)} does not carry this image"
            raise UserError(path, problem, f"install another version of {distribution}")
        return path


def _picture(name: str, grayscale: bool) -> Float64[np.ndarray, "h w c"]:
    """A photograph with values 0–255, three channels or one."""
    with Image.open(_package_file(name)) as image:
        colour = np.asarray(image.convert("RGB"), dtype=np.float64)
        if image.mode == "L":
            return colour[..., :1]
    return rgb2gray(colour)[..., None] if grayscale else colour


def _metric_depth() -> Float64[np.ndarray, "h w"]:
    """Depth of the motorcycle scene in metres; NaN where no disparity was measured (stored as infinite)."""
    with np.load(_package_file("disparity")) as archive:
        disparity = archive["arr_0"].astype(np.float64)
    disparity[~np.isfinite(disparity)] = np.nan
    return FOCAL_LENGTH_PX * BASELINE_M / (disparity + PRINCIPAL_POINT_OFFSET_PX)


def _cropped(picture: Shaped[np.ndarray, "h w ..."], factor: int) -> Shaped[np.ndarray, "h2 w2 ..."]:
    """Without the last rows and columns that do not fill a block of ``factor``."""
    height, width = picture.shape[:2]
    return picture[: height - height % factor, : width - width % factor]


def _downscaled(picture: Float64[np.ndarray, "h w c"], factor: int) -> UInt8[np.ndarray, "h2 w2 c"]:
    """Mean over blocks of ``factor``, rounded once."""
    mean = downscale_local_mean(_cropped(picture, factor), (factor, factor, 1))
    return (mean + 0.5).astype(np.uint8)


def _downscaled_depth(depth: Float64[np.ndarray, "h w"], factor: int) -> Float32[np.ndarray, "h2 w2"]:
    """Mean over the measured pixels of blocks of ``factor``; NaN where fewer than half are."""
    cropped = _cropped(depth, factor)
    measured = np.isfinite(cropped)
    fraction = downscale_local_mean(measured.astype(np.float64), (factor, factor))
    total = downscale_local_mean(np.where(measured, cropped, 0.0), (factor, factor))
    mean = np.full(fraction.shape, np.nan)
    np.divide(total, fraction, out=mean, where=fraction >= 0.5)
    return mean.astype(np.float32)


def _cuts(length: int, fractions: Sequence[float]) -> list[tuple[int, int]]:
    """Consecutive half-open intervals that divide 0 … length in the given proportions."""
    edges = np.concatenate([[0], np.floor(length * np.cumsum(fractions) + 1e-9).astype(int)])
    return [(int(start), int(stop)) for start, stop in pairwise(edges)]


def _photo_bands(picture: UInt8[np.ndarray, "h w c"], source: int) -> list[Band]:
    """The bands of a whole photograph."""
    height, width = picture.shape[:2]
    columns = _cuts(width, [1 / len(PHOTO_BANDS)] * len(PHOTO_BANDS))
    return [Band(source, split, (0, height), cut) for split, cut in zip(PHOTO_BANDS, columns, strict=True)]


def _block_bands(source: str, shape: tuple[int, ...], block_size: int, first: int) -> Iterator[Band]:
    """The bands of all blocks of a picture, blocks counted from ``first``; the splits' order rotates."""
    height, width = shape
    if min(height, width) < block_size:
        problem = f"a picture of {height}×{width} pixels holds no block of {block_size}"
        raise UserError(source, problem, "lower image_size, block_size or downscale")
    grid = [_cuts(length, [1 / (length // block_size)] * (length // block_size)) for length in (height, width)]
    blocks = [(rows, columns) for rows in grid[0] for columns in grid[1]]
    for index, (rows, (left, right)) in enumerate(blocks):
        turn = index % len(BLOCK_BANDS)
        order = BLOCK_BANDS[turn:] + BLOCK_BANDS[:turn]
        cuts = _cuts(right - left, [share for _, share in order])
        for (split, _), (start, stop) in zip(order, cuts, strict=True):
            yield Band(first + index, split, rows, (left + start, left + stop))


def _locations(band: Band, image_size: int, stride: int) -> list[Location]:
    """All patches of a band."""
    rows, columns = (range(start, stop - image_size + 1, stride) for start, stop in (band.rows, band.columns))
    return [Location(band, row, column) for row in rows for column in columns]


def _check_filled(source: str, patches: list[tuple[list[Location], np.ndarray]], image_size: int) -> None:
    """Raise UserError if a band holds no patch."""
    if not all(locations for locations, _ in patches):
        problem = f"patches of {image_size} pixels do not fit into a fifth of every photograph"
        raise UserError(f"{source}.image_size", problem, "lower image_size or downscale")


def _window(picture: Shaped[np.ndarray, "h w ..."], at: Location, size: int) -> Shaped[np.ndarray, "p p ..."]:
    """The patch at a location."""
    return picture[at.row : at.row + size, at.column : at.column + size]


def _invalid(metres: Float32[np.ndarray, "h w"], at: Location, size: int) -> float:
    """Fraction of a patch's pixels without measured depth."""
    return float(np.isnan(_window(metres, at, size)).mean())


def _filled(depth: Float32[np.ndarray, "p p"]) -> Float32[np.ndarray, "p p"]:
    """Unmeasured pixels (NaN) take the value of the nearest measured one."""
    nearest = distance_transform_edt(np.isnan(depth), return_distances=False, return_indices=True)
    return depth[tuple(nearest)]


def _image_data(
    name: str,
    patches: list[tuple[list[Location], np.ndarray]],
    image_size: int,
    provenance: dict[str, Any],
    targets: dict[str, np.ndarray] | None = None,
    class_names: dict[str, tuple[str, ...]] | None = None,
) -> ImageData:
    """Cut out the patches, band by band."""
    bands = [at.band for locations, _ in patches for at in locations]
    split = np.array([band.split for band in bands])
    return ImageData(
        name=name,
        images=np.stack([_window(picture, at, image_size) for locations, picture in patches for at in locations]),
        splits={name: np.flatnonzero(split == name) for name in SPLITS},
        targets=targets or {},
        class_names=class_names or {},
        sources=np.array([band.source for band in bands], dtype=np.int64),
        provenance=provenance,
    )


def _provenance(kind: str, names: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Options, and the files used with their package's version and their hash."""
    used = [
        {
            "name": name,
            "package": FILES[name][1],
            "version": version(FILES[name][1]),
            "sha256": hashlib.sha256(_package_file(name).read_bytes()).hexdigest(),
        }
        for name in names
    ]
    return {"kind": kind, **options, "files": used}
