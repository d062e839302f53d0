"""Fine-tuning of a trained encoder, all of it or its last blocks, and the same from scratch; torch and numpy alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.probe.classifier import Classifier, accuracy
from spatialmae.probe.head_training import HeadTraining, choose
from spatialmae.probe.labelled_images import LabelledImages
from spatialmae.probe.representation import LAYER
from spatialmae.probe.settings import FineTuneConfig
from spatialmae.probe.step_memory import LiveBytes, Memory, SavedBytes, n_bytes
from spatialmae.shapes import Float, Int64
from spatialmae.train.hardware import DeviceChoice, Hardware


class FineTuning(HeadTraining):
    """The training of one classifier at one learning rate.

    Args:
        classifier: on the device, as are the data; new, in training mode.
        data: images and labels.
        config: settings.
        base_lr: one of ``config.base_lr``.
        order: draws the order of images, on the CPU.
        augmentation: draws the augmentation, on the device.
    """

    def __init__(
        self,
        classifier: Classifier,
        data: LabelledImages,
        config: FineTuneConfig,
        base_lr: float,
        order: torch.Generator,
        augmentation: torch.Generator,
    ) -> None:
        groups = classifier.parameter_groups(config.weight_decay, config.layer_decay)
        super().__init__(groups, config, base_lr, len(data.images.train), order, data.test.device)
        self.classifier, self.data, self.config, self.rng = classifier, data, config, augmentation
        self.memory = Memory(0, 0, 0, 0, 0)
        self.cuda_peak_bytes: int | None = None

    def run(self, on_step: Callable[[], None]) -> None:
        """Take all steps and score the validation images; a loss that is not finite ends it with NaN."""
        on_cuda, before = self.device.type == "cuda", 0
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            # The images, the decoder, and the classifier of another learning rate are no part of it.
            before = torch.cuda.memory_allocated(self.device) - n_bytes(self.classifier.used_parameters())
        finite = self.take_steps(on_step)
        if on_cuda:
            self.cuda_peak_bytes = torch.cuda.max_memory_allocated(self.device) - before
        if finite:
            images = self.data.images
            self.validation_score = accuracy(self.classifier, images, images.validation, self.data.labels["validation"])

    def _step(self, ids: Int64[Tensor, " N"]) -> float:
        """One step; the first measures the memory too."""
        images = self.data.images.batch(ids, self.config.augmentation, self.config.crop_scale, self.rng)
        labels = self.data.labels["train"][ids]
        self.optimizer.zero_grad()
        if self.steps:
            loss = self._backward(images, labels)
            self.optimizer.step()
        else:
            loss = self._measured_step(images, labels)
        return float(loss)

    def _measured_step(self, images: Float[Tensor, "N C H W"], labels: Int64[Tensor, " N"]) -> Float[Tensor, ""]:
        with SavedBytes(self.classifier.state_dict().values()) as saved, LiveBytes() as live:
            loss = self._backward(images, labels)
        self.optimizer.step()
        used = self.classifier.used_parameters()
        weights, gradients = n_bytes(used), n_bytes(p.grad for p in used if p.grad is not None)
        moments = n_bytes(value for state in self.optimizer.state.values() for value in state.values())
        self.memory = Memory(live.peak + weights + moments, weights, gradients, moments, saved.total)
        return loss

    def _backward(self, images: Float[Tensor, "N C H W"], labels: Int64[Tensor, " N"]) -> Float[Tensor, ""]:
        loss = cross_entropy(self.classifier(images), labels)
        loss.backward()
        return loss.detach()


def fine_tune(
    model: MaskedAutoencoder,
    data: LabelledImages,
    config: FineTuneConfig,
    seed: int,
    *,
    from_scratch: bool = False,
    device: DeviceChoice = "auto",
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Fine-tune a copy of the model's encoder to a label at each learning rate; score the best on the test split once.

    The learning rate is the one with the best validation accuracy after its last epoch, the lowest of ties. All start
    from the same weights and see the same images in the same order. The loss is cross-entropy, without label smoothing,
    dropout or mixing of images.

    Args:
        model: stays as it is.
        data: images and labels, normalised by the training images' mean and deviation.
        config: settings.
        seed: of fresh weights (the head's; from scratch also the encoder's, which are those that a
            :class:`~spatialmae.train.trainer.Trainer` of this seed starts from), of order and augmentation.
        from_scratch: begin with fresh weights in an encoder of the same architecture: the baseline.
        device: see :meth:`~spatialmae.train.hardware.Hardware.choose`.
        on_step: called after each step, ``config.n_steps(n_train)`` times unless a learning rate diverges; n_train
            counts the images of :meth:`LabelledImages.few`.

    Returns:
        A row of a tidy table. ``memory_bytes`` is the peak of :class:`Memory`, whose parts follow it;
        ``cuda_peak_bytes`` is what a GPU's allocator saw, None on a CPU. Where all learning rates diverged, accuracies
        are NaN, the row is of the lowest one, and ``reason`` says so; ``reason`` also names learning rates that
        diverged while others did not.

    Raises:
        ValueError: more blocks are to be trained than there are, images have another shape than the model's, or they
            do not fill a batch.
        UserError: CUDA is asked for and not there.
    """
    data = data.few(config.labels_per_class, torch.Generator().manual_seed(_streams(seed)[4]))
    n_train, expected = len(data.images.train), (model.config.channels, *model.config.image_hw)
    if tuple(data.test.shape[1:]) != expected:
        raise ValueError(f"images are {tuple(data.test.shape[1:])}, the model takes {expected}; give the model's data")
    if n_train < config.batch_size:
        raise ValueError(f"batch_size: {config.batch_size} exceeds the {n_train} training images; lower it")
    hardware = Hardware.choose(config.precision, config.n_steps(n_train), device=device, compiled="no")
    data = data.to(hardware.device)

    def tunings() -> Iterator[FineTuning]:
        for base_lr in config.base_lr:
            tuning = prepare(model, data, config, base_lr, seed, hardware, from_scratch)
            tuning.run(on_step)
            yield tuning

    best, choice = choose(tunings())
    test_accuracy = math.nan
    if not best.diverged:
        test_accuracy = accuracy(best.classifier, data.images, data.test, data.labels["test"])
    return {
        "target": data.target,
        "accuracy": test_accuracy,
        "validation_accuracy": best.validation_score,
        "chance": data.chance,
        "n_train": n_train,
        "n_test": len(data.test),
        "initialisation": "scratch" if from_scratch else "pretrained",
        "n_blocks": len(model.encoder) if config.n_blocks is None else config.n_blocks,
        "embedding_trained": config.n_blocks is None,
        "trained_parameters": sum(p.numel() for p in best.classifier.parameters() if p.requires_grad),
        "feature": config.feature,
        "layer": LAYER,
        "head": "batch norm without affine, linear",
        "base_lr": choice["base_lr"],
        "lr": best.peak_lr,
        "at_grid_edge": choice["at_grid_edge"],
        "selected_on": "validation",
        "labels_per_class": config.labels_per_class,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "warmup_epochs": config.warmup_epochs,
        "weight_decay": config.weight_decay,
        "layer_decay": config.layer_decay,
        "augmentation": config.augmentation,
        "crop_scale": config.crop_scale,
        "steps": best.steps,
        "memory_bytes": best.memory.peak,
        "weights_bytes": best.memory.weights,
        "gradients_bytes": best.memory.gradients,
        "moments_bytes": best.memory.moments,
        "saved_bytes": best.memory.saved,
        "cuda_peak_bytes": best.cuda_peak_bytes,
        "precision": hardware.precision,
        "attention": hardware.kernel,
        "seed": seed,
        "reason": choice["reason"],
    }


def prepare(
    model: MaskedAutoencoder,
    data: LabelledImages,
    config: FineTuneConfig,
    base_lr: float,
    seed: int,
    hardware: Hardware,
    from_scratch: bool,
) -> FineTuning:
    """A training that has not begun; of one seed all have the same weights, order and augmentation."""
    weights, order, augmentation, head, _ = _streams(seed)
    encoder = MaskedAutoencoder(model.config, generator=torch.Generator().manual_seed(weights))
    if not from_scratch:
        encoder.load_state_dict(model.state_dict())
    encoder.set_attention_kernel(hardware.kernel)
    classifier = Classifier(
        encoder, data.n_classes, config, torch.Generator().manual_seed(head), bf16=hardware.precision == "bf16"
    ).to(hardware.device)
    generators = torch.Generator().manual_seed(order), torch.Generator(hardware.device).manual_seed(augmentation)
    return FineTuning(classifier, data, config, base_lr, *generators)


def _streams(seed: int) -> list[int]:
    """Seeds of weights, order, augmentation, head and labels, independent; the first is the Trainer's for weights."""
    return [int(state) % 2**63 for state in np.random.SeedSequence(seed).generate_state(5, np.uint64)]
