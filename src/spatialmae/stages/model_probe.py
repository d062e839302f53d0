"""Stage ``probe`` of trained models: what frozen encoders know of the class labels."""

from __future__ import annotations

import math

import pandas as pd
import torch
from tqdm import tqdm

from spatialmae.analysis.convergence import epochs_to, mean_image_loss
from spatialmae.analysis.second_order import normalised_images, reconstruction_errors
from spatialmae.config import Config
from spatialmae.data.dataset import ImageData
from spatialmae.layout import Layout
from spatialmae.probe.classification import label_targets
from spatialmae.probe.linear_probe import ProbeTask, linear_probe
from spatialmae.probe.nearest_neighbours import nearest_neighbour_probe
from spatialmae.probe.representation import Feature, represent_splits
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.stages.kept import KeptRow, Row
from spatialmae.tables import write_table
from spatialmae.train.code import code_digest
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import TrainedRun, sha256_of

FEATURE: Feature = "mean"
N_MASKS = 40  # that test images are reconstructed under
CONVERGED = 0.9  # of the way from the mean image's loss to the last one
PROBES = {"linear_probe": linear_probe, "nearest_neighbours": nearest_neighbour_probe}
# Modules that a row depends on beside those of the trained weights.
NUMERIC = tuple(
    f"probe/{name}.py" for name in ("representation", "classification", "linear_probe", "nearest_neighbours")
)


def run(config: Config, name: str) -> None:
    """Write the tables ``linear_probe`` and ``nearest_neighbours`` of an evaluation.

    Beside each accuracy stand the model's ``reconstruction_error``, which is said to tell little of it (claim A15), and
    the ``epochs_to_90`` per cent of its way that its validation loss took (A13.3). A model takes a minute on CIFAR-10,
    so the rows of each are kept.

    Raises:
        UserError: images or a run are missing or damaged, or the images have no class labels.
    """
    evaluated, layout = EvaluationSet(config, name), Layout.of(config)
    data_sha256 = sha256_of(layout.data(evaluated.specs[0].dataset))
    start_loss = mean_image_loss(evaluated.data)
    tables: dict[str, list[Row]] = {probe: [] for probe in PROBES}
    for spec in tqdm(evaluated.specs, desc=f"probe {name}", unit="run"):
        trained = evaluated.run(spec)
        keys = spec.settings() | {
            "reconstruction_error": _reconstruction_error(evaluated, spec, trained),
            "evaluation_mask_ratio": evaluated.settings.mask_ratio,
            "epochs_to_90": _epochs_to_converge(evaluated, spec, start_loss),
        }
        for target, rows in _probed(evaluated.data, data_sha256, spec, trained, layout).items():
            for probe in PROBES:
                tables[probe].append(keys | {"target": target} | rows[probe])
    for probe, found in tables.items():
        write_table(layout.table(probe, name), pd.DataFrame(found))


def _probed(
    data: ImageData, data_sha256: str, spec: RunSpec, trained: TrainedRun, layout: Layout
) -> dict[str, dict[str, Row]]:
    """The row of each probe for each target, made now or kept before."""
    key = {
        "weights_sha256": trained.record["weights_sha256"],
        "feature": FEATURE,
        "data_sha256": data_sha256,
        "code_digest": code_digest(NUMERIC),
    }
    files = {
        target: KeptRow(layout.rows("probe"), f"{spec.name}-{target}", key | {"target": target})
        for target in label_targets(data)
    }
    rows = {target: file.read() for target, file in files.items()}
    if None in rows.values():
        features = represent_splits(trained, data.images, dict(data.splits.items()), FEATURE)
        for target, file in files.items():
            task = ProbeTask.of(features, data, target, FEATURE)
            rows[target] = file.write({name: probe(task) for name, probe in PROBES.items()})
    return {target: row or {} for target, row in rows.items()}


def _epochs_to_converge(evaluated: EvaluationSet, spec: RunSpec, start_loss: float) -> float:
    """See :func:`~spatialmae.analysis.convergence.epochs_to`; NaN for a model that predicts normalised patches."""
    if spec.model.norm_pix_loss:
        return math.nan
    epochs, losses = evaluated.validation_losses(spec)
    return epochs_to(CONVERGED, epochs, losses, start_loss)


def _reconstruction_error(evaluated: EvaluationSet, spec: RunSpec, trained: TrainedRun) -> float:
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
