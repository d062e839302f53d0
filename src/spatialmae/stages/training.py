"""Stage ``training``: the finished runs of one training stage as tables, and what their models reconstruct."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spatialmae.analysis.convergence import mean_image_loss
from spatialmae.analysis.reconstruction import reconstruct
from spatialmae.artifacts import write_tensors
from spatialmae.config import Config
from spatialmae.data.dataset import ImageData
from spatialmae.errors import UserError
from spatialmae.layout import Layout
from spatialmae.tables import read_curve, write_table
from spatialmae.train.manifest import read_manifest
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import load_run

N_IMAGES = 6  # validation images that are reconstructed
RECORDED = (
    *("n_parameters", "steps", "images", "wall_seconds", "images_per_second", "device", "threads", "compiled"),
    *("torch", "train_loss", "validation_loss", "weights_sha256"),
)
LOG = ["step", "epoch", "lr", "loss", "grad_norm", "seconds"]  # columns of log.csv
VALIDATION = ["epoch", "step", "loss"]  # columns of validation.csv


def run(config: Config, stage: str) -> None:
    """Write the tables ``runs``, ``training`` and ``validation`` of a stage, and ``training/<stage>.safetensors``.

    Raises:
        UserError: the stage is not trained, or a run is damaged, gone, or of an older version.
    """
    layout = Layout.of(config)
    trained = read_manifest(layout.manifest(stage))
    data = ImageData.load(layout.data(config.training[stage].dataset))
    images, level = _shown_images(data), mean_image_loss(data)
    rows, curves, validation = [], [], []
    tensors: dict[str, np.ndarray] = {"images": images}
    for spec in config.training_runs(stage):
        folder = layout.runs / spec.name
        result = load_run(folder)
        entry = trained.get(spec.name)
        if entry is None or entry.weights_sha256 != result.record["weights_sha256"]:
            hint = "delete the manifest and run snakemake training"
            raise UserError(layout.manifest(stage), f"it does not hold the weights of {spec.name}", hint)
        # With norm_pix_loss the unit differs from patch to patch.
        reference = {"mean_image_loss": math.nan if spec.model.norm_pix_loss else level}
        measured = _recorded(folder / "run.json", result.record)
        rows.append({"stage": stage} | spec.settings() | measured | reference | {"code_matches": entry.code_matches})
        curves.append(_curve(folder / "log.csv", LOG, spec))
        validation.append(_curve(folder / "validation.csv", VALIDATION, spec))
        if spec.seed == config.first_seed:
            made = reconstruct(result, images)
            tensors |= {f"{spec.name}/{name}": values for name, values in vars(made).items()}
    write_table(layout.table("runs", stage), pd.DataFrame(rows))
    write_table(layout.table("training", stage), pd.concat(curves))
    write_table(layout.table("validation", stage), pd.concat(validation))
    write_tensors(layout.reconstructions(stage), tensors, {"stage": stage})


def _shown_images(data: ImageData) -> np.ndarray:
    """The first validation images, uint8 (n, h, w, c); of a data set without any, training images."""
    rows = data.splits["validation"] if len(data.splits["validation"]) else data.splits["train"]
    return data.images[rows[:N_IMAGES]]


def _recorded(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """How a run ended, and with what. ``precision_used`` is what the setting ``precision`` came to on its machine."""
    try:
        return {"precision_used": record["precision"]} | {name: record[name] for name in RECORDED}
    except KeyError as error:
        problem = f"{error.args[0]} is not in it, another version of spatialmae wrote it"
        raise UserError(path, problem, "delete the run and train it again") from None


def _curve(path: Path, columns: list[str], spec: RunSpec) -> pd.DataFrame:
    """Columns of a run's CSV behind its name and seed, and the images seen."""
    table = read_curve(path, columns)
    keys = {"name": spec.name, "seed": spec.seed, "images": table["step"] * spec.train.batch_size}
    return table.assign(**keys)[[*keys, *columns]]
