"""Runs of a plan, trained in processes side by side.

On a CPU a process with one thread uses its core better than two threads share a model, and independent runs abound: the
unit of evidence is the seed. benchmarks/training.py measures this against threads and against stacked seeds.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.queues import Queue
from queue import Empty
from typing import Any

import torch

from spatialmae.errors import UserError
from spatialmae.model.config import MAEConfig
from spatialmae.train.batches import TrainingImages
from spatialmae.train.code import code_digest
from spatialmae.train.hardware import CompileChoice, DeviceChoice, Hardware, prepare_cpu
from spatialmae.train.plan import Plan, RunSpec
from spatialmae.train.runs import RunFolder
from spatialmae.train.trainer import DivergedError, Trainer

CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 1.0


@dataclass(frozen=True)
class Options:
    """How a plan is trained; none of it decides the weights but for rounding.

    Attributes:
        threads: of each worker.
        device: auto, cpu or cuda.
        compiled: auto, yes or no.
        keep_trained: take finished runs that other code has made.
        deadline: :func:`time.time` at which unfinished runs are left, to go on later; None: never.
    """

    threads: int
    device: DeviceChoice = "auto"
    compiled: CompileChoice = "auto"
    keep_trained: bool = False
    deadline: float | None = None


@dataclass(frozen=True)
class Message:
    """What a worker tells: images trained since the last message, or how a run ended.

    Attributes:
        run: name of the run.
        images: number of images trained since the last message.
        ended: "trained", "kept" (finished before), "left" (out of time) or "failed"; None: it goes on.
        problem: why it failed, and the hint.
        resumed: images trained in an earlier session.
    """

    run: str
    images: int = 0
    ended: str | None = None
    problem: tuple[str, str] = ("", "")
    resumed: int = 0


def n_images(spec: RunSpec, n_train: int) -> int:
    """Images that a run trains on, epochs together."""
    return spec.train.epochs * (n_train // spec.train.batch_size) * spec.train.batch_size


def cost_per_image(model: MAEConfig) -> float:
    """Relative cost of training on one image: tokens times depth times squared width, of encoder and decoder."""
    # Independent masks, of which the batch's largest counts, may leave nearly all visible.
    seen = model.n_visible if model.masking == "fixed" else model.n_patches
    encoder = (1 + seen) * model.encoder_depth * model.encoder_dim**2
    return encoder + (1 + model.n_patches) * model.decoder_depth * model.decoder_dim**2


def train_all(plan: Plan, options: Options, n_workers: int) -> Iterator[Message]:
    """Train the runs of a plan, the costliest first, yielding what happens.

    Raises:
        UserError: a worker died.
    """
    context = get_context("spawn")
    tasks: Queue[RunSpec | None] = context.Queue()
    messages: Queue[Message | None] = context.Queue()
    for spec in sorted(plan.runs, key=lambda spec: spec.train.epochs * cost_per_image(spec.model), reverse=True):
        tasks.put(spec)
    workers = []
    for _ in range(n_workers):
        tasks.put(None)
        workers.append(context.Process(target=_work, args=(tasks, messages, plan, options), daemon=True))
        workers[-1].start()
    working = n_workers
    try:
        while working:
            try:
                message = messages.get(timeout=1.0)
            except Empty:
                message = Message("")
            if any(worker.exitcode not in (None, 0) for worker in workers):
                raise UserError(plan.stage, "a training process was killed", "free memory, or use fewer --workers")
            if message is None:
                working -= 1
            elif message.run:
                yield message
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _work(tasks: Any, messages: Any, plan: Plan, options: Options) -> None:
    """What a worker process does: runs from the queue until there are no more."""
    # Ctrl-C goes to every process: the command ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare_cpu(options.threads)
    images: dict[str, TrainingImages] = {}
    model = None
    parent = parent_process()
    while (spec := tasks.get()) is not None:
        if spec.model != model:
            torch.compiler.reset()  # compiled code of many models would fill its cache, and stay in memory
            model = spec.model
        try:
            with RunFolder(plan.runs_dir / spec.name).locked():
                for message in train_run(spec, plan, options, images):
                    # A command that is killed takes its workers with it.
                    if parent is not None and not parent.is_alive():
                        return
                    messages.put(message)
        except UserError as error:
            messages.put(Message(spec.name, ended="failed", problem=(error.problem, error.hint)))
        except DivergedError as error:
            hint = f"lower base_lr (now {spec.train.base_lr:g}) or train in fp32"
            messages.put(Message(spec.name, ended="failed", problem=(str(error), hint)))
        except OSError as error:
            problem = f"{error.filename}: {error.strerror or error}"
            messages.put(Message(spec.name, ended="failed", problem=(problem, "check path, permissions and space")))
        except Exception as error:
            # Whatever it was, the other runs go on; the traceback says more than a line can.
            traceback.print_exc()
            problem, _, hint = str(error).partition("; ")
            problem = f"{type(error).__name__}: {(problem.splitlines() or [''])[0]}"
            messages.put(Message(spec.name, ended="failed", problem=(problem, hint or "see the traceback above")))
    messages.put(None)


def train_run(spec: RunSpec, plan: Plan, options: Options, images: dict[str, TrainingImages]) -> Iterator[Message]:
    """Train one run, or go on with it, or see that it is finished.

    Args:
        spec: the run.
        plan: where data and runs lie.
        options: how to train.
        images: by device, kept from run to run; filled here.

    Raises:
        DivergedError: the loss is not finite, or far above its start.
        UserError: the images cannot be read, or CUDA is asked for and not there.
        ValueError: model and images do not go together.
    """
    if not images:
        images["stored"] = TrainingImages.load(plan.data)
    stored = images["stored"]
    folder = RunFolder(plan.runs_dir / spec.name)
    record = folder.finished(spec, stored.sha256)
    if record is not None and (options.keep_trained or record["code_digest"] == code_digest()):
        yield Message(spec.name, ended="kept")
        return
    if options.deadline is not None and time.time() >= options.deadline:
        yield Message(spec.name, ended="left")
        return
    steps = spec.train.epochs * (len(stored.train) // spec.train.batch_size)
    static = spec.model.masking == "fixed"
    hardware = Hardware.choose(
        spec.train.precision, steps, device=options.device, compiled=options.compiled, static_shapes=static
    )
    if hardware.device.type not in images:
        images[hardware.device.type] = stored.to(hardware.device)
    trainer = _new_trainer(spec, images[hardware.device.type], hardware)
    refused = folder.restore(trainer, keep_trained=options.keep_trained)
    if refused is None:
        yield Message(spec.name, resumed=trainer.progress.step * spec.train.batch_size)
    else:
        if refused:
            print(f"{spec.name}: {refused}, so it starts from the beginning", file=sys.stderr)
            # A damaged state may have been taken in half.
            trainer = _new_trainer(spec, images[hardware.device.type], hardware)
        folder.record.unlink(missing_ok=True)
        if 0 in spec.train.snapshots:
            folder.save_snapshot(trainer, 0)
    yield from _train(trainer, folder, options)


def _new_trainer(spec: RunSpec, images: TrainingImages, hardware: Hardware) -> Trainer:
    # The control of a loss's margin draws from torch's global generators, which a worker's earlier runs have used.
    torch.manual_seed(spec.seed)
    return Trainer(spec, images, hardware)


def _logged(trainer: Trainer, folder: RunFolder) -> Iterator[int]:
    """The trainer's steps; if they diverge, the logs tell of it, and no later call goes on from there."""
    try:
        yield from trainer.train()
    except DivergedError:
        folder.save_logs(trainer)
        folder.state.unlink(missing_ok=True)
        raise


def _train(trainer: Trainer, folder: RunFolder, options: Options) -> Iterator[Message]:
    spec, batch_size = trainer.spec, trainer.spec.train.batch_size
    saved = reported = time.monotonic()
    told = trainer.progress.step
    for step in _logged(trainer, folder):
        epoch, rest = divmod(step, trainer.steps_per_epoch)
        if rest == 0 and epoch in spec.train.snapshots:
            folder.save_snapshot(trainer, epoch)
        now = time.monotonic()
        out_of_time = options.deadline is not None and time.time() >= options.deadline
        if out_of_time or now - saved >= CHECKPOINT_SECONDS:
            folder.save_state(trainer)
            folder.save_logs(trainer)
            saved = now
        if out_of_time and step < trainer.total_steps:
            yield Message(spec.name, (step - told) * batch_size, ended="left")
            return
        if now - reported >= REPORT_SECONDS:
            yield Message(spec.name, (step - told) * batch_size)
            told, reported = step, now
    folder.finish(trainer, options.threads)
    yield Message(spec.name, (trainer.progress.step - told) * batch_size, ended="trained")
