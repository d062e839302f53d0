"""What a step of fine-tuning takes in time, of several settings side by side (claim A14.2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.probe.fine_tuning import FineTuning, prepare
from spatialmae.probe.labelled_images import LabelledImages
from spatialmae.probe.settings import FineTuneConfig
from spatialmae.train.hardware import Hardware, cpu_name

N_STEPS = 20  # of each setting


def step_times(
    model: MaskedAutoencoder,
    data: LabelledImages,
    configs: list[FineTuneConfig],
    seed: int,
    *,
    n_steps: int = N_STEPS,
) -> list[dict[str, Any]]:
    """Median CPU time of a step of fine-tuning by each of some settings.

    Each takes one step in turn, by one thread on the CPU, and the thread's own time counts: whatever else the machine
    does comes to all alike. A first step of each, which makes the optimizer's state, is not counted.

    Args:
        model: stays as it is.
        data: images and labels.
        configs: settings; of their learning rates, which take the same time, the first is taken.
        seed: of the head, order and augmentation.
        n_steps: that are counted of each.

    Returns:
        A row of the table of costs for each: ``n_blocks``, ``embedding_trained``, ``seconds_per_step``, ``steps``,
        ``threads``, ``device``.

    Raises:
        ValueError: more blocks are to be trained than there are.
    """
    seconds: list[list[float]] = [[] for _ in configs]
    with _one_thread():
        trainings = [_training(model, data, config, seed) for config in configs]
        batches = [_batches(training) for training in trainings]
        for step in range(1 + n_steps):
            for training, ids, taken in zip(trainings, batches, seconds, strict=True):
                chosen, start = next(ids), time.thread_time()
                training.step(chosen)
                if step:
                    taken.append(time.thread_time() - start)
    return [
        {
            "n_blocks": len(model.encoder) if config.n_blocks is None else config.n_blocks,
            "embedding_trained": config.n_blocks is None,
            "seconds_per_step": median(taken),
            "steps": n_steps,
            "threads": 1,
            "device": f"cpu ({cpu_name()})",
        }
        for config, taken in zip(configs, seconds, strict=True)
    ]


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _training(model: MaskedAutoencoder, data: LabelledImages, config: FineTuneConfig, seed: int) -> FineTuning:
    data = data.few(config.labels_per_class, torch.Generator().manual_seed(seed))
    steps = config.n_steps(len(data.images.train))
    hardware = Hardware.choose(config.precision, steps, device="cpu", compiled="no")
    return prepare(model, data, config, config.base_lr[0], seed, hardware, from_scratch=False)


def _batches(training: FineTuning) -> Iterator[torch.Tensor]:
    """The training images in batches, over and over."""
    while True:
        yield from training.batches()
