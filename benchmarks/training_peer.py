"""The peer, facebookresearch/mae, from a checkout of it, and its training loop in our words.

The checkout takes two layers from timm 0.3.2, which cannot be imported beside a current torch, while later versions
refuse the checkout's arguments. So both are supplied here, of the same arithmetic, in eager PyTorch.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from spatialmae.model import MAEConfig
from spatialmae.train.settings import TrainConfig


class PatchEmbed(nn.Module):
    """A token for each patch, by a strided convolution."""

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        self.num_patches = (img_size // patch_size) ** 2
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to tokens (N, L, D)."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention with an explicit map."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, D) to tokens."""
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)
        attention = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(n, t, d))


class Mlp(nn.Module):
    """Two layers with an exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, D) to tokens."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block, with timm 0.3.2's arguments."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        norm_layer: type[nn.LayerNorm] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        if qk_scale is not None:
            raise ValueError("qk_scale: the peer's models leave it at None")
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, D) to tokens."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def import_peer(checkout: Path) -> ModuleType:
    """The checkout's ``models_mae``."""
    if not (checkout / "models_mae.py").is_file():
        raise SystemExit(f"--peer {checkout}: no models_mae.py in it; give a checkout of facebookresearch/mae")
    layers = ModuleType("timm.models.vision_transformer")
    layers.PatchEmbed, layers.Block = PatchEmbed, Block  # type: ignore[attr-defined]
    packages = {"timm": ModuleType("timm"), "timm.models": ModuleType("timm.models"), layers.__name__: layers}
    sys.modules.update(packages)
    if not hasattr(np, "float"):
        vars(np)["float"] = float  # the checkout uses this alias, which numpy 1.24 removed
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module("models_mae")
    finally:
        sys.path.remove(str(checkout))


def build_peer(module: ModuleType, config: MAEConfig) -> nn.Module:
    """The peer's model of a configuration."""
    height, width = config.image_hw
    if height != width:
        raise ValueError(f"image_size: {height}×{width} is not square, and the peer takes nothing else")
    return module.MaskedAutoencoderViT(
        img_size=height,
        patch_size=config.patch_size,
        in_chans=config.channels,
        embed_dim=config.encoder_dim,
        depth=config.encoder_depth,
        num_heads=config.encoder_heads,
        decoder_embed_dim=config.decoder_dim,
        decoder_depth=config.decoder_depth,
        decoder_num_heads=config.decoder_heads,
        mlp_ratio=config.mlp_ratio,
        norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
        norm_pix_loss=config.norm_pix_loss,
    )


def our_weights(peer: nn.Module) -> dict[str, Tensor]:
    """The peer's weights under our names and in our shapes, for ``MaskedAutoencoder.load_state_dict``."""
    ours = {}
    for name, value in peer.state_dict().items():
        if name == "patch_embed.proj.weight":
            value = value.permute(0, 2, 3, 1).flatten(1)  # our patches are flattened as (row, column, channel)
        elif name in ("cls_token", "mask_token"):
            value = value[0, 0]
        elif name.endswith("pos_embed"):
            value = value[0]
        ours[our_name(name)] = value.clone()
    return ours


def our_name(name: str) -> str:
    """Our name of one of the peer's weights."""
    whole = {"pos_embed": "encoder_positions", "decoder_pos_embed": "decoder_positions"}
    first = {
        "patch_embed": "patch_embedding",
        "blocks": "encoder",
        "norm": "encoder_norm",
        "decoder_embed": "decoder_embedding",
        "decoder_blocks": "decoder",
    }
    inner = {"attn": "attention", "fc1": "0", "fc2": "2"}
    if name in whole:
        return whole[name]
    parts = [part for part in name.split(".") if part != "proj" or "patch_embed" not in name]
    return ".".join([first.get(parts[0], parts[0]), *(inner.get(part, part) for part in parts[1:])])


class PeerLoop:
    """A step of its ``engine_pretrain``: automatic mixed precision, the loss read at every step, the gradient's norm.

    Args:
        model: on the device.
        config: AdamW's settings.
        mask_ratio: share of hidden patches.
        amp: mixed precision: fp16 with a loss scaler on a GPU, as in its loop; bf16 without one on a CPU.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, mask_ratio: float, *, amp: bool) -> None:
        self.model, self.mask_ratio = model.train(), mask_ratio
        self.device = next(model.parameters()).device.type
        self.amp = amp
        self.scaler = torch.amp.GradScaler(self.device, enabled=amp and self.device == "cuda")
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        plain = [p for name, p in trained.items() if p.ndim <= 1 or name.endswith(".bias")]
        decayed = [p for name, p in trained.items() if p.ndim > 1 and not name.endswith(".bias")]
        groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": config.weight_decay}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.peak_lr, betas=(config.beta1, config.beta2))

    def step(self, images: Tensor, lr: float) -> float:
        """One step on normalised images already on the device; the loss.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        amp_type = torch.float16 if self.device == "cuda" else torch.bfloat16
        with torch.autocast(self.device, amp_type, enabled=self.amp):
            loss, _, _ = self.model(images, self.mask_ratio)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the peer's loss is {value}")
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        gradient_norm(self.model.parameters())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return value


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients, from the norms of each."""
    return torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
