"""Common corruptions of test images at five severities, and a linear probe's accuracy under them.

After Hendrycks and Dietterich (ICLR 2019, "Benchmarking neural network robustness to common corruptions and
perturbations"), with the parameters of CIFAR-10-C: lengths are in px of 32 px images and are not scaled with other
sizes. Twelve of their nineteen. Left out: frost, which needs photographs of ice; snow, spatter, glass and zoom blur and
the elastic transform, whose results depend on details of ImageMagick and OpenCV; speckle, a fourth kind of noise.
Values are rounded to 0–255, where the authors cut off decimals; motion blur follows ImageMagick's kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image
from scipy.ndimage import correlate, gaussian_filter
from skimage.color import hsv2rgb, rgb2hsv

from spatialmae.model.trained import TrainedModel
from spatialmae.probe.linear_probe import FittedProbe
from spatialmae.probe.representation import LAYER, represent

SEVERITIES = (1, 2, 3, 4, 5)
# Images are corrupted in chunks of fixed size with a seed each, which bounds the memory.
CHUNK_SIZE = 250
DISK_HALF_WIDTH = 8  # px of the grid that the disk of defocus blur is drawn on
LARGEST_ANGLE = np.pi / 4  # of motion blur to the horizontal

# Images on the scale [0, 1]; what leaves the scale is clipped by the caller.
Images = Float64[np.ndarray, "n h w 3"]
Generator = np.random.Generator


@dataclass(frozen=True)
class Corruption:
    """A corruption with its published parameters.

    Attributes:
        group: what kind of damage.
        parameters: for each of the five severities.
        apply: of images, a parameter and a random generator.
    """

    group: Literal["noise", "blur", "weather", "digital"]
    parameters: tuple[Any, ...]
    apply: Callable[[Images, Any, Generator], Images]


def corrupt(
    images: UInt8[np.ndarray, "n h w 3"], corruption: str, severity: int, seed: int
) -> UInt8[np.ndarray, "n h w 3"]:
    """The images with one corruption.

    All severities of a corruption start from the same random state: the same noise, direction and fog, but stronger.

    Args:
        images: 0–255, in colour.
        corruption: one of :data:`CORRUPTIONS`.
        severity: 1 … 5; 0: the images as they are.
        seed: of noise, directions and fog.

    Raises:
        ValueError: the corruption or the severity is unknown, or images have no three channels.
    """
    if corruption not in CORRUPTIONS:
        raise ValueError(f"corruption: {corruption!r} is unknown; use one of {', '.join(CORRUPTIONS)}")
    if severity not in (0, *SEVERITIES):
        raise ValueError(f"severity: {severity!r} is unknown; use 0–{len(SEVERITIES)}")
    if images.shape[3] != 3:
        raise ValueError(f"images have {images.shape[3]} channels, corruptions are of 3; give images in colour")
    if severity == 0:
        return images.copy()
    chosen = CORRUPTIONS[corruption]
    result = np.empty_like(images)
    for chunk, start in enumerate(range(0, len(images), CHUNK_SIZE)):
        rows = slice(start, start + CHUNK_SIZE)
        # The name and not its place, so that a corruption more changes no other.
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*corruption.encode(), chunk)))
        result[rows] = _to_bytes(chosen.apply(images[rows] / 255.0, chosen.parameters[severity - 1], rng))
    return result


@dataclass(frozen=True)
class CorruptedImages:
    """Test images under many corruptions, made once for all models that are compared.

    Attributes:
        clean: the images as they are.
        corrupted: the images by corruption and severity.
        seed: of the corruptions.
    """

    clean: UInt8[np.ndarray, "n h w 3"]
    corrupted: dict[tuple[str, int], UInt8[np.ndarray, "n h w 3"]]
    seed: int

    @classmethod
    def of(
        cls,
        images: UInt8[np.ndarray, "n h w 3"],
        seed: int,
        corruptions: Sequence[str] | None = None,
        severities: Sequence[int] = SEVERITIES,
    ) -> CorruptedImages:
        """Corrupt the images in every way, by default all ways there are; takes as many times their memory.

        Raises:
            ValueError: a corruption or severity is unknown, or images have no three channels.
        """
        ways = [(name, severity) for name in (corruptions or CORRUPTIONS) for severity in severities]
        return cls(images, {way: corrupt(images, *way, seed) for way in ways}, seed)


def corruption_rows(
    run: TrainedModel, probe: FittedProbe, test: CorruptedImages, labels: Int64[np.ndarray, " n"]
) -> list[dict[str, Any]]:
    """Accuracy of a probe, as it was fitted to clean training images, on corrupted test images.

    Args:
        run: the model that the probe is of.
        probe: see :func:`~spatialmae.probe.linear_probe.fit_linear_probe`.
        test: the images.
        labels: their classes.

    Returns:
        A row for each corruption and severity: ``accuracy``, and ``clean_accuracy`` on the same images.
    """
    feature = probe.row["feature"]

    def accuracy(shown: UInt8[np.ndarray, "n h w 3"]) -> float:
        return probe.score(represent(run, shown, feature), labels)

    clean = accuracy(test.clean)
    return [
        {
            "target": probe.row["target"],
            "corruption": name,
            "group": CORRUPTIONS[name].group,
            "severity": severity,
            "accuracy": accuracy(shown),
            "clean_accuracy": clean,
            "n_test": len(shown),
            "corruption_seed": test.seed,
            "feature": feature,
            "layer": LAYER,
            "probe_fitted_on": "clean training images",
        }
        for (name, severity), shown in test.corrupted.items()
    ]


def _to_bytes(images: Images) -> UInt8[np.ndarray, "n h w 3"]:
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)


def _gaussian_noise(images: Images, std: float, rng: Generator) -> Images:
    return images + std * rng.standard_normal(images.shape)


def _shot_noise(images: Images, photons: float, rng: Generator) -> Images:
    """Poisson noise; white is so many photons on average."""
    return rng.poisson(images * photons) / photons


def _impulse_noise(images: Images, amount: float, rng: Generator) -> Images:
    """That share of the numbers, not of the pixels, set to 0 or 1."""
    hit = rng.random(images.shape) <= amount
    return np.where(hit, rng.random(images.shape) <= 0.5, images)


def _gaussian_blur(images: Images, sigma: float, rng: Generator) -> Images:
    return gaussian_filter(images, sigma, mode="nearest", axes=(1, 2))


def _defocus_blur(images: Images, parameter: tuple[float, float], rng: Generator) -> Images:
    return correlate(images, disk(*parameter)[None, :, :, None], mode="mirror")


def disk(radius: float, smoothing: float) -> Float64[np.ndarray, "17 17"]:
    """A disk that sums to 1, its edge smoothed by a 3 × 3 Gaussian of deviation ``smoothing``; lengths in px."""
    offset = np.arange(-DISK_HALF_WIDTH, DISK_HALF_WIDTH + 1)
    inside = (offset**2 + offset[:, None] ** 2 <= radius**2).astype(np.float64)
    taps = np.exp(-(np.array([-1.0, 0.0, 1.0]) ** 2) / (2 * smoothing**2))
    taps /= taps.sum()
    return correlate(inside / inside.sum(), taps[:, None] * taps, mode="constant")


def _motion_blur(images: Images, parameter: tuple[int, float], rng: Generator) -> Images:
    """Each image smeared in a direction of its own by half a Gaussian; beyond the border the outermost pixels go on."""
    radius, sigma = parameter
    n, height, width, _ = images.shape
    angle = rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE, n)
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    image = np.arange(n)[:, None, None]
    blurred = np.zeros_like(images)
    for step, weight in zip(steps, weights, strict=True):
        row = np.arange(height) + np.rint(step * np.sin(angle)).astype(np.int64)[:, None]
        column = np.arange(width) + np.rint(step * np.cos(angle)).astype(np.int64)[:, None]
        rows, columns = row.clip(0, height - 1)[:, :, None], column.clip(0, width - 1)[:, None, :]
        blurred += weight * images[image, rows, columns]
    return blurred


def _fog(images: Images, parameter: tuple[float, float], rng: Generator) -> Images:
    thickness, decay = parameter
    n, height, width, _ = images.shape
    side = 1 << (max(height, width) - 1).bit_length()
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    fog = plasma(n, side, decay, rng)[:, :height, :width, None]
    return (images + thickness * fog) * brightest / (brightest + thickness)


def plasma(n: int, side: int, decay: float, rng: Generator) -> Float64[np.ndarray, "n side side"]:
    """Periodic fractal clouds by the diamond-square algorithm, each from 0 to 1.

    Args:
        n: how many.
        side: in px, a power of two, at least 2.
        decay: noise shrinks by its square each time that the grid is halved, so that a larger one is smoother.
        rng: draws the noise.
    """
    heights = np.zeros((n, side, side))
    step, amplitude = side, 1.0

    def disturbed(four: Float64[np.ndarray, "n r c"]) -> Float64[np.ndarray, "n r c"]:
        """The mean of four neighbours, given their sum, and noise."""
        return four / 4 + amplitude * rng.uniform(-1, 1, four.shape)

    while step >= 2:
        half = step // 2
        corner = heights[:, ::step, ::step]
        pairs = corner + np.roll(corner, -1, axis=1)
        centre = disturbed(pairs + np.roll(pairs, -1, axis=2))
        heights[:, half::step, half::step] = centre
        across = corner + np.roll(corner, -1, axis=2) + centre + np.roll(centre, 1, axis=1)
        heights[:, ::step, half::step] = disturbed(across)
        down = corner + np.roll(corner, -1, axis=1) + centre + np.roll(centre, 1, axis=2)
        heights[:, half::step, ::step] = disturbed(down)
        step, amplitude = half, amplitude / decay**2
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / heights.max(axis=(1, 2), keepdims=True)


def _brightness(images: Images, added: float, rng: Generator) -> Images:
    hsv = rgb2hsv(images)
    hsv[..., 2] = np.clip(hsv[..., 2] + added, 0, 1)
    return hsv2rgb(hsv)


def _saturate(images: Images, parameter: tuple[float, float], rng: Generator) -> Images:
    factor, added = parameter
    hsv = rgb2hsv(images)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + added, 0, 1)
    return hsv2rgb(hsv)


def _contrast(images: Images, factor: float, rng: Generator) -> Images:
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + factor * (images - mean)


def _pixelate(images: Images, share: float, rng: Generator) -> Images:
    height, width = images.shape[1:3]
    small = int(width * share), int(height * share)
    box = Image.Resampling.BOX
    coarse = (picture.resize(small, box).resize((width, height), box) for picture in _pil(images))
    return np.stack([np.asarray(picture) for picture in coarse]) / 255


def _jpeg_compression(images: Images, quality: int, rng: Generator) -> Images:
    def compressed(picture: Image.Image) -> np.ndarray:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return np.stack([compressed(picture) for picture in _pil(images)]) / 255


def _pil(images: Images) -> Iterator[Image.Image]:
    return map(Image.fromarray, _to_bytes(images))


# A saturation below 1 and then above it: the severities of `saturate` are no order of damage.
CORRUPTIONS = {
    "gaussian_noise": Corruption("noise", (0.04, 0.06, 0.08, 0.09, 0.10), _gaussian_noise),
    "shot_noise": Corruption("noise", (500, 250, 100, 75, 50), _shot_noise),
    "impulse_noise": Corruption("noise", (0.01, 0.02, 0.03, 0.05, 0.07), _impulse_noise),
    "gaussian_blur": Corruption("blur", (0.4, 0.6, 0.7, 0.8, 1.0), _gaussian_blur),
    "defocus_blur": Corruption("blur", ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)), _defocus_blur),
    "motion_blur": Corruption("blur", ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)), _motion_blur),
    "fog": Corruption("weather", ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)), _fog),
    "brightness": Corruption("weather", (0.05, 0.1, 0.15, 0.2, 0.3), _brightness),
    "contrast": Corruption("digital", (0.75, 0.5, 0.4, 0.3, 0.15), _contrast),
    "saturate": Corruption("digital", ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)), _saturate),
    "pixelate": Corruption("digital", (0.95, 0.9, 0.85, 0.75, 0.65), _pixelate),
    "jpeg_compression": Corruption("digital", (80, 65, 58, 50, 40), _jpeg_compression),
}
