"""Images resident on the device as uint8; shuffled, augmented and normalised there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from math import log
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from spatialmae.artifacts import read_tensors
from spatialmae.errors import UserError
from spatialmae.shapes import Float, Int64, UInt8
from spatialmae.train.settings import Augmentation
from spatialmae.train.surrogate import GaussianSurrogate


@dataclass(frozen=True)
class TrainingImages:
    """Images to train and to validate on.

    Attributes:
        train: uint8 (n, C, H, W).
        validation: uint8 (n, C, H, W), perhaps none.
        mean: of each channel of the training images, in [0, 1].
        std: likewise, never 0.
        sha256: of the pixels and the splits.
    """

    train: UInt8[Tensor, "n C H W"]
    validation: UInt8[Tensor, "v C H W"]
    mean: Float[Tensor, " C"]
    std: Float[Tensor, " C"]
    sha256: str

    @classmethod
    def load(cls, path: Path | str) -> TrainingImages:
        """Read the images that stage ``data`` wrote.

        Raises:
            UserError: the file is missing, damaged, or no data set.
        """
        try:
            tensors = read_tensors(path, "images")[0] | read_tensors(path, "splits/")[0]
        except UserError as error:
            hint = f"make it, spatialmae data {Path(path).stem} --config FILE, or carry it here"
            raise UserError(path, error.problem, hint) from None
        try:
            images, train, validation = (tensors[name] for name in ("images", "splits/train", "splits/validation"))
        except KeyError as error:
            raise UserError(path, f"{error.args[0]} is not in it", "give a file that stage data wrote") from None
        if images.dtype != np.uint8 or images.ndim != 4 or len(train) == 0:
            problem = f"images are {images.dtype} {images.shape}, {len(train)} to train on"
            raise UserError(path, problem, "give uint8 images (n, h, w, c) with a training split")
        digest = hashlib.sha256()
        for array in (images, train, validation):
            # With their shapes: the same images split otherwise are other data.
            digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        chosen = images[train]
        mean, std = channel_statistics(chosen)
        return cls(_channels_first(chosen), _channels_first(images[validation]), mean, std, digest.hexdigest())

    def to(self, device: torch.device) -> TrainingImages:
        """The same images on another device."""
        train, validation, mean, std = (x.to(device) for x in (self.train, self.validation, self.mean, self.std))
        return TrainingImages(train, validation, mean, std, self.sha256)

    def normalise(self, images: Tensor) -> Float[Tensor, "N C H W"]:
        """uint8, or float on the scale 0–255, to zero mean and unit variance by channel."""
        scale = 1 / (255 * self.std)
        return images * scale[:, None, None] - (self.mean / self.std)[:, None, None]

    @cached_property
    def surrogate(self) -> GaussianSurrogate:
        """Gaussian images with the training images' moments: made when first asked for, then kept.

        Raises:
            ValueError: there are too few training images.
        """
        return GaussianSurrogate.of(self.normalise(batch) for batch in self.train.split(2000))

    def batch(
        self, ids: Int64[Tensor, " N"], augmentation: Augmentation, crop_scale: float, generator: torch.Generator
    ) -> Float[Tensor, "N C H W"]:
        """Normalised training images, augmented."""
        images = self.train[ids]
        if augmentation == "crop":
            return self.normalise(random_resized_crop(images.float(), crop_scale, generator))
        images = self.normalise(images)
        return random_flip(images, generator) if augmentation == "flip" else images


def _channels_first(images: UInt8[np.ndarray, "n H W C"]) -> UInt8[Tensor, "n C H W"]:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def channel_statistics(images: UInt8[np.ndarray, "n H W C"]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Mean and standard deviation of each channel on the scale [0, 1], exact in integers; a constant channel gets 1."""
    mean, std = [], []
    for channel in range(images.shape[3]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        centre = float(counts @ values / counts.sum())
        spread = float(counts @ (values - centre) ** 2 / counts.sum()) ** 0.5
        mean.append(centre)
        std.append(spread or 1.0)
    return torch.tensor(mean), torch.tensor(std)


def random_flip(images: Float[Tensor, "N C H W"], generator: torch.Generator) -> Float[Tensor, "N C H W"]:
    """Each image mirrored left to right with probability one half."""
    flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


def random_resized_crop(
    images: Float[Tensor, "N C H W"], smallest: float, generator: torch.Generator
) -> Float[Tensor, "N C H W"]:
    """A random part of each image, resized bilinearly to the image's size, and mirrored with probability one half.

    After He et al. (2022): the part has a share of the area uniform in [``smallest``, 1] and an aspect ratio
    log-uniform in [3/4, 4/3]. Unlike there, interpolation is bilinear, and a side that exceeds the image is cut to it.
    """
    n = len(images)
    area, aspect, x, y, mirrored = torch.rand(5, n, generator=generator, device=images.device)
    area = smallest + (1 - smallest) * area
    aspect = torch.exp((2 * aspect - 1) * log(4 / 3))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    # Output coordinate t in [−1, 1] reads the input at centre + size · t.
    theta = torch.zeros(n, 2, 3, device=images.device)
    theta[:, 0, 0] = torch.where(mirrored < 0.5, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * x - 1) * (1 - width)
    theta[:, 1, 2] = (2 * y - 1) * (1 - height)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
