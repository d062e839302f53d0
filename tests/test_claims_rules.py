from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from spatialmae.claims import rules
from spatialmae.claims.ledger import Rule
from spatialmae.claims.verdicts import decide

ALPHA = 0.05
REPEATS = 1500
SEEDS = 6


def most_rejections(rate: float, repeats: int = REPEATS) -> float:
    """A count that a true rate of at most ``rate`` exceeds once in ten thousand runs."""
    return stats.binom.ppf(1 - 1e-4, repeats, rate)


def least_rejections(rate: float, repeats: int = REPEATS) -> float:
    return stats.binom.ppf(1e-4, repeats, rate)


def samples(means: list[float], repeats: int = REPEATS, n: int = SEEDS) -> np.ndarray:
    """(repeats, seeds, arms): noise that the arms of a seed share, as pairing assumes, and noise of each arm."""
    rng = np.random.default_rng(20)
    shared = rng.normal(size=(repeats, n, 1)) * 3
    return np.asarray(means) + shared + rng.normal(size=(repeats, n, len(means)))


def rejections(evidence: list[rules.Evidence], field: str = "p") -> int:
    return sum(getattr(item, field) < ALPHA for item in evidence)


# Truths on the border of the null hypothesis, where a rule errs most: (rule, means of the arms).
BORDERS = {
    "ordering of two": (lambda v: rules.ordering(v, ALPHA), [0.0, 0.0]),
    "ordering, one step of three null": (lambda v: rules.ordering(v, ALPHA), [0.0, 30.0, 30.0, 60.0]),
    "trend": (lambda v: rules.trend(v, [0.1, 0.25, 0.5, 0.9], ALPHA), [0.0, 0.0, 0.0, 0.0]),
    "inverted U, high end level with the peak": (lambda v: rules.inverted_u(v, ALPHA), [0.0, 30.0, 30.0]),
    "equivalence at the margin": (lambda v: rules.equivalence(v, [-30.0, 2.0], ALPHA), [0.0, 2.0]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "means"), BORDERS.values(), ids=BORDERS.keys())
def test_false_positive_rate_is_alpha_on_the_border_of_the_null(rule, means):
    evidence = [rule(values) for values in samples(means)]
    assert least_rejections(ALPHA) <= rejections(evidence) <= most_rejections(ALPHA)
    # Six seeds give 64 sign patterns, so the exact test can reach 3/64 and no more.
    assert rejections(evidence, "p_sign_flip") <= most_rejections(3 / 64)


@pytest.mark.slow
def test_false_positive_rate_of_a_single_arm_against_zero():
    values = np.random.default_rng(3).normal(size=(REPEATS, SEEDS, 1))
    evidence = [rules.ordering(sample, ALPHA) for sample in values]
    assert least_rejections(ALPHA) <= rejections(evidence) <= most_rejections(ALPHA)


INSIDE = {
    "all arms level": (lambda v: rules.ordering(v, ALPHA), [0.0, 0.0, 0.0]),
    "inverted U, all level": (lambda v: rules.inverted_u(v, ALPHA), [0.0, 0.0, 0.0]),
    "falling trend": (lambda v: rules.trend(v, [1.0, 2.0, 3.0], ALPHA), [1.0, 0.5, 0.0]),
    "rising, so no inverted U": (lambda v: rules.inverted_u(v, ALPHA), [0.0, 1.0, 2.0]),
}


@pytest.mark.parametrize(("rule", "means"), INSIDE.values(), ids=INSIDE.keys())
def test_false_positive_rate_is_at_most_alpha_inside_the_null(rule, means):
    evidence = [rule(values) for values in samples(means, repeats=500)]
    assert rejections(evidence) <= most_rejections(ALPHA, 500)


POWER = {
    "ordering": (lambda v: rules.ordering(v, ALPHA), [0.0, 4.0, 8.0]),
    "trend": (lambda v: rules.trend(v, [1.0, 2.0, 3.0], ALPHA), [0.0, 2.0, 4.0]),
    "inverted U": (lambda v: rules.inverted_u(v, ALPHA), [0.0, 4.0, 0.0]),
    "equivalence": (lambda v: rules.equivalence(v, [-4.0, 4.0], ALPHA), [0.0, 0.0]),
}


