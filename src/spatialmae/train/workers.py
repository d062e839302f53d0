"""Runs of a plan, trained in processes side by side.

On a CPU a process with one thread uses its core better than two threads share a model, and independent runs abound: the
unit of evidence is the seed. benchmarks/training.py measures this against threads and against stacked seeds.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.queues import Queue
from queue import Empty
from typing import Any

import torch

from spatialmae.errors import UserError
from spatialmae.model.config import MAEConfig
from spatialmae.train.batches import TrainingImages
from spatialmae.train.hardware import CompileChoice, Hardware, prepare_cpu, reserved_device
from spatialmae.train.plan import Plan, RunSpec
from spatialmae.train.runs import OTHER_CODE, RunFolder
from spatialmae.train.trainer import REPEATED, DivergedError, Trainer, today

CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 1.0
LONG = 1000  # epochs, for the choice of how to compute runs of a length that is open


@dataclass(frozen=True)
class Options:
    """How a plan is trained; none of it decides the weights but for rounding.

    Attributes:
        threads: of each worker.
        device: auto, cpu, cuda, or one GPU, as cuda:1.
        runs_per_gpu: runs that share a GPU.
        compiled: auto, yes or no.
        keep_trained: take runs that other code has made, whatever today's does.
        deadline: :func:`time.time` at which unfinished runs are left, to go on later; None: never.
    """

    threads: int
    device: str = "auto"
    runs_per_gpu: int = 1
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


def in_order(runs: Sequence[RunSpec]) -> list[RunSpec]:
    """Trunks before what goes on from them, and else the costliest first."""

    def depth(spec: RunSpec) -> int:
        trunk = spec.trunk(runs)
        return 0 if trunk is None else 1 + depth(trunk)

    return sorted(runs, key=lambda spec: (depth(spec), -spec.train.epochs * cost_per_image(spec.model)))


def train_all(plan: Plan, options: Options, n_workers: int) -> Iterator[Message]:
    """Train the runs of a plan, the costliest first, yielding what happens.

    Raises:
        UserError: a worker died.
    """
    context = get_context("spawn")
    tasks: Queue[RunSpec | None] = context.Queue()
    messages: Queue[Message | None] = context.Queue()
    for spec in in_order(plan.runs):
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
                raise UserError(plan.training, "a training process was killed", "free memory, or use fewer --workers")
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
    with reserved_device(options.device, options.runs_per_gpu) as device:
        own = replace(options, device=device)
        while (spec := tasks.get()) is not None:
            if spec.model != model:
                torch.compiler.reset()  # compiled code of many models would fill its cache, and stay in memory
                model = spec.model
            for message in train_guarded(spec, plan, own, images):
                # A command that is killed takes its workers with it.
                if parent is not None and not parent.is_alive():
                    return
                messages.put(message)
    messages.put(None)


def train_guarded(spec: RunSpec, plan: Plan, options: Options, images: dict[str, TrainingImages]) -> Iterator[Message]:
    """:func:`train_run`, while no other process trains the run; what goes wrong is a message: other runs go on."""
    try:
        wait_for_trunk(spec, plan)
        with RunFolder(plan.runs_dir / spec.name).locked():
            yield from train_run(spec, plan, options, images)
    except UserError as error:
        yield Message(spec.name, ended="failed", problem=(error.problem, error.hint))
    except DivergedError as error:
        hint = f"lower base_lr (now {spec.train.base_lr:g}) or train in fp32"
        yield Message(spec.name, ended="failed", problem=(str(error), hint))
    except OSError as error:
        problem = f"{error.filename}: {error.strerror or error}"
        yield Message(spec.name, ended="failed", problem=(problem, "check path, permissions and space"))
    except Exception as error:
        # Whatever it was, the other runs go on; the traceback says more than a line can.
        traceback.print_exc()
        problem, _, hint = str(error).partition("; ")
        problem = f"{type(error).__name__}: {(problem.splitlines() or [''])[0]}"
        yield Message(spec.name, ended="failed", problem=(problem, hint or "see the traceback above"))


def wait_for_trunk(spec: RunSpec, plan: Plan) -> None:
    """Wait while another process trains the run that this one goes on from."""
    trunk = spec.trunk(plan.runs)
    while trunk is not None and RunFolder(plan.runs_dir / trunk.name).is_locked():
        time.sleep(1)


def train_run(spec: RunSpec, plan: Plan, options: Options, images: dict[str, TrainingImages]) -> Iterator[Message]:
    """Train one run, or go on with it, or see that it is finished.

    A finished run, or a state, that other code has made is taken only if today's code repeats some steps of it bit for
    bit: the first ones, and those after the state.

    Args:
        spec: the run.
        plan: where data and runs lie, and which runs may be its trunk.
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
    if record is not None and (options.keep_trained or today() in record["code"]):
        folder.vouch(record)
        yield Message(spec.name, ended="kept")
        return
    if options.deadline is not None and time.time() >= options.deadline:
        yield Message(spec.name, ended="left")
        return
    # Runs that share a trunk are long together, and are to be computed alike.
    epochs = spec.train.epochs if spec.train.schedule == "cosine" else LONG
    steps = epochs * (len(stored.train) // spec.train.batch_size)
    static = spec.model.masking == "fixed"
    hardware = Hardware.choose(
        spec.train.precision, steps, device=options.device, compiled=options.compiled, static_shapes=static
    )
    device = str(hardware.device)
    if device not in images:
        images[device] = stored.to(hardware.device)
    make = partial(_new_trainer, spec, images[device], hardware)
    if record is not None and repeats(folder, make):
        print(f"{spec.name}: made by other code, whose steps today's repeats bit for bit; kept", file=sys.stderr)
        folder.vouch(record | {"code": [*record["code"], today()]})
        yield Message(spec.name, ended="kept")
        return
    trainer = _begun(folder, make, plan, options)
    yield Message(spec.name, resumed=trainer.progress.step * spec.train.batch_size)
    yield from _train(trainer, folder, options)


def _begun(folder: RunFolder, make: Callable[[], Trainer], plan: Plan, options: Options) -> Trainer:
    """A trainer that goes on from the run's state, or from the end of its trunk, or begins."""
    trainer = make()
    refused = folder.restore(trainer, any_code=options.keep_trained)
    if refused == OTHER_CODE and repeats(folder, make):
        refused = folder.restore(trainer, any_code=True)
    if refused is None:
        return trainer
    for record in (folder.record, folder.copy):
        record.unlink(missing_ok=True)
    if refused:
        print(f"{trainer.spec.name}: {refused}, so it starts again", file=sys.stderr)
        trainer = make()  # a damaged state may have been taken in half
    spec = trainer.spec.trunk(plan.runs)
    trunk = None if spec is None else RunFolder(plan.runs_dir / spec.name)
    if trunk is not None and trunk.record.is_file():
        refused = folder.restore_trunk(trunk, trainer)
        if refused is None:
            folder.take_snapshots(trunk, trainer)
            return trainer
        print(f"{trainer.spec.name}: its trunk {trunk.path.name} was {refused}, so it starts alone", file=sys.stderr)
        trainer = make()
    _take_snapshots(trainer, folder)
    return trainer


def repeats(folder: RunFolder, make: Callable[[], Trainer]) -> bool:
    """Whether today's code takes a run's first steps, and those after its state, to the same weights, bit for bit."""
    noted = folder.read_repeats()
    for name, sha256 in noted.items():
        trainer = make()
        if name == "end" and folder.restore(trainer, any_code=True) is not None:
            return False
        list(islice(trainer.train(), REPEATED))
        if trainer.weights_sha256() != sha256:
            return False
    return bool(noted)


def _take_snapshots(trainer: Trainer, folder: RunFolder) -> None:
    """Keep the weights, where the run asks for them at this step."""
    step, settings = trainer.progress.step, trainer.spec.train
    epoch, rest = divmod(step, trainer.steps_per_epoch)
    if rest == 0 and epoch in settings.snapshots:
        folder.save_snapshot(trainer, folder.snapshot(epoch))
    if step in settings.snapshot_steps:
        folder.save_snapshot(trainer, folder.snapshot_at_step(step))


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
    reported = saved = time.monotonic()
    told = trainer.progress.step
    to_repeat = -1  # step at which the weights are noted, for other code to be held against
    for step in _logged(trainer, folder):
        _take_snapshots(trainer, folder)
        now = time.monotonic()
        out_of_time = options.deadline is not None and time.time() >= options.deadline
        if step == to_repeat:
            folder.save_repeat(trainer)
        last = step == trainer.total_steps - REPEATED
        if out_of_time or last or (now - saved >= CHECKPOINT_SECONDS and step + REPEATED < trainer.total_steps):
            folder.save_state(trainer)
            folder.save_logs(trainer)
            saved, to_repeat = now, step + REPEATED
        if out_of_time and step < trainer.total_steps:
            yield Message(spec.name, (step - told) * batch_size, ended="left")
            return
        if now - reported >= REPORT_SECONDS:
            yield Message(spec.name, (step - told) * batch_size)
            told, reported = step, now
    folder.finish(trainer, options.threads)
    yield Message(spec.name, (trainer.progress.step - told) * batch_size, ended="trained")
