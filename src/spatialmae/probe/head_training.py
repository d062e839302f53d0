"""How a head is trained, with or without its encoder, and a learning rate chosen; torch alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from spatialmae.probe.settings import HeadConfig
from spatialmae.shapes import Int64
from spatialmae.train.optimizer import adamw
from spatialmae.train.schedule import cosine

BETAS = 0.9, 0.999  # AdamW's, as facebookresearch/mae fine-tunes


class HeadTraining(ABC):
    """The training at one learning rate; what a step is, and the score, is the subclasses'.

    Args:
        groups: of parameters, each with the ``scale`` of its learning rate.
        config: settings.
        base_lr: one of ``config.base_lr``.
        n_train: training images.
        order: draws their order, on the CPU.
        device: of the images.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        config: HeadConfig,
        base_lr: float,
        n_train: int,
        order: torch.Generator,
        device: torch.device,
    ) -> None:
        self.schedule, self.base_lr, self.peak_lr = config, base_lr, base_lr * config.batch_size / 256
        self.n_train, self.order, self.device = n_train, order, device
        self.optimizer = adamw(groups, lr=0.0, betas=BETAS, fused=True)
        self.steps = 0
        self.validation_score = math.nan

    @property
    def diverged(self) -> bool:
        """Whether it has no score, once it was run."""
        return math.isnan(self.validation_score)

    def take_steps(self, on_step: Callable[[], None]) -> bool:
        """Take all steps; false: a loss was not finite, and ended it."""
        return all(self._epoch(on_step) for _ in range(self.schedule.epochs))

    def _epoch(self, on_step: Callable[[], None]) -> bool:
        for ids in self.batches():
            loss = self.step(ids)
            on_step()
            if not math.isfinite(loss):
                return False
        return True

    def batches(self) -> tuple[Int64[Tensor, " N"], ...]:
        """The images of an epoch's batches; what does not fill one is dropped."""
        batch_size = self.schedule.batch_size
        order = torch.randperm(self.n_train, generator=self.order).to(self.device)
        return order.split(batch_size)[: self.n_train // batch_size]

    def step(self, ids: Int64[Tensor, " N"]) -> float:
        """The next step, on some of the training images; the loss before it."""
        self._set_cosine()
        loss = self._step(ids)
        self.steps += 1
        return loss

    def _set_cosine(self) -> None:
        config, steps_per_epoch = self.schedule, self.n_train // self.schedule.batch_size
        lr = cosine(
            self.steps,
            peak=self.peak_lr,
            final=0.0,
            warmup_steps=round(config.warmup_epochs * steps_per_epoch),
            total_steps=config.epochs * steps_per_epoch,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]

    @abstractmethod
    def _step(self, ids: Int64[Tensor, " N"]) -> float:
        """One step of AdamW on some of the training images; the loss before it."""


T = TypeVar("T", bound=HeadTraining)


def choose(trainings: Iterable[T], *, higher_is_better: bool = True) -> tuple[T, dict[str, Any]]:
    """The training of the best validation score, the first of ties, and no other kept; and columns of its row.

    Args:
        trainings: at each learning rate, rising, each run when it is asked for.
        higher_is_better: of scores.

    Returns:
        Where all diverged, the first. ``reason`` names learning rates that diverged.
    """
    rates: list[float] = []
    diverged: list[float] = []

    def rank(training: T) -> float:
        rates.append(training.base_lr)
        if training.diverged:
            diverged.append(training.base_lr)
            return -math.inf
        return training.validation_score if higher_is_better else -training.validation_score

    best = max(trainings, key=rank)
    at_grid_edge = not best.diverged and len(rates) > 1 and best.base_lr in (rates[0], rates[-1])
    reason = f"diverged at base_lr {', '.join(f'{lr:g}' for lr in diverged)}" if diverged else ""
    return best, {"base_lr": best.base_lr, "at_grid_edge": at_grid_edge, "reason": reason}
