"""What the models of an evaluation are measured with: images, and masks that all of them can take."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from spatialmae.data.dataset import ImageData
from spatialmae.evaluation.measure import MeasuredModel, Row
from spatialmae.model.config import MAEConfig
from spatialmae.model.masking import Masks

if TYPE_CHECKING:
    from spatialmae.config import Evaluation

T = TypeVar("T")
Result = tuple[Any, dict[str, np.ndarray]]  # JSON-able values, and arrays
Cached = Callable[[str, MeasuredModel, Row, str, Callable[[], Result]], Result]


@dataclass
class Shared:
    """The images of an evaluation, and what its models share.

    Attributes:
        data: the images: validation images choose what is to be chosen, test images are measured with.
        data_path: their file.
        first_seed: of the configuration.
        downloads: folder of downloaded archives.
        cached: a result of other code than the measure's, made now or cached before: by the module whose code it is,
            model, settings, label, and how to make it.
        progress: is told each share of a part that is done.
    """

    data: ImageData
    data_path: Path
    first_seed: int
    downloads: Path
    cached: Cached
    progress: Callable[[float], Any] = lambda share: None
    _made: dict[str, tuple[Hashable, Any]] = field(default_factory=dict)

    def once(self, what: str, of: Hashable, make: Callable[[], T]) -> T:
        """What several models are measured with, made for the first of them.

        Args:
            what: it is.
            of: what decides it, as the seed; what was made of another is given up.
            make: makes it.
        """
        if what not in self._made or self._made[what][0] != of:
            self._made.pop(what, None)  # before the other is made, for it may be large
            self._made[what] = (of, make())
        return self._made[what][1]

    def test_images(self, n: int, seed: int) -> Int64[np.ndarray, " n"]:
        """Rows of at most ``n`` test images for a seed's models: its own, as long as there are enough.

        So intervals over seeds hold what the choice of images does. Seeds take turns where all images do not suffice.
        """
        shuffled = np.random.default_rng(self.first_seed).permutation(self.data.splits["test"])
        place, n_parts = seed - self.first_seed, max(1, len(shuffled) // n)
        return np.sort(shuffled[place % n_parts * n :][:n])


@dataclass(frozen=True)
class Evaluated:
    """The models of an evaluation, for measures to say what of them they measure.

    Attributes:
        name: of the evaluation.
        settings: its section of the configuration.
        runs: each once, though trainings may share them.
        shared: what they are measured with.
    """

    name: str
    settings: Evaluation
    runs: list[MeasuredModel]
    shared: Shared

    @property
    def mask_unit(self) -> int:
        """Side in px of what a mask hides together, the same for all models."""
        spec = self.runs[0].spec
        assert spec is not None
        return self.settings.mask_unit or spec.model.patch_size


def common_masks(model: MAEConfig, mask_ratio: float, mask_unit: int, noise: Float[Tensor, "N units"]) -> Masks:
    """Masks for a model: the same pixels, whatever its patch size and the masking that it was trained with."""
    # A loss's margin may not fit into these units, and has no part in masks.
    geometry = replace(model, loss_margin=0, loss_margin_control=False)
    return Masks.from_noise(replace(geometry, mask_ratio=mask_ratio, mask_unit=mask_unit, masking="fixed"), noise)
