"""Whether a measure turns back at the end of an axis, by differences within seeds."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spatialmae.analysis.turning import paired_change, turn


def make_rows(by_place: dict[float, float], seeds: int = 5, spread: float = 0.1) -> pd.DataFrame:
    """Seeds that are far apart, and differ a little in their changes."""
    rows = [
        {"seed": seed, "at": place, "y": value + 10 * seed + spread * seed * place}
        for place, value in by_place.items()
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def test_a_change_is_a_paired_t_interval_over_the_seeds_that_have_both_places():
    rows = make_rows({1: 0.0, 2: 1.0})
    rows = rows[~((rows["seed"] == 4) & (rows["at"] == 2))]
    change = paired_change(rows, "at", "y", 1, 2)
    differences = [1 + 0.1 * seed for seed in range(4)]
    low, high = stats.t.interval(0.95, 3, np.mean(differences), stats.sem(differences))
    assert (change.mean, change.low, change.high) == pytest.approx((np.mean(differences), low, high))
    assert (change.sign, change.word) == (1, "rises")


@pytest.mark.parametrize(
    ("by_place", "word"),
    [
        ({1: 0.0, 2: 5.0, 3: 9.0}, "goes on"),
        ({1: 0.0, 2: 5.0, 3: 1.0}, "turns back"),
        ({1: 5.0, 2: 1.0, 3: 9.0}, "turns back"),
        ({1: -0.2, 2: -0.4, 3: 9.0}, "rises"),
        ({1: 9.0, 2: 1.0, 3: 0.8}, "undecided"),
        ({2: 5.0, 3: 1.0}, "falls"),
    ],
)
def test_it_turns_back_only_against_a_certain_change_before(by_place, word):
    assert turn(make_rows(by_place), "at", "y", list(by_place)).word == word


def test_one_seed_or_none_decides_nothing():
    rows = make_rows({1: 0.0, 2: 5.0, 3: 1.0}, seeds=1)
    assert turn(rows, "at", "y", [1, 2, 3]).word == "one seed"
    assert turn(rows[rows["at"] < 3], "at", "y", [1, 2, 3]).word == "not measured"


def test_several_rows_of_a_seed_are_refused():
    rows = make_rows({1: 0.0, 2: 5.0})
    with pytest.raises(ValueError, match="several rows of one seed"):
        paired_change(pd.concat([rows, rows]), "at", "y", 1, 2)
