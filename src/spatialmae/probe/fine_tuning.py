"""Fine-tuning of a trained encoder, all of it or its last blocks, and the same from scratch; torch and numpy alone."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spatialmae.artifacts import read_tensors
from spatialmae.errors import UserError
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.probe.head_training import HeadTraining, choose
from spatialmae.probe.representation import BATCH_NORM_EPS, LAYER, pool
from spatialmae.probe.settings import FineTuneConfig
from spatialmae.shapes import Float, Int64, UInt8
from spatialmae.train.batches import TrainingImages
from spatialmae.train.hardware import DeviceChoice, Hardware

HEAD_STD = 0.01  # of the head's initial weights
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class LabelledImages:
    """Images of the three splits with the labels of one target.

    Attributes:
        images: of training and validation.
        test: uint8 (t, C, H, W).
        labels: of each split: index among the classes of the training images; −1: none of them.
        target: name of the labels.
        n_classes: classes of the training images.
    """

    images: TrainingImages
    test: UInt8[Tensor, "t C H W"]
    labels: dict[str, Int64[Tensor, " _"]]
    target: str
    n_classes: int

    @classmethod
    def load(cls, path: Path | str, target: str) -> LabelledImages:
        """Read the images that stage ``data`` wrote, with the labels ``target``.

        Raises:
            UserError: the file is missing, damaged or no data set, a split is empty, or the target is no label.
        """
        images = TrainingImages.load(path)
        splits = {name.removeprefix("splits/"): rows for name, rows in read_tensors(path, "splits/")[0].items()}
        for name in ("train", "validation", "test"):
            if not len(splits.get(name, ())):
                raise UserError(path, f"no images in split {name}", "give every split of a probed data set some")
        labels = read_tensors(path, f"targets/{target}")[0].get(f"targets/{target}")
        if labels is None or labels.dtype != np.int64 or labels.ndim != 1:
            raise UserError(path, f"{target} is no class label", "name an int64 target with one value for each image")
        classes = np.unique(labels[splits["train"]])
        if len(classes) < 2:
            raise UserError(path, f"{target} has one class in the training split", "fine-tune on another target")
        nearest = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
        indices = torch.from_numpy(np.where(classes[nearest] == labels, nearest, -1))
        pixels = read_tensors(path, "images")[0]["images"][splits["test"]]
        test = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        by_split = {name: indices[torch.from_numpy(rows)] for name, rows in splits.items()}
        return cls(images, test, by_split, target, len(classes))

    def to(self, device: torch.device) -> LabelledImages:
        """The same on another device."""
        labels = {name: values.to(device) for name, values in self.labels.items()}
        return LabelledImages(self.images.to(device), self.test.to(device), labels, self.target, self.n_classes)

    def few(self, per_class: int | None, seed: int) -> LabelledImages:
        """With at most so many training images of each class, drawn with a seed of fine-tuning; None: all of them.

        Channels keep the normalisation of all training images, which the encoder was trained with.
        """
        if per_class is None:
            return self
        draw = torch.Generator().manual_seed(_streams(seed)[4])
        order = torch.randperm(len(self.labels["train"]), generator=draw)
        shuffled = self.labels["train"][order]
        kept = torch.cat([order[shuffled == label][:per_class] for label in range(self.n_classes)]).sort().values
        images = replace(self.images, train=self.images.train[kept])
        return replace(self, images=images, labels=self.labels | {"train": self.labels["train"][kept]})

    def n_few(self, per_class: int | None) -> int:
        """How many training images :meth:`few` leaves."""
        if per_class is None:
            return len(self.labels["train"])
        return int(self.labels["train"].bincount().clamp(max=per_class).sum())

    @property
    def chance(self) -> float:
        """Accuracy on the test images of always answering the most frequent class of the training images."""
        majority = self.labels["train"].bincount().argmax()
        return float((self.labels["test"] == majority).double().mean())


class Classifier(nn.Module):
    """An encoder, and a head on its feature: BatchNorm without affine parameters, then a linear layer.

    The feature is of the tokens after the encoder's last norm, before any bottleneck, nothing masked. Frozen layers lie
    below the trained ones, so that autograd neither saves anything for them nor goes back through them. The decoder
    takes no part.

    Args:
        mae: its encoder is trained in place.
        n_classes: outputs.
        config: which layers are trained, and the feature.
        generator: draws the head's weights.
        bf16: run the encoder under bf16 autocast; the head is always in float32.

    Raises:
        ValueError: more blocks are to be trained than there are.
    """

    def __init__(
        self, mae: MaskedAutoencoder, n_classes: int, config: FineTuneConfig, generator: torch.Generator, *, bf16: bool
    ) -> None:
        super().__init__()
        depth = len(mae.encoder)
        if config.n_blocks is not None and config.n_blocks > depth:
            raise ValueError(f"n_blocks: {config.n_blocks} exceeds the {depth} blocks of the encoder; lower it")
        self.mae, self.feature, self.bf16 = mae.requires_grad_(False), config.feature, bf16
        self.batch_norm = nn.BatchNorm1d(mae.config.encoder_dim, eps=BATCH_NORM_EPS, affine=False)
        self.linear = nn.Linear(mae.config.encoder_dim, n_classes)
        nn.init.normal_(self.linear.weight, std=HEAD_STD, generator=generator)
        nn.init.zeros_(self.linear.bias)
        n_trained = {None: depth + 2, 0: 0}.get(config.n_blocks, (config.n_blocks or 0) + 1)
        for layer in self.encoder_layers()[depth + 2 - n_trained :]:
            for parameter in layer:
                parameter.requires_grad_(True)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N classes"]:
        """Logits of normalised images."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            tokens = self.mae.encode(images)
        return self.linear(self.batch_norm(pool(tokens, self.feature).float()))

    def encoder_layers(self) -> list[list[nn.Parameter]]:
        """The encoder's parameters from input to output: patch embedding with [CLS], each block, the last norm."""
        mae = self.mae
        embedding = [*mae.patch_embedding.parameters(), mae.cls_token]
        return [embedding, *(list(block.parameters()) for block in mae.encoder), list(mae.encoder_norm.parameters())]

    def used_parameters(self) -> list[nn.Parameter]:
        """All parameters but the decoder's."""
        return [p for layer in self.encoder_layers() for p in layer] + list(self.linear.parameters())

    def parameter_groups(self, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        """AdamW's groups of the trained parameters, each with the ``scale`` of its learning rate.

        As in facebookresearch/mae: the head and the norm before it have scale 1, and each layer below
        ``layer_decay`` times that of the one above it.
        """
        layers = self.encoder_layers()
        layers[-1] = layers[-1] + list(self.linear.parameters())
        groups = []
        for height, layer in enumerate(reversed(layers)):
            trained = [p for p in layer if p.requires_grad]
            for decay, chosen in (
                (weight_decay, [p for p in trained if p.ndim > 1]),
                (0.0, [p for p in trained if p.ndim <= 1]),
            ):
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "scale": layer_decay**height})
        return groups


