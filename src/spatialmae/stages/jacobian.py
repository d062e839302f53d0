"""Stage ``jacobian``: how far trained models reach, how their basis adapts to the image, and how both came about.

All models are measured under the same masks, whatever masks they were trained with: mask geometry alone widens reach.
Beside them stand untrained networks, and the best linear predictor under each mask: the conditional mean, with a ridge
chosen on validation images, since the noise of its weights, too, is influence from afar.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from spatialmae.analysis.basis import ObjectContrast, dispersion, linearisation_error
from spatialmae.analysis.jacobian import reconstruction_jacobian, singular_spectrum
from spatialmae.analysis.reach import Influence, influence_profile, mean_influence, reach_measures
from spatialmae.analysis.second_order import ConditionalMean, choose_ridge, normalised_images, normalised_moments
from spatialmae.artifacts import write_tensors
from spatialmae.config import Config
from spatialmae.fingerprint import fingerprint
from spatialmae.geometry import pixel_coordinates
from spatialmae.layout import Layout
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.stages.kept import KeptArrays
from spatialmae.stages.views import View, ViewedModels
from spatialmae.tables import write_table
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import TrainedRun

STEP = 0.1  # of the change that tests the first-order expansion, in standard deviations of the pixels
SEGMENTATION = "segmentation"  # the target that tells objects apart
N_PICTURED = 4  # images whose bases are kept as pictures
N_DIRECTIONS = 4  # leading singular directions of each

# Modules that a measured network depends on beside those of the trained weights.
NUMERIC = (
    *("geometry.py", "analysis/jacobian.py", "analysis/basis.py", "analysis/reach.py"),
    *("stages/evaluation.py", "stages/views.py", "stages/jacobian.py"),
)

Row = dict[str, Any]
Means = dict[str, np.ndarray]


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

    def means(self) -> Means:
        """Averages over the masks: numbers, and the profile's columns."""
        profile = pd.concat(self.profile).groupby("distance", as_index=False)["mean_abs"].mean()
        numbers = {f"reach/{name}": mean for name, mean in pd.DataFrame(self.reach).mean().items()}
        numbers |= {"basis/dispersion": np.mean(self.dispersion), "basis/object_log_ratio": self.contrast.log_ratio}
        if self.expansion:
            numbers |= {"basis/expansion_error": np.mean(self.expansion), "reversed": np.mean(self.reversed)}
        arrays = {name: np.float64(number).reshape(1) for name, number in numbers.items()}
        return arrays | {f"profile/{name}": profile[name].to_numpy() for name in profile}


def tables_of(means: Means, keys: Row) -> dict[str, pd.DataFrame]:
    """What :meth:`Measured.means` gives, by the table it belongs to."""

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): values for name, values in means.items() if name.startswith(prefix)}

    basis = [pd.DataFrame({**keys, **part("basis/")})]
    if "reversed" in means:
        control = keys | {"predictor": f"{keys['predictor']}, reversed"}
        basis.append(pd.DataFrame({**control, "expansion_error": means["reversed"]}))
    return {
        "model_reach": pd.DataFrame({**keys, **part("reach/")}),
        "model_basis": pd.concat(basis),
        "model_profile": pd.DataFrame({**keys, **part("profile/")}),
    }


def run(config: Config, name: str) -> None:
    """Write ``model_reach``, ``model_profile``, ``model_basis``, ``reach_in_training`` and pictures of an evaluation.

    Raises:
        UserError: images or a run are missing or damaged.
    """
    evaluated, layout = ViewedModels(config, name), Layout.of(config)
    linear = _linear_predictors(evaluated)
    parts: dict[str, list[pd.DataFrame]] = {}
    for tables in [*_of_runs(evaluated), *_of_linear_predictors(evaluated, linear)]:
        for table, rows in tables.items():
            parts.setdefault(table, []).append(rows)
    for table, found in parts.items():
        write_table(layout.table(table, name), pd.concat(found))
    spec = _pictured_run(evaluated)
    about = {"run": spec.name, "mask_ratio": spec.model.mask_ratio}
    about["evaluation_mask_ratio"] = evaluated.settings.mask_ratio
    write_tensors(layout.pictures("jacobian", name), _pictures(evaluated, spec, linear), about)


