"""How a model is trained: everything that, with the seed, decides its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from spatialmae.setting import check_choice, check_count, check_known, check_number, setting, whole_numbers_to_float

Augmentation = Literal["none", "flip", "crop"]
Surrogate = Literal["none", "gaussian"]
Precision = Literal["auto", "bf16", "fp32"]
Schedule = Literal["cosine", "wsd", "constant"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, optimizer, augmentation and precision of a training run.

    Raises:
        ValueError: a value is impossible, or two do not go together; the message names the field and a hint.
    """

    epochs: int = setting(100, "passes over the training images")
    batch_size: int = setting(256, "images a step; an epoch drops what does not fill a batch")
    base_lr: float = setting(1.5e-4, "peak learning rate for a batch of 256; it grows in proportion to the batch")
    min_lr: float = setting(0.0, "learning rate that the cosine or the cool-down ends at")
    schedule: Schedule = setting(
        "cosine",
        "`cosine` over the whole run; `wsd` (warm-up, stable, decay): a constant rate, then a cool-down; `constant`: "
        "the trunk from which such runs of several lengths branch off",
    )
    cooldown: float = setting(0.2, "`wsd`: share of the epochs that cool down, in whole epochs, at least one")
    warmup_epochs: float = setting(5.0, "epochs of linear warm-up")
    weight_decay: float = setting(0.05, "AdamW's decay of matrices; not of biases, norms, [CLS] and mask token")
    beta1: float = setting(0.9, "AdamW's decay of the mean of gradients, in [0, 1)")
    beta2: float = setting(0.95, "AdamW's decay of the mean of squared gradients, in [0, 1)")
    clip_grad: float | None = setting(None, "largest norm of the gradient; null: no clipping")
    augmentation: Augmentation = setting("flip", "mirror at random (`flip`), also crop and resize (`crop`), or `none`")
    crop_scale: float = setting(0.2, "smallest share of the image's area that `crop` keeps, in (0, 1]")
    surrogate: Surrogate = setting(
        "none",
        "`gaussian`: train on fresh Gaussian images with the training images' mean and second moments (claim A11)",
    )
    precision: Precision = setting("auto", "`bf16` mixed precision, `fp32`, or bf16 where the hardware has it (`auto`)")
    snapshots: tuple[int, ...] = setting((), "epochs after which the weights are kept as well; 0: before training")
    snapshot_steps: tuple[int, ...] = setting((), "steps after which the weights are kept as well")

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        for name in ("base_lr", "crop_scale", "cooldown"):
            check_number(name, getattr(self, name))
        for name in ("min_lr", "warmup_epochs", "weight_decay", "beta1", "beta2"):
            check_number(name, getattr(self, name), positive=False)
        if self.clip_grad is not None:
            check_number("clip_grad", self.clip_grad)
        check_choice("augmentation", self.augmentation, get_args(Augmentation))
        check_choice("surrogate", self.surrogate, get_args(Surrogate))
        check_choice("precision", self.precision, get_args(Precision))
        check_choice("schedule", self.schedule, get_args(Schedule))
        whole_numbers_to_float(self)
        if self.surrogate != "none" and self.augmentation != "none":
            raise ValueError(f"augmentation: {self.augmentation} would change the surrogate's moments; set it to none")
        if self.crop_scale > 1:
            raise ValueError(f"crop_scale: {self.crop_scale} is more than the whole image; lower it to 1 or less")
        for name in ("beta1", "beta2"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not below 1; lower it")
        if self.cooldown > 1:
            raise ValueError(f"cooldown: {self.cooldown} is more than the whole run; lower it to 1 or less")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: {self.warmup_epochs} is not less than epochs={self.epochs}; lower it")
        if self.warmup_epochs > self.stable_until:
            problem = f"{self.warmup_epochs} epochs run into the cool-down, which starts after {self.stable_until}"
            raise ValueError(f"warmup_epochs: {problem}; lower it or cooldown")
        if self.min_lr > self.peak_lr:
            raise ValueError(f"min_lr: {self.min_lr} is above the peak learning rate {self.peak_lr:g}; lower it")
        for name, unit in (("snapshots", "epoch"), ("snapshot_steps", "step")):
            values = getattr(self, name)
            if not isinstance(values, tuple):
                raise ValueError(f"{name}: {values!r} is no list of {unit}s; give one")
            for value in values:
                check_count(name, value, least=0)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: a {unit} occurs twice; remove one")
        if self.snapshots and max(self.snapshots) > self.epochs:
            raise ValueError(f"snapshots: {max(self.snapshots)} is after the last of {self.epochs} epochs; lower it")

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of the warm-up: base_lr × batch_size / 256 (Goyal et al., 2017)."""
        return self.base_lr * self.batch_size / 256

    @property
    def cooldown_epochs(self) -> int:
        """Epochs at the end in which the rate of ``wsd`` falls."""
        return max(1, round(self.cooldown * self.epochs)) if self.schedule == "wsd" else 0

    @property
    def stable_until(self) -> int:
        """Epochs that a run shares with longer ones; all of them, but for a cool-down."""
        return self.epochs - self.cooldown_epochs

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-able."""
        return asdict(self) | {name: list(getattr(self, name)) for name in ("snapshots", "snapshot_steps")}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """From JSON-able fields.

        Raises:
            ValueError: a field is unknown, or a value is impossible.
        """
        check_known(cls, values)
        lists = {name: values.get(name, ()) for name in ("snapshots", "snapshot_steps")}
        return cls(**values | {name: tuple(own) if isinstance(own, list) else own for name, own in lists.items()})