@pytest.mark.parametrize(("rule", "means"), POWER.values(), ids=POWER.keys())
def test_a_large_effect_is_found_in_most_runs(rule, means):
    assert rejections([rule(values) for values in samples(means, repeats=200)]) > 160


def verdicts(values: np.ndarray, smallest: float, inverted: bool = False) -> list[str]:
    rule = Rule(family="A5", smallest_effect=smallest)
    weigh = rules.inverted_u if inverted else rules.ordering
    evidence = [weigh(sample, ALPHA) for sample in values]
    return [decide(rule, item, item.p)[0] for item in evidence]


@pytest.mark.slow
def test_replicated_is_rarer_than_alpha_where_there_is_no_effect():
    found = verdicts(samples([0.0, 0.0]), smallest=0.1)
    assert found.count("REPLICATED") <= most_rejections(ALPHA)


@pytest.mark.slow
def test_contradicted_is_rarer_than_half_alpha_where_there_is_no_effect():
    found = verdicts(samples([0.0, 0.0]), smallest=0.1)
    assert found.count("CONTRADICTED") <= most_rejections(ALPHA / 2)


@pytest.mark.slow
def test_contradicted_is_rarer_than_alpha_for_an_inverted_u_that_is_flat():
    found = verdicts(samples([0.0, 0.0, 0.0]), smallest=0.1, inverted=True)
    assert found.count("CONTRADICTED") <= most_rejections(ALPHA)


@pytest.mark.slow
def test_null_is_rarer_than_half_alpha_where_the_effect_is_the_smallest_of_interest():
    found = verdicts(samples([0.0, 3.0]), smallest=3.0)
    assert 0 < found.count("NULL") <= most_rejections(ALPHA / 2)


@pytest.mark.slow
def test_interval_covers_the_true_effect_as_often_as_it_says():
    evidence = [rules.ordering(values, ALPHA) for values in samples([0.0, 5.0, 1.0])]
    misses = sum(not item.ci_low <= 1.0 <= item.ci_high for item in evidence)
    assert least_rejections(ALPHA) <= misses <= most_rejections(ALPHA)


def test_holm_keeps_the_familywise_error_at_alpha(monkeypatch):
    # statsmodels collects garbage in every call, which makes thousands of calls slow.
    monkeypatch.setattr("gc.collect", lambda: 0)
    p = np.random.default_rng(5).uniform(size=(2000, 5))
    families_with_error = sum((rules.holm(family) < ALPHA).any() for family in p)
    assert least_rejections(0.04, 2000) <= families_with_error <= most_rejections(ALPHA, 2000)


def test_ordering_equals_the_paired_t_tests_and_the_endpoint_interval():
    values = np.random.default_rng(1).normal(size=(7, 3)) + np.arange(3)
    evidence = rules.ordering(values, ALPHA)
    expected = [stats.ttest_rel(values[:, i + 1], values[:, i], alternative="greater").pvalue for i in range(2)]
    interval = stats.ttest_rel(values[:, 2], values[:, 0]).confidence_interval(0.95)
    assert evidence.p == pytest.approx(max(expected))
    assert (evidence.ci_low, evidence.ci_high) == pytest.approx((interval.low, interval.high))
    assert evidence.estimate == pytest.approx((values[:, 2] - values[:, 0]).mean())
    assert evidence.reversals == tuple((np.diff(values, axis=1) < 0).sum(axis=0))


def test_trend_estimates_the_fitted_difference_between_the_end_points():
    x = [0.1, 0.25, 0.5, 0.9]
    values = np.random.default_rng(1).normal(size=(6, 4))
    rises = [stats.linregress(x, row).slope * 0.8 for row in values]
    evidence = rules.trend(values, x, ALPHA)
    assert evidence.estimate == pytest.approx(np.mean(rises))
    assert evidence.p == pytest.approx(stats.ttest_1samp(rises, 0, alternative="greater").pvalue)


def test_inverted_u_reports_its_weaker_contrast():
    values = samples([0.0, 5.0, 4.0], repeats=1)[0]
    evidence = rules.inverted_u(values, ALPHA)
    assert evidence.estimate == pytest.approx((values[:, 1] - values[:, 2]).mean())
    assert evidence.p == pytest.approx(stats.ttest_rel(values[:, 1], values[:, 2], alternative="greater").pvalue)
    assert evidence.reversals == (0, (values[:, 1] < values[:, 2]).sum())


