"""The statistics of the ledger: evidence from one number for each seed and arm, by the type of the claim.

Arrays are (seeds, arms), arms in the order in which the claim says the value rises. Seeds are paired across arms;
a seed with a value that is not finite in any arm counts as failed and is left out. All tests are one-sided in the
direction of the claim. Associations have no arms to pair; theirs is in :mod:`spatialmae.analysis.rank_correlation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from spatialmae.analysis.interval import is_constant, t_interval
from spatialmae.analysis.rank_correlation import rank_correlation

MINIMUM_UNITS = 5
"""Below this many seeds (associations: configurations) there is no p-value, and no verdict beyond SUGGESTIVE."""

FAILED_SHARE = 1 / 5
"""More failed seeds than this share of all make a verdict INVALID."""

EXACT_FLIPS = 2**12
"""Sign-flip tests enumerate all sign patterns up to this many, i.e. up to 12 seeds, and draw as many beyond."""


@dataclass(frozen=True)
class Evidence:
    """What the seeds say about a claim.

    Attributes:
        estimate: the effect, in the unit of the (transformed) value; positive supports a directional claim.
            Association: Spearman's rho.
        ci_low: lower end of the two-sided (1 − alpha) t interval of ``estimate`` (equality: smallest error;
            association: bootstrap interval, NaN where there is none).
        ci_high: its upper end (equality: largest error).
        n_seeds: seeds used (association: complete runs).
        n_failed: seeds left out because a value is not finite (association: runs).
        p: one-sided p-value before Holm; NaN below five seeds, for equalities and for associations.
        p_sign_flip: the same by flipping the signs of the seeds' contrasts, exact up to 12 seeds.
        reversals: for each step from an arm to the next, the number of seeds that go against the claim.
        n_configurations: the units that an association resamples; None for the other types.
    """

    estimate: float
    ci_low: float
    ci_high: float
    n_seeds: int
    n_failed: int
    p: float
    p_sign_flip: float
    reversals: tuple[int, ...] = ()
    n_configurations: int | None = None

    @property
    def n_units(self) -> int:
        """The units of replication behind the interval: seeds, or an association's configurations."""
        return self.n_seeds if self.n_configurations is None else self.n_configurations

    @property
    def too_many_failed(self) -> bool:
        """Whether more than one seed (association: run) in five failed, or none is left."""
        return self.n_seeds == 0 or self.n_failed > FAILED_SHARE * (self.n_seeds + self.n_failed)


def ordering(values: Float64[np.ndarray, "seeds arms"], alpha: float) -> Evidence:
    """Evidence that the value rises from every arm to the next; a single arm is compared with zero.

    Every adjacent pair has a one-sided paired t test; the claim needs all of them, so p is the largest
    (intersection–union: level alpha without correction). The estimate is last arm − first arm.
    """
    kept, n_failed = complete_seeds(values)
    if values.shape[1] == 1:
        return _directional(kept, kept[:, 0], n_failed, alpha)
    steps = np.diff(kept, axis=1)
    return _directional(steps, kept[:, -1] - kept[:, 0], n_failed, alpha, _falls(steps))


def trend(values: Float64[np.ndarray, "seeds arms"], x: Sequence[float], alpha: float) -> Evidence:
    """Evidence that the least-squares slope on ``x`` is positive, by a one-sided t test on the seeds' slopes.

    The estimate is the mean slope times the range of ``x``: the fitted difference between the end points, in the
    unit of the value.
    """
    kept, n_failed = complete_seeds(values)
    centred = np.asarray(x, dtype=np.float64) - np.mean(x)
    rise = kept @ centred / (centred @ centred) * np.ptp(centred)
    return _directional(rise[:, None], rise, n_failed, alpha, _falls(np.diff(kept, axis=1)))


def inverted_u(values: Float64[np.ndarray, "seeds 3"], alpha: float) -> Evidence:
    """Evidence that the middle arm, fixed beforehand as the peak, exceeds the low and the high arm.

    Two one-sided paired t tests, peak − low and peak − high, both needed: p is the larger. The estimate is the
    smaller of the two mean contrasts, with the interval of that contrast.
    """
    kept, n_failed = complete_seeds(values)
    contrasts = np.stack([kept[:, 1] - kept[:, 0], kept[:, 1] - kept[:, 2]], axis=1)
    weaker = int(np.argmin(contrasts.mean(axis=0))) if len(kept) else 0
    return _directional(contrasts, contrasts[:, weaker], n_failed, alpha, _falls(contrasts))


