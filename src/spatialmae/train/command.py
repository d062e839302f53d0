"""``python -m spatialmae train PLAN``: train the runs of a plan. Needs torch and numpy alone."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from spatialmae.errors import UserError
from spatialmae.train.batches import TrainingImages
from spatialmae.train.hardware import n_cores
from spatialmae.train.plan import Plan
from spatialmae.train.workers import Message, Options, cost_per_image, n_images, train_all

KEEP = "SPATIALMAE_KEEP_TRAINED"


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(
        prog="spatialmae train",
        description="Train the runs of a plan that are not finished, several side by side, and go on with begun ones. "
        "Needs torch and numpy alone; `spatialmae plan` writes plans.",
    )
    result.add_argument("plan", type=Path, help="plan of a training, results/<name>/training/<training>.json")
    result.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one"
    )
    result.add_argument("--workers", type=_positive, help="processes; default: one a core on a CPU, one a GPU")
    result.add_argument("--runs-per-gpu", type=_positive, default=1, help="processes that share a GPU; default: 1")
    result.add_argument("--threads", type=_positive, help="threads of each process; default: cores / workers")
    result.add_argument("--compile", choices=("auto", "yes", "no"), default="auto", help="default: where it pays")
    result.add_argument("--max-minutes", type=_minutes, help="leave unfinished runs then; another call goes on")
    result.add_argument(
        "--keep-trained",
        action="store_true",
        help=f"take finished runs although the code has changed since; also {KEEP}=1",
    )
    return result


def main(arguments: list[str]) -> None:
    """Run the command.

    Raises:
        UserError: the plan or its data are unusable, a run failed, or time ran out before all were finished.
    """
    options = parser().parse_args(arguments)
    plan = Plan.load(options.plan)
    if not plan.runs:
        raise UserError(options.plan, "runs: there is none", "write it again: spatialmae plan")
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    side_by_side = torch.cuda.device_count() * options.runs_per_gpu if on_gpu else n_cores()
    workers = min(options.workers or side_by_side, len(plan.runs))
    deadline = None if options.max_minutes is None else time.time() + 60 * options.max_minutes
    how = Options(
        threads=options.threads or max(1, n_cores() // workers),
        device=options.device,
        runs_per_gpu=options.runs_per_gpu,
        compiled=options.compile,
        keep_trained=options.keep_trained or keep_by_environment(),
        deadline=deadline,
    )
    train(plan, train_all(plan, how, workers))


def train(plan: Plan, messages: Iterator[Message]) -> None:
    """Train a plan, telling progress on stderr.

    Args:
        plan: what is trained.
        messages: of its training, as :func:`~spatialmae.train.workers.train_all` gives them.

    Raises:
        UserError: as :func:`main`.
    """
    images = TrainingImages.load(plan.data)
    meter = Meter(plan, len(images.train))
    ended: dict[str, str] = {}
    failed: list[UserError] = []
    for message in messages:
        meter.count(message.run, message.images, message.resumed, message.ended)
        if message.ended:
            ended[message.run] = message.ended
        if message.ended == "failed":
            failed.append(UserError(plan.runs_dir / message.run, *message.problem))
    meter.close()
    if failed:
        first = failed[0]
        raise UserError(first.where, f"{first.problem} ({len(failed)} of {len(plan.runs)} runs failed)", first.hint)
    done = sum(end in ("trained", "kept") for end in ended.values())
    if done < len(plan.runs):
        problem = f"time ran out with {done} of {len(plan.runs)} runs finished"
        raise UserError(plan.training, problem, "run the same command again to go on")


class Meter:
    """Progress of a plan on stderr: runs, images a second, time left. One line that renews itself, or one in 15 s."""

    def __init__(self, plan: Plan, n_train: int) -> None:
        self.training, self.images, self.finished = plan.training, 0, 0
        self.left = {spec.name: n_images(spec, n_train) for spec in plan.runs}
        # Costly runs come first: time left is counted in work, not in images.
        self.work_per_image = {spec.name: cost_per_image(spec.model) for spec in plan.runs}
        self.work = 0.0
        self.start = self.printed = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def count(self, run: str, images: int, resumed: int, ended: str | None) -> None:
        """Take note of images trained now, of those trained in an earlier session, and of a run's end."""
        self.images += images
        self.work += images * self.work_per_image[run]
        self.left[run] -= images + resumed
        if ended in ("trained", "kept"):
            self.left[run] = 0
            self.finished += 1
        now = time.monotonic()
        if now - self.printed >= (0.5 if self.terminal else 15):
            self.printed = now
            self.show()

    def show(self) -> None:
        """Print where the plan stands."""
        seconds = time.monotonic() - self.start
        work_left = sum(images * self.work_per_image[run] for run, images in self.left.items())
        left = _clock(work_left / self.work * seconds) if self.work else "0:00" if work_left == 0 else "?"
        line = (
            f"train {self.training}: {self.finished}/{len(self.left)} runs, {self.images / seconds:,.0f} images/s, "
            f"{_clock(seconds)} gone, {left} left"
        )
        text = f"\r\x1b[K{line}" if self.terminal else f"{line}\n"
        print(text, end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Print the last line."""
        self.show()
        if self.terminal:
            print(file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def keep_by_environment() -> bool:
    """Whether SPATIALMAE_KEEP_TRAINED asks to take runs that other code has made.

    Raises:
        UserError: it is neither 0 nor 1.
    """
    value = os.environ.get(KEEP, "")
    if value not in ("", "0", "1"):
        raise UserError(KEEP, f"{value!r} is neither 0 nor 1", "set it to 1, or unset it")
    return value == "1"


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of minutes")
    return value


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return value
