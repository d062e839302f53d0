"""Stage ``training``: the finished runs of one training as tables, and what their models reconstruct."""

from __future__ import annotations

import json
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
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import load_run
from spatialmae.train.trainer import today

N_IMAGES = 6  # validation images that are reconstructed
RECORDED = ("n_parameters", "steps", "images", "torch", "train_loss", "validation_loss", "weights_sha256")
LOG = ["step", "epoch", "lr", "loss", "grad_norm"]  # columns of log.csv
VALIDATION = ["epoch", "step", "loss"]  # columns of validation.csv


def run(config: Config, training: str) -> None:
    """Write the tables ``runs``, ``training``, ``validation`` and ``costs``, and ``training/<training>.safetensors``.

    Raises:
        UserError: a run is not trained, damaged, or of an older version.
    """
    layout = Layout.of(config)
    data = ImageData.load(layout.data(config.training[training].dataset))
    images, level = _shown_images(data), mean_image_loss(data)
    rows, curves, validation, costs = [], [], [], []
    tensors: dict[str, np.ndarray] = {"images": images}
    for spec in config.training_runs(training):
        folder = layout.runs / spec.name
        result = load_run(folder)
        # With norm_pix_loss the unit differs from patch to patch.
        reference = {"mean_image_loss": math.nan if spec.model.norm_pix_loss else level}
        measured = _recorded(folder / "run.json", result.record)
        code = {"code_matches": result.record["code"][0] == today()}
        rows.append({"training": training} | spec.settings() | measured | reference | code)
        costs.append({"job": "train", "name": spec.name, **_costs(folder)})
        curves.append(_curve(folder / "log.csv", LOG, spec))
        validation.append(_curve(folder / "validation.csv", VALIDATION, spec))
        if spec.seed == config.first_seed:
            made = reconstruct(result, images)
            tensors |= {f"{spec.name}/{name}": values for name, values in vars(made).items()}
    write_table(layout.table("training_runs", training), pd.DataFrame(rows))
    write_table(layout.table("training", training), pd.concat(curves))
    write_table(layout.table("training_validation", training), pd.concat(validation))
    write_table(layout.table("costs", training), pd.DataFrame(costs))
    write_tensors(layout.reconstructions(training), tensors, {"training": training})


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


def _costs(folder: Path) -> dict[str, Any]:
    """Time and machine of a run: no part of its result, and lost with their file."""
    try:
        return json.loads((folder / "costs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"seconds": math.nan, "device": "unknown"}


def _curve(path: Path, columns: list[str], spec: RunSpec) -> pd.DataFrame:
    """Columns of a run's CSV behind its name and seed, and the images seen."""
    table = read_curve(path, columns)
    keys = {"name": spec.name, "seed": spec.seed, "images": table["step"] * spec.train.batch_size}
    return table.assign(**keys)[[*keys, *columns]]
