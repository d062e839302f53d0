"""Measure ``probe``: what frozen encoders know of the class labels.

Beside each accuracy stand the model's ``reconstruction_error``, which is said to tell little of it (claim A15), and the
``epochs_to_90`` per cent of its way that its validation loss took (A13.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from spatialmae.evaluation.measure import Measure, MeasuredModel, Part, Row, Rows

if TYPE_CHECKING:
    import numpy as np

    from spatialmae.evaluation.shared import Evaluated, Shared
    from spatialmae.model.trained import TrainedModel

N_MASKS = 40  # that test images are reconstructed under
CONVERGED = 0.9  # of the way from the mean image's loss to the last one


def parts(evaluated: Evaluated) -> Iterator[Part]:
    """Each run."""
    settings = {"mask_ratio": evaluated.settings.mask_ratio, "mask_unit": evaluated.mask_unit}
    yield from (Part(run, settings) for run in evaluated.runs)


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """A row of ``linear_probe`` and of ``linear_probe_neighbours`` for each class label."""
    from spatialmae.evaluation.fitted_probe import fitted_probe, probe_task
    from spatialmae.probe.classification import label_targets
    from spatialmae.probe.nearest_neighbours import nearest_neighbour_probe

    about = {
        "reconstruction_error": _reconstruction_error(model, settings, shared),
        "evaluation_mask_ratio": settings["mask_ratio"],
        "epochs_to_90": _epochs_to_converge(model, shared),
    }
    targets = label_targets(shared.data)
    return {
        "linear_probe": [about | fitted_probe(model, target, shared).row for target in targets],
        "linear_probe_neighbours": [
            about | nearest_neighbour_probe(probe_task(model, target, shared)) for target in targets
        ],
    }


def _epochs_to_converge(model: MeasuredModel, shared: Shared) -> float:
    """See :func:`~spatialmae.analysis.convergence.epochs_to`; NaN for a model that predicts normalised patches."""
    from spatialmae.analysis.convergence import epochs_to, mean_image_loss

    if model.validation_losses is None or model.spec is None or model.spec.model.norm_pix_loss:
        return math.nan
    start_loss = shared.once("mean image", None, lambda: mean_image_loss(shared.data))
    return epochs_to(CONVERGED, *model.validation_losses(), start_loss)


def _reconstruction_error(model: MeasuredModel, settings: Row, shared: Shared) -> float:
    """Mean squared error per hidden number of normalised images, in units of the channels' variance.

    Under masks that all models of a seed share, whatever masks they were trained with; NaN for a model that predicts
    normalised patches.
    """
    import torch

    from spatialmae.analysis.second_order import reconstruction_errors
    from spatialmae.evaluation.shared import common_masks

    trained, unit = model.load(), settings["mask_unit"]
    config = trained.model.config
    if config.norm_pix_loss:
        return math.nan
    height, width = config.image_hw
    noise = torch.rand(N_MASKS, height * width // unit**2, generator=torch.Generator().manual_seed(model.seed))
    masks = common_masks(config, settings["mask_ratio"], unit, noise)
    return float(reconstruction_errors(trained, _test_images(trained, shared), masks).mean())


def _test_images(trained: TrainedModel, shared: Shared) -> np.ndarray:
    """Normalised; models of one data set see its images alike."""
    from spatialmae.analysis.second_order import normalised_images

    data = shared.data
    return shared.once(
        "normalised", (trained.mean, trained.std), lambda: normalised_images(trained, data.images[data.splits["test"]])
    )


MEASURE = Measure(
    "linear probe and k nearest neighbours on the frozen encoder (A12, A13, A15, B7); images with labels",
    tables=("linear_probe", "linear_probe_neighbours"),
    rows=rows,
    reads=("mask_ratio", "mask_unit"),
    parts=parts,
    needs_labels=True,
)
