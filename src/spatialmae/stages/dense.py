"""Stage ``dense``: segmentation and depth of leaves from frozen and from fine-tuned encoders (claim B10).

Fine-tuning takes minutes on CIFAR-10's models, so each row is kept.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config, Dense
from spatialmae.data.dataset import ImageData
from spatialmae.fingerprint import fingerprint
from spatialmae.layout import Layout
from spatialmae.probe.dense import TARGETS, DenseTarget, dense_rows
from spatialmae.probe.dense_settings import DenseConfig
from spatialmae.stages.evaluation import EvaluationSet, by_seed
from spatialmae.stages.kept import KeptRow, Row
from spatialmae.stages.scenes import scenes
from spatialmae.tables import write_table
from spatialmae.train.plan import RunSpec

FROZEN_RATES = (0.064, 0.256, 1.024, 4.096)
TRAINED_RATES = (0.016, 0.064)  # an encoder wants lower ones than a head

# Modules that a row depends on beside those of the trained weights.
NUMERIC = (
    *("data/dead_leaves.py", "probe/settings.py", "probe/representation.py", "probe/head_training.py"),
    *("probe/classifier.py", "probe/dense_settings.py", "probe/dense.py"),
)


@dataclass(frozen=True)
class Transfer:
    """A model, what it is transferred to, and how."""

    spec: RunSpec
    images: ImageData
    encoder: str
    head: DenseConfig
    target: DenseTarget

    def row(self, evaluated: EvaluationSet) -> Row:
        """The row, made now or kept before."""
        trained, folder = evaluated.run(self.spec), Layout.of(evaluated.config).rows("dense")
        key = {
            "weights_sha256": trained.record["weights_sha256"],
            "seed": self.spec.seed,
            "images": self.images.provenance,
            "target": self.target,
            "settings": self.head.to_dict(),
            "code_digest": fingerprint("spatialmae.stages.dense"),
        }
        kept = KeptRow(folder, f"{self.spec.name}-{self.encoder}-{self.target}", key)

        def make() -> Row:
            [made] = dense_rows(trained, self.images, self.head, self.spec.seed, targets=[self.target])
            return {"encoder": self.encoder} | made | {"log_gain": _log_gain(made)}

        return self.spec.pretraining_settings() | kept.or_make(make)


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
            images = scenes(evaluated, seed, **sizes)
            for spec in specs:
                for (encoder, head), target in itertools.product(_heads(settings).items(), TARGETS):
                    rows.append(Transfer(spec, images, encoder, head, target).row(evaluated))
                bar.update()
    write_table(Layout.of(config).table("dense", name), pd.DataFrame(rows))


def _heads(settings: Dense) -> dict[str, DenseConfig]:
    heads = {"frozen": DenseConfig(n_train=None, epochs=settings.epochs, base_lr=FROZEN_RATES)}
    if epochs := settings.fine_tuning_epochs:
        heads["fine-tuned"] = DenseConfig(n_train=None, n_blocks=None, epochs=epochs, base_lr=TRAINED_RATES)
    return heads


def _log_gain(row: dict[str, Any]) -> float:
    """How much better than the baseline, as a log-ratio that is positive for the better one; NaN if all diverged."""
    ratio = row["score"] / row["baseline"]
    return math.log(ratio if row["metric"] == "miou" else 1 / ratio) if ratio > 0 else math.nan
