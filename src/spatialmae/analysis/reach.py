"""How far a reconstruction reaches: measures on a Jacobian ∂(output pixel)/∂(input pixel).

The same functions serve the linear theory, whose Jacobian is A B, and trained models. Definitions are ours,
the paper gives none: docs/theory.md, section 4, and docs/deviations.md.

Influence is pooled over channels, and measured for output pixels in the central half of the image (each
side), whose surroundings the image border cuts off least. With p_ij = |J_ij| / Σ_i |J_ij| (or J²), every
measure is taken per output pixel j and averaged over output pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import xlogy
from scipy.stats import linregress

from spatialmae.geometry import ImageShape, patch_labels, pixel_coordinates, pixel_distances


def central_pixels(image_shape: ImageShape) -> Int64[np.ndarray, " outputs"]:
    """Indices, row-major, of the pixels in the central half of each side."""
    coordinates, size = pixel_coordinates(image_shape), np.array(image_shape[:2])
    central = (coordinates >= size // 4) & (coordinates < -(-3 * size // 4))
    return np.flatnonzero(central.all(axis=1))


@dataclass(frozen=True)
class ReachGeometry:
    """What the measures need to know of an image and its patches.

    Attributes:
        image_shape: (h, w) or (h, w, c).
        outputs: indices of the output pixels looked at: the central half of each side.
        distances: float64 (pixels, outputs), Euclidean, px.
        same_patch: bool (pixels, outputs), whether input and output pixel share a patch.
        by_distance: (pixels, outputs), input pixels sorted by distance from each output.
    """

    image_shape: ImageShape
    outputs: Int64[np.ndarray, " outputs"]
    distances: Float64[np.ndarray, "pixels outputs"]
    same_patch: Bool[np.ndarray, "pixels outputs"]
    by_distance: Int64[np.ndarray, "pixels outputs"]

    @classmethod
    def of(cls, image_shape: ImageShape, patch_size: int) -> ReachGeometry:
        """Geometry of an image cut into patches of ``patch_size``."""
        height, width = image_shape[:2]
        outputs = central_pixels(image_shape)
        distances = pixel_distances(image_shape)[:, outputs]
        labels = patch_labels(height * width, patch_size, (height, width))
        same_patch = labels[:, None] == labels[None, outputs]
        return cls(image_shape, outputs, distances, same_patch, distances.argsort(axis=0, kind="stable"))

    def of_outputs(self, keep: Bool[np.ndarray, " pixels"]) -> ReachGeometry:
        """The same for the central outputs among ``keep`` alone, e.g. the hidden ones."""
        columns = keep[self.outputs]
        return replace(
            self,
            outputs=self.outputs[columns],
            distances=self.distances[:, columns],
            same_patch=self.same_patch[:, columns],
            by_distance=self.by_distance[:, columns],
        )

    @property
    def channels(self) -> int:
        """Channels per pixel."""
        return (*self.image_shape, 1)[2]


@dataclass(frozen=True)
class Influence:
    """Influence of every input pixel on the central output pixels, pooled over channel pairs.

    Attributes:
        absolute: float64 (pixels, outputs), mean |J| over channel pairs.
        squared: float64 (pixels, outputs), mean J² over channel pairs.
    """

    absolute: Float64[np.ndarray, "pixels outputs"]
    squared: Float64[np.ndarray, "pixels outputs"]

    @classmethod
    def of_linear(
        cls, encoder: Float64[np.ndarray, "d k"], decoder: Float64[np.ndarray, "k d"], geometry: ReachGeometry
    ) -> Influence:
        """Influence in W = encoder @ decoder, whose entry ij is ∂(output j)/∂(input i) (paper A)."""
        channels = geometry.channels
        features = (geometry.outputs[:, None] * channels + np.arange(channels)).ravel()
        return cls.of_jacobian(encoder @ decoder[:, features], channels)

    @classmethod
    def of_jacobian(cls, jacobian: Float64[np.ndarray, "d_in d_out"], channels: int) -> Influence:
        """Influence in any Jacobian, rows inputs and columns outputs, features in C order of (…, channels)."""
        pixels, outputs = jacobian.shape[0] // channels, jacobian.shape[1] // channels
        pairs = jacobian.reshape(pixels, channels, outputs, channels)
        return cls(np.abs(pairs).mean(axis=(1, 3)), np.square(pairs).mean(axis=(1, 3)))


def mean_influence(maps: Sequence[Influence]) -> Influence:
    """Mean influence over images whose basis differs: of |J| and of J², so that signs do not cancel."""
    return Influence(
        np.mean([one.absolute for one in maps], axis=0),
        np.mean([one.squared for one in maps], axis=0),
    )


def influence_profile(
    influence: Influence, geometry: ReachGeometry
) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " r"]]:
    """Mean |J| over pixel pairs at each distance rounded to whole pixels: (distances px, mean |J|) (10)."""
    bins = np.rint(geometry.distances).astype(np.int64).ravel()
    pairs = np.bincount(bins)
    mean = np.bincount(bins, weights=influence.absolute.ravel()) / np.maximum(pairs, 1)
    present = np.flatnonzero(pairs)
    return present.astype(np.float64), mean[present]


@dataclass(frozen=True)
class ExponentialFit:
    """a · exp(−r/ℓ) fitted to mean |J| at distance r, by least squares of log |J| on r (11).

    Attributes:
        intercept: log a.
        rate: 1/ℓ in 1/px; negative where influence grows with distance. The length ℓ itself is infinite for a flat map.
        r_squared: of the fit to log |J|.
    """

    intercept: float
    rate: float
    r_squared: float


def exponential_fit(
    distances: Float64[np.ndarray, " r"], mean_abs: Float64[np.ndarray, " r"], max_distance: float
) -> ExponentialFit:
    """Fit an exponential over 0 ≤ r ≤ ``max_distance`` px, distances with no influence left out.

    Fewer than two distances with influence have no rate: NaN.
    """
    used = (distances <= max_distance) & (mean_abs > 0)
    if used.sum() < 2:
        return ExponentialFit(np.nan, np.nan, np.nan)
    fit = linregress(distances[used], np.log(mean_abs[used]))
    return ExponentialFit(float(fit.intercept), -float(fit.slope), float(fit.rvalue**2))


def _normalise(weights: Float64[np.ndarray, "pixels outputs"]) -> Float64[np.ndarray, "pixels outputs"]:
    """Divide by the sum over inputs; an output without influence gets zeros."""
    total = weights.sum(axis=0)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def rms_radius(weights: Float64[np.ndarray, "pixels outputs"], geometry: ReachGeometry) -> float:
    """√(Σ_i p_ij r_ij²) in px, averaged over outputs (12)."""
    return float(np.sqrt((_normalise(weights) * geometry.distances**2).sum(axis=0)).mean())


def median_radius(weights: Float64[np.ndarray, "pixels outputs"], geometry: ReachGeometry) -> float:
    """Distance in px within which half of an output's influence lies, averaged over outputs."""
    share = np.take_along_axis(_normalise(weights), geometry.by_distance, axis=0).cumsum(axis=0)
    half = (share < 0.5 - 1e-12).sum(axis=0).clip(max=len(share) - 1)
    outputs = np.arange(share.shape[1])
    return float(geometry.distances[geometry.by_distance[half, outputs], outputs].mean())


