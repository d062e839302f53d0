"""Stage ``attention``: where encoders look in images with known objects (claim B5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from spatialmae.analysis.attention import attention_pictures, attention_rows
from spatialmae.artifacts import write_tensors
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.stages.evaluation import EvaluationSet, by_seed
from spatialmae.stages.scenes import scenes
from spatialmae.tables import write_table

N_IMAGES = 256
N_PICTURED = 3


def run(config: Config, name: str) -> None:
    """Write ``tables/attention/<name>.csv``: for each model a row for each block and kind of token.

    Maps of the last block are kept as pictures, of the first seed's models at a few images.

    Raises:
        UserError: images or a run are missing or damaged.
    """
    evaluated = EvaluationSet(config, name)
    rows, pictures, about = [], dict[str, np.ndarray](), list[dict[str, Any]]()
    for seed, specs in tqdm(by_seed(evaluated.specs), desc=f"attention {name}", unit="seed"):
        shown = scenes(evaluated, seed, n_train=1, n_validation=0, n_test=N_IMAGES)
        images, segmentation = shown.images[shown.splits["test"]], shown.target("segmentation", "test")
        with_object = np.flatnonzero((segmentation == 1).any(axis=(1, 2)))
        for spec in specs:
            trained = evaluated.run(spec)
            found = attention_rows(trained, images[with_object], segmentation[with_object])
            rows += [spec.settings() | row for row in found]
            if seed == config.first_seed:
                few = with_object[:N_PICTURED]
                pictures |= {"images": images[few], "object": segmentation[few] == 1}
                pictures[f"maps/{spec.name}"] = attention_pictures(trained, images[few], segmentation[few])[:, -1]
                about.append(spec.settings())
    layout = Layout.of(config)
    write_table(layout.table("attention", name), pd.DataFrame(rows))
    write_tensors(layout.pictures("attention", name), pictures, {"models": about})