@dataclass(frozen=True)
class Memory:
    """What a training step takes in memory, in bytes; a function of model and settings on one kind of device.

    Attributes:
        peak: the most that is alive at once: weights, moments, and what the forward and the backward pass make. The
            images, the decoder and the workspace of kernels are not counted.
        weights: encoder and head; frozen ones too, the decoder not.
        gradients: of the trained parameters.
        moments: AdamW's.
        saved: what autograd saves of the forward pass for the backward one, but for the weights themselves.
    """

    peak: int
    weights: int
    gradients: int
    moments: int
    saved: int


class LiveBytes(TorchDispatchMode):
    """Counts, as a context, the bytes of the tensors that operations make in it, and how many live at once at most."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note the storages that it made."""
        given = {storage.data_ptr() for storage in _storages((args, kwargs))}
        results = func(*args, **(kwargs or {}))
        for storage in _storages(results):
            # Not those of views, nor of what is written in place.
            if storage.data_ptr() not in given | self.live.keys():
                self._note(storage)
        return results

    def _note(self, storage: torch.UntypedStorage) -> None:
        self.live[storage.data_ptr()] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        # An address names a storage as long as it lives.
        weakref.finalize(storage, self._forget, storage.data_ptr())

    def _forget(self, address: int) -> None:
        self.now -= self.live.pop(address)


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts, as a context, the distinct storages that autograd saves in it for the backward pass.

    Args:
        resident: tensors that are in memory anyway, and are not counted.
    """

    def __init__(self, resident: Iterable[Tensor]) -> None:
        self.storages: dict[int, int] = {}
        kept = {tensor.untyped_storage().data_ptr() for tensor in resident}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            # An address names a storage as long as it lives, and what is saved lives until the backward pass.
            if storage.data_ptr() not in kept:
                self.storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        super().__init__(pack, lambda tensor: tensor)

    def __enter__(self) -> SavedBytes:  # type: ignore[override]
        super().__enter__()
        return self

    @property
    def total(self) -> int:
        """Bytes saved."""
        return sum(self.storages.values())


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
        self.step_seconds: list[float] = []
        self.memory = Memory(0, 0, 0, 0, 0)
        self.cuda_peak_bytes: int | None = None

    def run(self, on_step: Callable[[], None]) -> None:
        """Take all steps and score the validation images; a loss that is not finite ends it with NaN."""
        on_cuda, before = self.device.type == "cuda", 0
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            # The images, the decoder, and the classifier of another learning rate are no part of it.
            before = torch.cuda.memory_allocated(self.device) - _bytes(self.classifier.used_parameters())
        finite = self.take_steps(on_step)
        if on_cuda:
            self.cuda_peak_bytes = torch.cuda.max_memory_allocated(self.device) - before
        if finite:
            images = self.data.images
            self.validation_score = accuracy(self.classifier, images, images.validation, self.data.labels["validation"])

    def _step(self, ids: Int64[Tensor, " N"]) -> float:
        """One step; the first measures the memory too, and each its time."""
        start = time.perf_counter()
        images = self.data.images.batch(ids, self.config.augmentation, self.config.crop_scale, self.rng)
        labels = self.data.labels["train"][ids]
        self.optimizer.zero_grad()
        if self.step_seconds:
            loss = self._backward(images, labels)
            self.optimizer.step()
        else:
            loss = self._measured_step(images, labels)
        value = float(loss)  # waits for the device: the time is that of the whole step
        self.step_seconds.append(time.perf_counter() - start)
        return value

    def _measured_step(self, images: Float[Tensor, "N C H W"], labels: Int64[Tensor, " N"]) -> Float[Tensor, ""]:
        with SavedBytes(self.classifier.state_dict().values()) as saved, LiveBytes() as live:
            loss = self._backward(images, labels)
        self.optimizer.step()
        used = self.classifier.used_parameters()
        weights, gradients = _bytes(used), _bytes(p.grad for p in used if p.grad is not None)
        moments = _bytes(value for state in self.optimizer.state.values() for value in state.values())
        self.memory = Memory(live.peak + weights + moments, weights, gradients, moments, saved.total)
        return loss

    def _backward(self, images: Float[Tensor, "N C H W"], labels: Int64[Tensor, " N"]) -> Float[Tensor, ""]:
        loss = cross_entropy(self.classifier(images), labels)
        loss.backward()
        return loss.detach()


@torch.no_grad()
def accuracy(
    classifier: Classifier, data: TrainingImages, images: UInt8[Tensor, "n C H W"], labels: Int64[Tensor, " n"]
) -> float:
    """Share of images that are given their class, 0 … 1; NaN if a logit is not finite.

    Args:
        classifier: is put into evaluation mode.
        data: says how images are normalised.
        images: to classify.
        labels: their classes.
    """
    classifier.eval()
    hits, finite = 0, True
    for batch, expected in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
        logits = classifier(data.normalise(batch))
        hits += int((logits.argmax(dim=1) == expected).sum())
        finite = finite and bool(logits.isfinite().all())
    return hits / len(images) if finite else math.nan


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
        A row of a tidy table. ``seconds`` (of the steps at the chosen learning rate) and ``seconds_per_step`` (their
        median) are this machine's. ``memory_bytes`` is the peak of :class:`Memory`, whose parts follow it;
        ``cuda_peak_bytes`` is what a GPU's allocator saw, None on a CPU. Where all learning rates diverged, accuracies
        are NaN, the row is of the lowest one, and ``reason`` says so; ``reason`` also names learning rates that
        diverged while others did not.

    Raises:
        ValueError: more blocks are to be trained than there are, images have another shape than the model's, or they
            do not fill a batch.
        UserError: CUDA is asked for and not there.
    """
    data = data.few(config.labels_per_class, seed)
    n_train, expected = len(data.images.train), (model.config.channels, *model.config.image_hw)
    if tuple(data.test.shape[1:]) != expected:
        raise ValueError(f"images are {tuple(data.test.shape[1:])}, the model takes {expected}; give the model's data")
    if n_train < config.batch_size:
        raise ValueError(f"batch_size: {config.batch_size} exceeds the {n_train} training images; lower it")
    hardware = Hardware.choose(config.precision, config.n_steps(n_train), device=device, compiled="no")
    data = data.to(hardware.device)

    def tunings() -> Iterator[FineTuning]:
        for base_lr in config.base_lr:
            tuning = _prepare(model, data, config, base_lr, seed, hardware, from_scratch)
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
        "steps": len(best.step_seconds),
        "seconds": sum(best.step_seconds),
        "seconds_per_step": median(best.step_seconds),
        "memory_bytes": best.memory.peak,
        "weights_bytes": best.memory.weights,
        "gradients_bytes": best.memory.gradients,
        "moments_bytes": best.memory.moments,
        "saved_bytes": best.memory.saved,
        "cuda_peak_bytes": best.cuda_peak_bytes,
        "device": hardware.name,
        "threads": torch.get_num_threads(),
        "precision": hardware.precision,
        "attention": hardware.kernel,
        "seed": seed,
        "reason": choice["reason"],
    }


def _prepare(
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


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    """Storages of the tensors among arguments or results."""
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
