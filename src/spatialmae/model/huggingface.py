"""Our model from and to Hugging Face's ``ViTMAEForPreTraining``, the layout of the published MAE checkpoints.

Converted either way, the two give the same loss, predictions and mask for the same images and noise. Ours lays out
patches as theirs (row, column, channel), so that only the first convolution, here a matrix, changes its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, nextafter
from typing import Any

import torch
from torch import Tensor, nn

from spatialmae.errors import UserError
from spatialmae.masks import n_visible
from spatialmae.model.config import MAEConfig

# Ours → theirs, by the names in published checkpoints; several of theirs are stacked in one of ours.
TENSORS = {
    "cls_token": ["vit.embeddings.cls_token"],
    "encoder_positions": ["vit.embeddings.position_embeddings"],
    "mask_token": ["decoder.mask_token"],
    "decoder_positions": ["decoder.decoder_pos_embed"],
}
MODULES = {
    "patch_embedding": ["vit.embeddings.patch_embeddings.projection"],
    "encoder_norm": ["vit.layernorm"],
    "decoder_embedding": ["decoder.decoder_embed"],
    "decoder_norm": ["decoder.decoder_norm"],
    "decoder_pred": ["decoder.decoder_pred"],
}
BLOCKS = {"encoder": "vit.encoder.layer", "decoder": "decoder.decoder_layers"}
IN_BLOCK = {
    "norm1": ["layernorm_before"],
    "attention.qkv": ["attention.attention.query", "attention.attention.key", "attention.attention.value"],
    "attention.proj": ["attention.output.dense"],
    "norm2": ["layernorm_after"],
    "mlp.0": ["intermediate.dense"],
    "mlp.2": ["output.dense"],
}
# Later versions of transformers rename, in this order, what they read from published checkpoints.
RENAMED = {
    "vit.encoder.layer.": "vit.layers.",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
# Settings of theirs that ours has not, at the values that ours amounts to, and a hint.
THEIRS_ALONE = {
    "hidden_act": ("gelu", "use a model with the exact GELU"),
    "qkv_bias": (True, "use a model with biases in its attention"),
    "hidden_dropout_prob": (0, "set it to 0, which changes nothing but training"),
    "attention_probs_dropout_prob": (0, "set it to 0, which changes nothing but training"),
    "head_dim": (None, "use a model whose heads split its width"),
}
# Settings of ours that theirs has not, at the values that theirs amounts to.
OURS_ALONE = {"bottleneck": None, "mask_unit": None, "masking": "fixed", "loss_on": "hidden", "noise_std": 0}


def our_model(vit_mae: nn.Module) -> tuple[MAEConfig, dict[str, Tensor]]:
    """Configuration and weights of our model from a ``transformers.ViTMAEForPreTraining``; of its type, on its device.

    The model hides as many patches as theirs does. Theirs keeps int(L (1 − mask_ratio)) in floating point, ours the
    exact ⌊L (1 − mask_ratio)⌋; where they differ (9 and 10 for L = 100 at 0.9), the configuration gets a nearby ratio.

    Raises:
        ValueError: a setting of theirs has no counterpart; the message names it.
    """
    theirs: Any = vit_mae.config
    if getattr(theirs, "model_type", None) != "vit_mae" or not hasattr(vit_mae, "decoder"):
        raise ValueError(f"{type(vit_mae).__name__} is no ViTMAEForPreTraining; load the checkpoint as one")
    config = _our_config(theirs)
    state = vit_mae.state_dict()
    table = _names(config)
    try:
        parts = {ours: [state.pop(_in_memory(name, state)) for name in names] for ours, names in table.items()}
    except KeyError as error:
        raise ValueError(f"transformers' model lacks {error.args[0]}; use another version of transformers") from None
    if state:
        raise ValueError(f"{next(iter(state))} has no counterpart; use a model without it")
    return config, {ours: _join(tensors, ours) for ours, tensors in parts.items()}


def their_model(config: MAEConfig, state: Mapping[str, Tensor]) -> nn.Module:
    """A ``transformers.ViTMAEForPreTraining`` with the weights of our model; of their type, on their device.

    It hides as many patches as ours does; where that takes another ``mask_ratio``, see :func:`our_model`, theirs gets
    a nearby one.

    Args:
        config: of our model.
        state: its ``state_dict``.

    Raises:
        ValueError: a setting of ours has no counterpart; the message names it.
        UserError: transformers is not installed.
    """
    settings = _their_settings(config)
    try:
        from transformers import ViTMAEConfig, ViTMAEForPreTraining
    except ImportError:
        raise UserError("transformers", "not installed", "pip install transformers") from None
    with torch.random.fork_rng(devices=()):  # the initial weights, which are replaced, take nobody's random numbers
        vit_mae: nn.Module = ViTMAEForPreTraining(ViTMAEConfig(**settings))
    names = vit_mae.state_dict()
    vit_mae.load_state_dict({_in_memory(name, names): own for name, own in published_tensors(config, state).items()})
    return vit_mae.to(state["cls_token"])


def published_tensors(config: MAEConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by name and in the layout of published checkpoints, which every version of transformers reads; views.

    Args:
        config: of our model.
        state: its ``state_dict``.

    Raises:
        ValueError: a setting of ours has no counterpart; the message names it.
    """
    _their_settings(config)
    published: dict[str, Tensor] = {}
    for ours, names in _names(config).items():
        published |= zip(names, _split(state[ours], ours, config, len(names)), strict=True)
    return published


