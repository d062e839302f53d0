"""How well a trained model reconstructs images of which nothing is masked (claim B4): MSE, PSNR, SSIM, FSIM.

A loss on hidden patches never trains the output at visible ones, and here all are visible; models with the loss on all
patches are the ones that were trained for it (docs/deviations.md, D28).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from skimage.metrics import structural_similarity

from spatialmae.analysis.fsim import feature_similarity
from spatialmae.model.trained import TrainedModel

DATA_RANGE = 1.0
# Wang et al. (2004): Gaussian of σ = 1.5 px, 11 px wide. Only whole windows count, whose centres are 22² of the 32² px.
SSIM_WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
SSIM_WANG_LEAST_SIDE = 32
# At 16 px that would leave 6² of 16², the inner patches alone; scikit-image's own window leaves 10², and fits in 8 px.
SSIM_SMALL = {"win_size": 7, "use_sample_covariance": False}
SSIM_LEAST_SIDE = 7


@torch.no_grad()
def reconstruct_unmasked(
    run: TrainedModel, images: UInt8[np.ndarray, "n h w c"], batch_size: int = 64
) -> Float32[np.ndarray, "n h w c"]:
    """The model's output for images of which nothing is masked, on the scale [0, 1], not clipped.

    In float32 on the model's device; a denoising autoencoder's noise is not added.

    Args:
        run: a trained model.
        images: 0–255, of the model's shape.
        batch_size: images at once; bounds the memory.

    Raises:
        ValueError: the model predicts normalised patches (``norm_pix_loss``), or images have another shape than its.
    """
    device = run.model.cls_token.device
    predicted = np.empty(images.shape, dtype=np.float32)
    # Set here, whatever the caller's.
    with torch.autocast(device.type, enabled=False):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            batch = run.normalise(torch.from_numpy(images[rows]).to(device))
            predicted[rows] = run.denormalise(run.model.reconstruct(batch)).cpu().numpy()
    return predicted


def image_quality(
    images: UInt8[np.ndarray, "n h w c"], predicted: Float32[np.ndarray, "n h w c"]
) -> dict[str, Float64[np.ndarray, " n"]]:
    """Measures of each pair of images, the predicted one clipped to [0, 1].

    - ``mse``: mean squared error over pixels and channels.
    - ``psnr``: 10 log₁₀(1 / mse), dB; infinite where nothing differs.
    - ``ssim``: structural similarity (Wang et al., 2004), mean over channels; for the window see :func:`ssim_settings`.
    - ``fsim``, ``fsimc``: see :func:`~spatialmae.analysis.fsim.feature_similarity`.
    - ``clipped``: share of the predicted numbers that lay outside [0, 1].

    Args:
        images: 0–255, one channel, or R, G and B.
        predicted: on the scale [0, 1], perhaps beyond it.

    Raises:
        ValueError: images are smaller than 7 px, or have neither one nor three channels.
    """
    settings = ssim_settings(images.shape[1], images.shape[2])
    x, y = images / 255.0, predicted.astype(np.float64).clip(0, 1)
    mse = np.square(x - y).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(DATA_RANGE**2 / mse)
    ssim = [
        structural_similarity(one, other, data_range=DATA_RANGE, channel_axis=-1, **settings)
        for one, other in zip(x, y, strict=True)
    ]
    features = feature_similarity(x, y)
    return {
        "mse": mse,
        "psnr": psnr,
        "ssim": np.array(ssim),
        "fsim": features.fsim,
        "fsimc": features.fsimc,
        "clipped": ((predicted < 0) | (predicted > 1)).mean(axis=(1, 2, 3)),
    }


def ssim_settings(height: int, width: int) -> dict[str, Any]:
    """Window of SSIM for images of a size, as arguments of :func:`skimage.metrics.structural_similarity`.

    Values of different windows are different quantities.

    Raises:
        ValueError: no window fits.
    """
    side = min(height, width)
    if side < SSIM_LEAST_SIDE:
        raise ValueError(f"images of {height}×{width} px are smaller than SSIM's window; use {SSIM_LEAST_SIDE} or more")
    return SSIM_WANG if side >= SSIM_WANG_LEAST_SIDE else SSIM_SMALL


def quality_row(run: TrainedModel, images: UInt8[np.ndarray, "n h w c"], batch_size: int = 64) -> dict[str, Any]:
    """Means over images of :func:`image_quality` of a model's unmasked reconstructions, and what they were made under.

    Args:
        run: a trained model.
        images: held out, 0–255.
        batch_size: images at once; bounds the memory.

    Raises:
        ValueError: as :func:`reconstruct_unmasked` and :func:`image_quality` do, or there are no images.
    """
    if not len(images):
        raise ValueError("images: there are none to reconstruct; give some")
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        parts.append(image_quality(batch, reconstruct_unmasked(run, batch, batch_size)))
    means = {name: float(np.concatenate([part[name] for part in parts]).mean()) for name in parts[0]}
    gaussian = ssim_settings(images.shape[1], images.shape[2]) is SSIM_WANG
    return means | {
        "n_images": len(images),
        "ssim_window": "Gaussian, σ 1.5 px, 11 px" if gaussian else "uniform, 7 px",
    }
