"""What is to be trained: runs, each named by its settings and seed, and plans, the runs of one stage."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spatialmae.artifacts import write_json
from spatialmae.errors import UserError
from spatialmae.model.config import MAEConfig
from spatialmae.setting import check_count
from spatialmae.train.settings import TrainConfig

FROM_DATASET = ("image_size", "channels")  # settings of the model that follow from its data set


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
        train = {name: value for name, value in asdict(self.train).items() if name != "snapshots"}
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
    """The runs of one stage, on one data set.

    On disk all paths are relative to the plan, so that plan, data and runs can be carried to another machine and back.

    Attributes:
        stage: name of the stage.
        data: the images, ``data/<dataset>.safetensors``.
        runs_dir: folder that holds a folder for each run.
        manifest: written when every run is finished.
        runs: what is to be trained.
    """

    stage: str
    data: Path
    runs_dir: Path
    manifest: Path
    runs: tuple[RunSpec, ...]

    def save(self, path: Path | str) -> None:
        """Write as JSON, atomically."""
        folder = Path(path).parent
        paths = {name: os.path.relpath(getattr(self, name), folder) for name in ("data", "runs_dir", "manifest")}
        write_json(path, {"stage": self.stage, **paths, "runs": [run.to_dict() for run in self.runs]})

    @classmethod
    def load(cls, path: Path | str) -> Plan:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: the file is missing, or no valid plan.
        """
        hint = "write it again: spatialmae plan STAGE --config FILE"
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            folder = Path(path).parent
            paths = {name: Path(os.path.normpath(folder / values[name])) for name in ("data", "runs_dir", "manifest")}
            return cls(str(values["stage"]), **paths, runs=tuple(RunSpec.from_dict(run) for run in values["runs"]))
        except FileNotFoundError:
            raise UserError(path, "plan not found", hint) from None
        except KeyError as error:
            raise UserError(path, f"{error.args[0]}: missing", hint) from None
        except (ValueError, TypeError, OSError) as error:
            raise UserError(path, f"not a valid plan ({error})", hint) from None
