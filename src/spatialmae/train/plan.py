"""What is to be trained: runs, each named by its settings and seed, and plans, the runs of one training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from spatialmae.artifacts import write_json
from spatialmae.errors import UserError
from spatialmae.model.config import MAEConfig
from spatialmae.setting import check_count
from spatialmae.train.settings import TrainConfig

FROM_DATASET = ("image_size", "channels")  # settings of the model that follow from its data set
SNAPSHOTS = ("snapshots", "snapshot_steps")  # settings that change no trained model


@dataclass(frozen=True)
class RunSpec:
    """One training run: data set, model, training and seed decide all of it."""

    dataset: str
    model: MAEConfig
    train: TrainConfig
    seed: int

    @property
    def name(self) -> str:
        """Names the run for a reader, and by a hash of its settings for good.

        Settings that have their default take no part in the hash, so that a setting that is new renames no run.
        """
        unit = "" if self.model.mask_unit is None else f"-u{self.model.mask_unit}"
        margin = f"-margin{self.model.loss_margin}" if self.model.loss_margin else ""
        control = "-control" if self.model.loss_margin_control else ""
        data = self.dataset if self.train.surrogate == "none" else f"{self.dataset}-{self.train.surrogate}"
        chosen = self.to_dict() | {"model": _chosen(self.model), "train": _chosen(self.train)}
        digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()
        return (
            f"{data}-p{self.model.patch_size}{unit}-m{self.model.mask_ratio:g}{margin}{control}-e{self.train.epochs}"
            f"-s{self.seed}-{digest[:8]}"
        )

    def trunk(self, runs: Iterable[RunSpec]) -> RunSpec | None:
        """Of some runs the longest whose end this run comes through; None: none of them.

        A run at a constant rate is the beginning of every longer one of the same settings, bit for bit, and of those
        that cool down from there.
        """
        if self.train.schedule == "cosine":
            return None
        longest = self.train.epochs - 1 if self.train.schedule == "constant" else self.train.stable_until
        shorter = [run for run in runs if run.train.schedule == "constant" and run.train.epochs <= longest]
        found = [run for run in shorter if run._at_constant_rate() == self._at_constant_rate(run.train.epochs)]
        return max(found, key=lambda run: run.train.epochs, default=None)

    def _at_constant_rate(self, epochs: int | None = None) -> RunSpec:
        """The run without its cool-down and snapshots, for so many epochs."""
        values = {name: getattr(TrainConfig(), name) for name in (*SNAPSHOTS, "cooldown", "min_lr")}
        values |= {"schedule": "constant", "epochs": epochs or self.train.epochs}
        return replace(self, train=replace(self.train, **values))

    def to_dict(self) -> dict[str, Any]:
        """The settings, JSON-able."""
        return {
            "dataset": self.dataset,
            "model": self.model.to_dict(),
            "train": self.train.to_dict(),
            "seed": self.seed,
        }

    def settings(self) -> dict[str, Any]:
        """Every setting, as columns of a table; ``mask_unit`` is in px, the patch where none is set."""
        model = {name: value for name, value in asdict(self.model).items() if name not in FROM_DATASET}
        train = {name: value for name, value in asdict(self.train).items() if name not in SNAPSHOTS}
        derived = {"mask_unit": self.model.mask_unit_px, "realised_mask_ratio": self.model.realised_mask_ratio}
        return {"name": self.name, "dataset": self.dataset, "seed": self.seed} | model | derived | train

    def pretraining_settings(self) -> dict[str, Any]:
        """:meth:`settings` where the model is trained further: those of its own training get a prefix."""
        trained = {field.name for field in fields(TrainConfig)}
        return {f"pretraining_{name}" if name in trained else name: value for name, value in self.settings().items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunSpec:
        """From JSON-able settings.

        Raises:
            ValueError: naming the field, and a hint.
            KeyError: a setting is missing.
        """
        model, train = MAEConfig.from_dict(values["model"]), TrainConfig.from_dict(values["train"])
        check_count("seed", values["seed"], least=0)
        return cls(str(values["dataset"]), model, train, values["seed"])


def _chosen(settings: MAEConfig | TrainConfig) -> dict[str, Any]:
    """The settings that differ from their defaults, JSON-able."""
    default = {field.name: field.default for field in fields(settings)}
    return {name: value for name, value in settings.to_dict().items() if getattr(settings, name) != default[name]}


@dataclass(frozen=True)
class Plan:
    """The runs of one training, on one data set.

    On disk all paths are relative to the plan, so that plan, data and runs can be carried to another machine and back.

    Attributes:
        training: its name in the configuration.
        data: the images, ``data/<dataset>.safetensors``.
        runs_dir: folder that holds a folder for each run.
        runs: what is to be trained.
    """

    training: str
    data: Path
    runs_dir: Path
    runs: tuple[RunSpec, ...]

    def save(self, path: Path | str) -> None:
        """Write as JSON, atomically."""
        folder = Path(path).parent
        paths = {name: os.path.relpath(getattr(self, name), folder) for name in ("data", "runs_dir")}
        write_json(path, {"training": self.training, **paths, "runs": [run.to_dict() for run in self.runs]})

    @classmethod
    def load(cls, path: Path | str) -> Plan:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: the file is missing, or no valid plan.
        """
        hint = "write it again: spatialmae plan TRAINING --config FILE"
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            folder = Path(path).parent
            paths = {name: Path(os.path.normpath(folder / values[name])) for name in ("data", "runs_dir")}
            return cls(str(values["training"]), **paths, runs=tuple(RunSpec.from_dict(run) for run in values["runs"]))
        except FileNotFoundError:
            raise UserError(path, "plan not found", hint) from None
        except KeyError as error:
            raise UserError(path, f"{error.args[0]}: missing", hint) from None
        except (ValueError, TypeError, OSError) as error:
            raise UserError(path, f"not a valid plan ({error})", hint) from None
