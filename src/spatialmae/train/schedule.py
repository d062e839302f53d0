"""The learning rate as a pure function of the step."""

from __future__ import annotations

from math import cos, pi


def learning_rate(step: int, *, peak: float, final: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up to ``peak``, then half a cosine down to ``final`` (Loshchilov & Hutter, 2017).

    Args:
        step: 0 … total_steps − 1, the step about to be taken.
        peak: learning rate of the last warm-up step.
        final: learning rate that a step after the last would have.
        warmup_steps: length of the warm-up, less than ``total_steps``.
        total_steps: length of the run.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final + (peak - final) * 0.5 * (1 + cos(pi * progress))
