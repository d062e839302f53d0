"""Paper A's reach and what stands for paper B's level, in the same models along the ratio that they were trained at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from spatialmae.analysis.settings import models_along, settings_label, varied
from spatialmae.analysis.turning import Change, Turn, turn

Paper = Literal["A", "B"]
Values = tuple[pd.DataFrame, str]
"""Rows of models, and the column that is looked at."""

REACH = "rms_radius_squared"
UNTRAINED = "untrained"
ALONG = "mask_ratio"
_TREES = {"binary": "binary tree", "quad": "quad-tree"}


@dataclass(frozen=True)
class Measure:
    """A measure of reach or of level.

    Attributes:
        paper: whose quantity it is, or stands for.
        name: what is measured.
        unit: what its values are, with their unit.
        parts: by what tells them apart, which is nothing ("") if there is one.
    """

    paper: Paper
    name: str
    unit: str
    parts: Mapping[str, Values]


@dataclass(frozen=True)
class Trend:
    """What a measure does at the highest ratio.

    Attributes:
        paper: whose measure it is.
        measure: its name, and that of its part.
        models: those that it is of, where several kinds of them go along the ratio.
        of_models: measured on models, rather than on trees in theory.
        turn: its changes along the ratio.
        beyond_untrained: by ratio, what the models have more than the networks that they began as; of reach alone.
    """

    paper: Paper
    measure: str
    models: str
    of_models: bool
    turn: Turn
    beyond_untrained: Mapping[float, Change]


@dataclass(frozen=True)
class ReachAndLevel:
    """The measures of both papers on the same models, reach first.

    Attributes:
        models: rows of the models that others differ from in the ratio alone.
        measures: what was measured.
    """

    models: pd.DataFrame
    measures: list[Measure]

    @classmethod
    def of(cls, tables: Mapping[str, pd.DataFrame]) -> ReachAndLevel:
        """What an evaluation measured.

        Args:
            tables: ``jacobian_reach`` and ``linear_probe``; of ``image_quality``, ``attention``, ``shape_bias`` and
                ``levels`` (of latent hierarchies: tree, depth, patch_size, mask_ratio, seed, mean_height) those that
                there are.
        """
        probe = models_along(tables["linear_probe"], ALONG)
        reach = _at_common_masks(tables["jacobian_reach"], float(probe["evaluation_mask_ratio"].iloc[0]))
        measures = [Measure("A", "reach", "rms radius of J² (px)", {"": (reach, REACH)})]
        return cls(probe, [*measures, *_levels(tables, probe)])

    def trends(self) -> list[Trend]:
        """What each measure does; nothing if models have one ratio alone."""
        ratios = sorted(self.models[ALONG].unique().tolist())
        if len(ratios) < 2:
            return []
        apart = [name for name in varied(self.models) if name != ALONG]
        trends = []
        for measure in self.measures:
            for part, (table, value) in measure.parts.items():
                of_models, name = "name" in table, ", ".join(filter(None, (measure.name, part)))
                for models, rows in _kinds_of_models(table, apart if of_models else []):
                    turned, beyond = turn(rows, ALONG, value, ratios), _beyond_untrained(rows, value)
                    trends.append(Trend(measure.paper, name, models, of_models, turned, beyond))
        return trends


def parts_of(table: pd.DataFrame, by: str) -> list[tuple[str, pd.DataFrame]]:
    """The rows for each value of a column, in the table's order."""
    return [(str(value), rows) for value, rows in table.groupby(by, sort=False)]


def with_log_ratio(attention: pd.DataFrame) -> pd.DataFrame:
    """The table ``attention`` with ``log_ratio``, of attention on the object to what its area alone would have."""
    return attention.assign(log_ratio=np.log(attention["object_attention_relative"]))


def _kinds_of_models(rows: pd.DataFrame, apart: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    if not apart:
        yield "", rows
        return
    for values, part in rows.groupby(list(apart), dropna=False):
        yield settings_label(apart, values), part


def _beyond_untrained(rows: pd.DataFrame, value: str) -> dict[float, Change]:
    if UNTRAINED not in rows:
        return {}
    more = (rows[value] - rows[UNTRAINED]).dropna()
    return {float(ratio): Change.of(of_seeds) for ratio, of_seeds in more.groupby(rows[ALONG])}


def _at_common_masks(reach: pd.DataFrame, mask_ratio: float) -> pd.DataFrame:
    """Trained models along the ratio, under the evaluation masks whose ratio is nearest to that of other measures.

    Beside the reach of each is that of the same network before training.
    """
    evaluated = reach["evaluation_mask_ratio"]
    nearest = min(evaluated.unique(), key=lambda ratio: abs(ratio - mask_ratio))
    reach = reach[evaluated == nearest]
    models = models_along(reach[reach["predictor"] == "trained"], ALONG)
    before = reach[reach["predictor"] == UNTRAINED]
    network = ["seed", *(name for name in varied(before) if name in varied(models))]  # one for all masks of training
    return models.merge(before[[*network, REACH]].rename(columns={REACH: UNTRAINED}), on=network, how="left")


def _levels(tables: Mapping[str, pd.DataFrame], probe: pd.DataFrame) -> Iterator[Measure]:
    """What stands for the level of the latents, of what was measured, and the level in theory."""
    for target, rows in parts_of(probe, "target"):
        yield Measure("B", f"linear probe, {target}", "accuracy (fraction)", {"": (rows, "accuracy")})
    if "image_quality" in tables:
        rows = models_along(tables["image_quality"], ALONG)
        yield Measure("B", "SSIM, nothing masked", "SSIM", {"": (rows, "ssim")})
    if "attention" in tables:
        rows = with_log_ratio(models_along(tables["attention"], ALONG))
        rows = rows[rows["last_block"].astype(bool) & (rows["query"] == "cls")]
        yield Measure("B", "[CLS] on the object", "log-ratio", {"": (rows, "log_ratio")})
    if "shape_bias" in tables:
        for stimuli, rows in parts_of(models_along(tables["shape_bias"], ALONG), "stimuli"):
            name = f"shape bias, {stimuli.replace('_', ' ')}"
            yield Measure("B", name, "shape bias (fraction)", {"": (rows, "shape_bias")})
    if "hierarchy_levels" in tables:
        levels = tables["hierarchy_levels"]
        rows = levels[levels["patch_size"] == levels["patch_size"].min()]  # patches of one leaf
        trees = {name: (rows[rows["tree"] == tree], "mean_height") for tree, name in _TREES.items()}
        yield Measure("B", "level in theory", "mean height (levels)", trees)
