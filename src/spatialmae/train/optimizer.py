"""torch's optimizers, without its compiler."""

from __future__ import annotations

from typing import Any

import torch


def adamw(parameters: Any, **options: Any) -> torch.optim.AdamW:
    """Torch's AdamW, see there."""
    leave_compiler_unloaded()
    return torch.optim.AdamW(parameters, **options)


def leave_compiler_unloaded() -> None:
    """Have optimizers not load torch's compiler, whose import takes longer than many a run.

    On their first use they load it to exempt these methods from compilation, which we never ask for. With a torch that
    does this otherwise, nothing happens here.
    """
    for method in (torch.optim.Optimizer.add_param_group, torch.optim.Optimizer.zero_grad):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            plain.__dynamo_disable = plain