@dataclass(frozen=True)
class Network:
    """A network of a run: as it was after an epoch, or at the end (None)."""

    evaluated: ViewedModels
    spec: RunSpec
    trained: TrainedRun
    epoch: int | None

    def measured(self, mask_ratio: float) -> Means:
        """Its measures under masks of a ratio. They take minutes on CIFAR-10, so that they are kept."""
        folder = Layout.of(self.evaluated.config).rows("jacobian")
        at = "" if self.epoch is None else f"-epoch{self.epoch}"
        kept = KeptArrays(folder, f"{self.spec.name}{at}-at{mask_ratio:g}", self._key(mask_ratio))
        return kept.or_make(lambda: _measure(self, mask_ratio).means())

    def load(self) -> MaskedAutoencoder:
        """The model, in evaluation mode."""
        return self.trained.model if self.epoch is None else self.evaluated.snapshot(self.spec, self.epoch)

    def _key(self, mask_ratio: float) -> Row:
        record, settings = self.trained.record, self.evaluated.settings
        snapshot = f"snapshots/epoch{self.epoch or 0:04d}/model.safetensors"
        return {
            "weights_sha256": record["weights_sha256"] if self.epoch is None else record["files"][snapshot],
            "model": self.spec.model.to_dict(),
            "seed": self.spec.seed,
            "data_sha256": self.evaluated.data_sha256,
            "mask_ratio": mask_ratio,
            "mask_unit": self.evaluated.mask_unit,
            "n_images": settings.n_images,
            "n_masks": settings.n_masks,
            "code_digest": fingerprint("spatialmae.stages.jacobian"),
        }


def _of_runs(evaluated: ViewedModels) -> Iterator[dict[str, pd.DataFrame]]:
    """Tables of the trained models, of their snapshots, and of initial weights, each measured once."""
    ratios, common = evaluated.settings.mask_ratios, evaluated.settings.mask_ratio
    initial: dict[tuple, Network] = {}
    for spec in tqdm(evaluated.specs, desc=f"jacobian {evaluated.name}", unit="run"):
        trained, keys = evaluated.run(spec), spec.settings()
        networks = {epoch: Network(evaluated, spec, trained, epoch) for epoch in spec.train.snapshots}
        networks[spec.train.epochs] = at_end = Network(evaluated, spec, trained, None)
        for ratio in ratios:
            known = keys | {"predictor": "trained", "evaluation_mask_ratio": ratio}
            yield tables_of(at_end.measured(ratio), known)
        start = _initial_network(spec, trained)
        if start is not None:
            if start not in initial:
                initial[start] = networks[0]
                for ratio in ratios:
                    known = keys | {"predictor": "untrained", "evaluation_mask_ratio": ratio}
                    yield tables_of(networks[0].measured(ratio), known)
            networks[0] = initial[start]
        for epoch, network in networks.items():
            known = keys | {"epoch": epoch, "predictor": "trained", "evaluation_mask_ratio": common}
            yield {"reach_in_training": tables_of(network.measured(common), known)["model_reach"]}


def _initial_network(spec: RunSpec, trained: TrainedRun) -> tuple | None:
    """What runs share that begin as the same network, those of one seed, whatever their masking; None: not kept."""
    weights = trained.record["files"].get("snapshots/epoch0000/model.safetensors")
    # Beside the weights, the settings of the network that they do not show.
    return weights and (weights, spec.model.encoder_heads, spec.model.decoder_heads, spec.model.layer_norm_eps)


def _measure(network: Network, mask_ratio: float) -> Measured:
    """Measure a network under all masks of its seed."""
    evaluated, spec, model = network.evaluated, network.spec, network.load()
    rows = evaluated.images(spec.seed)
    images = network.trained.normalise(torch.from_numpy(evaluated.data.images[rows]))
    measured, change = Measured(), torch.Generator().manual_seed(spec.seed)
    for view in evaluated.views(spec.seed, mask_ratio):
        masks = evaluated.masks(spec.model, mask_ratio, view.noise.expand(len(rows), -1))
        outputs = torch.from_numpy(view.geometry.outputs)
        jacobians = reconstruction_jacobian(model, images, masks, outputs)
        measured.add(jacobians, view, _segmentation(evaluated, rows))
        for errors, basis in ((measured.expansion, jacobians), (measured.reversed, jacobians.flip(1))):
            errors.append(linearisation_error(model, images, masks, basis, outputs, STEP, change))
    return measured


def _linear_predictors(evaluated: ViewedModels) -> dict[float, ConditionalMean]:
    """The conditional mean for masks of each ratio, its ridge chosen on validation images under the first seed's."""
    first, data = evaluated.run(evaluated.specs[0]), evaluated.data
    moments = normalised_moments(first, data.images[data.splits["train"]])
    # Built by hand: few images make its weights noisy, which is no reason to measure nothing.
    plain = ConditionalMean(moments.mean, moments.covariance)
    validation = normalised_images(first, data.images[data.splits["validation"]])
    rows = validation.reshape(len(validation), -1)
    found = {}
    for ratio in dict.fromkeys((*evaluated.settings.mask_ratios, evaluated.settings.mask_ratio)):
        views = evaluated.views(evaluated.config.first_seed, ratio)
        hidden = np.stack([_hidden_features(view) for view in views])
        found[ratio] = replace(plain, ridge=choose_ridge(plain, rows, hidden, len(rows)))
    return found


def _hidden_features(view: View) -> Bool[np.ndarray, " d"]:
    return np.repeat(~view.visible, view.geometry.channels)


