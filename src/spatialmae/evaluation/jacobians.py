"""Jacobians of trained networks and of the best linear predictor under common views, as numbers and as pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spatialmae.analysis.basis import ObjectContrast, dispersion, linearisation_error
from spatialmae.analysis.jacobian import reconstruction_jacobian, singular_spectrum
from spatialmae.analysis.reach import Influence, influence_profile, mean_influence, reach_measures
from spatialmae.analysis.second_order import ConditionalMean, choose_ridge, normalised_images, normalised_moments
from spatialmae.evaluation.measure import Row
from spatialmae.evaluation.shared import Shared, common_masks
from spatialmae.evaluation.views import View, common_views, viewed_images
from spatialmae.geometry import pixel_coordinates
from spatialmae.model.trained import TrainedModel

STEP = 0.1  # of the change that tests the first-order expansion, in standard deviations of the pixels
SEGMENTATION = "segmentation"  # the target that tells objects apart
N_PICTURED = 4  # images whose bases are kept as pictures
N_DIRECTIONS = 4  # leading singular directions of each


@dataclass(frozen=True)
class Means:
    """Averages over the masks of a seed.

    Attributes:
        reach: measures of the influence averaged over images.
        profile: mean |J| at each distance, a row each.
        basis: dispersion, contrast of objects and, of networks, the error of the first-order expansion.
        reversed: its negative control, the error with the Jacobian's inputs in reverse order; None: of no network.
    """

    reach: Row
    profile: list[Row]
    basis: Row
    reversed: float | None


@dataclass
class _Measured:
    """What is gathered over the masks of a seed, see :class:`Means`; ``contrast`` is over masks and images."""

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
        """Averages over the masks."""
        profile = pd.concat(self.profile).groupby("distance", as_index=False)["mean_abs"].mean()
        basis = {"dispersion": float(np.mean(self.dispersion)), "object_log_ratio": float(self.contrast.log_ratio)}
        if self.expansion:
            basis["expansion_error"] = float(np.mean(self.expansion))
        return Means(
            {name: float(mean) for name, mean in pd.DataFrame(self.reach).mean().items()},
            profile.astype(float).to_dict("records"),
            basis,
            float(np.mean(self.reversed)) if self.reversed else None,
        )


@dataclass(frozen=True)
class LinearPredictors:
    """The conditional mean for masks of any ratio; models of one data set see its images alike.

    Attributes:
        plain: without a ridge.
        shared: images and first seed.
        validation: normalised images, flattened.
    """

    plain: ConditionalMean
    shared: Shared
    validation: Float[np.ndarray, "v d"]

    @classmethod
    def of(cls, trained: TrainedModel, shared: Shared) -> LinearPredictors:
        """From the training images, normalised as a model sees them."""
        data = shared.data
        moments = normalised_moments(trained, data.images[data.splits["train"]])
        validation = normalised_images(trained, data.images[data.splits["validation"]])
        # Built by hand: few images make its weights noisy, which is no reason to measure nothing.
        return cls(ConditionalMean(moments.mean, moments.covariance), shared, validation.reshape(len(validation), -1))

    def ridge(self, settings: Row) -> float:
        """The ridge for masks of a ratio, chosen on validation images under the first seed's."""

        def choose() -> float:
            views = _views(settings, self.shared.first_seed, self.shared)
            hidden = np.stack([_hidden_features(view) for view in views])
            return choose_ridge(self.plain, self.validation, hidden, len(self.validation))

        return self.shared.once(f"ridge at {settings['mask_ratio']}", None, choose)

    def jacobian(self, settings: Row, view: View) -> Float[np.ndarray, "d_in d_out"]:
        """Weights of the conditional mean from all inputs, hidden ones 0, to the hidden central pixels."""
        channels, hidden = view.geometry.channels, _hidden_features(view)
        outputs = (view.geometry.outputs[:, None] * channels + np.arange(channels)).ravel()
        jacobian = np.zeros((len(hidden), len(outputs)))
        weights = replace(self.plain, ridge=self.ridge(settings)).predictor(hidden).weights
        jacobian[~hidden] = weights[:, np.searchsorted(np.flatnonzero(hidden), outputs)]
        return jacobian


