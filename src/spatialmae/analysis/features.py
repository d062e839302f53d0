"""What features keep: variance, or what is redundant across patches (paper A; docs/theory.md, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from jaxtyping import Float64, Int64

from spatialmae.geometry import patch_members


def variance_kept(
    S: Float64[np.ndarray, "d d"], encoder: Float64[np.ndarray, "d k"], n_components: Sequence[int]
) -> list[float]:
    """Fraction of variance that the best linear decoder recovers from the first k features (14).

    tr(S A (AᵀSA)⁺ AᵀS) / tr S: invariant under any invertible map of the features.

    Args:
        S: covariance of the data.
        encoder: A.
        n_components: the ranks k to report; features beyond k are dropped.
    """
    SA = S @ encoder
    spread = np.sqrt(np.maximum(np.einsum("dk,dk->k", encoder, SA), 0.0))
    scaled = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    SA = SA * scaled
    inner, outer = (encoder * scaled).T @ SA, SA.T @ SA
    total = np.trace(S)
    return [float(np.sum(np.linalg.pinv(inner[:k, :k], hermitian=True) * outer[:k, :k]) / total) for k in n_components]


def patch_redundancy(
    S: Float64[np.ndarray, "d d"],
    held_out: Float64[np.ndarray, "d d"],
    labels: Int64[np.ndarray, " d"],
    ridge: float = 1e-3,
) -> Float64[np.ndarray, "d d"]:
    """Block-diagonal R: what the other patches linearly predict of each patch, on held-out data (15).

    With K = (S + ridge·mean variance·I)⁻¹ the error of predicting patch p from all others is
    K_pp⁻¹ (K x)_p, so its covariance on held-out data needs no second fit. R_p = D_p − cov(error).

    Args:
        S: covariance that the predictor is fitted to.
        held_out: covariance that it is evaluated on.
        labels: patch of each feature.
        ridge: in units of the mean variance of a feature.
    """
    d = len(S)
    K = scipy.linalg.inv(S + ridge * np.trace(S) / d * np.eye(d), check_finite=False)
    errors = K @ held_out @ K
    R = np.zeros_like(S)
    for rows in patch_members(labels):
        block = np.ix_(rows, rows)
        half = np.linalg.solve(K[block], errors[block])
        R[block] = held_out[block] - np.linalg.solve(K[block], half.T)
    return R


def redundancy_share(
    R: Float64[np.ndarray, "d d"],
    held_out: Float64[np.ndarray, "d d"],
    labels: Int64[np.ndarray, " d"],
    directions: Float64[np.ndarray, "d k"],
    n_components: Sequence[int],
) -> list[float]:
    """Share of the within-patch variance along the first k directions that other patches predict (15).

    tr(EᵀRE) / tr(EᵀDE) with E an orthonormal basis of the directions' span and D = blkdiag_p(held_out). The rows
    of a decoder tell what is kept in the reconstruction, the columns of an encoder what is read.
    """
    E, _ = np.linalg.qr(directions)
    same_patch = labels[:, None] == labels[None, :]
    predicted = np.einsum("dk,dk->k", E, R @ E).cumsum()
    read = np.einsum("dk,dk->k", E, np.where(same_patch, held_out, 0.0) @ E).cumsum()
    return [float(predicted[k - 1] / read[k - 1]) for k in n_components]
