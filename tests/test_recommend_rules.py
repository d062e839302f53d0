"""Rules of the recommender: tuned on other data sets alone, and judged against settings that ask no images."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from spatialmae.recommend.rules import (
    HELD_OUT_COLUMNS,
    RULES,
    TunedRule,
    compare,
    default_position,
    informative_sets,
    leave_one_out,
    mean_interval,
    rank_agreement,
    tune,
)


def grid(length: float, seed: int) -> pd.DataFrame:
    """Evidence on a made-up data set: what counts is that columns vary as the closed form's do."""
    rng = np.random.default_rng(seed)
    rows = [(p, m) for p in (2, 4, 8) for m in (0.1, 0.25, 0.5, 0.75)]
    cells = pd.DataFrame(rows, columns=["patch_size", "mask_ratio"]).assign(image_size=16, correlation_length=length)
    cells["reach"] = length**0.3 * cells["patch_size"] ** 0.5 * (0.5 + cells["mask_ratio"]) * rng.uniform(0.9, 1.1, 12)
    cells["unexplained"] = 1 - np.exp(-cells["patch_size"] * (0.3 + cells["mask_ratio"]) / length / 3)
    return cells


def calibration(n_sets: int = 8, rule: int | None = 2, value: float = 0.4, noise: float = 0.003) -> pd.DataFrame:
    """Data sets whose accuracy follows one of the rules, or nothing (None)."""
    sets = []
    for i in range(n_sets):
        cells, rng = grid(1.0 + i, i), np.random.default_rng(100 + i)
        score = rng.normal(size=len(cells)) if rule is None else RULES[rule].score(cells, value)
        accuracy = 0.6 + 0.1 * (score - score.min()) / np.ptp(score)
        for column in ("accuracy", "validation_accuracy"):
            cells[column] = accuracy + rng.normal(scale=noise, size=len(cells))
        sets.append(cells.assign(dataset=f"set{i}"))
    return pd.concat(sets, ignore_index=True)


@pytest.mark.parametrize(("rule", "value"), [(0, 1.0), (1, 0.2), (2, 0.4)])
def test_a_rule_that_accuracy_follows_is_found_and_earns_its_place(rule, value):
    held_out = leave_one_out(calibration(rule=rule, value=value))
    assert set(held_out["rule"]) == {RULES[rule].name}
    assert held_out["regret"].max() < 0.01 and held_out["rho"].min() > 0.9
    assert compare(held_out, "default").rule_is_better and compare(held_out, "random").rule_is_better


@pytest.mark.slow
def test_where_accuracy_follows_nothing_no_rule_earns_its_place():
    better = [compare(leave_one_out(calibration(rule=None).assign(**shuffled(seed))), "default") for seed in range(20)]
    assert sum(one.rule_is_better for one in better) <= 3


def shuffled(seed: int) -> dict[str, np.ndarray]:
    accuracy = np.random.default_rng(seed).uniform(0.5, 0.6, 96)
    return {"accuracy": accuracy, "validation_accuracy": accuracy}


@pytest.mark.slow
def test_what_is_held_out_has_no_say_in_the_rule_and_test_accuracies_none_at_all():
    cells = calibration()
    before = leave_one_out(cells).set_index("dataset")
    own = cells["dataset"] == "set3"
    changed = cells.copy()
    changed.loc[own, "validation_accuracy"] = cells.loc[own, "validation_accuracy"].to_numpy()[::-1]
    changed["accuracy"] = 1 - cells["accuracy"]
    after = leave_one_out(changed).set_index("dataset")
    chosen = ["rule", "value", "patch_size", "mask_ratio"]
    assert before.loc["set3", chosen].equals(after.loc["set3", chosen])
    assert not np.allclose(before["regret"], after["regret"])


def test_regrets_are_those_of_a_hand_made_grid():
    cells = pd.concat(
        [
            grid(2.0, i).assign(dataset=f"set{i}", validation_accuracy=accuracy, accuracy=accuracy)
            for i, accuracy in enumerate([np.linspace(0.5, 0.61, 12)] * 2)
        ]
    )
    held_out = leave_one_out(cells)
    assert held_out["regret_fixed"].tolist() == pytest.approx([0, 0])  # the last is best on both
    assert held_out["regret_random"].tolist() == pytest.approx([0.055, 0.055])
    assert held_out["regret_default"].tolist() == pytest.approx([0.08, 0.08])  # 2 px, .75: the fourth of twelve
    assert held_out["range"].tolist() == pytest.approx([0.11, 0.11])


def test_data_sets_that_hardly_depend_on_the_setting_are_left_out():
    cells = calibration(4)
    flat = cells["dataset"] == "set1"
    cells.loc[flat, "validation_accuracy"] = 0.6 + 0.029 * np.linspace(0, 1, flat.sum())
    assert list(informative_sets(cells)) == ["set0", "set2", "set3"]
    assert list(leave_one_out(cells)["dataset"]) == ["set0", "set2", "set3"]


def test_fewer_than_two_informative_sets_leave_nothing_to_compare():
    held_out = leave_one_out(calibration(1))
    assert held_out.empty and list(held_out.columns) == HELD_OUT_COLUMNS
    nothing = compare(held_out, "default")
    assert nothing.n_sets == 0 and np.isnan(nothing.mean) and not nothing.rule_is_better


def test_the_default_is_the_nearest_to_fourteen_patches_a_side_and_three_quarters():
    cells = grid(2.0, 0)
    assert cells.loc[default_position(cells), ["patch_size", "mask_ratio"]].tolist() == [2, 0.75]
    large = cells.assign(image_size=112, patch_size=cells["patch_size"] * 2)  # 4, 8, 16 px: 8 are a fourteenth
    assert large.loc[default_position(large), ["patch_size", "mask_ratio"]].tolist() == [8, 0.75]


def test_the_interval_is_that_of_a_t_test():
    values = np.array([0.01, 0.03, -0.02, 0.05])
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((values.mean(), interval.low, interval.high))
    assert np.isnan(mean_interval(values[:2])[1])


def test_ties_of_the_score_go_to_the_smallest_patch_and_ratio():
    cells = grid(2.0, 0).assign(unexplained=0.5)
    assert TunedRule(RULES[2], 0.5).pick(cells) == 0
    assert rank_agreement(TunedRule(RULES[2], 0.5).score(cells), pd.Series(range(12))) == 0


def test_there_is_nothing_to_tune_on_without_data_sets():
    with pytest.raises(ValueError, match="sets: there is none"):
        tune([])
