"""Images to patches and back, and where a patch lies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spatialmae.shapes import Float


def patchify(images: Float[Tensor, "N C H W"], patch_size: int) -> Float[Tensor, "N L ppC"]:
    """Patches in row-major order, each flattened in facebookresearch/mae's order (row, column, channel)."""
    n, channels, height, width = images.shape
    p, rows, columns = patch_size, height // patch_size, width // patch_size
    patches = images.reshape(n, channels, rows, p, columns, p).permute(0, 2, 4, 3, 5, 1)
    return patches.reshape(n, rows * columns, p * p * channels)


def unpatchify(
    patches: Float[Tensor, "N L ppC"], patch_size: int, image_hw: tuple[int, int]
) -> Float[Tensor, "N C H W"]:
    """The inverse of :func:`patchify` for images of ``image_hw`` = (height, width) px."""
    p, (height, width) = patch_size, image_hw
    rows, columns = height // p, width // p
    images = patches.reshape(len(patches), rows, columns, p, p, -1).permute(0, 5, 1, 3, 2, 4)
    return images.reshape(len(patches), -1, height, width)


def patch_statistics(patches: Float[Tensor, "N L ppC"]) -> tuple[Float[Tensor, "N L 1"], Float[Tensor, "N L 1"]]:
    """Mean and standard deviation (unbiased, with facebookresearch/mae's ε) by which ``norm_pix_loss`` normalises."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()


def sincos_positions(dim: int, grid: tuple[int, int]) -> Float[Tensor, "positions dim"]:
    """Fixed 2-D sine-cosine position embeddings of facebookresearch/mae, (1 + L, dim); the first, of [CLS], is zero.

    Of the ``dim`` numbers (a multiple of 4) the first half encodes the column and the second the row, each as
    sin(x ω_k), cos(x ω_k) with ω_k = 10000^(−4k/dim). They lie on the CPU, whatever the default device.
    """
    double: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    omega = 10000.0 ** -(torch.arange(dim // 4, **double) / (dim / 4))
    row, column = torch.meshgrid(*(torch.arange(n, **double) for n in grid), indexing="ij")
    angles = [x.reshape(-1, 1) * omega for x in (column, row)]
    positions = torch.cat([part for x in angles for part in (x.sin(), x.cos())], dim=1)
    return torch.cat([torch.zeros(1, dim, **double), positions]).float()
