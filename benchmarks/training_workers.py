"""Contenders of the benchmark of training, and the processes in which they take turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.train.batches import TrainingImages
from spatialmae.train.hardware import COMPILE_FROM_STEPS, DeviceChoice, Hardware, prepare_cpu
from spatialmae.train.plan import RunSpec
from spatialmae.train.settings import TrainConfig
from spatialmae.train.trainer import Trainer
from training_flops import step_flops
from training_peer import PeerLoop, build_peer, import_peer

N_IMAGES = 1024
Step = Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """One way of training a model.

    Attributes:
        kind: a key of :data:`BUILDERS`.
        precision: "fp32" or "bf16" (the peer's mixed precision on a GPU is fp16).
        processes: how many train side by side, each a model of its own.
        threads: of each process.
        model: the architecture.
        batch_size: images a step, model and process.
        device: "cpu" or "cuda".
        peer: the peer's checkout.
        seeds: models stacked into one.
    """

    kind: Literal["peer", "ours", "stacked", "products"]
    precision: Literal["fp32", "bf16"]
    processes: int
    threads: int
    model: MAEConfig
    batch_size: int
    device: DeviceChoice
    peer: Path
    seeds: int = 1

    @property
    def label(self) -> str:
        """Name in the table."""
        stacked = f" {self.seeds} seeds stacked" if self.seeds > 1 else ""
        return f"{self.kind} {self.precision}{stacked}, {self.processes} × {self.threads}"

    @property
    def images(self) -> float:
        """Images that one step of one process trains on; of the bare matrix products: as many as make as many."""
        if self.kind == "products":
            return products_flops(self) / step_flops(self.model)
        return self.batch_size * self.seeds


def training_images(contender: Contender) -> TrainingImages:
    """Random pixels, for time does not depend on them."""
    draw = torch.Generator().manual_seed(0)
    shape = (max(N_IMAGES, contender.batch_size), contender.model.channels, *contender.model.image_hw)
    pixels = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
    level = torch.full((contender.model.channels,), 0.5)
    return TrainingImages(pixels, pixels[:0], level, level / 2, "").to(torch.device(contender.device))


def build_peer_step(contender: Contender) -> Step:
    """The peer's loop on normalised float batches that are already in memory."""
    images = training_images(contender)
    batches = images.normalise(images.train).split(contender.batch_size)
    model = build_peer(import_peer(contender.peer), contender.model).to(contender.device)
    amp = contender.precision == "bf16"
    loop = PeerLoop(model, TrainConfig(batch_size=contender.batch_size), contender.model.mask_ratio, amp=amp)
    return lambda: loop.step(batches[0], lr=1e-4)


def build_our_step(contender: Contender) -> Step:
    """Our training step, with augmentation, as a long run has it."""
    prepare_cpu(contender.threads)
    train = TrainConfig(batch_size=contender.batch_size, augmentation="flip")
    hardware = Hardware.choose(contender.precision, COMPILE_FROM_STEPS, device=contender.device)
    trainer = Trainer(RunSpec("random", contender.model, train, seed=0), training_images(contender), hardware)
    trainer.model.train()
    return trainer.step


def build_stacked_step(contender: Contender) -> Step:
    """Models of several seeds as one batched model, each on batches and masks of its own."""
    prepare_cpu(contender.threads)
    device, config = torch.device(contender.device), contender.model
    images = training_images(contender)
    models = [MaskedAutoencoder(config).to(device) for _ in range(contender.seeds)]
    stacked, buffers = stack_module_state(models)
    parameters: dict[str, Tensor] = {name: torch.nn.Parameter(value.detach()) for name, value in stacked.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    size = (contender.seeds, contender.batch_size)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor, noise: Tensor) -> Tensor:
        return functional_call(models[0], (parameters, buffers), (batch, noise)).loss

    losses = vmap(loss)

    def step() -> None:
        ids = torch.randint(len(images.train), size, device=device)
        noise = torch.rand(*size, config.n_units, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=contender.precision == "bf16"):
            total = losses(parameters, buffers, images.normalise(images.train[ids]), noise).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return step


def build_products_step(contender: Contender) -> Step:
    """Nothing but the products of an MLP's step: the roof that the machine sets."""
    prepare_cpu(contender.threads)
    dtype = torch.bfloat16 if contender.precision == "bf16" else torch.float32
    shapes = _mlp_shapes(contender)

    def random(*size: int) -> Tensor:
        return torch.randn(size, device=contender.device).to(dtype)

    operands = [(random(m, k), random(n, k), random(m, n)) for m, k, n in shapes]
    results = [tuple(torch.empty_like(x) for x in layer) for layer in operands]

    def step() -> None:
        for (x, w, g), (dx, dw, y) in zip(operands, results, strict=True):
            torch.mm(x, w.t(), out=y)
            torch.mm(g, w, out=dx)
            torch.mm(g.t(), x, out=dw)

    return step


def products_flops(contender: Contender) -> int:
    """Operations of one step of the bare products."""
    return sum(3 * 2 * m * k * n for m, k, n in _mlp_shapes(contender))


def _mlp_shapes(contender: Contender) -> list[tuple[int, int, int]]:
    """Rows, inputs and outputs of the two layers of the decoder's MLP."""
    config = contender.model
    rows, dim = contender.batch_size * (1 + config.n_patches), config.decoder_dim
    hidden = int(dim * config.mlp_ratio)
    return [(rows, dim, hidden), (rows, hidden, dim)]


BUILDERS: dict[str, Callable[[Contender], Step]] = {
    "peer": build_peer_step,
    "ours": build_our_step,
    "stacked": build_stacked_step,
    "products": build_products_step,
}


def serve(connection: Connection) -> None:
    """Take as many steps of a contender as told, building it at first; answer when done; end with the other side."""
    built: dict[Contender, Step] = {}
    while True:
        try:
            contender, n = connection.recv()
        except EOFError:
            return
        torch.set_num_threads(contender.threads)
        if contender not in built:
            built[contender] = BUILDERS[contender.kind](contender)
        for _ in range(n):
            built[contender]()
        if contender.device == "cuda":
            torch.cuda.synchronize()
        connection.send(None)


class Crew:
    """Processes that contenders take turns in; idle, they wait without computing.

    One for the peer and one for us, since settings of the process (``prepare_cpu``) are part of how we train.
    """

    def __init__(self, processes: int) -> None:
        context = get_context("spawn")
        pairs = [context.Pipe() for _ in range(processes)]
        self.connections = [ours for ours, _ in pairs]
        for _, theirs in pairs:
            context.Process(target=serve, args=(theirs,), daemon=True).start()
            theirs.close()  # so that the end of a process is noticed

    def turn(self, contender: Contender, steps: int) -> float:
        """Images a second, of all processes together."""
        used = self.connections[: contender.processes]
        start = time.perf_counter()
        for connection in used:
            connection.send((contender, steps))
        for connection in used:
            try:
                connection.recv()
            except EOFError:
                raise SystemExit(f"{contender.label}: its process died; the message is above") from None
        return steps * contender.images * contender.processes / (time.perf_counter() - start)

    def steps_to_fill(self, contender: Contender, seconds: float) -> int:
        """How many steps take ``seconds``, by the second step: the first builds, compiles and warms up."""
        self.turn(contender, 1)
        rate = self.turn(contender, 1)
        return math.ceil(seconds * rate / (contender.images * contender.processes))
