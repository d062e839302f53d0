"""Dense transfer: segmentation and depth, pixel by pixel, from frozen or fine-tuned encoders.

The head is linear: it makes of each patch token the numbers of that patch's pixels, so that what it can use of the
surroundings is what the encoder brought there. Segmentation is judged by the mean intersection over union (mIoU) of
background and object. Depth is judged by the root mean squared error, in units of depth's range: logarithmic and
relative errors, usual for metric depth, do not exist for ``leaves``, where depth is a rank and that of the object is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from spatialmae.data.dataset import SPLITS, ImageData, Split
from spatialmae.errors import UserError
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.model.patches import unpatchify
from spatialmae.model.trained import TrainedModel
from spatialmae.probe.classifier import EVALUATION_BATCH, Classifier
from spatialmae.probe.dense_settings import DenseConfig
from spatialmae.probe.head_training import HeadTraining, choose
from spatialmae.probe.representation import LAYER
from spatialmae.probe.settings import FineTuneConfig
from spatialmae.setting import check_choice
from spatialmae.train.hardware import DeviceChoice, Hardware

DenseTarget = Literal["segmentation", "depth"]
TARGETS: tuple[DenseTarget, ...] = get_args(DenseTarget)
CLASSES = ("background", "object")


def intersection_over_union(
    predicted: UInt8[np.ndarray, "n h w"], truth: UInt8[np.ndarray, "n h w"]
) -> Float64[np.ndarray, " classes"]:
    """Pixels of a class in both over pixels of it in either, all images together; NaN for a class in neither.

    Of each of :data:`CLASSES`, as PASCAL VOC counts it.
    """
    pairs = np.bincount((len(CLASSES) * truth.astype(np.int64) + predicted).ravel(), minlength=len(CLASSES) ** 2)
    counts = pairs.reshape(len(CLASSES), len(CLASSES))
    both = counts.diagonal().astype(np.float64)
    either = counts.sum(axis=0) + counts.sum(axis=1) - both
    return np.divide(both, either, out=np.full(len(CLASSES), np.nan), where=either > 0)


def root_mean_squared_error(predicted: Float32[np.ndarray, "n h w"], truth: Float32[np.ndarray, "n h w"]) -> float:
    """Over all pixels of all images."""
    return math.sqrt(np.mean((predicted.astype(np.float64) - truth) ** 2))


@dataclass(frozen=True)
class DenseTask:
    """Maps to be predicted, one for each image of each split.

    Attributes:
        target: segmentation (uint8, the index among :data:`CLASSES`) or depth (float32).
        maps: of the splits, (n, h, w).
    """

    target: DenseTarget
    maps: Mapping[Split, np.ndarray]

    @classmethod
    def of(cls, data: ImageData, target: DenseTarget, train: Int64[np.ndarray, " n"]) -> DenseTask:
        """The maps of a data set; those of the training images at the rows ``train``.

        Raises:
            UserError: the data set has no such map, or one that cannot be predicted.
        """
        maps = data.targets.get(target)
        if maps is None or maps.shape != data.images.shape[:3]:
            raise UserError(data.name, f"its images have no {target}", "use leaves")
        rows: dict[Split, np.ndarray] = {split: data.splits[split] for split in SPLITS} | {"train": train}
        if target == "depth" and not np.isfinite(maps).all():
            raise UserError(data.name, "depth was not measured everywhere", "use leaves")
        if target == "segmentation" and not np.isin(maps, range(len(CLASSES))).all():
            raise UserError(data.name, f"segmentation has other classes than {', '.join(CLASSES)}", "use leaves")
        dtype = np.uint8 if target == "segmentation" else np.float32
        return cls(target, {split: maps[rows[split]].astype(dtype) for split in SPLITS})

    @property
    def n_outputs(self) -> int:
        """Numbers predicted of each pixel."""
        return len(CLASSES) if self.target == "segmentation" else 1

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Mean and deviation of the training depth."""
        depth = self.maps["train"].astype(np.float64)
        return float(depth.mean()), float(depth.std()) or 1.0

    def goal(self) -> Tensor:
        """What outputs are compared with in training: classes (int64), or depth in units of its deviation."""
        train = torch.from_numpy(self.maps["train"])
        if self.target == "segmentation":
            return train.long()
        mean, std = self.scale
        return (train - mean) / std

    def answer(self, outputs: Float[Tensor, "N outputs H W"]) -> np.ndarray:
        """The maps that a head's outputs mean."""
        if self.target == "segmentation":
            return outputs.argmax(dim=1).to(torch.uint8).numpy()
        mean, std = self.scale
        return (outputs[:, 0] * std + mean).numpy()

    def score(self, predicted: np.ndarray | None, split: Split) -> float:
        """Of predicted maps, the mean IoU or the root mean squared error; NaN of none."""
        if predicted is None:
            return math.nan
        if self.target == "depth":
            return root_mean_squared_error(predicted, self.maps[split])
        return float(np.nanmean(intersection_over_union(predicted, self.maps[split])))

    def class_scores(self, predicted: np.ndarray | None, split: Split) -> dict[str, float | None]:
        """The IoU of each class; None of depth, and of no maps."""
        iou: list[float | None] = [None] * len(CLASSES)
        if predicted is not None and self.target == "segmentation":
            iou = list(intersection_over_union(predicted, self.maps[split]).tolist())
        return {f"iou_{name}": value for name, value in zip(CLASSES, iou, strict=True)}

    def baseline(self) -> np.ndarray:
        """What a pixel's place alone tells of it: for each test image its mean, or most frequent class, on train."""
        train = self.maps["train"]
        mean = train.mean(axis=0, dtype=np.float64)
        answer = mean.astype(np.float32) if self.target == "depth" else (mean > 0.5).astype(np.uint8)
        return np.broadcast_to(answer, self.maps["test"].shape)


