"""Stage ``corruptions``: what linear probes make of corrupted test images (claim B8)."""

from __future__ import annotations

import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.probe.classification import label_targets
from spatialmae.probe.corruptions import CorruptedImages, corruption_rows
from spatialmae.stages.evaluation import EvaluationSet, by_seed
from spatialmae.stages.probes import ProbedModel
from spatialmae.tables import write_table


def run(config: Config, name: str) -> None:
    """Write ``tables/corruptions/<name>.csv``: for each model and target a row for each corruption and severity.

    Raises:
        UserError: images or a run are missing or damaged, or the images have no class labels.
    """
    evaluated = EvaluationSet(config, name)
    data = evaluated.data
    rows = []
    with tqdm(desc=f"corruptions {name}", total=len(evaluated.specs), unit="run") as bar:
        for seed, specs in by_seed(evaluated.specs):
            test = evaluated.test_images(seed)
            shown = CorruptedImages.of(data.images[test], seed)
            for spec in specs:
                trained, keys = evaluated.run(spec), spec.settings()
                model = ProbedModel(evaluated, spec, trained)
                for target in label_targets(data):
                    probe, labels = model.linear_probe(target), data.targets[target][test]
                    rows += [keys | row for row in corruption_rows(trained, probe, shown, labels)]
                bar.update()
    write_table(Layout.of(config).table("corruptions", name), pd.DataFrame(rows))
