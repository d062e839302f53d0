"""A run's folder: weights, settings, logs, and the state from which an unfinished run goes on."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from spatialmae.artifacts import locked, read_tensors, write_json, write_tensors, write_text
from spatialmae.errors import UserError
from spatialmae.model.checkpoint import read_config
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.model.trained import TrainedModel
from spatialmae.train.batches import TrainingImages
from spatialmae.train.plan import RunSpec
from spatialmae.train.trainer import REPEATED, Trainer, today

OTHER_CODE = "begun with other code"


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
        """Written last: what was trained, with what, and the hash of every file. It vouches for the run."""
        return self.path / "run.json"

    @property
    def copy(self) -> Path:
        """A copy of the record: a workflow that makes a run again deletes the record first."""
        return self.path / "finished.json"

    @property
    def costs(self) -> Path:
        """Time and machine, which the record leaves out, so that it is the same whenever the run is made."""
        return self.path / "costs.json"

    @property
    def state(self) -> Path:
        """A state: an unfinished run goes on from it, and a finished one can repeat its last steps from it."""
        return self.path / "state.safetensors"

    @property
    def repeat(self) -> Path:
        """What the weights were some steps after the state."""
        return self.path / "repeat.json"

    @property
    def end(self) -> Path:
        """The state at the end of a trunk, from which longer runs go on."""
        return self.path / "end.safetensors"

    def snapshot(self, epoch: int) -> Path:
        """Folder of the weights after an epoch."""
        return self.path / "snapshots" / f"epoch{epoch:04d}"

    def snapshot_at_step(self, step: int) -> Path:
        """Folder of the weights after a step."""
        return self.path / "snapshots" / f"step{step:06d}"

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

    def is_locked(self) -> bool:
        """Whether a process is training it."""
        try:
            with locked(self.path.parent / ".locks" / self.path.name, wait=False):
                return False
        except BlockingIOError:
            return True

    def finished(self, spec: RunSpec, data_sha256: str) -> dict[str, Any] | None:
        """The record of the run if it is whole and was trained on these images; None if it has to be trained.

        The record's ``code`` may be other than today's.
        """
        for path in (self.record, self.copy):
            try:
                record = self._read(path)
                # As a specification, where settings that the record does not know have their defaults.
                if RunSpec.from_dict(record["spec"]) == spec and record["data_sha256"] == data_sha256:
                    return record
            except (UserError, ValueError, KeyError, TypeError):
                continue
        return None

    def read_record(self) -> dict[str, Any]:
        """The record of a finished run, all of whose files are as they were when it was finished.

        A record that vouches for damaged files is removed, so that the workflow makes the run again.

        Raises:
            UserError: the run is missing or unfinished, or a file of it is missing or damaged.
        """
        if not self.record.is_file():
            raise UserError(self.path, "no finished training run", "train it: snakemake, or spatialmae train PLAN")
        try:
            return self._read(self.record)
        except UserError as error:
            self.record.unlink(missing_ok=True)
            problem = f"{error.problem}; {self.record.name} is removed"
            raise UserError(error.where, problem, "run the same command again, which trains the run anew") from None

    def _read(self, path: Path) -> dict[str, Any]:
        hint = "train the run again"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            files = record["files"].items()
            if not {"name", "spec", "data_sha256", "code", "weights_sha256"} <= set(record):
                raise KeyError
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(path, "not a readable record of a run", hint) from None
        for name, sha in files:
            file = self.path / name
            if not file.is_file() or sha256_of(file) != sha:
                raise UserError(file, "missing, or not as it was when the run was finished", hint)
        return record

    def vouch(self, record: dict[str, Any]) -> None:
        """Write the record of a finished run, and its copy."""
        for path in (self.copy, self.record):
            write_json(path, record)

    def save_state(self, trainer: Trainer, path: Path | None = None) -> None:
        """Write the state, atomically, by default where the run goes on from."""
        tensors, values = trainer.state()
        path = path or self.state
        if path == self.state:
            self.repeat.unlink(missing_ok=True)
        about = values | self._identity(trainer) | {"code": trainer.code}
        write_tensors(path, tensors | _global_generators(trainer), about)

    def save_repeat(self, trainer: Trainer) -> None:
        """Note the weights, :data:`~spatialmae.train.trainer.REPEATED` steps after the state."""
        write_json(self.repeat, {"step": trainer.progress.step, "weights_sha256": trainer.weights_sha256()})

    def restore(self, trainer: Trainer, *, any_code: bool = False) -> str | None:
        """Go on from the state, if there is one.

        Args:
            trainer: of the same run, new.
            any_code: whether the state may be one of other code.

        Returns:
            None if the run goes on from its state, else why not: "" if there is none, or what is other than it was.
            A trainer that was refused a damaged state may hold half of it.
        """
        return self._restore(self.state, trainer, self._identity(trainer), any_code)

    def restore_trunk(self, trunk: RunFolder, trainer: Trainer) -> str | None:
        """Go on from the end of another run, which is this one's beginning; as :meth:`restore`."""
        record = trunk.read_record()
        made_by = self._identity(trainer) | {"spec": record["spec"]}
        return self._restore(trunk.end, trainer, made_by, any_code=True) if today() in record["code"] else OTHER_CODE

    def _restore(self, path: Path, trainer: Trainer, identity: dict[str, Any], any_code: bool) -> str | None:
        if not path.exists():
            return ""
        try:
            tensors, values = read_tensors(path)
            code = values.pop("code")
            if not any_code and today() not in code:
                return OTHER_CODE
            for name, value in identity.items():
                if values.pop(name) != value:
                    return f"begun with other {name.removesuffix('_sha256')}"
            trainer.restore(tensors, values)
            if path == self.state and self._lacks_snapshots(trainer):
                return "not left with its snapshots"
            trainer.code = list(dict.fromkeys([*code, today()]))
            _restore_global_generators(trainer, tensors)
        except (UserError, KeyError, TypeError, AttributeError, RuntimeError):
            return "its state is damaged"
        return None

    def read_repeats(self) -> dict[str, str]:
        """Hashes of an unfinished run's weights, by which other code can be held against the code that made them.

        Returns:
            ``start``, after the run's first steps; ``end``, some steps after the state. Empty if
            there is no state, or if nothing was noted after it.
        """
        try:
            _, about = read_tensors(self.state, prefix="no tensor")
            noted = json.loads(self.repeat.read_text(encoding="utf-8"))
            same = noted["step"] == about["step"] + REPEATED
            return {"start": about["repeat_sha256"], "end": noted["weights_sha256"]} if same else {}
        except (UserError, OSError, ValueError, KeyError, TypeError):
            return {}

    def _identity(self, trainer: Trainer) -> dict[str, Any]:
        return {
            "spec": trainer.spec.to_dict(),
            "data_sha256": trainer.images.sha256,
            "precision": trainer.hardware.precision,
            "device": trainer.hardware.device.type,
        }

    def save_snapshot(self, trainer: Trainer, folder: Path) -> None:
        """Keep the weights in a folder of their own."""
        trainer.model.save_pretrained(folder, _config(trainer))

    def take_snapshots(self, trunk: RunFolder, trainer: Trainer) -> None:
        """Copy the snapshots that a run shares with its trunk."""
        for folder in self._snapshots(trainer.spec):
            theirs = trunk.path / folder.relative_to(self.path)
            if theirs.is_dir():
                MaskedAutoencoder.from_pretrained(theirs).save_pretrained(folder, _config(trainer))

    def _lacks_snapshots(self, trainer: Trainer) -> bool:
        """Whether one that was taken before the trainer's step is missing, or not as the record of the run has it."""
        known: dict[str, str] = {}
        for path in (self.record, self.copy):
            with suppress(OSError, ValueError, KeyError, TypeError):
                known |= json.loads(path.read_text(encoding="utf-8"))["files"]
        steps = self._snapshots(trainer.spec, trainer.steps_per_epoch)
        taken = [folder for folder, step in steps.items() if step <= trainer.progress.step]
        for file in (folder / name for folder in taken for name in ("model.safetensors", "config.json")):
            if not file.is_file() or sha256_of(file) != known.get(str(file.relative_to(self.path)), sha256_of(file)):
                return True
        return False

    def _snapshots(self, spec: RunSpec, steps_per_epoch: int = 0) -> dict[Path, int]:
        """Folders of the snapshots, and the steps after which they are taken."""
        of_epochs = {self.snapshot(epoch): epoch * steps_per_epoch for epoch in spec.train.snapshots}
        return of_epochs | {self.snapshot_at_step(step): step for step in spec.train.snapshot_steps}

    def save_logs(self, trainer: Trainer) -> None:
        """Write ``log.csv`` and ``validation.csv``."""
        write_text(self.path / "log.csv", _csv(trainer.progress.log))
        write_text(self.path / "validation.csv", _csv(trainer.progress.validation))

    def _files(self, spec: RunSpec) -> list[Path]:
        """The files that a finished run is made of, but for its record and what it goes on from."""
        checkpoints = [self.path, *self._snapshots(spec)]
        logs = [self.path / "log.csv", self.path / "validation.csv"]
        return [folder / name for folder in checkpoints for name in ("model.safetensors", "config.json")] + logs

    def finish(self, trainer: Trainer, threads: int) -> None:
        """Write weights and logs, then the record."""
        trainer.model.save_pretrained(self.path, _config(trainer))
        self.save_logs(trainer)
        self.save_repeat(trainer)
        if trainer.spec.train.schedule == "constant":
            self.save_state(trainer, self.end)
        hardware, progress = trainer.hardware, trainer.progress
        images = progress.step * trainer.spec.train.batch_size
        costs = {
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(images / progress.seconds, 1),
            "device": hardware.name,
            "threads": threads,
            "compiled": hardware.compiled,
            "attention": hardware.kernel,
        }
        write_json(self.costs, costs)
        record = {
            **self._identity(trainer),
            "code": trainer.code,
            "name": trainer.spec.name,
            "weights_sha256": sha256_of(self.weights),
            "train_loss": progress.train_loss,
            "validation_loss": progress.validation[-1]["loss"] if progress.validation else None,
            "realised_mask_ratio": trainer.spec.model.realised_mask_ratio,
            "n_parameters": sum(p.numel() for p in trainer.model.parameters()),
            "steps": progress.step,
            "images": images,
            "torch": torch.__version__,
            "files": {str(path.relative_to(self.path)): sha256_of(path) for path in self._files(trainer.spec)},
        }
        self.vouch(record)


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
    return TrainedModel(MaskedAutoencoder.from_pretrained(folder).eval(), mean, std, precision)


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
