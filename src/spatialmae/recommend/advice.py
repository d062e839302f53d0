"""Evidence on given images put together to an answer: settings, how sure they are, what they rest on and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from spatialmae.analysis.lags import LagCovariance
from spatialmae.artifacts import nan_as_none
from spatialmae.recommend.evidence import Correlations, Grid, theory_cells
from spatialmae.recommend.images import FolderImages
from spatialmae.recommend.rules import (
    Comparison,
    TunedRule,
    compare,
    default_position,
    informative_sets,
    leave_one_out,
    mean_interval,
    setting_of,
    tune,
)
from spatialmae.tables import read_table

N_GROUPS = 5  # of images, each left out once
N_STEPS = 1 + N_GROUPS  # of :func:`advise`
MASK_RATIOS = (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9)
CALIBRATION = "calibration.csv"  # beside this module: the published run of config/calibration.yaml


@dataclass(frozen=True)
class Calibration:
    """What the rules were worth on data sets whose grids were measured.

    Attributes:
        cells: a row for each data set and setting, see :func:`~spatialmae.recommend.rules.leave_one_out`.
    """

    cells: pd.DataFrame

    @classmethod
    def published(cls) -> Calibration | None:
        """The one that comes with the package; None if none does."""
        path = files("spatialmae.recommend").joinpath(CALIBRATION)
        return cls(read_table(str(path))) if path.is_file() else None

    @cached_property
    def sets(self) -> dict[str, pd.DataFrame]:
        """The grids of the informative data sets."""
        return informative_sets(self.cells)

    @cached_property
    def held_out(self) -> pd.DataFrame:
        """What following a rule cost on each data set that it was not tuned on."""
        return leave_one_out(self.cells)

    @cached_property
    def comparison(self) -> Comparison:
        """The rules against MAE's own setting."""
        return compare(self.held_out, "default")

    @cached_property
    def rule(self) -> TunedRule:
        """The rule tuned on all data sets, of which there must be one."""
        return tune(list(self.sets.values()))

    @cached_property
    def rules(self) -> list[TunedRule]:
        """The rules tuned with each data set left out: how far the choice of data sets moves the answer."""
        return [tune([own for other, own in self.sets.items() if other != name]) for name in self.sets]

    @cached_property
    def rank_correlation(self) -> tuple[float, float, float]:
        """Mean over data sets of the rank correlation of score and accuracy, with its 95 % interval."""
        return mean_interval(self.held_out["rho"].to_numpy(dtype=np.float64))