def test_equivalence_is_the_larger_of_two_one_sided_tests():
    values = samples([0.0, 0.3], repeats=1)[0]
    difference = values[:, 1] - values[:, 0]
    above = stats.ttest_1samp(difference, -2.0, alternative="greater").pvalue
    below = stats.ttest_1samp(difference, 1.0, alternative="less").pvalue
    assert rules.equivalence(values, [-2.0, 1.0], ALPHA).p == pytest.approx(max(above, below))


@given(arrays(np.float64, 5, elements=st.integers(-4, 4).map(float)))
def test_sign_flip_p_is_the_share_of_sign_patterns_with_at_least_this_sum(differences):
    sums = [np.dot(signs, differences) for signs in itertools.product([-1, 1], repeat=5)]
    assert rules.sign_flip_p(differences) == pytest.approx(np.mean(np.array(sums) >= differences.sum()))


def test_sign_flip_of_many_seeds_is_drawn_and_the_same_every_time():
    differences = np.random.default_rng(2).normal(0.5, 1, 20)
    assert rules.sign_flip_p(differences) == rules.sign_flip_p(differences)
    assert rules.sign_flip_p(differences) == pytest.approx(rules.one_sided_p(differences), abs=0.01)


def test_holm_against_hand_computation():
    adjusted = rules.holm(np.array([0.01, 0.04, 0.03]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06])


def test_a_claim_without_p_counts_in_its_family_and_stays_without():
    np.testing.assert_allclose(rules.holm(np.array([0.02, np.nan, 0.04])), [0.06, np.nan, 0.08])


@pytest.mark.parametrize(("step", "p"), [(0.5, 0.0), (0.0, 1.0), (-0.5, 1.0)])
def test_zero_variance_collapses_the_interval_and_decides_p(step, p):
    values = np.tile([1.0, 1.0 + step], (5, 1))
    evidence = rules.ordering(values, ALPHA)
    assert (evidence.estimate, evidence.ci_low, evidence.ci_high, evidence.p) == (step, step, step, p)


@pytest.mark.parametrize(("difference", "p"), [(0.0, 0.0), (0.5, 1.0), (1.0, 1.0)])
def test_equivalence_without_variance_is_decided_by_the_margin(difference, p):
    values = np.tile([0.0, difference], (5, 1))
    assert rules.equivalence(values, [-0.5, 0.5], ALPHA).p == p


def test_ties_are_no_reversals_and_no_support():
    evidence = rules.ordering(np.zeros((6, 3)), ALPHA)
    assert (evidence.reversals, evidence.p, evidence.p_sign_flip) == ((0, 0), 1.0, 1.0)


def test_a_seed_with_a_missing_value_is_left_out_in_all_arms_and_counted():
    values = samples([0.0, 1.0], repeats=1, n=8)[0]
    broken = np.vstack([values, [[np.nan, 100.0]], [[1.0, np.inf]]])
    evidence, expected = rules.ordering(broken, ALPHA), rules.ordering(values, ALPHA)
    assert (evidence.n_seeds, evidence.n_failed) == (8, 2)
    assert (evidence.estimate, evidence.p) == (expected.estimate, expected.p)
    assert not evidence.too_many_failed


@pytest.mark.parametrize(("failed", "total", "too_many"), [(1, 5, False), (2, 9, True), (2, 10, False), (6, 6, True)])
def test_more_than_one_failed_seed_in_five_is_too_many(failed, total, too_many):
    values = np.ones((total, 2))
    values[:failed, 0] = np.nan
    assert rules.ordering(values, ALPHA).too_many_failed is too_many


@pytest.mark.parametrize(
    "rule",
    [
        lambda v: rules.ordering(v, ALPHA),
        lambda v: rules.trend(v, [1.0, 2.0, 3.0], ALPHA),
        lambda v: rules.inverted_u(v, ALPHA),
        lambda v: rules.equivalence(v[:, :2], [-1.0, 1.0], ALPHA),
        lambda v: rules.equality(v[:, :1]),
    ],
)
def test_no_seed_at_all_yields_no_evidence(rule):
    evidence = rule(np.full((3, 3), np.nan))
    assert np.isnan([evidence.estimate, evidence.ci_low, evidence.ci_high, evidence.p]).all()
    assert evidence.too_many_failed


