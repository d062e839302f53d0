"""Non-linear regressions that tell how well one thing follows from another, on held-out samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64
from scipy.linalg import eigh
from sklearn.metrics.pairwise import rbf_kernel

from spatialmae.data.dataset import Split

LANDMARKS = 300
WIDTHS = (0.03, 0.2, 1.0)  # g of the kernel exp(−g |a − b|² / d): from nearly linear to local
PENALTIES = tuple(float(p) for p in np.logspace(-8, 2, 11))  # beside the mean squared error of unit targets
NO_VARIANCE = 1e-10  # of a representation's largest variance: rounding of float32

SplitArrays = Mapping[Split, Float64[np.ndarray, "_ _"]]


class KernelRegression:
    """Kernel ridge regressions from one input to any targets, scored on the test split.

    The regression of studies of identifiability (von Kügelgen et al., 2021): smooth functions of a few coordinates need
    few samples, the fit is convex, and targets share its cost. The width of the Gaussian kernel and the penalty are
    chosen on the validation split for each target coordinate. Nyström features on random training points make it cheap.

    Args:
        inputs: for each split (n, d); standardised, and clipped to the training range, here.
        seed: of the landmarks.
    """

    def __init__(self, inputs: SplitArrays, seed: int) -> None:
        mean, std = inputs["train"].mean(axis=0), inputs["train"].std(axis=0)
        # Beyond the training range it would extrapolate wildly: one outlier has cost a null target .3 of R².
        low, high = inputs["train"].min(axis=0), inputs["train"].max(axis=0)
        z = {split: (np.clip(values, low, high) - mean) / std for split, values in inputs.items()}
        n, d = z["train"].shape
        chosen = np.random.default_rng(seed).choice(n, min(LANDMARKS, n), replace=False)
        self._bases = [_uncorrelated(_nystroem(z, z["train"][chosen], width / d)) for width in WIDTHS]

    def r2(self, targets: SplitArrays) -> Float64[np.ndarray, " t"]:
        """R² of each target coordinate on the test split: at most 1, below 0 where the mean would be better."""
        mean, std = targets["train"].mean(axis=0), targets["train"].std(axis=0)
        y = {split: (values - mean) / std for split, values in targets.items()}
        fits = [_ridge_scores(features, variances, y) for features, variances in self._bases]
        validation, test = (np.concatenate(scores) for scores in zip(*fits, strict=True))
        return test[validation.argmax(axis=0), np.arange(validation.shape[1])]


def _uncorrelated(features: SplitArrays) -> tuple[SplitArrays, Float64[np.ndarray, " m"]]:
    """Features turned to their principal axes on the training split (uncentred), and the mean squares there."""
    values, vectors = eigh(features["train"].T @ features["train"] / len(features["train"]))
    return {split: part @ vectors for split, part in features.items()}, np.maximum(values, 0.0)


def _ridge_scores(
    features: SplitArrays, variances: Float64[np.ndarray, " m"], y: SplitArrays
) -> tuple[Float64[np.ndarray, "penalties t"], Float64[np.ndarray, "penalties t"]]:
    """R² on validation and test for every penalty: with uncorrelated features each coefficient is shrunk alone."""
    cross = features["train"].T @ y["train"] / len(y["train"])
    coefficients = [cross / (variances + penalty)[:, None] for penalty in PENALTIES]
    validation, test = (
        np.stack([r2_score(y[split], features[split] @ c) for c in coefficients]) for split in ("validation", "test")
    )
    return validation, test


def r2_score(target: Float64[np.ndarray, "n t"], prediction: Float64[np.ndarray, "n t"]) -> Float64[np.ndarray, " t"]:
    """R² of each coordinate."""
    spread = ((target - target.mean(axis=0)) ** 2).sum(axis=0)
    return 1 - ((target - prediction) ** 2).sum(axis=0) / spread


def whitened(code: SplitArrays) -> dict[Split, Float64[np.ndarray, "_ _"]]:
    """A representation with uncorrelated coordinates of unit variance on the training split.

    R² of these does not depend on how the coordinates are scaled and mixed, which the theorem leaves open. Directions
    without variance are left out.
    """
    mean = code["train"].mean(axis=0)
    values, vectors = eigh(np.atleast_2d(np.cov(code["train"], rowvar=False)))
    kept = values > NO_VARIANCE * values.max()
    factor = vectors[:, kept] / np.sqrt(values[kept])
    return {split: (part - mean) @ factor for split, part in code.items()}


def _nystroem(
    z: SplitArrays, landmarks: Float64[np.ndarray, "m d"], gamma: float
) -> dict[Split, Float64[np.ndarray, "_ m"]]:
    """Features whose inner products are the Gaussian kernel's, exactly so among the landmarks."""
    values, vectors = eigh(rbf_kernel(landmarks, gamma=gamma))
    # Directions below rounding would be noise.
    root = vectors / np.sqrt(np.maximum(values, 1e-10))
    return {split: rbf_kernel(part, landmarks, gamma=gamma) @ root for split, part in z.items()}
