"""Stage ``probe`` of trained models: what frozen encoders know of the class labels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32
from tqdm import tqdm

from spatialmae.analysis.convergence import epochs_to, mean_image_loss
from spatialmae.analysis.second_order import normalised_images, reconstruction_errors
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.probe.classification import label_targets
from spatialmae.probe.nearest_neighbours import nearest_neighbour_probe
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.stages.kept import KeptRow, Row
from spatialmae.stages.probes import NUMERIC, ProbedModel
from spatialmae.tables import write_table
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import TrainedRun

N_MASKS = 40  # that test images are reconstructed under
CONVERGED = 0.9  # of the way from the mean image's loss to the last one


def run(config: Config, name: str) -> None:
    """Write the tables ``linear_probe`` and ``nearest_neighbours`` of an evaluation.

    Beside each accuracy stand the model's ``reconstruction_error``, which is said to tell little of it (claim A15), and
    the ``epochs_to_90`` per cent of its way that its validation loss took (A13.3). A model takes a minute on CIFAR-10,
    so the probes of each are kept.

    Raises:
        UserError: images or a run are missing or damaged, or the images have no class labels.
    """
    evaluated, layout = EvaluationSet(config, name), Layout.of(config)
    data, start_loss = evaluated.data, mean_image_loss(evaluated.data)
    # Models of one data set see its images alike.
    test = normalised_images(evaluated.run(evaluated.specs[0]), data.images[data.splits["test"]])
    tables: dict[str, list[Row]] = {"linear_probe": [], "nearest_neighbours": []}
    for spec in tqdm(evaluated.specs, desc=f"probe {name}", unit="run"):
        trained = evaluated.run(spec)
        keys = spec.settings() | {
            "reconstruction_error": _reconstruction_error(evaluated, spec, trained, test),
            "evaluation_mask_ratio": evaluated.settings.mask_ratio,
            "epochs_to_90": _epochs_to_converge(evaluated, spec, start_loss),
        }
        model = ProbedModel(evaluated, spec, trained)
        for target in label_targets(data):
            tables["linear_probe"].append(keys | model.linear_probe(target).row)
            tables["nearest_neighbours"].append(keys | _nearest_neighbours(model, target, layout))
    for probe, found in tables.items():
        write_table(layout.table(probe, name), pd.DataFrame(found))


def _nearest_neighbours(model: ProbedModel, target: str, layout: Layout) -> Row:
    """The row of one class label, made now or kept before."""
    key = model.key(target, (*NUMERIC, "probe/nearest_neighbours.py"))
    kept = KeptRow(layout.rows("nearest_neighbours"), f"{model.spec.name}-{target}", key)
    return kept.or_make(lambda: nearest_neighbour_probe(model.task(target)))


def _epochs_to_converge(evaluated: EvaluationSet, spec: RunSpec, start_loss: float) -> float:
    """See :func:`~spatialmae.analysis.convergence.epochs_to`; NaN for a model that predicts normalised patches."""
    if spec.model.norm_pix_loss:
        return math.nan
    epochs, losses = evaluated.validation_losses(spec)
    return epochs_to(CONVERGED, epochs, losses, start_loss)


def _reconstruction_error(
    evaluated: EvaluationSet, spec: RunSpec, trained: TrainedRun, images: Float32[np.ndarray, "n h w c"]
) -> float:
    """Mean squared error per hidden number of normalised images, in units of the channels' variance.

    Under masks that all models of a seed share, whatever masks they were trained with; NaN for a model that predicts
    normalised patches.
    """
    if spec.model.norm_pix_loss:
        return math.nan
    draw = torch.Generator().manual_seed(spec.seed)
    noise = torch.rand(N_MASKS, evaluated.n_mask_units, generator=draw)
    masks = evaluated.masks(spec.model, evaluated.settings.mask_ratio, noise)
    return float(reconstruction_errors(trained, images, masks).mean())
