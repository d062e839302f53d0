"""A run's folder: weights, settings, logs, and the state from which an unfinished run goes on."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spatialmae.artifacts import read_tensors, write_json, write_tensors, write_text
from spatialmae.errors import UserError
from spatialmae.model.checkpoint import load_pretrained, save_pretrained
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.shapes import Float, UInt8
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
        lock = self.path.with_name(f".{self.path.name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(self.path, "another process is training it", "wait for that, or end it") from None
            yield
            lock.unlink()

    def finished(self, spec: RunSpec, data_sha256: str) -> dict[str, Any] | None:
        """The record of the run if it is whole and was trained on these images; None if it has to be trained.

        The record's ``code_digest`` may be another than today's.
        """
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            whole = record["weights_sha256"] == sha256_of(self.weights)
            same = record["spec"] == spec.to_dict() and record["data_sha256"] == data_sha256
        except (OSError, ValueError, KeyError):
            return None
        return record if whole and same else None

    def save_state(self, trainer: Trainer) -> None:
        """Write the state, atomically."""
        tensors, values = trainer.state()
        write_tensors(self.state, tensors, values | self._identity(trainer))

    def restore(self, trainer: Trainer) -> bool:
        """Go on from the state, if there is one of this very run; a damaged or foreign one is not used."""
        if not self.state.exists():
            return False
        try:
            tensors, values = read_tensors(self.state)
            identity = self._identity(trainer)
            if {name: values.pop(name) for name in identity} != identity:
                return False
            trainer.restore(tensors, values)
        except (UserError, KeyError, TypeError, RuntimeError):
            return False
        return True

    def _identity(self, trainer: Trainer) -> dict[str, Any]:
        return {
            "spec": trainer.spec.to_dict(),
            "data_sha256": trainer.images.sha256,
            "code_digest": code_digest(),
            "precision": trainer.hardware.precision,
        }

    def save_snapshot(self, trainer: Trainer, epoch: int) -> None:
        """Keep the weights after an epoch."""
        save_pretrained(trainer.model, self.snapshot(epoch), _config(trainer))

    def save_logs(self, trainer: Trainer) -> None:
        """Write ``log.csv`` and ``validation.csv``."""
        write_text(self.path / "log.csv", _csv(trainer.progress.log))
        write_text(self.path / "validation.csv", _csv(trainer.progress.validation))

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
            "validation_loss": progress.validation[-1]["loss"] if len(trainer.images.validation) else None,
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
        }
        write_json(self.record, record)
        self.state.unlink(missing_ok=True)


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        model: with its trained weights, in evaluation mode.
        config: ``config.json``: model, train, dataset, seed, normalisation.
        record: ``run.json``.
    """

    model: MaskedAutoencoder
    config: dict[str, Any]
    record: dict[str, Any]

    def normalise(self, images: UInt8[Tensor, "N H W C"]) -> Float[Tensor, "N C H W"]:
        """Images as the model was trained on: zero mean and unit variance by channel of the training images."""
        mean, std = (torch.tensor(self.config["normalisation"][name])[:, None, None] for name in ("mean", "std"))
        return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def denormalise(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N H W C"]:
        """The inverse of :meth:`normalise`, on the scale [0, 1], not clipped."""
        mean, std = (torch.tensor(self.config["normalisation"][name])[:, None, None] for name in ("mean", "std"))
        return (images * std + mean).permute(0, 2, 3, 1)


def load_run(path: Path | str) -> TrainedRun:
    """Read a finished run.

    Raises:
        UserError: the run is missing, unfinished, or its weights are not those it was finished with.
    """
    folder = RunFolder(Path(path))
    try:
        record = json.loads(folder.record.read_text(encoding="utf-8"))
        config = json.loads((folder.path / "config.json").read_text(encoding="utf-8"))
        expected = record["weights_sha256"]
    except (OSError, ValueError, KeyError):
        raise UserError(path, "no finished training run", "train it: snakemake training") from None
    model = load_pretrained(folder.path)
    if sha256_of(folder.weights) != expected:
        raise UserError(folder.weights, "not the weights that run.json names", "delete the run and train it again")
    return TrainedRun(model.eval(), config, record)


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
