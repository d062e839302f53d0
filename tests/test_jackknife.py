"""The jackknife's pseudo-values: an identity, its bias, and the coverage of its interval."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spatialmae.analysis.jackknife import WHOLE, pseudo_values


def replicate_table(groups: list[np.ndarray], estimate) -> pd.DataFrame:
    whole = np.concatenate(groups)
    rows = [{"seed": WHOLE, "k": 1, "n_train": len(whole), "value": estimate(whole)}]
    for i in range(len(groups)):
        rest = np.concatenate(groups[:i] + groups[i + 1 :])
        rows.append({"seed": i, "k": 1, "n_train": len(rest), "value": estimate(rest)})
    return pd.DataFrame(rows)


def test_pseudo_values_of_a_mean_are_the_groups_means():
    groups = list(np.random.default_rng(0).normal(size=(5, 20)))
    table = pseudo_values(replicate_table(groups, np.mean), ["k"], ["value"])
    np.testing.assert_allclose(table["value"], [group.mean() for group in groups], atol=1e-12)
    assert list(table["seed"]) == [0, 1, 2, 3, 4]


def test_unequal_groups_keep_their_means():
    groups = [np.arange(3.0), np.arange(10.0), np.array([5.0])]
    table = pseudo_values(replicate_table(groups, np.mean), ["k"], ["value"])
    np.testing.assert_allclose(table["value"], [1.0, 4.5, 5.0])


@pytest.mark.slow
def test_bias_of_order_one_over_n_is_removed():
    rng = np.random.default_rng(0)
    biased, corrected = [], []
    for _ in range(2000):
        table = replicate_table(list(rng.normal(size=(5, 2))), np.var)
        biased.append(table["value"].iloc[0])
        corrected.append(pseudo_values(table, ["k"], ["value"])["value"].mean())
    assert np.mean(biased) == pytest.approx(0.9, abs=0.02)
    assert np.mean(corrected) == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
def test_interval_covers_a_correlation_as_often_as_it_says():
    rng, truth, covered, repeats = np.random.default_rng(0), 0.6, 0, 600
    for _ in range(repeats):
        samples = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], size=400)
        table = replicate_table(np.split(samples, 10), lambda rows: np.corrcoef(rows.T)[0, 1])
        values = pseudo_values(table, ["k"], ["value"])["value"]
        low, high = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
        covered += low < truth < high
    assert stats.binomtest(covered, repeats, 0.95).pvalue > 0.001


def test_estimates_that_are_not_finite_are_missing_and_notes_are_kept():
    table = pd.DataFrame({"seed": [WHOLE, 0, 1], "value": [np.inf, 1.0, np.inf], "note": ["a", "b", "c"]})
    table["k"], table["n_train"] = 1, [2, 1, 1]
    result = pseudo_values(table, ["k"], ["value"])
    assert result["value"].isna().all()
    assert list(result["note"]) == ["b", "c"]


@pytest.mark.parametrize(
    ("seeds", "keys", "message"),
    [([WHOLE, 0, 0], [1, 1, 1], "not identified"), ([WHOLE, 0, 1], [1, 1, 2], "the whole has not")],
)
def test_rows_that_do_not_match_are_refused(seeds, keys, message):
    table = pd.DataFrame({"seed": seeds, "k": keys, "n_train": [2, 1, 1], "value": 1.0})
    with pytest.raises(ValueError, match=message):
        pseudo_values(table, ["k"], ["value"])
