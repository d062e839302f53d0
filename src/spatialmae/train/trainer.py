"""One training run: steps, logs, validation, and a state from which it goes on bit for bit."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spatialmae.fingerprint import fingerprint
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.shapes import Float, Int64
from spatialmae.train.batches import TrainingImages
from spatialmae.train.hardware import Hardware
from spatialmae.train.optimizer import adamw
from spatialmae.train.plan import RunSpec
from spatialmae.train.schedule import cosine, warmup_stable_decay

LOG_ROWS = 200  # rows of a run's log
VALIDATIONS = 10  # times that the validation images are looked at
# Runs of several lengths that share a trunk share its logs, whose rows must not depend on the length.
LOG_ROWS_OF_AN_EPOCH = 20
VALIDATION_BATCH = 500
REPEATED = 5  # steps that are repeated to see whether other code does the same
DIVERGED = 10.0  # a loss this many times that of the first row of the log


def today() -> str:
    """Fingerprint of the code that decides a run's weights, as it is now."""
    return fingerprint("spatialmae.train.trainer")


class DivergedError(Exception):
    """The loss is no number any more, or far above its start."""


@dataclass
class Progress:
    """Where a run stands, besides its weights, moments and random states.

    Attributes:
        step: steps taken.
        loss_sum: sum of the losses since the last row of the log; float64 on the device, so that no step waits for it.
        loss_count: their number.
        epoch_loss: sum of the losses of the present epoch.
        seconds: time spent training.
        repeat_sha256: of the weights after the first :data:`REPEATED` steps, empty before.
        log: rows of the log.
        validation: rows of the validation log.
        train_loss: mean loss of the last whole epoch.
    """

    loss_sum: Tensor
    epoch_loss: Tensor
    step: int = 0
    loss_count: int = 0
    seconds: float = 0.0
    repeat_sha256: str = ""
    log: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    train_loss: float = math.nan