def spatial_entropy(
    weights: Float64[np.ndarray, "pixels outputs"], inputs: Bool[np.ndarray, "pixels outputs"] | None = None
) -> float:
    """−Σ p log p in nats over the chosen inputs, p normalised over them; averaged over outputs (13)."""
    p = _normalise(weights if inputs is None else np.where(inputs, weights, 0.0))
    return float(-xlogy(p, p).sum(axis=0).mean())


def share_outside(weights: Float64[np.ndarray, "pixels outputs"], geometry: ReachGeometry) -> float:
    """Fraction of influence that comes from outside the output's own patch, averaged over outputs."""
    return float(np.where(geometry.same_patch, 0.0, _normalise(weights)).sum(axis=0).mean())


def _log_outside(geometry: ReachGeometry) -> float:
    """Entropy outside the patch of uniform weights: the log of the number of pixels there, in nats."""
    return float(np.log((~geometry.same_patch).sum(axis=0)).mean())


def reach_measures(influence: Influence, geometry: ReachGeometry) -> dict[str, float]:
    """All measures of reach: radii in px, the decay's rate in 1/px, entropies in nats, shares as fractions.

    What lies outside a larger patch is less of the image, whatever the weights; the relative measures divide the
    share, and shift the entropy, by what uniform weights give.
    """
    absolute, squared = influence.absolute, influence.squared
    height, width = geometry.image_shape[:2]
    fit = exponential_fit(*influence_profile(influence, geometry), max_distance=max(height, width) / 2)
    return {
        "decay_intercept": fit.intercept,
        "decay_rate": fit.rate,
        "decay_r2": fit.r_squared,
        "median_radius": median_radius(absolute, geometry),
        "median_radius_squared": median_radius(squared, geometry),
        "rms_radius_abs": rms_radius(absolute, geometry),
        "rms_radius_squared": rms_radius(squared, geometry),
        "entropy": spatial_entropy(absolute),
        "entropy_inside": spatial_entropy(absolute, geometry.same_patch),
        "entropy_outside": spatial_entropy(absolute, ~geometry.same_patch),
        "entropy_outside_relative": spatial_entropy(absolute, ~geometry.same_patch) - _log_outside(geometry),
        "share_outside_abs": share_outside(absolute, geometry),
        "share_outside_relative": share_outside(absolute, geometry) / float((~geometry.same_patch).mean()),
        "share_outside_squared": share_outside(squared, geometry),
    }


def uniform_measures(geometry: ReachGeometry) -> dict[str, float]:
    """The same measures where every input pixel counts alike: the ceiling that an image's size sets."""
    uniform = np.ones_like(geometry.distances)
    return {
        "median_radius_uniform": median_radius(uniform, geometry),
        "rms_radius_uniform": rms_radius(uniform, geometry),
        "entropy_uniform": spatial_entropy(uniform),
        "entropy_inside_uniform": spatial_entropy(uniform, geometry.same_patch),
        "entropy_outside_uniform": spatial_entropy(uniform, ~geometry.same_patch),
        "share_outside_uniform": share_outside(uniform, geometry),
    }
