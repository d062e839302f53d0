"""Stage ``jacobian``: how far trained models reach, how their basis adapts to the image, and how both came about.

All models are measured under the same masks, whatever masks they were trained with: mask geometry alone widens reach.
Beside them stand untrained networks, and the best linear predictor under each mask (the conditional mean).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from spatialmae.analysis.basis import ObjectContrast, dispersion, linearisation_error
from spatialmae.analysis.jacobian import reconstruction_jacobian
from spatialmae.analysis.reach import Influence, influence_profile, mean_influence, reach_measures
from spatialmae.analysis.second_order import ConditionalMean, normalised_moments
from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.stages.evaluation import EvaluationSet, View
from spatialmae.stages.training import run_settings
from spatialmae.tables import write_table
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import TrainedRun

STEP = 0.1  # of the change that tests the first-order expansion, in standard deviations of the pixels
SEGMENTATION = "segmentation"  # the target that tells objects apart

Row = dict[str, Any]


@dataclass
class Measured:
    """What is gathered over the masks of a seed.

    Attributes:
        reach: measures of the influence averaged over images, for each mask.
        profile: mean |J| at each distance, for each mask.
        dispersion: of the images' Jacobians, for each mask.
        expansion: error of the first-order expansion, for each mask.
        reversed: its negative control, the same with the Jacobian's inputs in reverse order.
        contrast: of influence within objects against that across borders, over masks and images.
    """

    reach: list[Row] = field(default_factory=list)
    profile: list[pd.DataFrame] = field(default_factory=list)
    dispersion: list[float] = field(default_factory=list)
    expansion: list[float] = field(default_factory=list)
    reversed: list[float] = field(default_factory=list)
    contrast: ObjectContrast = field(default_factory=ObjectContrast)

    def add(self, jacobians: Float[Tensor, "n d_in d_out"], view: View, segmentation: np.ndarray | None) -> None:
        """Take in the Jacobians of all images under one mask."""
        channels = view.geometry.channels
        maps = [Influence.of_jacobian(one.double().numpy(), channels) for one in jacobians]
        together = mean_influence(maps)
        self.reach.append(reach_measures(together, view.geometry))
        distances, mean_abs = influence_profile(together, view.geometry)
        self.profile.append(pd.DataFrame({"distance": distances, "mean_abs": mean_abs}))
        self.dispersion.append(dispersion(jacobians))
        if segmentation is not None:
            for one, labels in zip(maps, segmentation, strict=True):
                self.contrast += ObjectContrast.of(one, view.geometry, labels, view.visible)

    def tables(self, keys: Row) -> dict[str, pd.DataFrame]:
        """Averages over the masks, a row or a profile, by the table they belong to."""
        basis = [{**keys, "dispersion": np.mean(self.dispersion), "object_log_ratio": self.contrast.log_ratio}]
        if self.expansion:
            basis[0]["expansion_error"] = np.mean(self.expansion)
            control = f"{keys['predictor']}, reversed"
            basis.append(keys | {"predictor": control, "expansion_error": np.mean(self.reversed)})
        profile = pd.concat(self.profile).groupby("distance", as_index=False)["mean_abs"].mean()
        return {
            "model_reach": pd.DataFrame([keys | dict(pd.DataFrame(self.reach).mean())]),
            "model_basis": pd.DataFrame(basis),
            "model_profile": pd.DataFrame({**keys, **profile}),
        }


def run(config: Config, name: str) -> None:
    """Write ``model_reach``, ``model_profile``, ``model_basis`` and ``reach_in_training`` of an evaluation.

    Raises:
        UserError: images or a run are missing or damaged.
    """
    evaluated = EvaluationSet(config, name)
    parts: dict[str, list[pd.DataFrame]] = {}
    for tables in [*_of_runs(evaluated), *_of_linear_predictors(evaluated)]:
        for table, rows in tables.items():
            parts.setdefault(table, []).append(rows)
    for table, found in parts.items():
        write_table(Layout.of(config).table(table, name), pd.concat(found))


def _of_runs(evaluated: EvaluationSet) -> Iterator[dict[str, pd.DataFrame]]:
    """Tables of the trained models, of their snapshots, and of initial weights, each once."""
    common, seen = evaluated.settings.snapshot_mask_ratio, set()
    for spec in tqdm(evaluated.specs, desc=f"jacobian {evaluated.name}", unit="run"):
        trained, keys = evaluated.run(spec), run_settings(spec)
        for ratio in evaluated.settings.mask_ratios:
            measured = _measure(evaluated, spec, trained, trained.model, ratio)
            yield measured.tables(keys | {"predictor": "trained", "evaluation_mask_ratio": ratio})
        for epoch in (*spec.train.snapshots, spec.train.epochs):
            model = trained.model if epoch == spec.train.epochs else evaluated.snapshot(spec, epoch)
            rows = _measure(evaluated, spec, trained, model, common).tables(
                keys | {"epoch": epoch, "predictor": "trained", "evaluation_mask_ratio": common}
            )
            yield {"reach_in_training": rows["model_reach"]}
        # Runs of one seed begin with the same weights, whatever their masking.
        initial = trained.record["files"].get("snapshots/epoch0000/model.safetensors")
        if initial is not None and initial not in seen:
            seen.add(initial)
            for ratio in evaluated.settings.mask_ratios:
                measured = _measure(evaluated, spec, trained, evaluated.snapshot(spec, 0), ratio)
                yield measured.tables(keys | {"predictor": "untrained", "evaluation_mask_ratio": ratio})


def _measure(
    evaluated: EvaluationSet, spec: RunSpec, trained: TrainedRun, model: MaskedAutoencoder, mask_ratio: float
) -> Measured:
    """Measure a model of a run, trained or not, under all masks of its seed."""
    rows = evaluated.images(spec.seed)
    images = trained.normalise(torch.from_numpy(evaluated.data.images[rows]))
    measured, change = Measured(), torch.Generator().manual_seed(spec.seed)
    for view in evaluated.views(spec.seed, mask_ratio):
        masks = evaluated.masks(spec.model, mask_ratio, view.noise.expand(len(rows), -1))
        outputs = torch.from_numpy(view.geometry.outputs)
        jacobians = reconstruction_jacobian(model, images, masks, outputs)
        measured.add(jacobians, view, _segmentation(evaluated, rows))
        for errors, basis in ((measured.expansion, jacobians), (measured.reversed, jacobians.flip(1))):
            errors.append(linearisation_error(model, images, masks, basis, outputs, STEP, change))
    return measured


def _of_linear_predictors(evaluated: EvaluationSet) -> Iterator[dict[str, pd.DataFrame]]:
    """Tables of the best linear predictor under each mask, whose Jacobian is the same for every image."""
    data = evaluated.data
    moments = normalised_moments(evaluated.run(evaluated.specs[0]), data.images[data.splits["train"]])
    # Built by hand: with few images its weights are noisy, which is no reason to measure nothing.
    conditional_mean = ConditionalMean(moments.mean, moments.covariance)
    for seed in tqdm(sorted({spec.seed for spec in evaluated.specs}), desc=f"linear {evaluated.name}", unit="seed"):
        rows = evaluated.images(seed)
        for ratio in evaluated.settings.mask_ratios:
            measured = Measured()
            for view in evaluated.views(seed, ratio):
                jacobian = torch.from_numpy(_jacobian(conditional_mean, view))
                measured.add(jacobian.expand(len(rows), -1, -1), view, _segmentation(evaluated, rows))
            yield measured.tables({"seed": seed, "predictor": "linear", "evaluation_mask_ratio": ratio})


def _jacobian(conditional_mean: ConditionalMean, view: View) -> Float[np.ndarray, "d_in d_out"]:
    """Weights of the conditional mean from all inputs, hidden ones 0, to the hidden central pixels."""
    channels = view.geometry.channels
    hidden = np.repeat(~view.visible, channels)
    outputs = (view.geometry.outputs[:, None] * channels + np.arange(channels)).ravel()
    jacobian = np.zeros((len(hidden), len(outputs)))
    jacobian[~hidden] = conditional_mean.predictor(hidden).weights[:, np.searchsorted(np.flatnonzero(hidden), outputs)]
    return jacobian


def _segmentation(evaluated: EvaluationSet, rows: np.ndarray) -> np.ndarray | None:
    """Objects of the images, where the data set knows them."""
    targets = evaluated.data.targets
    return targets[SEGMENTATION][rows] if SEGMENTATION in targets else None
