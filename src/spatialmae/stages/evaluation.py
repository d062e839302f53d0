"""What the analyses of trained models share: which models of which data set, and masks that all of them can take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from spatialmae.config import Config, Evaluation
from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.errors import UserError
from spatialmae.layout import Layout
from spatialmae.model.config import MAEConfig
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.model.masking import Masks
from spatialmae.tables import read_curve
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import RunFolder, TrainedRun, load_run, sha256_of


@dataclass(frozen=True)
class EvaluationSet:
    """The models of one evaluation, and their images."""

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
        """The images: validation images choose what is to be chosen, test images are measured with.

        Raises:
            UserError: they are missing or damaged, or a split has none.
        """
        path = self._data_path
        data = ImageData.load(path)
        for split in SPLITS:
            if not len(data.splits[split]):
                problem = f"the split {split} has no images, and the evaluation {self.name} needs some"
                raise UserError(path, problem, "give every split of the data set a share, or remove the evaluation")
        return data

    @cached_property
    def data_sha256(self) -> str:
        """SHA-256 of the images' file."""
        return sha256_of(self._data_path)

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
        return MaskedAutoencoder.from_pretrained(self._folder(spec).snapshot(epoch)).eval()

    def validation_losses(self, spec: RunSpec) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Epochs after which a run was validated, and its losses.

        Raises:
            UserError: their file is missing or damaged.
        """
        table = read_curve(self._folder(spec).path / "validation.csv", ["epoch", "loss"])
        return table["epoch"].to_numpy(np.float64), table["loss"].to_numpy(np.float64)

    def test_images(self, seed: int) -> Int64[np.ndarray, " n"]:
        """Rows of the test images that a seed's models are measured with: its own, as long as there are enough.

        So intervals over seeds hold what the choice of images does. Seeds take turns where all images do not suffice.
        """
        shuffled = np.random.default_rng(self.config.first_seed).permutation(self.data.splits["test"])
        n, place = self.settings.n_test, seed - self.config.first_seed
        n_parts = max(1, len(shuffled) // n)
        return np.sort(shuffled[place % n_parts * n :][:n])

    @property
    def mask_unit(self) -> int:
        """Side in px of what a mask hides together, the same for all models."""
        return self.settings.mask_unit or self.specs[0].model.patch_size

    @property
    def n_mask_units(self) -> int:
        """How many of them an image has."""
        height, width = self.data.image_shape[:2]
        return height * width // self.mask_unit**2

    def masks(self, model: MAEConfig, mask_ratio: float, noise: Float[Tensor, "N units"]) -> Masks:
        """Masks for a model: the same pixels, whatever its patch size and the masking that it was trained with."""
        # A loss's margin may not fit into these units, and has no part in masks.
        geometry = replace(model, loss_margin=0, loss_margin_control=False)
        masked = replace(geometry, mask_ratio=mask_ratio, mask_unit=self.mask_unit, masking="fixed")
        return Masks.from_noise(masked, noise)

    @property
    def _data_path(self) -> Path:
        return Layout.of(self.config).data(self.specs[0].dataset)

    def _folder(self, spec: RunSpec) -> RunFolder:
        return RunFolder(Layout.of(self.config).runs / spec.name)


def by_seed(specs: Iterable[RunSpec]) -> list[tuple[int, list[RunSpec]]]:
    """Runs of each seed, in the order of seeds, so that what the models of a seed share is made once."""
    ordered = sorted(specs, key=attrgetter("seed"))
    return [(seed, list(own)) for seed, own in groupby(ordered, attrgetter("seed"))]