def _names(config: MAEConfig) -> dict[str, list[str]]:
    """Each tensor of ours, and its parts in theirs."""
    modules = dict(MODULES)
    for part, layers in BLOCKS.items():
        for i in range(getattr(config, f"{part}_depth")):
            modules |= {f"{part}.{i}.{ours}": [f"{layers}.{i}.{x}" for x in names] for ours, names in IN_BLOCK.items()}
    kinds = ("weight", "bias")
    return TENSORS | {
        f"{ours}.{x}": [f"{name}.{x}" for name in names] for ours, names in modules.items() for x in kinds
    }


def _in_memory(name: str, state: Mapping[str, Tensor]) -> str:
    """What the installed version of transformers calls a tensor of a published checkpoint."""
    if name not in state:
        for before, after in RENAMED.items():
            name = name.replace(before, after)
    return name


def _join(parts: list[Tensor], ours: str) -> Tensor:
    """Theirs in our layout; a copy."""
    if ours == "patch_embedding.weight":  # (D, C, p, p)
        return parts[0].permute(0, 2, 3, 1).flatten(1).clone()
    if ours in TENSORS:  # (1, T, D)
        tensor = parts[0].squeeze(0).clone()
        return tensor.squeeze(0) if ours.endswith("token") else tensor
    return torch.cat(parts)


def _split(tensor: Tensor, ours: str, config: MAEConfig, n: int) -> list[Tensor]:
    """Ours in their layout, as ``n`` parts; views."""
    if ours == "patch_embedding.weight":
        p = config.patch_size
        tensor = tensor.unflatten(1, (p, p, config.channels)).permute(0, 3, 1, 2)
    elif ours in TENSORS:
        tensor = tensor.reshape(1, -1, tensor.shape[-1])
    return list(tensor.chunk(n))


