"""Whether a measure goes on, or turns back, at the end of an axis such as the masking ratio, within training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spatialmae.analysis.interval import t_interval


@dataclass(frozen=True)
class Change:
    """Mean over seeds of a paired difference, with its two-sided 95 % t interval; NaN where there is none."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, differences: pd.Series) -> Change:
        """From a difference for each seed; missing ones are left out."""
        return cls(*t_interval(differences.dropna().to_numpy(np.float64)))

    @property
    def sign(self) -> int:
        """Of all values of the interval; 0 where they have none in common."""
        return int(self.low > 0) - int(self.high < 0)

    @property
    def word(self) -> str:
        """What a reader may say of it."""
        if np.isnan(self.mean):
            return "not measured"
        if np.isnan(self.low):
            return "one seed"
        return {1: "rises", -1: "falls", 0: "undecided"}[self.sign]


@dataclass(frozen=True)
class Turn:
    """A measure over the last step of an axis, and over all of the axis before that step.

    Attributes:
        places: the lowest place of the axis, and its two highest.
        before: from the lowest to the second highest; None where they are the same.
        last: between the two highest.
    """

    places: tuple[float, float, float]
    before: Change | None
    last: Change

    @property
    def word(self) -> str:
        """It turns back where the last step is certain, and certainly opposed to what came before."""
        if not self.last.sign or self.before is None or not self.before.sign:
            return self.last.word
        return "goes on" if self.before.sign == self.last.sign else "turns back"


def turn(rows: pd.DataFrame, along: str, value: str, places: Sequence[float]) -> Turn:
    """What a measure does at the highest of at least two places of an axis.

    Args:
        rows: a row for each seed and place: seed, the axis, and the value; missing values are left out.
        along: column of the axis.
        value: column of the measure.
        places: the axis's places, rising.
    """
    first, low, high = places[0], *places[-2:]
    before = None if first == low else paired_change(rows, along, value, first, low)
    return Turn((first, low, high), before, paired_change(rows, along, value, low, high))


def paired_change(rows: pd.DataFrame, along: str, value: str, low: float, high: float) -> Change:
    """Change of a measure between two places of an axis, by differences within the seeds that have both.

    Raises:
        ValueError: a seed has several rows at one place, which would pass for independent replicates.
    """
    if rows.duplicated([along, "seed"]).any():
        raise ValueError(f"several rows of one seed share a {along}: select or average them before comparing {value}")
    at_low, at_high = (rows[rows[along] == place].set_index("seed")[value] for place in (low, high))
    return Change.of(at_high - at_low)
