"""Measure ``dense``: segmentation and depth of leaves from frozen and from fine-tuned encoders (claim B10)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from spatialmae.evaluation.measure import Measure, MeasuredModel, Part, Row, Rows

if TYPE_CHECKING:
    from spatialmae.evaluation.shared import Evaluated, Shared

FROZEN_RATES = [0.064, 0.256, 1.024, 4.096]
TRAINED_RATES = [0.016, 0.064]  # an encoder wants lower ones than a head
TARGETS = ("segmentation", "depth")


def parts(evaluated: Evaluated) -> Iterator[Part]:
    """Each run with a frozen and a fine-tuned encoder, for each target."""
    dense = evaluated.settings.dense
    sizes = {"n_train": dense.n_train, "n_validation": dense.n_validation, "n_test": dense.n_test}
    heads = {"frozen": {"n_blocks": 0, "epochs": dense.epochs, "base_lr": FROZEN_RATES}}
    if dense.fine_tuning_epochs:
        heads["fine-tuned"] = {"n_blocks": None, "epochs": dense.fine_tuning_epochs, "base_lr": TRAINED_RATES}
    for run in evaluated.runs:
        for encoder, head in heads.items():
            for target in TARGETS:
                settings = {"sizes": sizes, "head": head, "target": target}
                yield Part(run, settings, f"{encoder}-{target}", {"encoder": encoder})


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """A row of ``dense``."""
    from spatialmae.evaluation.scenes import scenes
    from spatialmae.probe.dense import dense_rows
    from spatialmae.probe.dense_settings import DenseConfig

    head = DenseConfig.from_dict(settings["head"] | {"n_train": None})
    images = scenes(shared, model.seed, **settings["sizes"])
    [row] = dense_rows(model.load(), images, head, model.seed, targets=[settings["target"]])
    return {"dense": [row | {"log_gain": _log_gain(row)}]}


def _log_gain(row: dict[str, Any]) -> float:
    """How much better than the baseline, as a log-ratio that is positive for the better one; NaN if all diverged."""
    ratio = row["score"] / row["baseline"]
    return math.log(ratio if row["metric"] == "miou" else 1 / ratio) if ratio > 0 else math.nan


MEASURE = Measure(
    "segmentation and depth from frozen and fine-tuned encoders, on leaves (B10)",
    tables=("dense",),
    rows=rows,
    reads=("dense",),
    parts=parts,
    trains=True,
)
