"""The closed form against independent answers on real data, each beside a control that must fail (claim A1)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int64
from sklearn.decomposition import PCA

from spatialmae.geometry import ImageShape, patch_labels
from spatialmae.linear.closed_form import solve
from spatialmae.linear.estimator import LinearMAE
from spatialmae.linear.objective import Corruption
from spatialmae.masks import bernoulli_masks
from spatialmae.train.optimizer import leave_compiler_unloaded


def gradient_descent_loss(
    S: Float64[np.ndarray, "d d"],
    labels: Int64[np.ndarray, " d"],
    corruption: Corruption,
    n_components: int,
    seed: int,
) -> float:
    """Smallest value of the objective (2) that L-BFGS finds over A and B from a random start, by autograd."""
    covariance = torch.from_numpy(S)
    Q = torch.from_numpy(corruption.input_moments(S, labels))
    generator = torch.Generator().manual_seed(seed)
    A = (0.1 * torch.randn(len(S), n_components, generator=generator, dtype=torch.float64)).requires_grad_()
    B = (0.1 * torch.randn(n_components, len(S), generator=generator, dtype=torch.float64)).requires_grad_()
    leave_compiler_unloaded()
    optimizer = torch.optim.LBFGS(
        [A, B],
        max_iter=2000,
        max_eval=10_000,
        history_size=30,
        tolerance_grad=1e-10,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def objective() -> torch.Tensor:
        W = A @ B
        return torch.trace(covariance) - 2 * corruption.gain * torch.sum(covariance * W.T) + torch.sum(W * (Q @ W))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    optimizer.step(closure)
    return objective().item()


def check_gradient_descent(
    S: Float64[np.ndarray, "d d"],
    image_shape: ImageShape,
    mask_ratio: float,
    patch_size: int,
    wrong_patch_size: int,
    n_components: int,
    seed: int,
) -> dict[str, float]:
    """Relative distance of the closed-form loss from the one gradient descent finds.

    The control takes the optimum for another patch size and must lie farther away.
    """
    labels = patch_labels(len(S), patch_size, image_shape)
    corruption = Corruption.bernoulli(mask_ratio)
    found = gradient_descent_loss(S, labels, corruption, n_components, seed)
    right = solve(S, labels, corruption, n_components)
    wrong = solve(S, patch_labels(len(S), wrong_patch_size, image_shape), corruption, n_components)
    attained = corruption.expected_loss(S, labels, wrong.encoder, wrong.decoder)
    return {"claim": abs(right.loss - found) / found, "control": abs(attained - found) / found}


def check_pca(
    X: Float64[np.ndarray, "n d"], image_shape: ImageShape, mask_ratio: float, patch_size: int, n_components: int
) -> dict[str, float]:
    """Relative distance ‖W − P‖/‖P‖ of W at m = 0 from PCA's projector; the control is W at ``mask_ratio``."""
    pca = PCA(n_components, svd_solver="full").fit(X)
    projector = pca.components_.T @ pca.components_

    def distance(ratio: float) -> float:
        mae = LinearMAE(n_components, mask_ratio=ratio, patch_size=patch_size, image_shape=image_shape).fit(X)
        return float(np.linalg.norm(mae.encoder_ @ mae.decoder_ - projector) / np.linalg.norm(projector))

    return {"claim": distance(0.0), "control": distance(mask_ratio)}


def check_monte_carlo(
    X: Float64[np.ndarray, "n d"],
    image_shape: ImageShape,
    mask_ratio: float,
    patch_size: int,
    wrong_patch_size: int,
    n_components: int,
    n_masks: int,
    seed: int,
) -> dict[str, float]:
    """Relative distance of the expected loss from the average over ``n_masks`` random masks per sample.

    The control draws masks of another patch size.
    """
    rng = np.random.default_rng(seed)
    settings = {"mask_ratio": mask_ratio, "image_shape": image_shape}
    mae = LinearMAE(n_components, patch_size=patch_size, **settings).fit(X)
    centred, W = X - mae.mean_, mae.encoder_ @ mae.decoder_

    def average(size: int) -> float:
        labels = patch_labels(X.shape[1], size, image_shape)
        losses = []
        for _ in range(n_masks):
            hidden = bernoulli_masks(len(X), int(labels[-1]) + 1, mask_ratio, rng)[:, labels]
            losses.append(np.square(centred - np.where(hidden, 0.0, centred) @ W).sum(axis=1).mean())
        return float(np.mean(losses))

    return {
        "claim": abs(average(patch_size) - mae.loss_) / mae.loss_,
        "control": abs(average(wrong_patch_size) - mae.loss_) / mae.loss_,
    }
