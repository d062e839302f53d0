"""Small models whose every weight matters: fresh ones have zero biases and unit norms, which hide mistakes."""

import torch

from spatialmae.model import MAEConfig, MaskedAutoencoder

SMALL = {
    "image_size": 8,
    "patch_size": 2,
    "channels": 2,
    "encoder_dim": 16,
    "encoder_depth": 2,
    "encoder_heads": 2,
    "decoder_dim": 8,
    "decoder_depth": 1,
    "decoder_heads": 4,
}


def small_model(dtype: torch.dtype = torch.float64, seed: int = 0, **settings) -> MaskedAutoencoder:
    """A model of SMALL, changed by ``settings``, with normal weights."""
    return randomise(MaskedAutoencoder(MAEConfig(**SMALL | settings)), seed).to(dtype)


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Set every parameter, frozen ones too, to normal noise of a size that keeps outputs near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def small_batch(model: MaskedAutoencoder, n: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and noise for a model, in its type."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n, model.config.channels, *model.config.image_hw)
    dtype = model.cls_token.dtype
    images = torch.randn(shape, generator=generator, dtype=dtype)
    return images, torch.rand(n, model.config.n_units, generator=generator, dtype=dtype)


def train(
    model: MaskedAutoencoder, optimizer: torch.optim.Optimizer, images: torch.Tensor, noise: torch.Tensor, steps: int
) -> list[float]:
    """Take steps on one batch under one mask; the loss before each of them."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(images, noise).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
