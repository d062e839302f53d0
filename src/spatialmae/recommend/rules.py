"""Rules that score settings for given images, and whether they earn their place against settings that ask no images.

A rule gives every patch size and masking ratio a score from the closed form's evidence, and recommends the highest. It
has one number that no theory gives; this is tuned where the accuracy of a linear probe was measured over a whole grid.
Whether it helps is measured by leaving one data set out: rule and number are chosen on the others alone. The unit is
the data set, and one whose accuracy hardly depends on the setting says nothing.

The rules were written before any grid was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy.stats import spearmanr

from spatialmae.analysis.interval import t_interval

Score = Callable[[pd.DataFrame, float], Float64[np.ndarray, " settings"]]

LEAST_RANGE = 0.03  # of accuracy over a grid: less says nothing about settings
DEFAULT_MASK_RATIO, DEFAULT_PATCHES = 0.75, 14  # MAE's: patches of 16 px in images of 224
LEAST_SETS = 3  # data sets that a verdict needs
BASELINES = ("default", "fixed", "random")
HELD_OUT_COLUMNS = [
    *("dataset", "rule", "value", "patch_size", "mask_ratio", "range", "rho", "regret"),
    *(f"regret_{baseline}" for baseline in BASELINES),
]


@dataclass(frozen=True)
class Rule:
    """A score of settings with one free number.

    Attributes:
        name: of the rule.
        says: what it prefers, in a sentence with a place for the number, ``{}``.
        values: that the number is chosen from.
        score: of the rows of evidence (:func:`~spatialmae.recommend.evidence.theory_cells`), higher is better.
    """

    name: str
    says: str
    values: tuple[float, ...]
    score: Score


def _near(found: pd.Series, wanted: pd.Series | float) -> Float64[np.ndarray, " settings"]:
    """Minus the distance in octaves."""
    return -np.abs(np.log2(found / wanted)).to_numpy(dtype=np.float64)


RULES = (
    Rule(
        "reach in correlation lengths",
        "the linear MAE's reach is {:g} times the distance at which the images' correlation falls to 1/e",
        (0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0),
        lambda cells, value: _near(cells["reach"], value * cells["correlation_length"]),
    ),
    Rule(
        "reach in image sides",
        "the linear MAE's reach is {:g} of the image side",
        (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4),
        lambda cells, value: _near(cells["reach"], value * cells["image_size"]),
    ),
    Rule(
        "unexplained share",
        "the best linear reconstruction leaves {:g} of the hidden pixels' variance unexplained",
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        lambda cells, value: -np.abs(cells["unexplained"] - value).to_numpy(dtype=np.float64),
    ),
)


@dataclass(frozen=True)
class TunedRule:
    """A rule with its number."""

    rule: Rule
    value: float

    def score(self, cells: pd.DataFrame) -> Float64[np.ndarray, " settings"]:
        """Of each setting, higher is better."""
        return self.rule.score(cells, self.value)

    def pick(self, cells: pd.DataFrame) -> int:
        """Position of the best setting, the first of ties, and so the smallest patch and the lowest ratio."""
        return int(np.argmax(self.score(cells)))

    @property
    def says(self) -> str:
        """What it prefers."""
        return self.rule.says.format(self.value)


def default_position(cells: pd.DataFrame) -> int:
    """Position of the setting nearest to MAE's own: 14 patches a side, 75 % masked."""
    distance = np.abs(np.log2(cells["patch_size"] * DEFAULT_PATCHES / cells["image_size"]))
    distance = distance + 1e-3 * np.abs(cells["mask_ratio"] - DEFAULT_MASK_RATIO)  # the patch decides, then the ratio
    return int(np.argmin(distance))


def setting_of(row: pd.Series) -> tuple[int, float]:
    """Patch size in px and masking ratio of a row."""
    return int(row["patch_size"]), float(row["mask_ratio"])


