"""Stage ``dense``: segmentation and depth of leaves from frozen and from fine-tuned encoders (claim B10)."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config, Dense
from spatialmae.layout import Layout
from spatialmae.probe.dense import dense_rows
from spatialmae.probe.dense_settings import DenseConfig
from spatialmae.stages.evaluation import EvaluationSet, by_seed
from spatialmae.stages.scenes import scenes
from spatialmae.tables import write_table

FROZEN_RATES = (0.064, 0.256, 1.024, 4.096)
TRAINED_RATES = (0.016, 0.064)  # an encoder wants lower ones than a head


def run(config: Config, name: str) -> None:
    """Write ``tables/dense/<name>.csv``: for each model a row for each target, of a frozen and a fine-tuned encoder.

    Raises:
        UserError: images or a run are missing or damaged.
    """
    evaluated = EvaluationSet(config, name)
    settings = evaluated.settings.dense
    sizes = {"n_train": settings.n_train, "n_validation": settings.n_validation, "n_test": settings.n_test}
    rows = []
    with tqdm(desc=f"dense {name}", total=len(evaluated.specs), unit="run") as bar:
        for seed, specs in by_seed(evaluated.specs):
            data = scenes(evaluated, seed, **sizes)
            for spec in specs:
                trained, keys = evaluated.run(spec), spec.pretraining_settings()
                for encoder, head in _heads(settings).items():
                    found = dense_rows(trained, data, head, seed)
                    rows += [keys | {"encoder": encoder} | row | {"log_gain": _log_gain(row)} for row in found]
                bar.update()
    write_table(Layout.of(config).table("dense", name), pd.DataFrame(rows))


def _heads(settings: Dense) -> dict[str, DenseConfig]:
    heads = {"frozen": DenseConfig(n_train=None, epochs=settings.epochs, base_lr=FROZEN_RATES)}
    if settings.fine_tuning_epochs is not None:
        epochs = settings.fine_tuning_epochs
        heads["fine-tuned"] = DenseConfig(n_train=None, n_blocks=None, epochs=epochs, base_lr=TRAINED_RATES)
    return heads


def _log_gain(row: dict[str, Any]) -> float:
    """How much better than the baseline, as a log-ratio that is positive for the better one; NaN if all diverged."""
    ratio = row["score"] / row["baseline"]
    return math.log(ratio if row["metric"] == "miou" else 1 / ratio) if ratio > 0 else math.nan