@dataclass(frozen=True)
class Advice:
    """The answer for a folder of images.

    Attributes:
        grid: the settings that were compared.
        correlations: of the images' pixels.
        length_error: jackknife standard error of the correlation length, px; NaN where the length is, or where it
            cannot be estimated: without one of the groups there is no length, or all images are the same.
        cells: evidence on each setting, from all images.
        calibration: None where the package comes with none.
        picks: how often each (patch_size, mask_ratio) is the best one, over groups of images left out and rules tuned
            with each data set left out; empty where no rule earned its place.
    """

    grid: Grid
    correlations: Correlations
    length_error: float
    cells: pd.DataFrame
    calibration: Calibration | None
    picks: Counter[tuple[int, float]]

    @property
    def recommends(self) -> bool:
        """Whether a rule lost less than MAE's own setting in calibration, so that its pick is worth following."""
        return self.calibration is not None and self.calibration.comparison.rule_is_better

    @property
    def position(self) -> int:
        """The row of ``cells`` to follow: the rule's pick, or MAE's own setting."""
        if self.calibration is not None and self.recommends:
            return self.calibration.rule.pick(self.cells)
        return default_position(self.cells)

    @property
    def setting(self) -> tuple[int, float]:
        """Its patch size in px and masking ratio."""
        return setting_of(self.cells.iloc[self.position])

    @property
    def default_setting(self) -> tuple[int, float]:
        """That of MAE's own setting, scaled to these images."""
        return setting_of(self.cells.iloc[default_position(self.cells)])

    @property
    def patch_sizes(self) -> list[int]:
        """Patch sizes that are picked, the most frequent first; of no rule, MAE's own."""
        counts: Counter[int] = Counter()
        for (patch_size, _), count in self.picks.items():
            counts[patch_size] += count
        return [patch_size for patch_size, _ in counts.most_common()] or [self.setting[0]]

    @property
    def mask_ratio_range(self) -> tuple[float, float]:
        """Lowest and highest masking ratio that is picked."""
        ratios = [mask_ratio for _, mask_ratio in self.picks] or [self.setting[1]]
        return min(ratios), max(ratios)

    @property
    def agreement(self) -> float:
        """Share of picks that are the setting itself, 0 … 1; NaN where there are none."""
        return self.picks[self.setting] / self.picks.total() if self.picks else float("nan")

    @property
    def cost(self) -> dict[str, float]:
        """Tokens of the setting: patches of an image, those that the encoder sees, and those of MAE's own setting."""
        own, default = self.cells.iloc[self.position], self.cells.iloc[default_position(self.cells)]
        return {
            "tokens": int(own["n_patches"]),
            "encoder_tokens": int(own["n_visible"]) + 1,
            "default_tokens": int(default["n_patches"]),
            "default_encoder_tokens": int(default["n_visible"]) + 1,
        }

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-able; null for NaN, as for a correlation length beyond the image."""
        patch_size, mask_ratio = self.setting
        length = self.correlations.length
        return nan_as_none(
            {
                "recommends": self.recommends,
                "patch_size": patch_size,
                "mask_ratio": mask_ratio,
                "patch_sizes": self.patch_sizes,
                "mask_ratio_range": list(self.mask_ratio_range),
                "agreement": self.agreement,
                "cost": self.cost,
                "correlation_length": length,
                "correlation_length_error": self.length_error,
                "correlation": {
                    "distance": self.correlations.distances.tolist(),
                    "correlation": self.correlations.correlation.tolist(),
                },
                "settings": [row | {"correlation_length": length} for row in self.cells.to_dict("records")],
                "calibration": None if self.calibration is None else _calibration_dict(self.calibration),
            }
        )


def _calibration_dict(calibration: Calibration) -> dict[str, Any]:
    rho, rho_low, rho_high = calibration.rank_correlation
    return {
        "rule": calibration.rule.says if calibration.sets else None,
        "gain_over_default": vars(calibration.comparison),
        "rank_correlation": {"mean": rho, "ci_low": rho_low, "ci_high": rho_high},
        "data_sets": calibration.held_out.to_dict("records"),
    }


def advise(
    images: FolderImages,
    grid: Grid,
    calibration: Calibration | None,
    on_step: Callable[[], None] = lambda: None,
) -> Advice:
    """Evidence on the images, and the pick of the rule that calibration chose.

    Args:
        images: at least as many files as groups.
        grid: the settings to compare.
        calibration: None: evidence alone.
        on_step: called after each of :data:`N_STEPS` steps.

    Raises:
        ValueError: all images are the same.
    """
    lags = LagCovariance.of(images.images, grid.factor, images.sources % N_GROUPS)
    covariance = lags.covariance()
    cells = theory_cells(covariance, grid)
    on_step()
    lengths, picks = [], Counter[tuple[int, float]]()
    for group in range(N_GROUPS):
        try:
            without = lags.covariance(group)
        except ValueError:  # what differs is all in this group
            lengths.append(float("nan"))
        else:
            lengths.append(Correlations.of(without, grid).length)
            if calibration is not None and calibration.comparison.rule_is_better:
                picks.update(_picks(theory_cells(without, grid), calibration.rules))
        on_step()
    correlations = Correlations.of(covariance, grid)
    length_error = float("nan") if np.isnan(correlations.length) else _jackknife_error(lengths)
    return Advice(grid, correlations, length_error, cells, calibration, picks)


def _jackknife_error(left_out: Sequence[float]) -> float:
    """Standard error from estimates that each leave out one of n groups; NaN if one of them is."""
    values = np.array(left_out)
    return float(np.sqrt((len(values) - 1) * np.square(values - values.mean()).mean()))


def _picks(cells: pd.DataFrame, rules: Sequence[TunedRule]) -> list[tuple[int, float]]:
    return [setting_of(cells.iloc[rule.pick(cells)]) for rule in rules]