def informative_sets(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The grids of the data sets on which accuracies differ enough to say anything about settings."""
    sets = {str(name): grid.reset_index(drop=True) for name, grid in cells.groupby("dataset", sort=False)}
    return {name: grid for name, grid in sets.items() if np.ptp(grid["validation_accuracy"]) >= LEAST_RANGE}


def tune(sets: Sequence[pd.DataFrame]) -> TunedRule:
    """The rule and number that lose the least validation accuracy on average; of ties, the one that ranks best.

    Args:
        sets: the grid of each data set, with ``validation_accuracy``.

    Raises:
        ValueError: there is no data set.
    """
    if not sets:
        raise ValueError("sets: there is none to tune on; measure some")
    candidates = [TunedRule(rule, value) for rule in RULES for value in rule.values]
    return min(candidates, key=lambda tuned: _mean_regret(tuned, sets))


def _mean_regret(tuned: TunedRule, sets: Sequence[pd.DataFrame]) -> tuple[float, float]:
    regrets = [regret(cells["validation_accuracy"], tuned.pick(cells)) for cells in sets]
    ranks = [rank_agreement(tuned.score(cells), cells["validation_accuracy"]) for cells in sets]
    return float(np.mean(regrets)), -float(np.mean(ranks))


def tune_fixed(sets: Sequence[pd.DataFrame], among: pd.DataFrame) -> int:
    """Position in ``among`` of the patches a side and masking ratio that lose the least validation accuracy on sets.

    Raises:
        ValueError: the grids have no setting in common.
    """
    found = [fixed_settings(cells) for cells in sets]
    wanted = fixed_settings(among)
    common = [setting for setting in wanted if all(setting in own for own in found)]
    if not common:
        raise ValueError("sets: their grids have no setting in common; measure one on all")

    def mean_regret(setting: tuple[int, float]) -> float:
        pairs = zip(sets, found, strict=True)
        return float(np.mean([regret(cells["validation_accuracy"], own.index(setting)) for cells, own in pairs]))

    return wanted.index(min(common, key=mean_regret))


def fixed_settings(cells: pd.DataFrame) -> list[tuple[int, float]]:
    """Patches a side and masking ratio of each row."""
    sides = cells["image_size"] // cells["patch_size"]
    return list(zip(sides.tolist(), cells["mask_ratio"].tolist(), strict=True))


def regret(accuracy: pd.Series, position: int) -> float:
    """Accuracy lost against the best setting of the grid."""
    return float(accuracy.max() - accuracy.iloc[position])


def rank_agreement(score: Float64[np.ndarray, " settings"], accuracy: pd.Series) -> float:
    """Spearman's rho of score and accuracy over a grid; 0 where the score or the accuracy is the same everywhere."""
    return 0.0 if np.ptp(score) == 0 or np.ptp(accuracy) == 0 else float(spearmanr(score, accuracy).statistic)


def leave_one_out(cells: pd.DataFrame) -> pd.DataFrame:
    """What following a rule costs on each data set that it was not tuned on.

    Args:
        cells: the grids of all data sets: ``dataset``, the columns of
            :func:`~spatialmae.recommend.evidence.theory_cells`, ``accuracy`` on test images and
            ``validation_accuracy``, means over training seeds, 0 … 1.

    Returns:
        A row for each informative data set: the rule chosen on the others, its pick, ``rho`` with the accuracy over the
        grid, and the test accuracy lost (``regret``) by following it, by MAE's own setting, by the fixed setting that
        was best on the others, and on average by a setting drawn at random. No rows if fewer than two are informative.
    """
    sets = informative_sets(cells)
    others = {name: [own for other, own in sets.items() if other != name] for name in sets}
    rows = [_held_out(name, own, others[name]) for name, own in sets.items() if others[name]]
    return pd.DataFrame(rows, columns=HELD_OUT_COLUMNS)


def _held_out(name: str, own: pd.DataFrame, others: Sequence[pd.DataFrame]) -> dict[str, Any]:
    tuned, accuracy = tune(others), own["accuracy"]
    pick = tuned.pick(own)
    return {
        "dataset": name,
        "rule": tuned.rule.name,
        "value": tuned.value,
        **dict(zip(("patch_size", "mask_ratio"), setting_of(own.iloc[pick]), strict=True)),
        "range": float(np.ptp(accuracy)),
        "rho": rank_agreement(tuned.score(own), accuracy),
        "regret": regret(accuracy, pick),
        "regret_default": regret(accuracy, default_position(own)),
        "regret_fixed": regret(accuracy, tune_fixed(others, own)),
        "regret_random": float(accuracy.max() - accuracy.mean()),
    }


@dataclass(frozen=True)
class Comparison:
    """How much less accuracy a rule loses than a baseline, over data sets.

    Attributes:
        baseline: ``default``, ``fixed`` or ``random``.
        mean: regret of the baseline minus that of the rule, positive where the rule is better.
        ci_low: lower end of the two-sided 95 % t interval over data sets; NaN below three.
        ci_high: its upper end.
        n_sets: data sets.
    """

    baseline: str
    mean: float
    ci_low: float
    ci_high: float
    n_sets: int

    @property
    def rule_is_better(self) -> bool:
        """Whether the whole interval is above 0."""
        return bool(self.ci_low > 0)


def compare(held_out: pd.DataFrame, baseline: str) -> Comparison:
    """The rule against a baseline, paired by data set.

    Args:
        held_out: from :func:`leave_one_out`.
        baseline: one of :data:`BASELINES`.
    """
    gained = held_out[f"regret_{baseline}"] - held_out["regret"]
    return Comparison(baseline, *mean_interval(gained.to_numpy(dtype=np.float64)), len(gained))


def mean_interval(values: Float64[np.ndarray, " sets"]) -> tuple[float, float, float]:
    """Mean over data sets and the ends of its two-sided 95 % t interval; NaN for these below three data sets."""
    mean, low, high = t_interval(values)
    return (mean, low, high) if len(values) >= LEAST_SETS else (mean, float("nan"), float("nan"))
