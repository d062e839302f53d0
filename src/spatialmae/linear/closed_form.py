"""The optimum of the linear objective, one problem at a time: docs/theory.md, section 2.

The sweep over many masking ratios (:mod:`spatialmae.linear.sweep`) shares work between problems; this is
the direct solution, and its oracle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float64, Int64
from sklearn.utils.extmath import svd_flip

from spatialmae.geometry import patch_members
from spatialmae.linear.objective import Corruption


@dataclass(frozen=True)
class Solution:
    """An optimal W = encoder @ decoder of rank at most k.

    Attributes:
        encoder: A, float64 (d, k).
        decoder: B, float64 (k, d): orthonormal rows, by falling eigenvalue, the entry of largest magnitude
            in each row positive (scikit-learn's convention for PCA).
        eigenvalues: λ, float64 (k,), of S V⁻¹ S.
        total: tr S, the loss of reconstructing nothing.
        scale: s in loss = total − s Σ λ.
    """

    encoder: Float64[np.ndarray, "d k"]
    decoder: Float64[np.ndarray, "k d"]
    eigenvalues: Float64[np.ndarray, " k"]
    total: float
    scale: float

    @property
    def loss(self) -> float:
        """Expected squared error per sample, summed over features (5)."""
        return self.total - self.scale * float(self.eigenvalues.sum())

    def truncate(self, n_components: int) -> Solution:
        """The optimum at a smaller rank: eigenvectors are nested, so it is a prefix."""
        k = n_components
        return Solution(self.encoder[:, :k], self.decoder[:k], self.eigenvalues[:k], self.total, self.scale)


@dataclass(frozen=True)
class BlockWhitening:
    """D^{½} and D^{+½} for D = blkdiag_p(S): small, and exact about the directions in which D vanishes.

    Constant pixels make D singular. Working in D^{+½} S D^{+½}, whose spectrum lies in [0, N patches],
    leaves those directions out and makes every matrix that must be inverted well conditioned (8).
    """

    members: list[Int64[np.ndarray, " _"]]
    roots: list[Float64[np.ndarray, "_ _"]]
    inverse_roots: list[Float64[np.ndarray, "_ _"]]

    @classmethod
    def of(cls, S: Float64[np.ndarray, "d d"], labels: Int64[np.ndarray, " d"]) -> BlockWhitening:
        """Factor the diagonal blocks of S, one eigendecomposition a patch."""
        members, roots, inverse_roots = patch_members(labels), [], []
        # Second moments carry rounding errors of this order, also where a constant pixel's should be zero.
        noise = 1e-12 * float(np.diagonal(S).max(initial=0.0))
        for rows in members:
            values, vectors = np.linalg.eigh(S[np.ix_(rows, rows)])
            kept = values > max(values[-1] * len(rows) * np.finfo(np.float64).eps, noise)
            root = np.sqrt(np.where(kept, values, 0.0))
            inverse = np.divide(1.0, root, out=np.zeros_like(root), where=kept)
            roots.append((vectors * root) @ vectors.T)
            inverse_roots.append((vectors * inverse) @ vectors.T)
        return cls(members, roots, inverse_roots)

    def color(self, X: Float64[np.ndarray, "d n"]) -> Float64[np.ndarray, "d n"]:
        """D^{½} X."""
        return self._apply(self.roots, X)

    def whiten(self, X: Float64[np.ndarray, "d n"]) -> Float64[np.ndarray, "d n"]:
        """D^{+½} X."""
        return self._apply(self.inverse_roots, X)

    def correlation(self, S: Float64[np.ndarray, "d d"]) -> Float64[np.ndarray, "d d"]:
        """D^{+½} S D^{+½}: what S says across patches, in units of each patch's own spread."""
        return self.whiten(self.whiten(S).T)

    def _apply(
        self, blocks: list[Float64[np.ndarray, "_ _"]], X: Float64[np.ndarray, "d n"]
    ) -> Float64[np.ndarray, "d n"]:
        result = np.empty_like(X)
        for rows, block in zip(self.members, blocks, strict=True):
            result[rows] = block @ X[rows]
        return result


def leading_eigenpairs(
    M: Float64[np.ndarray, "d d"], n_components: int
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, "d k"]]:
    """The largest eigenvalues of a symmetric matrix, falling, and their orthonormal eigenvectors."""
    d = len(M)
    if 8 * n_components > d:
        # A partial solve wins for few eigenvectors only (measured at d = 768, 1728 and 3072).
        values, vectors = np.linalg.eigh(M)
    else:
        subset = [d - n_components, d - 1]
        values, vectors = scipy.linalg.eigh(M, subset_by_index=subset, driver="evr", check_finite=False)
    order = slice(None, -n_components - 1, -1)
    return values[order].copy(), vectors[:, order].copy()


