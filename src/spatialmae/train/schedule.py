"""Learning rates as pure functions of the step."""

from __future__ import annotations

from math import cos, pi, sqrt


def cosine(step: int, *, peak: float, final: float, warmup_steps: int, total_steps: int) -> float:
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


def warmup_stable_decay(
    step: int, *, peak: float, final: float, warmup_steps: int, cooldown_steps: int, total_steps: int
) -> float:
    """Linear warm-up to ``peak``, a constant rate, and a cool-down to ``final`` at the end (Hägele et al., 2024).

    The cool-down falls as 1 − √t, which they found best. Until it starts, the rate does not depend on the length of the
    run, so that runs of several lengths share all that comes before.

    Args:
        step: 0 … total_steps − 1, the step about to be taken.
        peak: learning rate from the last warm-up step on.
        final: learning rate that a step after the last would have, if there is a cool-down.
        warmup_steps: length of the warm-up.
        cooldown_steps: length of the cool-down; 0: none.
        total_steps: length of the run, at least warm-up and cool-down together.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    start = total_steps - cooldown_steps
    if step < start:
        return peak
    return final + (peak - final) * (1 - sqrt((step - start) / cooldown_steps))
