"""The representation of a trained model: one vector for each image, from an encoder that is left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from spatialmae.model.trained import TrainedModel
from spatialmae.probe.settings import Feature
from spatialmae.setting import check_choice
from spatialmae.shapes import Float, Float32, Int64, UInt8

LAYER = "encoder/norm"  # the encoder's last layer, after its norm, as MAEOutput.intermediates calls it

# Added to each variance: facebookresearch/mae's value in linear probing. A feature that is constant but for float32's
# rounding stays near 0 instead of becoming noise of unit variance.
BATCH_NORM_EPS = 1e-6


def pool(tokens: Float[Tensor, "N T D"], feature: Feature) -> Float[Tensor, "N D"]:
    """One vector for each image: the mean of its patch tokens, or its [CLS] token, which comes first."""
    return tokens[:, 0] if feature == "cls" else tokens[:, 1:].mean(dim=1)


@torch.no_grad()
def represent(
    run: TrainedModel, images: UInt8[np.ndarray, "n h w c"], feature: Feature = "mean", batch_size: int = 64
) -> Float32[np.ndarray, "n D"]:
    """What the encoder makes of images: nothing masked, nothing augmented, nothing random.

    Computed on the model's device in the precision that it was trained in, from the tokens after the encoder's last
    norm, before any bottleneck; on a CPU bfloat16 takes a third of the time and moves vectors by .2 % of their spread.
    The encoder has neither dropout nor batch statistics, so that an image's vector does not depend on the others.

    Args:
        run: a trained model.
        images: 0–255, of the model's shape.
        feature: see :func:`pool`.
        batch_size: images at once; bounds the memory, and keeps a batch within a CPU's cache.

    Raises:
        ValueError: the feature is unknown, or images have another shape than the model's.
    """
    check_choice("feature", feature, get_args(Feature))
    model = run.model
    device = model.cls_token.device
    vectors = np.empty((len(images), model.config.encoder_dim), dtype=np.float32)
    # Set here, whatever the caller's.
    with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            batch = run.normalise(torch.from_numpy(images[rows]).to(device))
            vectors[rows] = pool(model.encode(batch).float(), feature).cpu().numpy()
    return vectors


def represent_splits(
    run: TrainedModel,
    images: UInt8[np.ndarray, "n h w c"],
    splits: Mapping[str, Int64[np.ndarray, " _"]],
    feature: Feature = "mean",
) -> dict[str, Float32[np.ndarray, "_ D"]]:
    """:func:`represent` for each split: make it once for a model, for all its probes and targets."""
    return {name: represent(run, images[rows], feature) for name, rows in splits.items()}


@dataclass(frozen=True)
class Standardiser:
    """BatchNorm without affine parameters, with the statistics of training images.

    (x − mean) / √(variance + ε), as He et al. (2022) put before a linear probe.

    Attributes:
        mean: float64, of each feature.
        scale: float64, 1 / √(variance + ε) of each feature.
    """

    mean: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]

    @classmethod
    def of(cls, train: Float32[np.ndarray, "n D"]) -> Standardiser:
        """With the statistics of these features."""
        variance = train.var(axis=0, dtype=np.float64)
        return cls(train.mean(axis=0, dtype=np.float64), 1 / np.sqrt(variance + BATCH_NORM_EPS))

    def apply(self, features: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n D"]:
        """Features of the same model and kind, standardised."""
        return ((features - self.mean) * self.scale).astype(np.float32)


def standardise(features: Mapping[str, Float32[np.ndarray, "_ D"]]) -> dict[str, Float32[np.ndarray, "_ D"]]:
    """The features of each split, standardised by those of ``train``."""
    standardiser = Standardiser.of(features["train"])
    return {name: standardiser.apply(x) for name, x in features.items()}
