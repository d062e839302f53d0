"""Stage ``probe`` of trained models: what frozen encoders know of the class labels."""

from __future__ import annotations

import math

import pandas as pd
import torch
from tqdm import tqdm

from spatialmae.analysis.convergence import epochs_to, mean_image_loss
from spatialmae.analysis.second_order import normalised_images, reconstruction_errors
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.probe.classification import label_targets
from spatialmae.probe.linear_probe import ProbeTask, linear_probe
from spatialmae.probe.nearest_neighbours import nearest_neighbour_probe
from spatialmae.probe.representation import Feature, represent_splits
from spatialmae.stages.views import ViewedModels
from spatialmae.tables import write_table
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import TrainedRun

FEATURE: Feature = "mean"
N_MASKS = 40  # that test images are reconstructed under
CONVERGED = 0.9  # of the way from the mean image's loss to the last one


def run(config: Config, name: str) -> None:
    """Write the tables ``linear_probe`` and ``nearest_neighbours`` of an evaluation.

    Beside each accuracy stand the model's ``reconstruction_error``, which is said to tell little of it (claim A15), and
    the ``epochs_to_90`` per cent of its way that its validation loss took (A13.3).

    Raises:
        UserError: images or a run are missing or damaged, or the images have no class labels.
    """
    evaluated = ViewedModels(config, name)
    data, start_loss = evaluated.data, mean_image_loss(evaluated.data)
    tables: dict[str, list[dict]] = {"linear_probe": [], "nearest_neighbours": []}
    for spec in tqdm(evaluated.specs, desc=f"probe {name}", unit="run"):
        trained = evaluated.run(spec)
        features = represent_splits(trained, data.images, dict(data.splits.items()), FEATURE)
        keys = spec.settings() | {
            "reconstruction_error": _reconstruction_error(evaluated, spec, trained),
            "evaluation_mask_ratio": evaluated.settings.mask_ratio,
            "epochs_to_90": _epochs_to_converge(evaluated, spec, start_loss),
        }
        for target in label_targets(data):
            task = ProbeTask.of(features, data, target, FEATURE)
            tables["linear_probe"].append(keys | linear_probe(task))
            tables["nearest_neighbours"].append(keys | nearest_neighbour_probe(task))
    for table, rows in tables.items():
        write_table(Layout.of(config).table(table, name), pd.DataFrame(rows))


def _epochs_to_converge(evaluated: ViewedModels, spec: RunSpec, start_loss: float) -> float:
    """See :func:`~spatialmae.analysis.convergence.epochs_to`; NaN for a model that predicts normalised patches."""
    if spec.model.norm_pix_loss:
        return math.nan
    epochs, losses = evaluated.validation_losses(spec)
    return epochs_to(CONVERGED, epochs, losses, start_loss)


def _reconstruction_error(evaluated: ViewedModels, spec: RunSpec, trained: TrainedRun) -> float:
    """Mean squared error per hidden number of test images, in units of the channels' variance.

    Under masks that all models of a seed share, whatever masks they were trained with; NaN for a model that predicts
    normalised patches.
    """
    if spec.model.norm_pix_loss:
        return math.nan
    draw = torch.Generator().manual_seed(spec.seed)
    noise = torch.rand(N_MASKS, evaluated.n_mask_units, generator=draw)
    masks = evaluated.masks(spec.model, evaluated.settings.mask_ratio, noise)
    images = normalised_images(trained, evaluated.data.images[evaluated.data.splits["test"]])
    return float(reconstruction_errors(trained, images, masks).mean())