@pytest.mark.parametrize("n", [1, 2, 4])
def test_below_five_seeds_there_is_an_interval_but_no_p(n):
    evidence = rules.ordering(samples([0.0, 9.0], repeats=1, n=n)[0], ALPHA)
    assert np.isnan(evidence.p)
    assert np.isnan(evidence.p_sign_flip)
    assert np.isfinite(evidence.ci_low) == (n > 1)


def test_equality_reports_the_largest_error_and_the_range():
    evidence = rules.equality(np.array([[1e-9], [3e-9], [2e-9], [1e-9], [1e-9]]))
    assert (evidence.estimate, evidence.ci_low, evidence.ci_high) == (3e-9, 1e-9, 3e-9)
    assert np.isnan(evidence.p)


def evidence_of(estimate: float, low: float, high: float, n: int = 6) -> rules.Evidence:
    return rules.Evidence(estimate, low, high, n, 0, 0.01, 0.02)


@pytest.mark.parametrize(
    ("estimate", "low", "high", "p", "verdict"),
    [
        (0.1, -0.2, 0.4, 0.001, "NULL"),  # before REPLICATED in the order
        (0.7, 0.6, 0.8, 0.049, "REPLICATED"),
        (0.7, 0.6, 0.8, 0.05, "INCONCLUSIVE"),  # Holm's p is not below alpha
        (0.4, 0.1, 0.7, 0.001, "INCONCLUSIVE"),  # significant, but below the smallest effect
        (-0.7, -0.9, -0.5, 0.999, "CONTRADICTED"),
        (-0.4, -0.7, -0.1, 0.999, "INCONCLUSIVE"),  # below zero, but by too little
        (-0.7, -1.5, 0.1, 0.999, "INCONCLUSIVE"),
    ],
)
def test_order_of_directional_verdicts(estimate, low, high, p, verdict):
    rule = Rule(family="A5", smallest_effect=0.5)
    assert decide(rule, evidence_of(estimate, low, high), p)[0] == verdict


@pytest.mark.parametrize(
    ("estimate", "low", "high", "p", "verdict"),
    [
        (0.0, -0.1, 0.1, 0.01, "REPLICATED"),
        (0.4, 0.1, 0.7, 0.2, "INCONCLUSIVE"),
        (0.9, 0.6, 1.2, 0.99, "CONTRADICTED"),
        (-0.9, -1.2, -0.6, 0.99, "CONTRADICTED"),
    ],
)
def test_verdicts_of_equivalence(estimate, low, high, p, verdict):
    rule = Rule(family="A7", margin=[-0.5, 0.5])
    assert decide(rule, evidence_of(estimate, low, high), p)[0] == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.0, 0.1, "REPLICATED"), (0.0, 0.2, "INCONCLUSIVE"), (0.2, 0.3, "CONTRADICTED")]
)
def test_verdicts_of_equality(low, high, verdict):
    rule = Rule(family="A1", tolerance=0.1)
    assert decide(rule, evidence_of(high, low, high), np.nan)[0] == verdict


@pytest.mark.parametrize(
    ("rule", "estimate", "sign"),
    [
        (Rule(family="A5", smallest_effect=0.5), 0.6, "+"),
        (Rule(family="A5", smallest_effect=0.5), -0.6, "-"),
        (Rule(family="A5", smallest_effect=0.5), 0.4, "0"),
        (Rule(family="A5", margin=[-1.0, 1.0]), 0.4, "+"),
        (Rule(family="A5", margin=[-1.0, 1.0]), -1.4, "-"),
        (Rule(family="A5", tolerance=1.0), 0.4, "+"),
        (Rule(family="A5", tolerance=0.1), 0.4, "-"),
    ],
)
def test_few_seeds_only_suggest(rule, estimate, sign):
    assert decide(rule, evidence_of(estimate, estimate, estimate, n=4), np.nan)[0] == f"SUGGESTIVE({sign})"


def test_exploring_seeds_only_suggest_however_many():
    rule = Rule(family="A5", smallest_effect=0.5)
    verdict, reason = decide(rule, evidence_of(0.9, 0.8, 1.0, n=50), 1e-9, exploring=True)
    assert verdict == "SUGGESTIVE(+)"
    assert "exploring" in reason
