"""Stage ``training``: the finished runs of one training stage as tables, and what their models reconstruct."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spatialmae.analysis.reconstruction import reconstruct
from spatialmae.artifacts import write_tensors
from spatialmae.config import FROM_DATASET, Config
from spatialmae.data.dataset import ImageData
from spatialmae.errors import UserError
from spatialmae.layout import Layout
from spatialmae.tables import write_table
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import TrainedRun, load_run

N_IMAGES = 6  # validation images that are reconstructed
RECORDED = (
    *("n_parameters", "steps", "images", "wall_seconds", "images_per_second", "device", "threads", "precision"),
    *("compiled", "torch", "train_loss", "validation_loss", "weights_sha256"),
)


def run(config: Config, stage: str) -> None:
    """Write the tables ``runs``, ``training`` and ``validation`` of a stage, and ``training/<stage>.safetensors``.

    Raises:
        UserError: the stage is not trained, or a run is damaged or gone.
    """
    layout = Layout.of(config)
    trained = _manifest(layout.manifest(stage))
    images = _shown_images(layout.data(config.training[stage].dataset))
    rows, curves, validation = [], [], []
    tensors: dict[str, np.ndarray] = {"images": images}
    for spec in config.training_runs(stage):
        folder = layout.runs / spec.name
        result = load_run(folder)
        entry = trained.get(spec.name)
        if entry is None or entry["weights_sha256"] != result.record["weights_sha256"]:
            mend = "delete the manifest and run snakemake training"
            raise UserError(layout.manifest(stage), f"it does not hold the weights of {spec.name}", mend)
        rows.append(_row(stage, spec, result) | {"code_matches": entry["code_matches"]})
        keys = {"name": spec.name, "seed": spec.seed, **_varied(config, stage, spec)}
        curves.append(_curve(folder / "log.csv", keys))
        validation.append(_curve(folder / "validation.csv", keys, batch_size=spec.train.batch_size))
        if spec.seed == config.first_seed:
            made = reconstruct(result, images)
            tensors |= {f"{spec.name}/mask": made.mask, f"{spec.name}/pred": made.pred}
    write_table(layout.table("runs", stage), pd.DataFrame(rows))
    write_table(layout.table("training", stage), pd.concat(curves))
    write_table(layout.table("validation", stage), pd.concat(validation))
    write_tensors(layout.reconstructions(stage), tensors, {"stage": stage})


def _manifest(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a manifest by the name of the run."""
    try:
        return {entry["name"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        raise UserError(path, "the stage is not trained", "run snakemake training") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(path, "not a readable manifest", "delete it and run snakemake training") from None


def _shown_images(path: Path) -> np.ndarray:
    """The first validation images, uint8 (n, h, w, c); of a data set without any, training images."""
    data = ImageData.load(path)
    rows = data.splits["validation"] if len(data.splits["validation"]) else data.splits["train"]
    return data.images[rows[:N_IMAGES]]


def _row(stage: str, spec: RunSpec, result: TrainedRun) -> dict[str, Any]:
    """What was trained, every setting of it, and how it ended. ``mask_unit`` is in px, the patch where none is set."""
    model = {name: value for name, value in asdict(spec.model).items() if name not in FROM_DATASET}
    train = {name: value for name, value in asdict(spec.train).items() if name not in ("precision", "snapshots")}
    derived = {"mask_unit": spec.model.mask_unit_px, "realised_mask_ratio": _realised(spec)}
    recorded = {name: result.record[name] for name in RECORDED}
    keys = {"stage": stage, "name": spec.name, "dataset": spec.dataset, "seed": spec.seed}
    return keys | model | derived | train | recorded


def _realised(spec: RunSpec) -> float:
    """Share of the patches that is hidden: after rounding where their count is fixed, else on average."""
    return spec.model.realised_mask_ratio if spec.model.masking == "fixed" else spec.model.mask_ratio


def _varied(config: Config, stage: str, spec: RunSpec) -> dict[str, Any]:
    """The settings of the stage's grid."""
    every = asdict(spec.model) | asdict(spec.train)
    return {name: every[name] for name in config.training[stage].grid}


def _curve(path: Path, keys: dict[str, Any], batch_size: int | None = None) -> pd.DataFrame:
    """A run's CSV behind its keys; images seen follow from the steps where the file has them not."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(path, f"not readable ({error})", "delete the run and train it again") from None
    if batch_size is not None:
        table["images"] = table["step"] * batch_size
    for place, (name, value) in enumerate(keys.items()):
        table.insert(place, name, [value] * len(table))
    return table
