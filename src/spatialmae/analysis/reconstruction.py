"""What a trained masked autoencoder makes of images, under masks that are the same for all models of one geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from spatialmae.model.patches import patch_statistics, patchify, unpatchify
from spatialmae.model.trained import TrainedModel

SEED = 0  # of the masks: a higher ratio hides what a lower one hides, and more


@dataclass(frozen=True)
class Reconstruction:
    """Masks and reconstructions of images.

    Attributes:
        mask: for each pixel 1 = hidden.
        seen: what the model gets at visible pixels, on the scale [0, 1] and clipped to it: the image, or a DAE's noisy
            one.
        pred: on the scale [0, 1]; visible pixels are the image's own where no loss was on them.
    """

    mask: UInt8[np.ndarray, "n h w"]
    seen: Float32[np.ndarray, "n h w c"]
    pred: Float32[np.ndarray, "n h w c"]


@torch.no_grad()
def reconstruct(run: TrainedModel, images: UInt8[np.ndarray, "n h w c"]) -> Reconstruction:
    """Mask the images and reconstruct them.

    With ``norm_pix_loss`` each predicted patch takes mean and deviation of the target patch, which the model does
    not predict.
    """
    model, config = run.model, run.model.config
    x = run.normalise(torch.from_numpy(images))
    draw = torch.Generator().manual_seed(SEED)
    noise = torch.rand(len(x), config.n_units, generator=draw)
    seen = model.corrupt(x, draw)
    output = model(x, noise, draw, seen=seen)
    patches = output.pred
    if config.norm_pix_loss:
        mean, std = patch_statistics(patchify(x, config.patch_size))
        patches = patches * std + mean
    hidden = output.mask[..., None].expand(-1, -1, config.patch_dim)
    mask = unpatchify(hidden, config.patch_size, config.image_hw)
    pred = unpatchify(patches, config.patch_size, config.image_hw)
    if config.loss_on == "hidden":
        pred = torch.where(mask > 0, pred, x)
    shown = (run.denormalise(values).clamp(0, 1).numpy().astype(np.float32) for values in (seen, pred))
    return Reconstruction(mask[:, 0].numpy().astype(np.uint8), *shown)
