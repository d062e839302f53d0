"""Floating-point operations of the MAE's matrix products, counted from its configuration."""

from __future__ import annotations

from spatialmae.model import MAEConfig


def forward_flops(config: MAEConfig) -> int:
    """Operations of one image's forward pass with a fixed-count mask, two for each multiplication and addition."""
    visible, n_patches, patch_dim = config.n_visible, config.n_patches, config.patch_dim
    ends = visible * patch_dim * config.encoder_dim
    ends += (1 + visible) * (config.bottleneck or config.encoder_dim) * config.decoder_dim
    if config.bottleneck is not None:
        ends += (1 + visible) * config.encoder_dim * config.bottleneck
    ends += n_patches * config.decoder_dim * patch_dim
    encoder = config.encoder_depth * _block(1 + visible, config.encoder_dim, config.mlp_ratio)
    return 2 * (ends + encoder + config.decoder_depth * _block(1 + n_patches, config.decoder_dim, config.mlp_ratio))


def step_flops(config: MAEConfig) -> int:
    """Operations of one image's forward and backward pass: thrice the forward pass, less a gradient of the pixels."""
    return 3 * forward_flops(config) - 2 * config.n_visible * config.patch_dim * config.encoder_dim


def _block(tokens: int, dim: int, mlp_ratio: float) -> int:
    """Multiplications of a transformer block: q, k, v, scores, mixing, projection, MLP."""
    return tokens * dim * (4 * dim + 2 * tokens + 2 * int(dim * mlp_ratio))