class DensePredictor(Classifier):
    """A classifier of pixels: an encoder, BatchNorm without affine parameters, and a linear layer on each patch token.

    The norm's statistics are over images and tokens.

    Args:
        mae: its encoder is trained in place, if any of it is.
        n_outputs: numbers predicted of each pixel.
        config: which layers are trained.
        generator: draws the head's weights.
        bf16: run the encoder under bf16 autocast; the head is always in float32.

    Raises:
        ValueError: more blocks are to be trained than there are.
    """

    def __init__(
        self, mae: MaskedAutoencoder, n_outputs: int, config: DenseConfig, generator: torch.Generator, *, bf16: bool
    ) -> None:
        layers = FineTuneConfig(n_blocks=config.n_blocks)
        super().__init__(mae, n_outputs * mae.config.patch_size**2, layers, generator, bf16=bf16)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N outputs H W"]:
        """Predicted maps of normalised images."""
        return self.read(self.tokens(images))

    def tokens(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N L D"]:
        """The patch tokens after the encoder's last norm, nothing masked."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            return self.mae.encode(images)[:, 1:].float()

    def read(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N outputs H W"]:
        """What the head makes of tokens."""
        normalised = self.batch_norm(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        config = self.mae.config
        return unpatchify(self.linear(normalised), config.patch_size, config.image_hw)


class _Training(HeadTraining):
    """The training of one predictor at one learning rate.

    Args:
        predictor: on the device, new.
        task: what it predicts.
        inputs: for each split normalised images, or a frozen encoder's tokens of them.
        config: settings.
        base_lr: one of ``config.base_lr``.
        order: draws the order of images, on the CPU.
    """

    def __init__(
        self,
        predictor: DensePredictor,
        task: DenseTask,
        inputs: Mapping[Split, Tensor],
        config: DenseConfig,
        base_lr: float,
        order: torch.Generator,
    ) -> None:
        self.goal = task.goal().to(inputs["train"].device)
        groups = predictor.parameter_groups(config.weight_decay, config.layer_decay)
        super().__init__(groups, config, base_lr, len(self.goal), order, self.goal.device)
        self.predictor, self.task, self.inputs = predictor, task, inputs
        self.predict = predictor.read if config.n_blocks == 0 else predictor

    def run(self, on_step: Callable[[], None]) -> None:
        """Take all steps and score the validation images; a loss that is not finite ends it with NaN."""
        if self.take_steps(on_step):
            self.validation_score = self.task.score(self.maps("validation"), "validation")

    def _step(self, ids: Int64[Tensor, " N"]) -> float:
        self.optimizer.zero_grad()
        outputs, goal = self.predict(self.inputs["train"][ids]), self.goal[ids]
        loss = mse_loss(outputs[:, 0], goal) if self.task.target == "depth" else cross_entropy(outputs, goal)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def maps(self, split: Split) -> np.ndarray | None:
        """Predicted maps of a split as the task has them; None if a number in them is not finite."""
        self.predictor.eval()
        outputs = torch.cat([self.predict(batch) for batch in self.inputs[split].split(EVALUATION_BATCH)]).cpu()
        return self.task.answer(outputs) if outputs.isfinite().all() else None


def dense_rows(
    run: TrainedModel,
    data: ImageData,
    config: DenseConfig,
    seed: int,
    *,
    targets: Sequence[DenseTarget] = TARGETS,
    device: DeviceChoice = "auto",
    on_step: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Train a head, on a frozen encoder or with a copy of it, at each learning rate; score the best on the test split.

    The learning rate is the one with the best validation score after its last epoch, the lowest of ties. All start from
    the same weights and see the same images in the same order, none of them augmented. The loss is cross-entropy
    for segmentation, and the squared error of standardised depth. Of a frozen encoder all share the tokens, which are
    made once and, as the images of a trained one, held in memory as float32.

    Args:
        run: a trained model, which stays as it is; one with weights of another epoch, or fresh ones, is a baseline.
        data: images of the model's size with the targets; those of ``leaves`` are rendered at any size. They are
            normalised as the model's training images were.
        config: settings.
        seed: of the head's weights, the order, and the training images that are drawn.
        targets: maps to predict.
        device: see :meth:`~spatialmae.train.hardware.Hardware.choose`.
        on_step: called after each step, ``config.n_steps(n_train)`` times a target unless a learning rate diverges.

    Returns:
        A row of a tidy table for each target. ``score`` is the ``metric``: ``miou`` (higher is better) or ``rmse``
        (lower is better); ``baseline`` is that of :meth:`DenseTask.baseline`. Where all learning rates
        diverged, scores are NaN, the row is of the lowest one, and ``reason`` says so.

    Raises:
        ValueError: images have another shape than the model's or do not fill a batch, a target is unknown, or more
            blocks are to be trained than there are.
        UserError: the data have no such targets, or a split is empty.
    """
    for target in targets:
        check_choice("targets", target, TARGETS)
    rows = _rows(data, config.n_train, seed)
    tasks = [DenseTask.of(data, target, rows["train"]) for target in targets]
    model = run.model.config
    if data.image_shape != (*model.image_hw, model.channels):
        raise ValueError(
            f"images are {data.image_shape}, the model takes {(*model.image_hw, model.channels)}; match them"
        )
    n_train = len(rows["train"])
    if n_train < config.batch_size:
        raise ValueError(f"batch_size: {config.batch_size} exceeds the {n_train} training images; lower it")
    hardware = Hardware.choose(config.precision, config.n_steps(n_train), device=device, compiled="no")
    inputs = _normalised(run, data, rows, hardware.device)
    if config.n_blocks == 0:
        inputs = _frozen_tokens(_predictor(run.model, 1, config, seed, hardware), inputs)
    return [_row(run.model, task, inputs, config, seed, hardware, on_step) for task in tasks]


def _row(
    model: MaskedAutoencoder,
    task: DenseTask,
    inputs: Mapping[Split, Tensor],
    config: DenseConfig,
    seed: int,
    hardware: Hardware,
    on_step: Callable[[], None],
) -> dict[str, Any]:
    def trainings() -> Iterator[_Training]:
        for base_lr in config.base_lr:
            predictor = _predictor(model, task.n_outputs, config, seed, hardware)
            order = torch.Generator().manual_seed(_streams(seed)[1])
            training = _Training(predictor, task, inputs, config, base_lr, order)
            training.run(on_step)
            yield training

    best, choice = choose(trainings(), higher_is_better=task.target != "depth")
    maps = None if best.diverged else best.maps("test")
    return {
        "target": task.target,
        "metric": "rmse" if task.target == "depth" else "miou",
        "score": task.score(maps, "test"),
        **task.class_scores(maps, "test"),
        "validation_score": best.validation_score,
        "baseline": task.score(task.baseline(), "test"),
        "n_train": len(task.maps["train"]),
        "n_test": len(task.maps["test"]),
        "n_blocks": len(model.encoder) if config.n_blocks is None else config.n_blocks,
        "embedding_trained": config.n_blocks is None,
        "trained_parameters": sum(p.numel() for p in best.predictor.parameters() if p.requires_grad),
        "feature": "patch tokens",
        "layer": LAYER,
        "head": "batch norm without affine, linear, a patch's pixels from its token",
        "base_lr": choice["base_lr"],
        "at_grid_edge": choice["at_grid_edge"],
        "selected_on": "validation",
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "warmup_epochs": config.warmup_epochs,
        "weight_decay": config.weight_decay,
        "layer_decay": config.layer_decay,
        "augmentation": "none",
        "steps": best.steps,
        "precision": hardware.precision,
        "seed": seed,
        "reason": choice["reason"],
    }


def _predictor(
    model: MaskedAutoencoder, n_outputs: int, config: DenseConfig, seed: int, hardware: Hardware
) -> DensePredictor:
    """A copy of the model's encoder and a fresh head; of one seed all heads are the same."""
    encoder = deepcopy(model)
    encoder.set_attention_kernel(hardware.kernel)
    draw = torch.Generator().manual_seed(_streams(seed)[0])
    bf16 = hardware.precision == "bf16"
    return DensePredictor(encoder, n_outputs, config, draw, bf16=bf16).to(hardware.device)


@torch.no_grad()
def _frozen_tokens(predictor: DensePredictor, images: Mapping[Split, Tensor]) -> dict[Split, Tensor]:
    """The tokens of normalised images."""
    return {
        split: torch.cat([predictor.tokens(batch) for batch in normalised.split(EVALUATION_BATCH)])
        for split, normalised in images.items()
    }


def _normalised(
    run: TrainedModel, data: ImageData, rows: Mapping[Split, Int64[np.ndarray, " _"]], device: torch.device
) -> dict[Split, Tensor]:
    """Images as the model was trained on."""
    return {split: run.normalise(torch.from_numpy(data.images[chosen]).to(device)) for split, chosen in rows.items()}


def _rows(data: ImageData, n_train: int | None, seed: int) -> dict[Split, Int64[np.ndarray, " _"]]:
    """Rows of the splits, those to train on drawn with the seed."""
    for split in SPLITS:
        if not len(data.splits[split]):
            raise UserError(data.name, f"no images in split {split}", "give every split of a probed data set some")
    train = data.splits["train"]
    if n_train is not None and n_train < len(train):
        train = np.sort(np.random.default_rng(_streams(seed)[2]).choice(train, n_train, replace=False))
    return {**data.splits, "train": train}


def _streams(seed: int) -> list[int]:
    """Seeds of head, order and training images, independent."""
    return [int(state) % 2**63 for state in np.random.SeedSequence(seed).generate_state(3, np.uint64)]