def _our_config(theirs: Any) -> MAEConfig:
    for name, (value, hint) in THEIRS_ALONE.items():
        if getattr(theirs, name, value) != value:
            raise ValueError(f"{name}: {getattr(theirs, name)!r} has no counterpart, only {value!r}; {hint}")
    image_size, patch_size = (_side(name, getattr(theirs, name)) for name in ("image_size", "patch_size"))
    n_patches = (image_size // patch_size) ** 2
    return MAEConfig(
        image_size=image_size,
        patch_size=patch_size,
        channels=theirs.num_channels,
        encoder_dim=theirs.hidden_size,
        encoder_depth=theirs.num_hidden_layers,
        encoder_heads=theirs.num_attention_heads,
        decoder_dim=theirs.decoder_hidden_size,
        decoder_depth=theirs.decoder_num_hidden_layers,
        decoder_heads=theirs.decoder_num_attention_heads,
        mlp_ratio=_mlp_ratio(theirs),
        mask_ratio=our_mask_ratio(theirs.mask_ratio, n_patches),
        norm_pix_loss=theirs.norm_pix_loss,
        layer_norm_eps=theirs.layer_norm_eps,
    )


def _their_settings(config: MAEConfig) -> dict[str, Any]:
    height, width = config.image_hw
    for name, value in OURS_ALONE.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"{name}: {getattr(config, name)!r} has no counterpart in transformers' ViTMAE; "
                f"only a model with {name}={value!r} converts"
            )
    if height != width:
        raise ValueError(f"image_size: transformers' ViTMAE takes no {height}×{width} px; only a square one converts")
    return {
        "image_size": height,
        "patch_size": config.patch_size,
        "num_channels": config.channels,
        "hidden_size": config.encoder_dim,
        "num_hidden_layers": config.encoder_depth,
        "num_attention_heads": config.encoder_heads,
        "intermediate_size": int(config.encoder_dim * config.mlp_ratio),
        "decoder_hidden_size": config.decoder_dim,
        "decoder_num_hidden_layers": config.decoder_depth,
        "decoder_num_attention_heads": config.decoder_heads,
        "decoder_intermediate_size": int(config.decoder_dim * config.mlp_ratio),
        "mask_ratio": their_mask_ratio(config.mask_ratio, config.n_patches, config.n_visible),
        "norm_pix_loss": config.norm_pix_loss,
        "layer_norm_eps": config.layer_norm_eps,
    }


def _side(name: str, size: Any) -> int:
    """The side of a square, which alone transformers' loss takes."""
    sides = [size] if isinstance(size, int) else list(size)
    if len(set(sides)) != 1:
        raise ValueError(f"{name}: transformers' own loss takes no {size}; use a square one")
    return sides[0]


def _mlp_ratio(theirs: Any) -> float:
    """The ratio that gives both of their MLP widths, which ours rounds down."""
    widths = (
        (theirs.hidden_size, theirs.intermediate_size),
        (theirs.decoder_hidden_size, theirs.decoder_intermediate_size),
    )
    least = max(hidden / dim for dim, hidden in widths)
    for ratio in (least, nextafter(least, inf)):  # the quotient times its divisor may round to below the dividend
        if all(int(dim * ratio) == hidden for dim, hidden in widths):
            return ratio
    raise ValueError(
        f"decoder_intermediate_size: {widths[1][1]} is to decoder_hidden_size={widths[1][0]} not as "
        f"intermediate_size={widths[0][1]} to hidden_size={widths[0][0]}; use a model with one MLP ratio"
    )


def our_mask_ratio(mask_ratio: float, n_patches: int) -> float:
    """A ratio by which ours leaves as many patches visible as theirs by ``mask_ratio``, which is kept if it does.

    Raises:
        ValueError: theirs leaves all or none.
    """
    visible = _their_visible(n_patches, mask_ratio)
    if not 1 <= visible < n_patches:
        raise ValueError(
            f"mask_ratio: {mask_ratio} leaves {visible} of {n_patches} patches visible; set one that hides some of them"
        )
    return mask_ratio if n_visible(n_patches, mask_ratio) == visible else _amid(n_patches, visible)


def their_mask_ratio(mask_ratio: float, n_patches: int, visible: int) -> float:
    """A ratio by which theirs leaves ``visible`` patches, ``mask_ratio`` if it does."""
    return mask_ratio if _their_visible(n_patches, mask_ratio) == visible else _amid(n_patches, visible)


def _their_visible(n_patches: int, mask_ratio: float) -> int:
    return int(n_patches * (1 - mask_ratio))


def _amid(n_patches: int, visible: int) -> float:
    """The middle of the ratios that leave ``visible`` patches, whence no rounding leads out."""
    return 1 - (visible + 0.5) / n_patches
