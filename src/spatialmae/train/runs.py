"""A run's folder: weights, settings, logs, and the state from which an unfinished run goes on."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from spatialmae.artifacts import locked, read_tensors, write_json, write_tensors, write_text
from spatialmae.errors import UserError
from spatialmae.model.checkpoint import load_pretrained, read_config, save_pretrained
from spatialmae.model.trained import TrainedModel
from spatialmae.train.batches import TrainingImages
from spatialmae.train.code import code_digest
from spatialmae.train.plan import RunSpec
from spatialmae.train.trainer import Trainer


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run: ``<runs>/<name>/``."""

    path: Path

    @property
    def weights(self) -> Path:
        """Trained weights, encoder and decoder."""
        return self.path / "model.safetensors"

    @property
    def record(self) -> Path:
        """Written last: what was trained, with what, and how it ended."""
        return self.path / "run.json"

    @property
    def state(self) -> Path:
        """State of an unfinished run."""
        return self.path / "state.safetensors"

    def snapshot(self, epoch: int) -> Path:
        """Folder of the weights after an epoch."""
        return self.path / "snapshots" / f"epoch{epoch:04d}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training the same run; the lock ends with the process, however it ends.

        Raises:
            UserError: another process has it.
        """
        with ExitStack() as held:
            try:
                held.enter_context(locked(self.path.parent / ".locks" / self.path.name, wait=False))
            except BlockingIOError:
                raise UserError(self.path, "another process is training it", "wait for that, or end it") from None
            # What an earlier process was writing when it was killed.
            for unfinished in filter(Path.is_file, self.path.rglob(".*")):
                unfinished.unlink()
            yield

    def finished(self, spec: RunSpec, data_sha256: str) -> dict[str, Any] | None:
        """The record of the run if it is whole and was trained on these images; None if it has to be trained.

        The record's ``code_digest`` may be another than today's.
        """
        try:
            record = self.read_record()
            # As a specification, where settings that the record does not know have their defaults.
            same = RunSpec.from_dict(record["spec"]) == spec and record["data_sha256"] == data_sha256
        except (UserError, ValueError, KeyError, TypeError):
            return None
        return record if same else None

    def read_record(self) -> dict[str, Any]:
        """The record of a finished run, all of whose files are as they were when it was finished.

        Raises:
            UserError: the run is missing or unfinished, or a file of it is missing or damaged.
        """
        hint = f"train it again: spatialmae train results/<name>/training/<stage>.json, for {self.path.name}"
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            files = record["files"].items()
            needed = {"name", "spec", "data_sha256", "code_digest", "weights_sha256"}
            if not needed <= set(record):
                raise KeyError
        except FileNotFoundError:
            raise UserError(self.path, "no finished training run", hint) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(self.record, "not a readable record of a run", hint) from None
        for name, sha in files:
            path = self.path / name
            if not path.is_file() or sha256_of(path) != sha:
                raise UserError(path, "missing, or not as it was when the run was finished", hint)
        return record

    def save_state(self, trainer: Trainer) -> None:
        """Write the state, atomically."""
        tensors, values = trainer.state()
        write_tensors(self.state, tensors | _global_generators(trainer), values | self._identity(trainer))

    def restore(self, trainer: Trainer, *, keep_trained: bool = False) -> str | None:
        """Go on from the state, if there is one.

        Returns:
            None if the run goes on from its state, else why not: "" if there is none, or what is other than it was.
            A trainer that was refused a damaged state may hold half of it.
        """
        if not self.state.exists():
            return ""
        try:
            tensors, values = read_tensors(self.state)
            for name, value in self._identity(trainer).items():
                other = values.pop(name) != value
                if other and not (keep_trained and name == "code_digest"):
                    return f"begun with other {name.removesuffix('_sha256').removesuffix('_digest')}"
            trainer.restore(tensors, values)
            _restore_global_generators(trainer, tensors)
        except (UserError, KeyError, TypeError, AttributeError, RuntimeError):
            return "its state is damaged"
        return None

    def _identity(self, trainer: Trainer) -> dict[str, Any]:
        return {
            "spec": trainer.spec.to_dict(),
            "data_sha256": trainer.images.sha256,
            "code_digest": code_digest(),
            "precision": trainer.hardware.precision,
            "device": trainer.hardware.device.type,
        }

    def save_snapshot(self, trainer: Trainer, epoch: int) -> None:
        """Keep the weights after an epoch."""
        save_pretrained(trainer.model, self.snapshot(epoch), _config(trainer))

    def save_logs(self, trainer: Trainer) -> None:
        """Write ``log.csv`` and ``validation.csv``."""
        write_text(self.path / "log.csv", _csv(trainer.progress.log))
        write_text(self.path / "validation.csv", _csv(trainer.progress.validation))

    def _files(self, trainer: Trainer) -> list[Path]:
        """The files that a finished run is made of, but for its record."""
        checkpoints = [self.path, *(self.snapshot(epoch) for epoch in trainer.spec.train.snapshots)]
        logs = [self.path / "log.csv", self.path / "validation.csv"]
        return [folder / name for folder in checkpoints for name in ("model.safetensors", "config.json")] + logs

    def finish(self, trainer: Trainer, threads: int) -> None:
        """Write weights and logs, then the record, and remove the state."""
        save_pretrained(trainer.model, self.path, _config(trainer))
        self.save_logs(trainer)
        hardware, progress = trainer.hardware, trainer.progress
        images = progress.step * trainer.spec.train.batch_size
        record = {
            **self._identity(trainer),
            "name": trainer.spec.name,
            "weights_sha256": sha256_of(self.weights),
            "train_loss": progress.train_loss,
            "validation_loss": progress.validation[-1]["loss"] if progress.validation else None,
            "realised_mask_ratio": trainer.spec.model.realised_mask_ratio,
            "n_parameters": sum(p.numel() for p in trainer.model.parameters()),
            "steps": progress.step,
            "images": images,
            "wall_seconds": round(progress.seconds, 3),
            "images_per_second": round(images / progress.seconds, 1),
            "device": hardware.name,
            "threads": threads,
            "compiled": hardware.compiled,
            "attention": hardware.kernel,
            "torch": torch.__version__,
            "files": {str(path.relative_to(self.path)): sha256_of(path) for path in self._files(trainer)},
        }
        write_json(self.record, record)
        self.state.unlink(missing_ok=True)


def _global_generators(trainer: Trainer) -> dict[str, np.ndarray]:
    """States of torch's global generators, from which the control of a loss's margin draws."""
    states = {"rng/cpu": torch.get_rng_state().numpy()}
    if trainer.hardware.device.type == "cuda":
        states["rng/cuda"] = torch.cuda.get_rng_state(trainer.hardware.device).numpy()
    return states


def _restore_global_generators(trainer: Trainer, tensors: dict[str, np.ndarray]) -> None:
    torch.set_rng_state(torch.from_numpy(tensors["rng/cpu"]))
    if trainer.hardware.device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(tensors["rng/cuda"]), trainer.hardware.device)


@dataclass(frozen=True, kw_only=True)
class TrainedRun(TrainedModel):
    """A finished run.

    Attributes:
        config: ``config.json``: model, train, dataset, seed, normalisation.
        record: ``run.json``.
    """

    config: dict[str, Any]
    record: dict[str, Any]


def load_run(path: Path | str) -> TrainedRun:
    """Read a finished run.

    Raises:
        UserError: the run is missing or unfinished, or a file of it is missing or damaged.
    """
    folder = RunFolder(Path(path))
    record = folder.read_record()
    config = json.loads((folder.path / "config.json").read_text(encoding="utf-8"))
    return TrainedRun(**vars(load_model(folder.path, record.get("precision", "fp32"))), config=config, record=record)


def load_model(folder: Path, precision: Literal["bf16", "fp32"]) -> TrainedModel:
    """The model of a run's folder or of one of its snapshots.

    Args:
        folder: of the weights.
        precision: that the run was trained in.

    Raises:
        UserError: the weights are missing or damaged.
    """
    statistics = read_config(folder)["normalisation"]
    mean, std = (tuple(statistics[name]) for name in ("mean", "std"))
    return TrainedModel(load_pretrained(folder).eval(), mean, std, precision)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _config(trainer: Trainer) -> dict[str, Any]:
    """What stands in ``config.json`` beside the model: enough to use the weights."""
    spec = trainer.spec.to_dict()
    del spec["model"]
    images: TrainingImages = trainer.images
    return spec | {"normalisation": {"mean": images.mean.tolist(), "std": images.std.tolist()}}


def _csv(rows: list[dict[str, float]]) -> str:
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