class Trainer:
    """Trains the model of one :class:`~spatialmae.train.plan.RunSpec`.

    The seed gives three independent streams: initial weights; the order of images; augmentation, masks and noise. Runs
    of one seed that differ in the masking ratio alone share the first two, so that they can be compared in pairs.

    Args:
        spec: the run.
        images: on the device.
        hardware: how the machine is used.

    Raises:
        ValueError: there are fewer training images than fill a batch, or images of another shape than the model's.
    """

    def __init__(self, spec: RunSpec, images: TrainingImages, hardware: Hardware) -> None:
        self.spec, self.images, self.hardware = spec, images, hardware
        self.code = [today()]  # fingerprints of all code that has worked on the run
        config = spec.train
        self.n = len(images.train)
        self.steps_per_epoch = self.n // config.batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(f"batch_size: {config.batch_size} exceeds the {self.n} training images; lower it")
        expected = (spec.model.channels, *spec.model.image_hw)
        if tuple(images.train.shape[1:]) != expected:
            problem = f"images are {tuple(images.train.shape[1:])}, the model takes {expected}"
            raise ValueError(f"image_size: {problem}; write the plan again")
        self.total_steps = config.epochs * self.steps_per_epoch
        fixed = config.schedule == "cosine"
        self.log_every = max(1, self.total_steps // LOG_ROWS if fixed else self.steps_per_epoch // LOG_ROWS_OF_AN_EPOCH)
        self.validate_every = max(1, config.epochs // VALIDATIONS) if fixed else 1

        device = hardware.device
        weights, order, augmentation = np.random.SeedSequence(spec.seed).generate_state(3, np.uint64)
        self.model = MaskedAutoencoder(spec.model, generator=_generator(weights)).to(device)
        self.order_rng, self.rng = _generator(order), _generator(augmentation, device)
        self.order = torch.empty(0, dtype=torch.int64)
        self.grad_norm = torch.zeros(())  # before clipping
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = adamw(groups, lr=0.0, betas=(config.beta1, config.beta2), fused=True)
        zero = torch.zeros((), dtype=torch.float64, device=device)
        self.progress = Progress(zero.clone(), zero.clone())
        self.model.set_attention_kernel(hardware.kernel)
        if hardware.compiled:
            self.model.compile(dynamic=False)

    def train(self) -> Iterator[int]:
        """Take the remaining steps; yields the number of steps taken after each of them.

        Raises:
            DivergedError: the loss is not finite, or ten times that at the start.
        """
        self.model.train()
        while self.progress.step < self.total_steps:
            start = time.perf_counter()
            self.step()
            step, (epoch, rest) = self.progress.step, divmod(self.progress.step, self.steps_per_epoch)
            if step == min(REPEATED, self.total_steps):
                self.progress.repeat_sha256 = self.weights_sha256()
            if step % self.log_every == 0 or step == self.total_steps:
                self._log()
            if rest == 0:
                self.progress.train_loss = float(self.progress.epoch_loss) / self.steps_per_epoch
                self.progress.epoch_loss.zero_()
                if len(self.images.validation) and (epoch % self.validate_every == 0 or step == self.total_steps):
                    self.progress.validation.append({"epoch": epoch, "step": step, "loss": self.validate()})
            self.progress.seconds += time.perf_counter() - start
            yield step

    def step(self) -> None:
        """One step of AdamW on the next batch."""
        config, progress = self.spec.train, self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress.step)
        loss = self.loss(self._next_images(), self.rng)
        self.optimizer.zero_grad()
        loss.backward()
        if config.clip_grad is not None:
            self.grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_grad)
        self.optimizer.step()
        progress.loss_sum += loss.detach()
        progress.epoch_loss += loss.detach()
        progress.loss_count += 1
        progress.step += 1

    def learning_rate(self, step: int) -> float:
        """That of the step about to be taken, 0 … total_steps − 1."""
        config = self.spec.train
        warmup, total = round(config.warmup_epochs * self.steps_per_epoch), self.total_steps
        if config.schedule == "cosine":
            return cosine(step, peak=config.peak_lr, final=config.min_lr, warmup_steps=warmup, total_steps=total)
        return warmup_stable_decay(
            step,
            peak=config.peak_lr,
            final=config.min_lr,
            warmup_steps=warmup,
            cooldown_steps=config.cooldown_epochs * self.steps_per_epoch,
            total_steps=total,
        )

    def weights_sha256(self) -> str:
        """SHA-256 of all weights, names and shapes with them."""
        digest = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            digest.update(f"{name}{tuple(value.shape)}".encode() + value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of a batch of normalised images, masks drawn from ``generator``, in the run's precision."""
        device = self.hardware.device
        noise = torch.rand(len(images), self.spec.model.n_units, generator=generator, device=device)
        # Input noise is drawn here and not in the model, whose compiled form takes no generator.
        seen = self.model.corrupt(images, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.hardware.precision == "bf16"):
            return self.model(images, noise, seen=seen).loss

    @torch.no_grad()
    def validate(self) -> float:
        """Loss of the validation images, not augmented, under masks that runs of one masking share.

        Losses of different masking ratios, units or objectives are different quantities. That of the training images is
        of augmented ones and an average over an epoch of changing weights: the two differ by more than generalisation.
        """
        n, device = len(self.images.validation), self.hardware.device
        # From a CPU generator, so that masks and input noise are the same on every device.
        draw = torch.Generator().manual_seed(0)
        noise = torch.rand(n, self.spec.model.n_units, generator=draw)
        self.model.eval()
        total, weight = 0.0, 0.0
        # No larger than the training batch, so that what fits in memory there fits here.
        for rows in torch.arange(n).split(min(VALIDATION_BATCH, self.spec.train.batch_size)):
            batch = self._validation_batch(rows, draw)
            seen = self.model.corrupt(batch.cpu(), draw).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.hardware.precision == "bf16"):
                # The plain forward pass: another batch size would compile the model anew.
                output = self.model.forward(batch, noise[rows].to(device), seen=seen)
            counted = float(len(rows) if self.spec.model.loss_on == "all" else output.mask.sum())
            total, weight = total + float(output.loss) * counted, weight + counted
        self.model.train()
        return total / weight

    def _next_images(self) -> Float[Tensor, "N C H W"]:
        """The next batch, augmented; or one that the surrogate draws afresh."""
        config = self.spec.train
        if config.surrogate == "gaussian":
            return self.images.surrogate.draw(config.batch_size, self.rng)
        return self.images.batch(self._next_ids(), config.augmentation, config.crop_scale, self.rng)

    def _validation_batch(self, rows: Int64[Tensor, " N"], generator: torch.Generator) -> Float[Tensor, "N C H W"]:
        """Validation images as they are, or as many of the surrogate's."""
        if self.spec.train.surrogate == "gaussian":
            return self.images.surrogate.draw(len(rows), generator)
        return self.images.normalise(self.images.validation[rows.to(self.hardware.device)])

    def _next_ids(self) -> Int64[Tensor, " N"]:
        """The next batch of the epoch's order, drawn anew at its start."""
        position = self.progress.step % self.steps_per_epoch
        if position == 0:
            order = torch.randperm(self.n, generator=self.order_rng)
            self.order = order.to(self.hardware.device)
        size = self.spec.train.batch_size
        return self.order[position * size : (position + 1) * size]

    def _log(self) -> None:
        """Add a row to the log: the one place where the host waits for the losses."""
        progress = self.progress
        loss = float(progress.loss_sum) / progress.loss_count
        progress.loss_sum.zero_()
        progress.loss_count = 0
        images = progress.step * self.spec.train.batch_size
        if self.spec.train.clip_grad is None:
            self.grad_norm = torch.nn.utils.get_total_norm(
                [p.grad for p in self.model.parameters() if p.grad is not None]
            )
        row = {
            "step": progress.step,
            "epoch": progress.step / self.steps_per_epoch,
            "images": images,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": loss,
            "grad_norm": float(self.grad_norm),
        }
        progress.log.append(row)
        first = progress.log[0]["loss"]
        if not math.isfinite(loss) or loss > DIVERGED * first:
            raise DivergedError(f"the loss is {loss:.3g} at step {progress.step}, and was {first:.3g} at the start")

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that the rest of the run depends on: arrays, and JSON-able values."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for i, parameter in enumerate(self._parameters()):
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer/{i}/{name}": value for name, value in moments.items()}
        tensors |= {"rng/order": self.order_rng.get_state(), "rng/batches": self.rng.get_state(), "order": self.order}
        progress = self.progress
        tensors |= {"loss_sum": progress.loss_sum, "epoch_loss": progress.epoch_loss}
        names = ("step", "loss_count", "seconds", "repeat_sha256", "log", "validation")
        values = {name: getattr(progress, name) for name in names}
        # NaN, before the first epoch's end, is not JSON.
        values["train_loss"] = None if math.isnan(progress.train_loss) else progress.train_loss
        return {name: value.detach().cpu().numpy() for name, value in tensors.items()}, values

    def restore(self, tensors: dict[str, np.ndarray], values: dict[str, Any]) -> None:
        """Go on from a :meth:`state`.

        Raises:
            KeyError: the state lacks something.
            RuntimeError: a tensor has another shape.
        """
        device = self.hardware.device
        state = {name: torch.from_numpy(array) for name, array in tensors.items()}
        self.model.load_state_dict({k.removeprefix("model/"): v for k, v in state.items() if k.startswith("model/")})
        if values["step"]:
            for i, parameter in enumerate(self._parameters()):
                names = ("step", "exp_avg", "exp_avg_sq")
                self.optimizer.state[parameter] = {name: state[f"optimizer/{i}/{name}"].to(device) for name in names}
        self.order_rng.set_state(state["rng/order"])
        self.rng.set_state(state["rng/batches"])
        self.order = state["order"].to(device)
        train_loss = math.nan if values["train_loss"] is None else values["train_loss"]
        losses = state["loss_sum"].to(device), state["epoch_loss"].to(device)
        self.progress = Progress(*losses, **values | {"train_loss": train_loss})

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def _generator(seed: np.uint64, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(int(seed) % 2**63)
