"""Leaves at the models' size: images with known objects, for models that were trained on other images too."""

from __future__ import annotations

from spatialmae.data.dataset import ImageData
from spatialmae.data.dead_leaves import dead_leaves, world_options
from spatialmae.evaluation.shared import Shared

# Beyond the seeds that data sets are rendered with, whose objects would come again.
FIRST_SEED = 1_000_000


def scenes(shared: Shared, seed: int, *, n_train: int, n_validation: int, n_test: int) -> ImageData:
    """Fresh images of the world that the models were trained on, if it was one of leaves, else of the usual one.

    Made once for the models of a seed.

    Args:
        shared: images of the models' shape.
        seed: of the models that they are for; another seed has other images.
        n_train: images of the split; likewise ``n_validation`` and ``n_test``.
        n_validation: see ``n_train``.
        n_test: see ``n_train``.
    """
    height, _, channels = shared.data.image_shape

    def render() -> ImageData:
        return dead_leaves(
            image_size=height,
            grayscale=channels == 1,
            n_train=n_train,
            n_validation=n_validation,
            n_test=n_test,
            seed=FIRST_SEED + seed,
            **world_options(shared.data.provenance),
        )

    return shared.once("scenes", (seed, n_train, n_validation, n_test), render)
