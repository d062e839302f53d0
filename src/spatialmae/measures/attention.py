"""Measure ``attention``: where encoders look in images with known objects (claim B5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialmae.evaluation.measure import Measure, MeasuredModel, Row, Rows

if TYPE_CHECKING:
    import numpy as np

    from spatialmae.evaluation.shared import Evaluated, Shared

N_IMAGES = 256
N_PICTURED = 3


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """A row for each block and kind of token."""
    from spatialmae.analysis.attention import attention_rows

    return {"attention": attention_rows(model.load(), *_scenes(shared, model.seed))}


def pictures(evaluated: Evaluated) -> tuple[dict[str, np.ndarray], Any]:
    """Maps of the last block of the first seed's models at a few images."""
    from spatialmae.analysis.attention import attention_pictures

    first = [run for run in evaluated.runs if run.seed == evaluated.shared.first_seed]
    images, segmentation = (values[:N_PICTURED] for values in _scenes(evaluated.shared, first[0].seed))
    maps = {f"maps/{run.name}": attention_pictures(run.load(), images, segmentation)[:, -1] for run in first}
    return {"images": images, "object": segmentation == 1, **maps}, {"models": [run.columns for run in first]}


def _scenes(shared: Shared, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with an object, and their segmentation."""
    from spatialmae.evaluation.scenes import scenes

    shown = scenes(shared, seed, n_train=1, n_validation=0, n_test=N_IMAGES)
    segmentation = shown.target("segmentation", "test")
    with_object = (segmentation == 1).any(axis=(1, 2))
    return shown.images[shown.splits["test"]][with_object], segmentation[with_object]


MEASURE = Measure(
    "how object-centred attention is, on leaves rendered at the models' size (B5)",
    tables=("attention",),
    rows=rows,
    pictures=pictures,
)
