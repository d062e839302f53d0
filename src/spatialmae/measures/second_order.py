"""Measure ``second_order``: trained models against the best linear reconstruction, on test and on surrogate images.

Each model is looked at at its own masking ratio. The linear side, which takes minutes for each ratio on CIFAR-10, is
made once for all models that share geometry and ratio.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from spatialmae.evaluation.measure import Measure, MeasuredModel, Part, Row, Rows

if TYPE_CHECKING:
    import numpy as np

    from spatialmae.analysis.second_order import LinearBound
    from spatialmae.evaluation.shared import Evaluated, Shared
    from spatialmae.linear.moments import Moments
    from spatialmae.model.trained import TrainedModel

N_MASKS = 40
N_SURROGATE = 10_000  # images, drawn afresh: no model was trained on them; dealt over the masks
SEED = 0  # of masks and surrogate images, which all models share


def parts(evaluated: Evaluated) -> Iterator[Part]:
    """Each run under masks of its own geometry."""
    for run in evaluated.runs:
        assert run.spec is not None
        yield Part(run, {name: getattr(run.spec.model, name) for name in ("mask_ratio", "mask_unit")})


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """A row for each kind of images."""
    from spatialmae.analysis.second_order import comparison_rows

    trained = model.load()
    return {"second_order": comparison_rows(trained, _bound(trained, settings, shared))}


def _bound(trained: TrainedModel, settings: Row, shared: Shared) -> LinearBound:
    """What the conditional mean reaches under the masks of a geometry and ratio; models see images alike."""
    from spatialmae.analysis.second_order import LinearBound, common_masks, normalised_images
    from spatialmae.model.config import MAEConfig

    data, config = shared.data, trained.model.config
    masking = MAEConfig(
        image_size=config.image_size, channels=config.channels, patch_size=config.patch_size, **settings
    )
    bounds: dict[MAEConfig, LinearBound] = shared.once("bounds", None, dict)
    if masking not in bounds:
        validation = normalised_images(trained, data.images[data.splits["validation"]])
        masks, moments = common_masks(masking, N_MASKS, SEED), _moments(trained, shared)
        bounds[masking] = LinearBound.of(masking, masks, moments, validation, _images(trained, shared))
    return bounds[masking]


def _moments(trained: TrainedModel, shared: Shared) -> Moments:
    from spatialmae.analysis.second_order import normalised_moments

    data = shared.data
    return shared.once("moments", None, lambda: normalised_moments(trained, data.images[data.splits["train"]]))


def _images(trained: TrainedModel, shared: Shared) -> dict[str, np.ndarray]:
    """Normalised test images, and surrogate ones."""
    import numpy as np

    from spatialmae.analysis.second_order import gaussian_images, normalised_images

    def make() -> dict[str, np.ndarray]:
        data = shared.data
        drawn = gaussian_images(_moments(trained, shared), N_SURROGATE, np.random.default_rng(SEED))
        test = normalised_images(trained, data.images[data.splits["test"]])
        return {"test": test, "surrogate": drawn.reshape(-1, *data.image_shape)}

    return shared.once("images", None, make)


MEASURE = Measure(
    "reconstruction error against the best linear one from second moments (A11)",
    tables=("second_order",),
    rows=rows,
    parts=parts,
    of_pixels=True,
    of_hidden=True,
)
