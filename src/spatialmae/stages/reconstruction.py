"""Stage ``reconstruction``: how well trained models reconstruct test images of which nothing is masked (claim B4)."""

from __future__ import annotations

import pandas as pd
from tqdm import tqdm

from spatialmae.analysis.image_quality import quality_row
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.tables import write_table


def run(config: Config, name: str) -> None:
    """Write ``tables/image_quality/<name>.csv``, a row for each model.

    Raises:
        UserError: images or a run are missing or damaged.
    """
    evaluated = EvaluationSet(config, name)
    rows = [
        spec.settings() | quality_row(evaluated.run(spec), evaluated.data.images[evaluated.test_images(spec.seed)])
        for spec in tqdm(evaluated.specs, desc=f"reconstruction {name}", unit="run")
    ]
    write_table(Layout.of(config).table("image_quality", name), pd.DataFrame(rows))
