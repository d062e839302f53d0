"""Stage ``corruptions``: what linear probes make of corrupted test images (claim B8).

A model sees 60 times the test images, for minutes on CIFAR-10, so the rows of each are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Int64
from tqdm import tqdm

from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.probe.classification import label_targets
from spatialmae.probe.corruptions import CorruptedImages, corruption_rows
from spatialmae.stages.evaluation import EvaluationSet, by_seed
from spatialmae.stages.kept import KeptRows, Row
from spatialmae.stages.probes import NUMERIC as OF_PROBES
from spatialmae.stages.probes import ProbedModel
from spatialmae.tables import write_table

# Modules that a model's rows depend on beside those of the trained weights.
NUMERIC = (*OF_PROBES, "probe/corruptions.py", "stages/evaluation.py", "stages/corruptions.py")


def run(config: Config, name: str) -> None:
    """Write ``tables/corruptions/<name>.csv``: for each model and target a row for each corruption and severity.

    Raises:
        UserError: images or a run are missing or damaged, or the images have no class labels.
    """
    evaluated = EvaluationSet(config, name)
    rows = []
    with tqdm(desc=f"corruptions {name}", total=len(evaluated.specs), unit="run") as bar:
        for seed, specs in by_seed(evaluated.specs):
            shown = _Shown(evaluated, seed)
            for spec in specs:
                model = ProbedModel(evaluated, spec, evaluated.run(spec))
                for target in label_targets(evaluated.data):
                    rows += [spec.settings() | row for row in shown.rows(model, target)]
                bar.update()
    write_table(Layout.of(config).table("corruptions", name), pd.DataFrame(rows))


@dataclass(frozen=True)
class _Shown:
    """The test images of a seed, for all its models."""

    evaluated: EvaluationSet
    seed: int

    def rows(self, model: ProbedModel, target: str) -> list[Row]:
        """A model's rows for one class label, made now or kept before."""
        evaluated, seeds = self.evaluated, {"seed": self.seed, "first_seed": self.evaluated.config.first_seed}
        key = model.key(target, NUMERIC) | seeds | {"n_test": evaluated.settings.n_test}
        kept = KeptRows(Layout.of(evaluated.config).rows("corruptions"), f"{model.spec.name}-{target}", key)

        def make() -> list[Row]:
            labels = evaluated.data.targets[target][self._test]
            return corruption_rows(model.trained, model.linear_probe(target), self._corrupted, labels)

        return kept.or_make(make)

    @cached_property
    def _test(self) -> Int64[np.ndarray, " n"]:
        return self.evaluated.test_images(self.seed)

    @cached_property
    def _corrupted(self) -> CorruptedImages:
        return CorruptedImages.of(self.evaluated.data.images[self._test], self.seed)
