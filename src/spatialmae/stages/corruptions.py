"""Stage ``corruptions``: what linear probes make of corrupted test images (claim B8)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config
from spatialmae.data.dataset import ImageData
from spatialmae.layout import Layout
from spatialmae.probe.classification import label_targets
from spatialmae.probe.corruptions import corruption_rows
from spatialmae.probe.linear_probe import FittedProbe, ProbeTask, fit_linear_probe
from spatialmae.probe.representation import Feature, represent_splits
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.tables import write_table
from spatialmae.train.runs import TrainedRun

FEATURE: Feature = "mean"
SEED = 7  # of the corruptions, which all models share


def run(config: Config, name: str) -> None:
    """Write ``tables/corruptions/<name>.csv``: for each model and target a row for each corruption and severity.

    Raises:
        UserError: images or a run are missing or damaged, or the images have no class labels.
    """
    evaluated = EvaluationSet(config, name)
    data = evaluated.data
    test = data.splits["test"][: evaluated.settings.n_test]
    rows = []
    for spec in tqdm(evaluated.specs, desc=f"corruptions {name}", unit="run"):
        trained, keys = evaluated.run(spec), spec.settings()
        for probe in fitted_probes(trained, data, label_targets(data)):
            labels = data.targets[probe.task.target][test]
            rows += [keys | row for row in corruption_rows(trained, probe, data.images[test], labels, SEED)]
    write_table(Layout.of(config).table("corruptions", name), pd.DataFrame(rows))


def fitted_probes(trained: TrainedRun, data: ImageData, targets: list[str]) -> Iterator[FittedProbe]:
    """A probe of each class label, fitted to clean training images."""
    features = represent_splits(trained, data.images, dict(data.splits.items()), FEATURE)
    for target in targets:
        yield fit_linear_probe(ProbeTask.of(features, data, target, FEATURE))
