"""Luminance of an image: what the statistics and the Gabor filters look at."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Shaped
from skimage.color import rgb2gray
from skimage.util import img_as_float64


def luminance(images: Shaped[np.ndarray, "n h w c"]) -> Float64[np.ndarray, "n h w"]:
    """Luminance in [0, 1] of images that are uint8 0–255 or float64 in [0, 1].

    Three channels are weighted as by :func:`skimage.color.rgb2gray` (ITU-R BT.709); any other number of
    channels is averaged.
    """
    scaled = img_as_float64(images)
    return rgb2gray(scaled) if images.shape[-1] == 3 else scaled.mean(axis=-1)
