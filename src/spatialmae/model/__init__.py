"""The non-linear MAE: a small ViT in plain torch, equal to Hugging Face's ViTMAE given the same weights and noise."""

from importlib import import_module
from typing import Any

_EXPORTS = {"MAEConfig": "config", "MaskedAutoencoder": "mae", "MAEOutput": "mae", "Masks": "masking"}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
