"""Checkpoints: a folder with the weights as safetensors and everything else as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from spatialmae.artifacts import read_tensors, write_json, write_tensors
from spatialmae.errors import UserError
from spatialmae.model.config import MAEConfig

WEIGHTS = "model.safetensors"
CONFIG = "config.json"

Model = TypeVar("Model")


def write_checkpoint(
    folder: Path | str, config: MAEConfig, tensors: Mapping[str, Tensor], extra: Mapping[str, Any] | None = None
) -> None:
    """Write a model to a folder: weights first, so that a folder with a configuration has weights.

    Args:
        folder: made where it does not exist.
        config: the model's.
        tensors: its ``state_dict``, in any floating type; bfloat16, which numpy lacks, is stored as float32.
        extra: JSON-able values to keep in ``config.json`` beside the model's.

    Raises:
        ValueError: ``extra`` has a key ``model``.
    """
    extra = extra or {}
    if "model" in extra:
        raise ValueError("extra: the key 'model' is the model's own; give it another name")
    write_tensors(Path(folder) / WEIGHTS, {name: _to_numpy(tensor) for name, tensor in tensors.items()})
    write_json(Path(folder) / CONFIG, {"model": config.to_dict(), **extra})


def read_checkpoint(folder: Path | str, build: Callable[[MAEConfig, Mapping[str, Tensor]], Model]) -> Model:
    """Read what :func:`write_checkpoint` wrote, on the CPU.

    Args:
        folder: of the checkpoint.
        build: makes the model from its configuration and weights; raises ValueError where they do not fit.

    Raises:
        UserError: a file is missing or damaged, the configuration is not valid, or the weights are of another model.
    """
    path = Path(folder) / CONFIG
    try:
        config = MAEConfig.from_dict(read_config(folder)["model"])
    except ValueError as error:
        raise UserError.of(path, error, "model.") from None
    path = Path(folder) / WEIGHTS
    hint = "copy the checkpoint again, or save the model again"
    if not path.is_file():
        raise UserError(path, "weights not found", hint)
    try:
        tensors, _ = read_tensors(path)
        return build(config, {name: torch.from_numpy(array) for name, array in tensors.items()})
    except UserError as error:
        raise UserError(path, error.problem, hint) from None
    except ValueError as error:
        raise UserError(path, f"not the weights of the model in {CONFIG} ({error})", hint) from None


def read_config(folder: Path | str) -> dict[str, Any]:
    """The contents of ``config.json``: the model's configuration under ``model``, and what was saved beside it.

    Raises:
        UserError: the folder or the file is missing, or is no checkpoint of ours.
    """
    path = Path(folder) / CONFIG
    hint = f"give a folder with {WEIGHTS} and {CONFIG}; transformers' own: spatialmae import-huggingface"
    if not path.parent.is_dir():
        raise UserError(folder, "checkpoint not found", hint)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(path, "configuration not found", hint) from None
    except ValueError as error:
        raise UserError(path, f"not valid JSON ({error})", hint) from None
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise UserError(path, "model: missing, or no mapping", hint)
    return values


def _to_numpy(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
