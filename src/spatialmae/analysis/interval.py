"""The t interval of independent numbers, one for each seed, group of images or data set."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy import stats


def t_interval(values: Float64[np.ndarray, " n"], alpha: float = 0.05) -> tuple[float, float, float]:
    """Mean and two-sided (1 − alpha) t interval; a point where the variance is zero, NaN ends for one value."""
    n = len(values)
    if n == 0:
        return np.nan, np.nan, np.nan
    mean = float(values.mean())
    if n == 1:
        return mean, np.nan, np.nan
    half = 0.0 if is_constant(values) else float(stats.t.ppf(1 - alpha / 2, n - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def is_constant(values: Float64[np.ndarray, " n"]) -> bool:
    """Whether all agree up to rounding, so that a t statistic has no meaning."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