def fix_signs(U: Float64[np.ndarray, "d k"]) -> Float64[np.ndarray, "d k"]:
    """Make the entry of largest magnitude of every column positive, as scikit-learn's PCA does."""
    return svd_flip(U, None, u_based_decision=True)[0]


def solve(
    S: Float64[np.ndarray, "d d"], labels: Int64[np.ndarray, " d"], corruption: Corruption, n_components: int
) -> Solution:
    """Optimal encoder and decoder of rank ``n_components`` (paper A, Theorem 1; eqs. 4 and 5).

    Args:
        S: second moments of the features, symmetric positive semi-definite, of any rank.
        labels: patch of each feature.
        corruption: how the input is masked or made noisy.
        n_components: k, 1 … d.
    """
    if corruption.within == 0:
        return _solve_unmasked(S, corruption, n_components)
    whitening = BlockWhitening.of(S, labels)
    # Q = D^½ (b C + c I) D^½ with C the whitened S: the bracket's eigenvalues are at least c > 0.
    bracket = corruption.between * whitening.correlation(S)
    bracket[np.diag_indices_from(bracket)] += corruption.within
    factor = scipy.linalg.cholesky(bracket, lower=True, overwrite_a=True, check_finite=False)
    whitened = whitening.whiten(S)
    half = scipy.linalg.solve_triangular(factor, whitened, lower=True, check_finite=False)
    values, U = leading_eigenpairs(half.T @ half, n_components)
    U = fix_signs(U)
    solved = scipy.linalg.cho_solve((factor, True), whitened @ U, check_finite=False)
    encoder = corruption.gain * whitening.whiten(solved)
    return _solution(encoder, U, values, S, corruption)


def _solve_unmasked(S: Float64[np.ndarray, "d d"], corruption: Corruption, n_components: int) -> Solution:
    """AE and DAE: Q = b S + σ² I shares the eigenvectors of S, so this is PCA with shrinkage (7)."""
    values, U = leading_eigenpairs(S, n_components)
    values, U = np.maximum(values, 0.0), fix_signs(U)
    denominator = corruption.between * values + corruption.noise_variance
    # Without noise the ratio is 1/b on every direction; directions without variance keep that limit.
    shrinkage = np.full_like(values, 1 / corruption.between)
    if corruption.noise_variance > 0:
        shrinkage = values / denominator
    return _solution(corruption.gain * U * shrinkage, U, values * shrinkage, S, corruption)


def _solution(
    encoder: Float64[np.ndarray, "d k"],
    U: Float64[np.ndarray, "d k"],
    values: Float64[np.ndarray, " k"],
    S: Float64[np.ndarray, "d d"],
    corruption: Corruption,
) -> Solution:
    """Pack a solution; ``values`` are eigenvalues of S Q⁻¹ S, rescaled to those of S V⁻¹ S."""
    scaled = values * corruption.gain**2 / corruption.scale
    return Solution(encoder, np.ascontiguousarray(U.T), scaled, float(np.trace(S)), corruption.scale)
