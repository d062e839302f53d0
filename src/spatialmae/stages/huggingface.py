"""Checkpoints of Hugging Face's ViTMAE to ours and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spatialmae.artifacts import write_tensors, write_text
from spatialmae.errors import UserError
from spatialmae.model.checkpoint import CONFIG, WEIGHTS
from spatialmae.model.huggingface import published_tensors
from spatialmae.model.mae import MaskedAutoencoder


def import_huggingface(source: str, out: Path) -> None:
    """Write a ViTMAE checkpoint as one of ours.

    Args:
        source: a folder, or a name on the Hugging Face Hub such as ``facebook/vit-mae-base``.
        out: folder of our checkpoint; weights are float32.

    Raises:
        UserError: there is none, it cannot be read, it is of another model, or has no counterpart here.
    """
    try:
        model = MaskedAutoencoder.from_huggingface(_read(source))
    except ValueError as error:
        raise UserError.of(source, error) from None
    model.save_pretrained(out, {"source": source})


def export_huggingface(folder: Path, out: Path) -> None:
    """Write a checkpoint of ours as one that transformers' ``from_pretrained`` reads.

    Raises:
        UserError: the checkpoint cannot be read, or has no counterpart in transformers.
    """
    model = MaskedAutoencoder.from_pretrained(folder)
    try:
        vit_mae: Any = model.to_huggingface()
    except ValueError as error:
        raise UserError.of(folder, error, "model.") from None
    # transformers' own save_pretrained, as of 5.23, misnames the decoder's blocks, which older versions then drop.
    published = published_tensors(model.config, model.state_dict())
    write_tensors(out / WEIGHTS, {name: tensor.numpy() for name, tensor in published.items()})
    vit_mae.config.architectures = [type(vit_mae).__name__]
    write_text(out / CONFIG, vit_mae.config.to_json_string())


def _read(source: str) -> Any:
    """The ``ViTMAEForPreTraining`` of a folder or name."""
    try:
        from transformers import AutoConfig, ViTMAEForPreTraining
    except ImportError:
        raise UserError("transformers", "not installed", "pip install transformers") from None
    _quiet()
    try:
        config = AutoConfig.from_pretrained(source)
        kind = config.model_type
        if kind == "vit_mae":
            # Safetensors alone: other formats can execute what they hold.
            loaded: Any = ViTMAEForPreTraining.from_pretrained(
                source, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # transformers and its client of the Hub raise many kinds
        problem = f"transformers cannot read it ({(str(error) or type(error).__name__).splitlines()[0]})"
        hint = "give a folder with config.json and model.safetensors, or a name on the Hugging Face Hub and a network"
        raise UserError(source, problem, hint) from None
    if kind != "vit_mae":
        raise UserError(source, f"holds a model of type {kind!r}", "give a ViTMAE checkpoint (vit_mae)")
    model, info = loaded
    absent = sorted(info["missing_keys"])
    if absent:  # transformers would fill them in at random
        raise UserError(source, f"lacks {len(absent)} weights, such as {absent[0]}", "give one with its decoder")
    return model


def _quiet() -> None:
    """Have transformers and its client of the Hub say nothing beside our one line; downloads show their progress."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    hub.set_verbosity_error()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
