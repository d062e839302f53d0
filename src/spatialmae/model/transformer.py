"""Pre-norm transformer blocks, as in the Vision Transformer (Dosovitskiy et al., 2021)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from spatialmae.shapes import Bool, Float

AttentionKernel = Literal["explicit", "fused"]


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q kᵀ / √d) v.

    ``kernel`` is "explicit" (matrix products and a softmax; its map can be read, forward-mode derivatives pass) or
    "fused" (:func:`torch.nn.functional.scaled_dot_product_attention`); the two are equal up to rounding.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.kernel: AttentionKernel = "explicit"

    def forward(
        self, x: Float[Tensor, "N T D"], padding: Bool[Tensor, "N T"] | None = None
    ) -> tuple[Float[Tensor, "N T D"], Float[Tensor, "N heads T T"] | None]:
        """Mixed tokens, and the attention map where it is explicit; no token attends to ``padding``."""
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        visible = None if padding is None else ~padding[:, None, None, :]
        if self.kernel == "fused":
            attention = None
            mixed = scaled_dot_product_attention(q, k, v, attn_mask=visible)
        else:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            if visible is not None:
                scores = scores.masked_fill(~visible, -torch.inf)
            attention = scores.softmax(dim=-1)
            mixed = attention.to(v.dtype) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, t, d)), attention


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(
        self, x: Float[Tensor, "N T D"], padding: Bool[Tensor, "N T"] | None = None
    ) -> tuple[Float[Tensor, "N T D"], Float[Tensor, "N heads T T"] | None]:
        """Tokens after the block, and its attention map where that is explicit."""
        mixed, attention = self.attention(self.norm1(x), padding)
        x = x + mixed
        return x + self.mlp(self.norm2(x)), attention
