"""Which pixels count where the loss leaves out the mask's boundary, as Kong et al. (2023, section 3.6) suggest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from spatialmae.model.config import MAEConfig
from spatialmae.model.patches import patchify, unpatchify
from spatialmae.shapes import Float


def counted_pixels(
    config: MAEConfig, mask: Float[Tensor, "N L"], noise: Float[Tensor, "N 1 H W"] | None = None
) -> Float[Tensor, "N L pp"]:
    """1 for hidden pixels more than ``loss_margin`` px from a visible one (in rows and in columns), 0 for others.

    The image's border is no boundary.

    Args:
        config: of the model.
        mask: 1 = hidden.
        noise: without ties; with it, as many hidden pixels of each image are left out, those of lowest noise instead of
            those at the boundary: the control.
    """
    side = config.patch_size
    hidden = unpatchify(mask[..., None].expand(-1, -1, side**2), side, config.image_hw)
    width = config.loss_margin
    near_visible = max_pool2d(1 - hidden, 2 * width + 1, stride=1, padding=width)
    counted = hidden * (1 - near_visible)
    if noise is not None:
        n_left_out = (hidden - counted).flatten(1).sum(dim=1, keepdim=True)
        order = noise.masked_fill(hidden == 0, torch.inf).flatten(1).argsort(dim=1)
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
        )
        counted = hidden * (rank >= n_left_out).to(hidden.dtype).reshape(hidden.shape)
    return patchify(counted, side)
