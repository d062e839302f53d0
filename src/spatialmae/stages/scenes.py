"""Leaves at the models' size: images with known objects, for models that were trained on other images too."""

from __future__ import annotations

from spatialmae.data.dataset import ImageData
from spatialmae.data.leaves import leaves, world_options
from spatialmae.stages.evaluation import EvaluationSet

# Below the seeds that data sets are rendered with, whose objects would come again.
SEED = 7


def scenes(evaluated: EvaluationSet, *, n_train: int, n_validation: int, n_test: int) -> ImageData:
    """Fresh images of the world that the models were trained on, if it was one of leaves, else of the usual one."""
    height, _, channels = evaluated.data.image_shape
    return leaves(
        image_size=height,
        grayscale=channels == 1,
        n_train=n_train,
        n_validation=n_validation,
        n_test=n_test,
        seed=SEED,
        **world_options(evaluated.data.provenance),
    )
