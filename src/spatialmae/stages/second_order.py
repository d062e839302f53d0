"""Stage ``second_order``: trained models against the best linear reconstruction, on test and on surrogate images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from spatialmae.analysis.second_order import (
    LinearBound,
    common_masks,
    comparison_rows,
    gaussian_images,
    normalised_images,
    normalised_moments,
)
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.model.config import MAEConfig
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.tables import write_table

N_MASKS = 40
N_SURROGATE = 10_000  # images, drawn afresh: no model was trained on them; dealt over the masks
SEED = 0  # of masks and surrogate images, which all models share


def run(config: Config, name: str) -> None:
    """Write ``tables/second_order/<name>.csv``: each model at its own masking ratio, on images of both kinds.

    Raises:
        UserError: images or a run are missing or damaged.
    """
    evaluated = EvaluationSet(config, name)
    data, first = evaluated.data, evaluated.run(evaluated.specs[0])
    moments = normalised_moments(first, data.images[data.splits["train"]])
    surrogate = gaussian_images(moments, N_SURROGATE, np.random.default_rng(SEED))
    images = {
        "test": normalised_images(first, data.images[data.splits["test"]]),
        "surrogate": surrogate.reshape(-1, *data.image_shape),
    }
    validation = normalised_images(first, data.images[data.splits["validation"]])
    bounds: dict[MAEConfig, LinearBound] = {}
    rows = []
    for spec in tqdm(evaluated.specs, desc=f"second order {name}", unit="run"):
        masking = replace(spec.model, masking="fixed", loss_on="hidden", noise_std=0.0)
        if masking not in bounds:
            bounds[masking] = LinearBound.of(masking, common_masks(masking, N_MASKS, SEED), moments, validation, images)
        keys = spec.settings()
        rows += [keys | row for row in comparison_rows(evaluated.run(spec), bounds[masking])]
    write_table(Layout.of(config).table("second_order", name), pd.DataFrame(rows))
