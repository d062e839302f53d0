"""What a measure of trained models declares, and what it is a measure of.

A measure is a module of :mod:`spatialmae.measures`. Whoever reads a configuration imports all of them for what they
declare, so that they import what they compute with inside their functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from spatialmae.evaluation.shared import Evaluated, Shared
    from spatialmae.train.plan import RunSpec

Row = dict[str, Any]
Rows = dict[str, list[Row]]  # by the table that they go to
COSTS = "costs"  # the table of times and devices, which differ between two runs; no other table holds any


@dataclass(frozen=True)
class MeasuredModel:
    """What is measured: a finished run, a snapshot, an untrained network, or another predictor altogether.

    Attributes:
        name: begins the names of its cached results.
        seed: of the images and masks that it is measured with.
        identity: all that decides what ``load`` gives, JSON-able.
        load: makes what is measured, most often a :class:`~spatialmae.model.trained.TrainedModel`.
        columns: what tables tell of it.
        spec: how it was trained; None: it was not.
        snapshots: the same run after each epoch at which its weights were stored.
        validation_losses: reads epochs and losses of its training.
    """

    name: str
    seed: int
    identity: Row
    load: Callable[[], Any]
    columns: Row
    spec: RunSpec | None = None
    snapshots: Mapping[int, MeasuredModel] = field(default_factory=dict)
    validation_losses: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None


@dataclass(frozen=True)
class Part:
    """What is measured at once and cached by itself: a model under some settings.

    Attributes:
        model: that is measured.
        settings: all that decides the rows beside the model and the images, JSON-able.
        label: tells the part from others of the model in the name of its file.
        columns: what tables tell of it beside the model's columns.
        tables: of its rows those that are shown, and the tables that they go to; None: all, to their own.
    """

    model: MeasuredModel
    settings: Row
    label: str = ""
    columns: Row = field(default_factory=dict)
    tables: Mapping[str, str] | None = None


def each_run(evaluated: Evaluated, reads: tuple[str, ...]) -> list[Part]:
    """A part for each run, under settings of the evaluation."""
    settings = {name: getattr(evaluated.settings, name) for name in reads}
    return [Part(run, settings) for run in evaluated.runs]


@dataclass(frozen=True)
class Measure:
    """A measure of the models of an evaluation.

    Attributes:
        says: what it measures, and of which images.
        tables: that it writes.
        rows: the rows of a part, from its model, its settings and what models share. Settings that are not the part's
            have no way there, so that the key of a cached row holds all that decides it.
        reads: settings of an evaluation whose change reruns it.
        parts: what it measures; None: each run, under the settings that it reads.
        pictures: named arrays of what it shows at a few images, and JSON-able facts about them.
        takes_up: measures whose cached results it reads, where an evaluation asks for them too.
        has_costs: its rows have some of the table ``costs`` among them.
        needs_labels: it needs class labels.
        of_pixels: it needs predictions of pixels, which models that predict normalised patches have none of.
        of_hidden: it needs masks as in training, which models of masking ratio 0 have none of.
        trains: it trains models further, so that settings of their own training get a prefix in its tables.
    """

    says: str
    tables: tuple[str, ...]
    rows: Callable[[MeasuredModel, Row, Shared], Rows]
    reads: tuple[str, ...] = ()
    parts: Callable[[Evaluated], Iterable[Part]] | None = None
    pictures: Callable[[Evaluated], tuple[Mapping[str, np.ndarray], Any]] | None = None
    takes_up: tuple[str, ...] = ()
    has_costs: bool = False
    needs_labels: bool = False
    of_pixels: bool = False
    of_hidden: bool = False
    trains: bool = False

    def parts_of(self, evaluated: Evaluated) -> list[Part]:
        """All that it measures of an evaluation, in the order of its tables."""
        return list(self.parts(evaluated)) if self.parts else each_run(evaluated, self.reads)
