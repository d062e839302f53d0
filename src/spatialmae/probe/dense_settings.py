"""How dense heads are trained; imports no torch, since every configuration is read with it.

Apart from the settings of fine-tuning to labels, whose kept rows a change of their module would discard.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

from spatialmae.setting import check_choice, check_count, check_known, check_number, setting, whole_numbers_to_float
from spatialmae.train.settings import Precision


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """How a head that predicts a map is trained, with or without the encoder.

    Raises:
        ValueError: a value is impossible, or two do not go together; the message names the field and the mend.
    """

    n_blocks: int | None = setting(
        0,
        "last encoder blocks that are trained, with the norm after them; 0: the head alone, on a frozen encoder; null: "
        "the whole encoder, patch embedding and [CLS] too",
    )
    n_train: int | None = setting(2000, "training images, drawn with the seed; null: all there are")
    epochs: int = setting(20, "passes over the training images")
    batch_size: int = setting(64, "images a step; an epoch drops what does not fill a batch")
    base_lr: tuple[float, ...] = setting(
        (0.064, 0.256, 1.024),
        "peak learning rates for a batch of 256, each in proportion to the batch; the validation score chooses; the "
        "defaults suit a head alone, a quarter of them a trained encoder",
    )
    warmup_epochs: float = setting(1.0, "epochs of linear warm-up; half a cosine to 0 follows")
    weight_decay: float = setting(0.05, "AdamW's decay of matrices; not of biases, norms and [CLS]")
    layer_decay: float = setting(0.75, "factor on the learning rate of each layer below the head, in (0, 1]")
    precision: Precision = setting("auto", "`bf16` mixed precision, `fp32`, or bf16 where the hardware has it (`auto`)")

    def __post_init__(self) -> None:
        if self.n_blocks is not None:
            check_count("n_blocks", self.n_blocks, least=0)
        if self.n_train is not None:
            check_count("n_train", self.n_train)
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        if not isinstance(self.base_lr, tuple) or not self.base_lr:
            raise ValueError(f"base_lr: {self.base_lr!r} is no list of learning rates; give one")
        for lr in self.base_lr:
            check_number("base_lr", lr)
        object.__setattr__(self, "base_lr", tuple(sorted({float(lr) for lr in self.base_lr})))
        check_number("layer_decay", self.layer_decay)
        if self.layer_decay > 1:
            raise ValueError(f"layer_decay: {self.layer_decay} is above 1; lower it")
        for name in ("warmup_epochs", "weight_decay"):
            check_number(name, getattr(self, name), positive=False)
        check_choice("precision", self.precision, get_args(Precision))
        whole_numbers_to_float(self)
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: {self.warmup_epochs} is not less than epochs={self.epochs}; lower it")

    def n_steps(self, n_train: int) -> int:
        """Steps of all learning rates together, for one target."""
        return len(self.base_lr) * self.epochs * (n_train // self.batch_size)

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-able."""
        return asdict(self) | {"base_lr": list(self.base_lr)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DenseConfig:
        """From JSON-able fields.

        Raises:
            ValueError: a field is unknown, or a value is impossible.
        """
        check_known(cls, values)
        rates = values.get("base_lr", cls.base_lr)
        return cls(**values | {"base_lr": tuple(rates) if isinstance(rates, list) else rates})
