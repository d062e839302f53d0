"""How fast training converges: how many epochs until the validation loss has come most of its way (claim A13.3)."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

from spatialmae.data.dataset import ImageData
from spatialmae.train.batches import channel_statistics


def mean_image_loss(data: ImageData) -> float:
    """The loss of a model that predicts each pixel's mean over the training images.

    Over all pixels of the validation images, in units of the channels' variance as the models' losses; NaN without
    validation images.
    """
    train, validation = (data.images[data.splits[split]] for split in ("train", "validation"))
    if not len(validation):
        return math.nan
    _, std = channel_statistics(train)
    error = (validation / 255 - train.mean(axis=0) / 255) / std.numpy()
    return float(np.square(error).mean())


def epochs_to(
    share: float, epochs: Float64[np.ndarray, " n"], losses: Float64[np.ndarray, " n"], start_loss: float
) -> float:
    """Epochs until the loss has come ``share`` of its way from ``start_loss`` to its last value.

    Linear between the epochs at which it was measured, from ``start_loss`` at epoch 0: what a model gives that knows
    the mean image alone, since a fresh network's loss depends on its initial weights.

    Args:
        share: of the way, above 0 and below 1.
        epochs: at which the loss was measured, rising, above 0.
        losses: in the same order.
        start_loss: in their unit.

    Returns:
        The first such time; NaN where the loss does not end below ``start_loss``.
    """
    if not losses[-1] < start_loss:
        return math.nan
    goal = start_loss - share * (start_loss - losses[-1])
    times, values = np.concatenate([[0.0], epochs]), np.concatenate([[start_loss], losses])
    after = int(np.argmax(values <= goal))
    fall = (values[after - 1] - goal) / (values[after - 1] - values[after])
    return float(times[after - 1] + fall * (times[after] - times[after - 1]))
