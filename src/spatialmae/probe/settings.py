"""How encoders are probed and fine-tuned; imports no torch, since every configuration is read with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from spatialmae.setting import check_choice, check_count, check_known, check_number, setting, whole_numbers_to_float
from spatialmae.train.settings import Augmentation, Precision

Feature = Literal["mean", "cls"]


class HeadConfig:
    """What all settings of a head's training have in common: these fields, their checks, and how they are written."""

    n_blocks: int | None
    epochs: int
    batch_size: int
    base_lr: tuple[float, ...]
    warmup_epochs: float
    weight_decay: float
    layer_decay: float
    precision: Precision

    def _check_training(self, least_batch: int) -> None:
        """Check the common fields and put them into their normal form.

        Raises:
            ValueError: naming the field and a hint.
        """
        if self.n_blocks is not None:
            check_count("n_blocks", self.n_blocks, least=0)
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size, least=least_batch)
        if not isinstance(self.base_lr, tuple) or not self.base_lr:
            raise ValueError(f"base_lr: {self.base_lr!r} is no list of learning rates; give one")
        for lr in self.base_lr:
            check_number("base_lr", lr)
        object.__setattr__(self, "base_lr", tuple(sorted({float(lr) for lr in self.base_lr})))
        check_share("layer_decay", self.layer_decay)
        for name in ("warmup_epochs", "weight_decay"):
            check_number(name, getattr(self, name), positive=False)
        check_choice("precision", self.precision, get_args(Precision))
        whole_numbers_to_float(self)
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: {self.warmup_epochs} is not less than epochs={self.epochs}; lower it")

    def n_steps(self, n_train: int) -> int:
        """Steps of all learning rates together."""
        return len(self.base_lr) * self.epochs * (n_train // self.batch_size)

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-able."""
        # The subclasses are dataclasses.
        return asdict(self) | {"base_lr": list(self.base_lr)}  # type: ignore[call-overload]

    @classmethod
    def _read(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Arguments from JSON-able fields.

        Raises:
            ValueError: a field is unknown.
        """
        check_known(cls, values)
        rates = values.get("base_lr", cls.base_lr)
        return values | {"base_lr": tuple(rates) if isinstance(rates, list) else rates}


def check_share(name: str, value: float) -> None:
    """Refuse what is not above 0 and at most 1.

    Raises:
        ValueError: naming the field.
    """
    check_number(name, value)
    if value > 1:
        raise ValueError(f"{name}: {value} is above 1; lower it")


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(HeadConfig):
    """How an encoder is fine-tuned to a label.

    Raises:
        ValueError: a value is impossible, or two do not go together; the message names the field and a hint.
    """

    n_blocks: int | None = setting(
        None,
        "last encoder blocks that are trained, with the norm after them; 0: the head alone; null: the whole encoder, "
        "patch embedding and [CLS] too",
    )
    labels_per_class: int | None = setting(
        None, "labelled training images of each class, drawn with the seed; null: all there are"
    )
    epochs: int = setting(20, "passes over the labelled training images")
    batch_size: int = setting(128, "images a step; an epoch drops what does not fill a batch")
    base_lr: tuple[float, ...] = setting(
        (1e-3, 4e-3, 1.6e-2),
        "peak learning rates for a batch of 256, each in proportion to the batch; validation accuracy chooses",
    )
    warmup_epochs: float = setting(1.0, "epochs of linear warm-up; half a cosine to 0 follows")
    weight_decay: float = setting(0.05, "AdamW's decay of matrices; not of biases, norms and [CLS]")
    layer_decay: float = setting(0.75, "factor on the learning rate of each layer below the head, in (0, 1]")
    augmentation: Augmentation = setting("flip", "mirror at random (`flip`), also crop and resize (`crop`), or `none`")
    crop_scale: float = setting(0.2, "smallest share of the image's area that `crop` keeps, in (0, 1]")
    feature: Feature = setting("mean", "what the head sees: the mean of the patch tokens, or the [CLS] token (`cls`)")
    precision: Precision = setting("auto", "`bf16` mixed precision, `fp32`, or bf16 where the hardware has it (`auto`)")

    def __post_init__(self) -> None:
        self._check_training(least_batch=2)  # one image has no variance to normalise by
        if self.labels_per_class is not None:
            check_count("labels_per_class", self.labels_per_class)
        check_share("crop_scale", self.crop_scale)
        check_choice("augmentation", self.augmentation, get_args(Augmentation))
        check_choice("feature", self.feature, get_args(Feature))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FineTuneConfig:
        """From JSON-able fields.

        Raises:
            ValueError: a field is unknown, or a value is impossible.
        """
        return cls(**cls._read(values))
