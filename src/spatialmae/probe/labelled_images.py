"""Images of the three splits with the labels of one target; torch and numpy alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spatialmae.artifacts import read_tensors
from spatialmae.errors import UserError
from spatialmae.shapes import Int64, UInt8
from spatialmae.train.batches import TrainingImages


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

    def few(self, per_class: int | None, draw: torch.Generator) -> LabelledImages:
        """With at most so many training images of each class, drawn on the CPU; None: all of them.

        Channels keep the normalisation of all training images, which the encoder was trained with.
        """
        if per_class is None:
            return self
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
