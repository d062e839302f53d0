"""Stage ``embedding``: how well classes separate in frozen features, as numbers and as a picture (claim B6)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.probe.classification import label_targets
from spatialmae.probe.embedding import separability, tsne
from spatialmae.probe.representation import Feature, represent
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.tables import write_table

FEATURE: Feature = "mean"
N_SHOWN = 1000  # test images in the picture, at most


def run(config: Config, name: str) -> None:
    """Write the tables ``separability``, a row for each model and target, and ``tsne``, coordinates for the first seed.

    Raises:
        UserError: images or a run are missing or damaged.
    """
    evaluated = EvaluationSet(config, name)
    rows, points = [], []
    for spec in tqdm(evaluated.specs, desc=f"embedding {name}", unit="run"):
        test = evaluated.test_images(spec.seed)
        labels = {target: evaluated.data.targets[target][test] for target in label_targets(evaluated.data)}
        features, keys = represent(evaluated.run(spec), evaluated.data.images[test], FEATURE), spec.settings()
        for target, classes in labels.items():
            rows.append(keys | {"target": target, "feature": FEATURE} | separability(features, classes))
        if spec.seed == config.first_seed:
            names = {target: np.array(evaluated.data.class_names[target]) for target in labels}
            shown = {target: names[target][classes[:N_SHOWN]] for target, classes in labels.items()}
            x, y = tsne(features[:N_SHOWN], config.first_seed).T
            points.append(pd.DataFrame({**keys, "x": x, "y": y, **shown}))
    layout = Layout.of(config)
    write_table(layout.table("separability", name), pd.DataFrame(rows))
    write_table(layout.table("tsne", name), pd.concat(points))
