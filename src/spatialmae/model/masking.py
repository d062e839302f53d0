"""Which patches the encoder sees: masks from noise, by fixed count or independently, in units of one patch or more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spatialmae.model.config import MAEConfig
from spatialmae.shapes import Bool, Float, Int64


@dataclass(frozen=True)
class Masks:
    """Masks of a batch, in the field's terms.

    Attributes:
        ids_keep: the visible patches, in the order in which the encoder sees them. Where images differ in how many
            are visible (Bernoulli), rows are padded with hidden patches.
        ids_restore: where in (visible, hidden) each patch is found.
        mask: 1 = hidden, 0 = visible.
        keep_padding: true where ``ids_keep`` is padding, which no token attends to; None: no padding.
    """

    ids_keep: Int64[Tensor, "N K"]
    ids_restore: Int64[Tensor, "N L"]
    mask: Float[Tensor, "N L"]
    keep_padding: Bool[Tensor, "N K"] | None = None

    @classmethod
    def none_hidden(cls, n: int, n_patches: int, device: torch.device | None = None) -> Masks:
        """Masks that hide nothing."""
        ids = torch.arange(n_patches, device=device).expand(n, -1)
        return cls(ids, ids, torch.zeros(n, n_patches, device=device))

    @classmethod
    def from_noise(cls, config: MAEConfig, noise: Float[Tensor, "N _"]) -> Masks:
        """Masks from uniform noise in [0, 1): the patches of lowest noise stay visible.

        Args:
            config: how many patches are hidden, and in what units.
            noise: (N, L), a number for each patch; with ``mask_unit`` (N, units), one for each unit in row-major
                order. ``masking="fixed"`` keeps the lowest :func:`~spatialmae.masks.n_visible`;
                ``"bernoulli"`` those below 1 − mask_ratio.

        Raises:
            ValueError: the noise has another shape.
        """
        if noise.ndim != 2 or noise.shape[1] != config.n_units:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, not (N, {config.n_units}): one number a mask unit")
        # Units are ordered, not patches, so that a tie between two units splits neither.
        unit_order = torch.argsort(noise, dim=1, stable=True)
        patches = _patches_of_units(config, noise.device)
        ids_shuffle = patches[unit_order].flatten(1)
        ids_restore = torch.argsort(ids_shuffle, dim=1)
        if config.masking == "fixed":
            ids_keep = ids_shuffle[:, : config.n_visible]
            return cls(ids_keep, ids_restore, (ids_restore >= config.n_visible).to(noise.dtype))
        hidden_units = (noise >= 1 - config.mask_ratio).gather(1, unit_order)
        hidden = hidden_units.repeat_interleave(patches.shape[1], dim=1)  # in the order of ids_shuffle
        most = int((~hidden).sum(dim=1).max())
        mask = hidden.gather(1, ids_restore).to(noise.dtype)
        return cls(ids_shuffle[:, :most], ids_restore, mask, hidden[:, :most])


def _patches_of_units(config: MAEConfig, device: torch.device) -> Int64[Tensor, "units each"]:
    """The patches of each mask unit, both in row-major order."""
    (rows, columns), side = config.unit_grid, config.mask_unit_px // config.patch_size
    patches = torch.arange(config.n_patches, device=device).reshape(rows, side, columns, side)
    return patches.transpose(1, 2).reshape(config.n_units, side**2)
