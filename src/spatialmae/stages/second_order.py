"""Stage ``second_order``: trained models against the best linear reconstruction, on test and on surrogate images.

The linear side takes minutes for each masking ratio on CIFAR-10, so the rows of each model are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float32
from tqdm import tqdm

from spatialmae.analysis.second_order import (
    LinearBound,
    common_masks,
    comparison_rows,
    gaussian_images,
    normalised_images,
    normalised_moments,
)
from spatialmae.config import Config
from spatialmae.data.dataset import Split
from spatialmae.fingerprint import fingerprint
from spatialmae.layout import Layout
from spatialmae.linear.moments import Moments
from spatialmae.model.config import MAEConfig
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.stages.kept import KeptRows, Row
from spatialmae.tables import write_table
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import TrainedRun

N_MASKS = 40
N_SURROGATE = 10_000  # images, drawn afresh: no model was trained on them; dealt over the masks
SEED = 0  # of masks and surrogate images, which all models share

# Modules that a model's rows depend on beside those of the trained weights.
NUMERIC = ("linear/moments.py", "analysis/second_order.py", "stages/second_order.py")


@dataclass(frozen=True)
class LinearSide:
    """What models are compared with: the conditional mean under the masks of each geometry and ratio."""

    evaluated: EvaluationSet
    bounds: dict[MAEConfig, LinearBound] = field(default_factory=dict)

    def bound(self, model: MAEConfig) -> LinearBound:
        """That of a model, made once for all that share geometry and masking ratio."""
        masking = replace(model, masking="fixed", loss_on="hidden", noise_std=0.0)
        if masking not in self.bounds:
            masks, validation = common_masks(masking, N_MASKS, SEED), self._normalised("validation")
            self.bounds[masking] = LinearBound.of(masking, masks, self._moments, validation, self._images)
        return self.bounds[masking]

    @cached_property
    def _moments(self) -> Moments:
        data = self.evaluated.data
        return normalised_moments(self._run, data.images[data.splits["train"]])

    @cached_property
    def _images(self) -> dict[str, Float32[np.ndarray, "_ h w c"]]:
        drawn = gaussian_images(self._moments, N_SURROGATE, np.random.default_rng(SEED))
        return {"test": self._normalised("test"), "surrogate": drawn.reshape(-1, *self.evaluated.data.image_shape)}

    def _normalised(self, split: Split) -> Float32[np.ndarray, "n h w c"]:
        data = self.evaluated.data
        return normalised_images(self._run, data.images[data.splits[split]])

    @cached_property
    def _run(self) -> TrainedRun:
        return self.evaluated.run(self.evaluated.specs[0])  # models of one data set see its images alike


def run(config: Config, name: str) -> None:
    """Write ``tables/second_order/<name>.csv``: each model at its own masking ratio, on images of both kinds.

    Raises:
        UserError: images or a run are missing or damaged.
    """
    evaluated = EvaluationSet(config, name)
    write_table(Layout.of(config).table("second_order", name), pd.DataFrame(list(_rows(evaluated))))


def _rows(evaluated: EvaluationSet) -> Iterator[Row]:
    linear = LinearSide(evaluated)
    for spec in tqdm(evaluated.specs, desc=f"second order {evaluated.name}", unit="run"):
        yield from (spec.settings() | row for row in _rows_of_model(linear, spec))


def _rows_of_model(linear: LinearSide, spec: RunSpec) -> list[Row]:
    """A model's rows, made now or kept before."""
    evaluated = linear.evaluated
    trained = evaluated.run(spec)
    key = {
        "weights_sha256": trained.record["weights_sha256"],
        "model": spec.model.to_dict(),
        "data_sha256": evaluated.data_sha256,
        "code_digest": fingerprint("spatialmae.stages.second_order"),
    }
    kept = KeptRows(Layout.of(evaluated.config).rows("second_order"), spec.name, key)
    return kept.or_make(lambda: comparison_rows(trained, linear.bound(spec.model)))
