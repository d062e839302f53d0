"""What the analyses of trained models share: which models, which images of a seed, and which masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from spatialmae.analysis.reach import ReachGeometry, central_pixels
from spatialmae.config import Config, Evaluation
from spatialmae.data.dataset import ImageData
from spatialmae.geometry import patch_labels
from spatialmae.layout import Layout
from spatialmae.model.checkpoint import load_pretrained
from spatialmae.model.config import MAEConfig
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.model.masking import Masks
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import RunFolder, TrainedRun, load_run


@dataclass(frozen=True)
class View:
    """What is looked at under one mask: its hidden pixels in the image's centre.

    Attributes:
        noise: from which a model's geometry makes the mask, see :meth:`EvaluationSet.masks`.
        mask_ratio: of the mask.
        visible: the pixels that are.
        geometry: of the hidden central pixels.
    """

    noise: Float[Tensor, "1 units"]
    mask_ratio: float
    visible: Bool[np.ndarray, " pixels"]
    geometry: ReachGeometry


@dataclass(frozen=True)
class EvaluationSet:
    """The models of one evaluation, and the images and masks that all models of a seed are evaluated with."""

    config: Config
    name: str

    @property
    def settings(self) -> Evaluation:
        """Its section of the configuration."""
        return self.config.evaluations[self.name]

    @property
    def specs(self) -> list[RunSpec]:
        """The runs, each once, though stages may share them."""
        return self.config.evaluation_runs(self.name)

    @cached_property
    def data(self) -> ImageData:
        """The images.

        Raises:
            UserError: they are missing or damaged.
        """
        return ImageData.load(Layout.of(self.config).data(self.specs[0].dataset))

    def run(self, spec: RunSpec) -> TrainedRun:
        """A trained run.

        Raises:
            UserError: it is missing or damaged.
        """
        return load_run(self._folder(spec).path)

    def snapshot(self, spec: RunSpec, epoch: int) -> MaskedAutoencoder:
        """The model of a run as it was after an epoch at which its weights were kept, in evaluation mode.

        Raises:
            UserError: it is missing or damaged.
        """
        return load_pretrained(self._folder(spec).snapshot(epoch)).eval()

    def _folder(self, spec: RunSpec) -> RunFolder:
        return RunFolder(Layout.of(self.config).runs / spec.name)

    def images(self, seed: int) -> Int64[np.ndarray, " n"]:
        """Rows of the test images that the models of a seed are looked at with."""
        rows = self.data.splits["test"]
        n_images = min(self.settings.n_images, len(rows))
        return np.sort(np.random.default_rng(seed).choice(rows, n_images, replace=False))

    def views(self, seed: int, mask_ratio: float) -> list[View]:
        """The masks of a seed. One of a higher ratio hides what one of a lower hides, and more."""
        height, width = self.data.image_shape[:2]
        labels = patch_labels(height * width, self.mask_unit, (height, width))
        geometry = ReachGeometry.of(self.data.image_shape, self.mask_unit)
        views = []
        for noise in self._noise(seed, labels):
            masks = self.masks(self.specs[0].model, mask_ratio, noise)
            patches = patch_labels(height * width, self.specs[0].model.patch_size, (height, width))
            visible = masks.mask[0].numpy()[patches] == 0
            views.append(View(noise, mask_ratio, visible, geometry.of_outputs(~visible)))
        return views

    def _noise(self, seed: int, labels: Int64[np.ndarray, " pixels"]) -> list[Float[Tensor, "1 units"]]:
        # The unit that is hidden first lies in the centre, so that every mask hides pixels that are looked at.
        central = np.unique(labels[central_pixels(self.data.image_shape)])
        draw = torch.Generator().manual_seed(seed)
        found: list[Tensor] = []
        while len(found) < self.settings.n_masks:
            noise = torch.rand(1, int(labels.max()) + 1, generator=draw)
            if int(noise.argmax()) in central:
                found.append(noise)
        return found

    @property
    def mask_unit(self) -> int:
        """Side in px of what a mask hides together, the same for all models."""
        return self.settings.mask_unit or self.specs[0].model.patch_size

    def masks(self, model: MAEConfig, mask_ratio: float, noise: Float[Tensor, "N units"]) -> Masks:
        """Masks for a model: the same pixels, whatever its patch size and the masking that it was trained with."""
        return Masks.from_noise(replace(model, mask_ratio=mask_ratio, mask_unit=self.mask_unit, masking="fixed"), noise)
