"""Stage ``probe`` of trained models: what frozen encoders know of the class labels."""

from __future__ import annotations

import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.probe.classification import label_targets
from spatialmae.probe.linear_probe import ProbeTask, linear_probe
from spatialmae.probe.nearest_neighbours import nearest_neighbour_probe
from spatialmae.probe.representation import Feature, represent_splits
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.tables import write_table

FEATURE: Feature = "mean"


def run(config: Config, name: str) -> None:
    """Write the tables ``linear_probe`` and ``nearest_neighbours`` of an evaluation.

    Raises:
        UserError: images or a run are missing or damaged, or the images have no class labels.
    """
    evaluated = EvaluationSet(config, name)
    data = evaluated.data
    tables: dict[str, list[dict]] = {"linear_probe": [], "nearest_neighbours": []}
    for spec in tqdm(evaluated.specs, desc=f"probe {name}", unit="run"):
        features = represent_splits(evaluated.run(spec), data.images, dict(data.splits.items()), FEATURE)
        keys = spec.settings()
        for target in label_targets(data):
            task = ProbeTask.of(features, data, target, FEATURE)
            tables["linear_probe"].append(keys | linear_probe(task))
            tables["nearest_neighbours"].append(keys | nearest_neighbour_probe(task))
    for table, rows in tables.items():
        write_table(Layout.of(config).table(table, name), pd.DataFrame(rows))
