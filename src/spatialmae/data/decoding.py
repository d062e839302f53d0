"""Bytes of a user's image file to uint8 squares of one size: PNG, JPEG, WebP, and NumPy arrays of any channels."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO
from typing import Literal

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps
from skimage.color import rgb2gray

Resize = Literal["crop", "stretch", "tiles"]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".npy")
FORMATS = ("PNG", "JPEG", "WEBP")
PLAIN_MODES = ("1", "L", "P", "RGB", "CMYK")
# Pillow opens 16-bit grey PNG files as one of these, by its version.
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
BACKGROUND = (255, 255, 255)
# Larger images are taken for decompression bombs and never decoded.
MAX_PIXELS = 64_000_000
TILES_PER_SIDE = 4
MOST_COLOURS = 4  # a first axis as short is no side of an image
MOST_CHANNELS = 16  # a longer last axis, where the first is the shortest by far, is a side
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


class UnusableImageError(Exception):
    """Why an image is left out."""


def shorter_side(content: bytes, suffix: str) -> tuple[int, int]:
    """Shorter side in px and channels (of grey images 1) of an image as it would be decoded; its header is enough.

    Raises:
        UnusableImageError: it cannot be used.
    """
    if suffix == ".npy":
        height, width, channels = _array(content).shape
        return min(height, width), channels
    with _opened(content) as image:
        _check_pixels(image.width, image.height)
        return min(image.size), 1 if image.mode in ("1", "L", *SIXTEEN_BIT_MODES) else 3


def squares(
    content: bytes, suffix: str, *, image_size: int, resize: Resize, channels: int
) -> list[UInt8[np.ndarray, "s s c"]]:
    """Decode, convert and resize one image.

    Args:
        content: of its file.
        suffix: one of :data:`SUFFIXES`, lower case.
        image_size: side of the squares, px.
        resize: ``crop``: the central square, averaged down; ``stretch``: the whole image averaged down; ``tiles``:
            up to 4 × 4 squares as they are, spread evenly.
        channels: 1 (luminance, or the one that there is), 3, or those of an array.

    Raises:
        UnusableImageError: it cannot be used.
    """
    picture = _array(content) if suffix == ".npy" else _picture(content, image_size)
    height, width, _ = picture.shape
    if min(height, width) < image_size:
        raise UnusableImageError(f"smaller than {image_size} pixels")
    # Averaging comes first: the luminance of means is that of the whole, and costs less.
    if resize == "tiles":
        return [with_channels(tile, channels) for tile in _tiles(picture, image_size)]
    return [with_channels(_resized(picture, image_size, resize), channels)]


def with_channels(image: UInt8[np.ndarray, "h w c"], channels: int) -> UInt8[np.ndarray, "h w c2"]:
    """Grey as three equal channels, colour as its luminance 0.2125 R + 0.7154 G + 0.0721 B, or the image itself.

    Raises:
        UnusableImageError: the image has another number of channels.
    """
    own = image.shape[-1]
    if own == channels:
        return image
    if (own, channels) == (1, 3):
        return np.repeat(image, 3, axis=-1)
    if (own, channels) == (3, 1):
        return (rgb2gray(image.astype(np.float64))[..., None] + 0.5).astype(np.uint8)
    raise UnusableImageError(f"{own} channels, not {channels}")


def _opened(content: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is checked by ours; other warnings tell of damaged metadata.
            warnings.simplefilter("ignore")
            return Image.open(BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise UnusableImageError(f"more than {MAX_PIXELS} pixels") from None
    except DECODING_ERRORS as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> UnusableImageError:
    # Pillow's message on unknown content names an address in memory.
    reason = "not a PNG, JPEG or WebP" if isinstance(error, Image.UnidentifiedImageError) else str(error)
    return UnusableImageError(f"damaged ({reason})")


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnusableImageError(f"more than {MAX_PIXELS} pixels")


def _picture(content: bytes, least_side: int) -> UInt8[np.ndarray, "h w c"]:
    """A decoded PNG, JPEG or WebP, upright, one channel or three."""
    with _opened(content) as image:
        _check_pixels(image.width, image.height)
        if min(image.size) < least_side:  # not decoded for nothing
            raise UnusableImageError(f"smaller than {least_side} pixels")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                plain = np.asarray(_plain(ImageOps.exif_transpose(image)))
        except DECODING_ERRORS as error:
            raise _damaged(error) from None
    return plain[..., None] if plain.ndim == 2 else plain


def _plain(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB, 8 bits."""
    if image.mode in SIXTEEN_BIT_MODES:
        return Image.fromarray(_sixteen_to_eight(np.asarray(image)))
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")
    if image.mode not in PLAIN_MODES:
        raise UnusableImageError(f"mode {image.mode} is not supported")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _sixteen_to_eight(values: Shaped[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    return np.rint(values.astype(np.float64) / 257).astype(np.uint8)


def _array(content: bytes) -> UInt8[np.ndarray, "h w c"]:
    """A NumPy array (h, w) or (h, w, c) of uint8, uint16 or floats in [0, 1]; nothing in it is executed."""
    array = _loaded(content)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise UnusableImageError("no array of (h, w) or (h, w, c)")
    if _is_channels_first(array.shape):
        raise UnusableImageError(f"shape {array.shape} reads as (c, h, w), not (h, w, c): move the channels last")
    _check_pixels(array.shape[1], array.shape[0])
    stacked = array[..., None] if array.ndim == 2 else array
    if stacked.dtype == np.uint8:
        return stacked
    if np.issubdtype(stacked.dtype, np.uint16):  # of either byte order
        return _sixteen_to_eight(stacked)
    if np.issubdtype(stacked.dtype, np.floating):
        _check_range(stacked)
        return np.rint(stacked.astype(np.float64) * 255).astype(np.uint8)
    raise UnusableImageError(f"{stacked.dtype} values, not uint8, uint16, or floats in [0, 1]")


def _loaded(content: bytes) -> Shaped[np.ndarray, "*shape"]:
    if not content.startswith(np.lib.format.MAGIC_PREFIX):  # else NumPy takes it for a pickle, and says how to load it
        raise UnusableImageError("damaged (no npy file)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            return np.load(BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy parses headers as Python, which fails in as many ways
        reason = str(error).strip() or type(error).__name__
        raise UnusableImageError(f"damaged ({reason.splitlines()[0][:100]})") from None


def _check_range(values: Shaped[np.ndarray, "h w c"]) -> None:
    if not np.isfinite(values).all():
        raise UnusableImageError(f"{values.dtype} values that are NaN or infinite")
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        raise UnusableImageError(f"{values.dtype} values from {low:g} to {high:g}, not in [0, 1]")


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether the last two of three axes must be an image's sides: they are alike, or the first is too short."""
    if len(shape) == 2:
        return False
    first, height, width = shape
    is_shortest = 2 * first <= min(height, width) and width > MOST_CHANNELS
    return is_shortest or first != height == width or first <= MOST_COLOURS < min(height, width)


def _resized(picture: UInt8[np.ndarray, "h w c"], size: int, resize: Resize) -> UInt8[np.ndarray, "s s c"]:
    """``size`` × ``size`` by averaging over the area that each pixel covers."""
    if picture.shape[-1] == 3:
        return np.asarray(_averaged(Image.fromarray(picture), size, resize))
    channels = [_averaged(Image.fromarray(np.ascontiguousarray(c)), size, resize) for c in np.moveaxis(picture, -1, 0)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def _averaged(image: Image.Image, size: int, resize: Resize) -> Image.Image:
    if resize == "stretch":
        return image.resize((size, size), Image.Resampling.BOX)
    return ImageOps.fit(image, (size, size), Image.Resampling.BOX, centering=(0.5, 0.5))


def _tiles(picture: UInt8[np.ndarray, "h w c"], size: int) -> list[UInt8[np.ndarray, "s s c"]]:
    """Squares that do not overlap, their outermost ones at the image's borders."""
    height, width, _ = picture.shape
    rows, columns = (_starts(length, size) for length in (height, width))
    return [picture[row : row + size, column : column + size] for row in rows for column in columns]


def _starts(length: int, size: int) -> list[int]:
    n = min(length // size, TILES_PER_SIDE)
    if n == 1:
        return [(length - size) // 2]
    return [round(i * (length - size) / (n - 1)) for i in range(n)]
