"""Stage ``attention``: where encoders look in images with known objects (claim B5)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from tqdm import tqdm

from spatialmae.analysis.attention import attention_rows
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.stages.evaluation import EvaluationSet, by_seed
from spatialmae.stages.scenes import scenes
from spatialmae.tables import write_table

N_IMAGES = 256


def run(config: Config, name: str) -> None:
    """Write ``tables/attention/<name>.csv``: for each model a row for each block and kind of token.

    Raises:
        UserError: images or a run are missing or damaged.
    """
    evaluated = EvaluationSet(config, name)
    rows = []
    for seed, specs in tqdm(by_seed(evaluated.specs), desc=f"attention {name}", unit="seed"):
        shown = scenes(evaluated, seed, n_train=1, n_validation=0, n_test=N_IMAGES)
        images, segmentation = shown.images[shown.splits["test"]], shown.target("segmentation", "test")
        with_object = np.flatnonzero((segmentation == 1).any(axis=(1, 2)))
        for spec in specs:
            found = attention_rows(evaluated.run(spec), images[with_object], segmentation[with_object])
            rows += [spec.settings() | row for row in found]
    write_table(Layout.of(config).table("attention", name), pd.DataFrame(rows))
