"""Where the two papers agree: whether paper A's reach and what stands for paper B's level move together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from spatialmae.analysis.reach_and_level import ReachAndLevel, Trend
from spatialmae.analysis.turning import Change
from spatialmae.config import Config
from spatialmae.figures.declaration import declared_figures
from spatialmae.layout import Layout
from spatialmae.tables import read_table

FIGURE = "reach_and_level"


@dataclass(frozen=True)
class Comparison:
    """Reach and the measures of level of the same models, over one part of the masking ratios.

    Attributes:
        models: which models, where several kinds of them go along the ratio.
        low: the part's lowest ratio.
        high: its highest.
        reach: what reach does there.
        along: measures of level that certainly change as reach does.
        against: those that certainly change the other way.
        undecided: the others, and all where reach is undecided.
        as_untrained: those of the two ratios at which reach cannot be told from that of untrained networks, so that its
            change may be no more than a lack of training.
    """

    models: str
    low: float
    high: float
    reach: str
    along: list[str]
    against: list[str]
    undecided: list[str]
    as_untrained: list[float]

    @property
    def papers(self) -> str:
        """Whether reach and level, and so the papers, go together."""
        if self.as_untrained:
            return "undecided"
        if self.along and self.against:
            return "in part"
        if self.along or self.against:
            return "agree" if self.along else "disagree"
        return "undecided"


@dataclass(frozen=True)
class Agreement:
    """What each measure of reach and level does along the masking ratio, and how they compare."""

    evaluation: str
    trends: list[Trend]
    comparisons: list[Comparison]


def read_agreements(config: Config) -> list[Agreement]:
    """The agreement of A and B in each evaluation that has the figure of it."""
    layout, figure = Layout.of(config), declared_figures()[FIGURE]
    result = []
    for evaluation in figure.subjects(config) or []:
        made = figure.made_tables(config, [evaluation])
        tables = {name: read_table(layout.table(name, subject)) for name, subject in made}
        result.append(compare_papers(evaluation, tables))
    return result


def compare_papers(evaluation: str, tables: Mapping[str, pd.DataFrame]) -> Agreement:
    """What reach and level do along the masking ratio, below the highest ratio and at it.

    Args:
        evaluation: its name.
        tables: those of :meth:`~spatialmae.analysis.reach_and_level.ReachAndLevel.of`.
    """
    trends = ReachAndLevel.of(tables).trends()
    trained = [one for one in trends if one.of_models]
    comparisons = []
    for reach in (one for one in trained if one.paper == "A"):
        levels = {one.measure: one.turn for one in trained if one.paper == "B" and one.models == reach.models}
        first, low, high = reach.turn.places
        if reach.turn.before is not None:
            before = {name: level.before for name, level in levels.items() if level.before is not None}
            comparisons.append(_compare(reach, first, low, reach.turn.before, before))
        last = {name: level.last for name, level in levels.items()}
        comparisons.append(_compare(reach, low, high, reach.turn.last, last))
    return Agreement(evaluation, trends, comparisons)


def _compare(reach: Trend, low: float, high: float, change: Change, levels: Mapping[str, Change]) -> Comparison:
    products = {name: level.sign * change.sign for name, level in levels.items()}
    beyond = reach.beyond_untrained
    as_untrained = [ratio for ratio in (low, high) if ratio in beyond and not beyond[ratio].sign]

    def names(sign: int) -> list[str]:
        return [name for name, product in products.items() if product == sign]

    return Comparison(reach.models, low, high, change.word, names(1), names(-1), names(0), as_untrained)