def equivalence(values: Float64[np.ndarray, "seeds 2"], margin: Sequence[float], alpha: float) -> Evidence:
    """Evidence that second arm − first arm lies inside the margin (low, high): two one-sided tests (TOST).

    With zero variance p is 0 inside the margin and 1 on or beyond it. The sign-flip p is the larger of the two
    against either end of the margin.
    """
    low, high = margin
    kept, n_failed = complete_seeds(values)
    difference = kept[:, 1] - kept[:, 0]
    estimate, ci_low, ci_high = t_interval(difference, alpha)
    p = p_flip = np.nan
    if len(difference) >= MINIMUM_UNITS:
        inside = low < estimate < high
        p = float(not inside) if is_constant(difference) else DescrStatsW(difference).ttost_mean(low, high)[0]
        p_flip = max(sign_flip_p(difference - low), sign_flip_p(high - difference))
    return Evidence(estimate, ci_low, ci_high, len(kept), n_failed, float(p), float(p_flip))


def equality(errors: Float64[np.ndarray, "seeds 1"]) -> Evidence:
    """Evidence for an identity from relative errors (≥ 0): estimate the largest, interval from smallest to largest.

    An identity of mathematics has no p-value: every seed must be within the tolerance.
    """
    kept, n_failed = complete_seeds(errors)
    low, high = (float(kept.min()), float(kept.max())) if len(kept) else (np.nan, np.nan)
    return Evidence(high, low, high, len(kept), n_failed, np.nan, np.nan)


def association(
    values: Float64[np.ndarray, " runs"],
    against: Float64[np.ndarray, " runs"],
    configurations: Shaped[np.ndarray, " runs"],
    alpha: float,
    within: bool = False,
) -> Evidence:
    """Evidence on how strongly two columns go together: :func:`rank_correlation` with configurations as clusters.

    A run with a value that is not finite counts as failed. There is no p-value: the interval alone decides.
    """
    found = rank_correlation(values, against, configurations, alpha, within=within)
    n_complete = int(np.count_nonzero(np.isfinite(values) & np.isfinite(against)))
    n_failed = len(values) - n_complete
    interval = (found.ci_low, found.ci_high)
    return Evidence(
        found.rho, *interval, n_complete, n_failed, p=np.nan, p_sign_flip=np.nan, n_configurations=found.n_clusters
    )


def complete_seeds(values: Float64[np.ndarray, "seeds arms"]) -> tuple[Float64[np.ndarray, "kept arms"], int]:
    """The seeds whose values are finite in every arm, and how many are not."""
    finite = np.isfinite(values).all(axis=1)
    return values[finite], int((~finite).sum())


def one_sided_p(differences: Float64[np.ndarray, " seeds"]) -> float:
    """One-sided p of the t test of mean > 0; with zero variance 0 if the mean is positive, else 1."""
    if is_constant(differences):
        return 0.0 if differences.mean() > 0 else 1.0
    return float(stats.ttest_1samp(differences, 0.0, alternative="greater").pvalue)


def sign_flip_p(differences: Float64[np.ndarray, " seeds"]) -> float:
    """One-sided p of the sign-flip test of symmetry about zero; exact (all 2ⁿ patterns) up to 12 seeds."""
    result = stats.permutation_test(
        (differences,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        alternative="greater",
        n_resamples=EXACT_FLIPS,
        vectorized=True,
        random_state=0,
    )
    return float(result.pvalue)


def holm(p: Float64[np.ndarray, " claims"]) -> Float64[np.ndarray, " claims"]:
    """Holm-adjusted p-values of one family; a claim without p-value (NaN) counts as p = 1 and stays NaN.

    Counting it keeps the correction of the others from easing because a run failed.
    """
    if len(p) == 0:
        return p
    adjusted = multipletests(np.nan_to_num(p, nan=1.0), method="holm")[1]
    return np.where(np.isnan(p), np.nan, adjusted)


def _directional(
    contrasts: Float64[np.ndarray, "seeds contrasts"],
    effect: Float64[np.ndarray, " seeds"],
    n_failed: int,
    alpha: float,
    reversals: tuple[int, ...] = (),
) -> Evidence:
    """Intersection–union over the contrasts, and the interval of the effect."""
    estimate, low, high = t_interval(effect, alpha)
    p = p_flip = np.nan
    if len(effect) >= MINIMUM_UNITS:
        p = max(one_sided_p(contrast) for contrast in contrasts.T)
        p_flip = max(sign_flip_p(contrast) for contrast in contrasts.T)
    return Evidence(estimate, low, high, len(effect), n_failed, p, p_flip, reversals)


def _falls(steps: Float64[np.ndarray, "seeds steps"]) -> tuple[int, ...]:
    return tuple(int(n) for n in (steps < 0).sum(axis=0))