def _of_linear_predictors(
    evaluated: ViewedModels, linear: dict[float, ConditionalMean]
) -> Iterator[dict[str, pd.DataFrame]]:
    """Tables of the best linear predictor under each mask, whose Jacobian is the same for every image."""
    for seed in tqdm(sorted({spec.seed for spec in evaluated.specs}), desc=f"linear {evaluated.name}", unit="seed"):
        rows = evaluated.images(seed)
        for ratio in evaluated.settings.mask_ratios:
            measured = Measured()
            for view in evaluated.views(seed, ratio):
                jacobian = torch.from_numpy(_jacobian(linear[ratio], view))
                measured.add(jacobian.expand(len(rows), -1, -1), view, _segmentation(evaluated, rows))
            keys = {"seed": seed, "predictor": "linear", "ridge": linear[ratio].ridge}
            yield tables_of(measured.means(), keys | {"evaluation_mask_ratio": ratio})


def _jacobian(conditional_mean: ConditionalMean, view: View) -> Float[np.ndarray, "d_in d_out"]:
    """Weights of the conditional mean from all inputs, hidden ones 0, to the hidden central pixels."""
    channels, hidden = view.geometry.channels, _hidden_features(view)
    outputs = (view.geometry.outputs[:, None] * channels + np.arange(channels)).ravel()
    jacobian = np.zeros((len(hidden), len(outputs)))
    jacobian[~hidden] = conditional_mean.predictor(hidden).weights[:, np.searchsorted(np.flatnonzero(hidden), outputs)]
    return jacobian


def _segmentation(evaluated: ViewedModels, rows: np.ndarray) -> np.ndarray | None:
    """Objects of the images, where the data set knows them."""
    targets = evaluated.data.targets
    return targets[SEGMENTATION][rows] if SEGMENTATION in targets else None


def _pictured_run(evaluated: ViewedModels) -> RunSpec:
    """The first run of the first seed whose training ratio is nearest the ratio that snapshots are evaluated at."""
    common = evaluated.settings.mask_ratio
    of_seed = [spec for spec in evaluated.specs if spec.seed == evaluated.config.first_seed]
    return min(of_seed, key=lambda spec: abs(spec.model.mask_ratio - common))


def _pictures(
    evaluated: ViewedModels, spec: RunSpec, predictors: dict[float, ConditionalMean]
) -> dict[str, np.ndarray]:
    """The basis of a trained model at a few images under one mask, and of the best linear predictor at any image.

    Returns:
        ``images`` uint8 (n, h, w, c); ``hidden`` bool (h, w); ``output`` (row, column) of the hidden pixel nearest the
        centre; ``influence`` (n, h, w), mean |J| of that output over channel pairs; ``inputs`` and ``outputs``
        (n, k, h, w, c), the leading singular directions over all hidden central outputs, 0 elsewhere. The linear
        predictor's are ``linear/...``, without n.
    """
    view = evaluated.views(spec.seed, evaluated.settings.mask_ratio)[0]
    images = evaluated.data.images[evaluated.images(spec.seed)[:N_PICTURED]]
    trained, outputs = evaluated.run(spec), view.geometry.outputs
    masks = evaluated.masks(spec.model, view.mask_ratio, view.noise.expand(len(images), -1))
    jacobians = reconstruction_jacobian(
        trained.model, trained.normalise(torch.from_numpy(images)), masks, torch.from_numpy(outputs)
    )
    coordinates = pixel_coordinates(evaluated.data.image_shape)
    from_centre = np.square(coordinates - coordinates.mean(axis=0)).sum(axis=1)
    nearest = int(from_centre[outputs].argmin())
    bases = [_basis(one.double(), view, nearest) for one in jacobians]
    linear = _basis(torch.from_numpy(_jacobian(predictors[view.mask_ratio], view)), view, nearest)
    return {
        "images": images,
        "hidden": ~view.visible.reshape(images.shape[1:3]),
        "output": coordinates[outputs[nearest]].astype(np.int64),
        **{name: np.stack([basis[name] for basis in bases]) for name in linear},
        **{f"linear/{name}": array for name, array in linear.items()},
    }


def _basis(jacobian: Float[Tensor, "d_in d_out"], view: View, output: int) -> dict[str, np.ndarray]:
    """Influence on one of the outputs, by its place among them, and the leading directions; all as float32 images."""
    shape, outputs = view.geometry.image_shape, view.geometry.outputs
    influence = Influence.of_jacobian(jacobian.numpy(), view.geometry.channels).absolute[:, output]
    spectrum = singular_spectrum(jacobian, N_DIRECTIONS)
    made = np.zeros((len(spectrum.outputs), len(view.visible), view.geometry.channels))
    made[:, outputs] = spectrum.outputs.numpy().reshape(-1, len(outputs), view.geometry.channels)
    arrays = {
        "influence": influence.reshape(shape[:2]),
        "inputs": spectrum.inputs.numpy().reshape(-1, *shape),
        "outputs": made.reshape(-1, *shape),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}