def measure(predictor: TrainedModel | LinearPredictors, settings: Row, seed: int, shared: Shared) -> Means:
    """Measure a predictor under all masks of its seed.

    Args:
        predictor: a network, or the linear one, whose Jacobian is the same for every image.
        settings: mask_ratio, mask_unit, n_masks, n_images.
        seed: of images and masks.
        shared: the images.
    """
    rows, segmentation = viewed_images(shared, settings["n_images"], seed), shared.data.targets.get(SEGMENTATION)
    objects = None if segmentation is None else segmentation[rows]
    measured, change = _Measured(), torch.Generator().manual_seed(seed)
    for view in _views(settings, seed, shared):
        if isinstance(predictor, LinearPredictors):
            jacobian = torch.from_numpy(predictor.jacobian(settings, view))
            measured.add(jacobian.expand(len(rows), -1, -1), view, objects)
            continue
        model = predictor.model
        images = predictor.normalise(torch.from_numpy(shared.data.images[rows]))
        masks = _masks(predictor, settings, view, len(rows))
        outputs = torch.from_numpy(view.geometry.outputs)
        jacobians = reconstruction_jacobian(model, images, masks, outputs)
        measured.add(jacobians, view, objects)
        for errors, basis in ((measured.expansion, jacobians), (measured.reversed, jacobians.flip(1))):
            errors.append(linearisation_error(model, images, masks, basis, outputs, STEP, change))
    return measured.means()


def _views(settings: Row, seed: int, shared: Shared) -> list[View]:
    return common_views(
        shared.data.image_shape, settings["mask_ratio"], settings["mask_unit"], settings["n_masks"], seed
    )


def _masks(trained: TrainedModel, settings: Row, view: View, n: int) -> Any:
    """The view's mask for n images."""
    config, unit = trained.model.config, settings["mask_unit"]
    return common_masks(config, view.mask_ratio, unit, view.noise.expand(n, -1))


def _hidden_features(view: View) -> Bool[np.ndarray, " d"]:
    return np.repeat(~view.visible, view.geometry.channels)


def basis_pictures(
    trained: TrainedModel, linear: LinearPredictors, settings: Row, seed: int, shared: Shared
) -> dict[str, np.ndarray]:
    """The basis of a trained model at a few images under one mask, and of the best linear predictor at any image.

    Returns:
        ``images`` uint8 (n, h, w, c); ``hidden`` bool (h, w); ``output`` (row, column) of the hidden pixel nearest the
        centre; ``influence`` (n, h, w), mean |J| of that output over channel pairs; ``inputs`` and ``outputs``
        (n, k, h, w, c), the leading singular directions over all hidden central outputs, 0 elsewhere. The linear
        predictor's are ``linear/...``, without n.
    """
    view, shape = _views(settings, seed, shared)[0], shared.data.image_shape
    images = shared.data.images[viewed_images(shared, settings["n_images"], seed)[:N_PICTURED]]
    outputs, masks = view.geometry.outputs, _masks(trained, settings, view, len(images))
    normalised = trained.normalise(torch.from_numpy(images))
    jacobians = reconstruction_jacobian(trained.model, normalised, masks, torch.from_numpy(outputs))
    coordinates = pixel_coordinates(shape)
    from_centre = np.square(coordinates - coordinates.mean(axis=0)).sum(axis=1)
    nearest = int(from_centre[outputs].argmin())
    bases = [_basis(one.double(), view, nearest) for one in jacobians]
    of_linear = _basis(torch.from_numpy(linear.jacobian(settings, view)), view, nearest)
    return {
        "images": images,
        "hidden": ~view.visible.reshape(shape[:2]),
        "output": coordinates[outputs[nearest]].astype(np.int64),
        **{name: np.stack([basis[name] for basis in bases]) for name in of_linear},
        **{f"linear/{name}": array for name, array in of_linear.items()},
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
