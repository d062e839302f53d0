"""How dense heads are trained.

Apart from the settings of fine-tuning to labels, whose kept rows a change of their module would discard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spatialmae.probe.settings import HeadConfig
from spatialmae.setting import check_count, setting
from spatialmae.train.settings import Precision


@dataclass(frozen=True, kw_only=True)
class DenseConfig(HeadConfig):
    """How a head that predicts a map is trained, with or without the encoder.

    Raises:
        ValueError: a value is impossible, or two do not go together; the message names the field and a hint.
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
        self._check_training(least_batch=1)
        if self.n_train is not None:
            check_count("n_train", self.n_train)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DenseConfig:
        """From JSON-able fields.

        Raises:
            ValueError: a field is unknown, or a value is impossible.
        """
        return cls(**cls._read(values))
