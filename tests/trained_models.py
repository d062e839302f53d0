"""One set of tiny trained models for all tests: each run is trained once in a session, when it is first asked for."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

from spatialmae.artifacts import locked
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.stages import data, plan
from spatialmae.train.batches import TrainingImages
from spatialmae.train.plan import Plan, RunSpec
from spatialmae.train.workers import Options, train_run

ROOT = Path(__file__).parent.parent
SMALL = {"image_size": 16, "n_train": 400, "n_validation": 100, "n_test": 100}
SOURCES = {
    "leaves": {"kind": "dead_leaves", **SMALL},
    "fields": {"kind": "random_fields", **SMALL},
    "digits": {"kind": "digits"},
}

LEAVES = {
    "dataset": "leaves",
    "seeds": 2,
    "model": {"patch_size": 4, "encoder_dim": 16, "encoder_depth": 1, "encoder_heads": 2}
    | {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
    "train": {"epochs": 2, "batch_size": 100, "base_lr": 0.005, "warmup_epochs": 0.2, "snapshots": [0, 1]},
    "grid": {"mask_ratio": [0.5, 0.75]},
}
DIGITS = LEAVES | {
    "dataset": "digits",
    "model": LEAVES["model"]
    | {"patch_size": 2, "encoder_dim": 8, "encoder_heads": 1, "decoder_dim": 8, "decoder_heads": 1},
    "train": {"epochs": 2, "batch_size": 200, "warmup_epochs": 0.2, "augmentation": "none", "snapshots": [0, 1, 2]},
}


def changed(training: Mapping[str, Any], grid: Mapping[str, Any], *, without: str = "", **model: Any) -> dict[str, Any]:
    """A training of another grid and other settings of the model, ``without`` one of them."""
    settings = {name: value for name, value in training["model"].items() if name != without} | model
    return {**training, "model": settings, "grid": dict(grid)}


DEEP = changed(
    DIGITS, {"decoder_depth": [1, 2]}, without="decoder_depth", patch_size=4, mask_ratio=0.75, encoder_depth=2
)
TRAININGS: dict[str, dict[str, Any]] = {
    "ratios": LEAVES,
    "leaves_8": changed(LEAVES, {"mask_ratio": [0.25]}, patch_size=8),
    "fields": LEAVES | {"dataset": "fields"},
    "fields_8": changed(LEAVES | {"dataset": "fields"}, {"mask_ratio": [0.25]}, patch_size=8),
    "digits": DIGITS,
    "patches": changed(DIGITS, {"patch_size": [2, 4]}, without="patch_size", mask_ratio=0.75),
    "surrogate": changed(DIGITS, {"mask_ratio": [0.75]}) | {"train": DIGITS["train"] | {"surrogate": "gaussian"}},
    "deep": DEEP,
    "deeper": changed(DEEP, {}, encoder_depth=3, decoder_depth=1) | {"seeds": 1},
}
"""All that tests look at; a test that needs other runs adds them here, so that others can use them too."""


def small_values(results: Path | str, trainings: Iterable[str], evaluations: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a configuration like smoke's with some of TRAININGS, on smaller data sets."""
    values = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    chosen = {name: deepcopy(TRAININGS[name]) for name in trainings}
    settings = values["datasets"]["digits"] | {"analyses": []}
    datasets = {training["dataset"] for training in chosen.values()} | {"leaves", "digits"}
    values["datasets"] = {
        name: values["datasets"].get(name, settings) | {"source": SOURCES[name]} for name in sorted(datasets)
    }
    parts = {"results": str(results), "training": chosen, "evaluations": dict(evaluations), "calibration": []}
    return values | parts


class TrainedModels:
    """Images and runs that the tests of one session share; each configuration gets copies, which it may damage.

    Args:
        folder: of the session; all its workers have the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def provide(self, config: Config) -> None:
        """Put a configuration's images, plans and finished runs into its results."""
        layout = Layout.of(config)
        for name in {training.dataset for training in config.training.values()}:
            self._provide_images(config, layout, name)
        for name in config.training:
            plan.run(config, name)
            written, images = Plan.load(layout.plan(name)), {}
            for spec in written.runs:
                self._provide_run(spec, written, images, layout.runs / spec.name)

    def _provide_images(self, config: Config, layout: Layout, name: str) -> None:
        source = to_jsonable_python([name, config.datasets[name].source, config.first_seed])
        shared = self.folder / f"{name}-{_digest(source)}.safetensors"
        with locked(self.folder / f"{shared.name}.lock"):
            if not shared.exists():
                data.run(config, name)
                shutil.copyfile(layout.data(name), shared)
        layout.data(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shared, layout.data(name))

    def _provide_run(self, spec: RunSpec, written: Plan, images: dict[Path, TrainingImages], run: Path) -> None:
        # A run's name holds a hash of all its settings, not of its images.
        images_sha256 = hashlib.sha256(written.data.read_bytes()).hexdigest()
        shared = self.folder / f"{spec.name}-{images_sha256[:16]}"
        with locked(self.folder / f"{shared.name}.lock"):
            if not shared.exists():
                list(train_run(spec, written, Options(threads=1, device="cpu"), images))
                shutil.copytree(run, shared)
        shutil.copytree(shared, run, dirs_exist_ok=True)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
