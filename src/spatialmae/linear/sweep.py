"""Closed forms for a whole grid of masking ratios and ranks at one patch size: docs/theory.md, section 3.

What depends on the patch size alone is computed once. With C = D^{+½} S D^{+½} = Q diag(μ) Qᵀ and
F = D^½ Q,  S V⁻¹ S = F diag(s²) Fᵀ,  s = μ / √(b μ + c),  which shares its non-zero eigenvalues with
diag(s) FᵀF diag(s) (9): for each masking ratio a rescaling of one fixed matrix, and one partial eigensolve
that serves every rank. The loss at full rank needs no eigensolve at all: Σ s² diag(FᵀF).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from spatialmae.linear.closed_form import BlockWhitening, Solution, fix_signs, leading_eigenpairs
from spatialmae.linear.objective import Corruption


@dataclass(frozen=True)
class Sweep:
    """What all masking ratios share at one patch size.

    Attributes:
        total: tr S.
        whitening: D^{½} and D^{+½}.
        mu: float64 (r,), the generalized eigenvalues of (S, D) above rounding, in (0, N patches].
        Q: float64 (d, r), the eigenvectors of D^{+½} S D^{+½} that belong to them.
        F: float64 (d, r), D^½ Q.
        G: float64 (r, r), FᵀF.
    """

    total: float
    whitening: BlockWhitening
    mu: Float64[np.ndarray, " r"]
    Q: Float64[np.ndarray, "d r"]
    F: Float64[np.ndarray, "d r"]
    G: Float64[np.ndarray, "r r"]

    @classmethod
    def of(cls, S: Float64[np.ndarray, "d d"], labels: Int64[np.ndarray, " d"]) -> Sweep:
        """Prepare a patch size: one eigendecomposition and one product of d × d matrices."""
        whitening = BlockWhitening.of(S, labels)
        mu, Q = np.linalg.eigh(whitening.correlation(S))
        kept = mu > mu[-1] * len(mu) * np.finfo(np.float64).eps
        mu, Q = mu[kept], np.ascontiguousarray(Q[:, kept])
        F = whitening.color(Q)
        return cls(float(np.trace(S)), whitening, mu, Q, F, F.T @ F)

    def solve(self, corruption: Corruption, n_components: int) -> Solution:
        """The optimum for one corruption; ranks below ``n_components`` are its prefixes.

        Raises:
            ValueError: the corruption masks nothing (use PCA), or the data span fewer directions.
        """
        if corruption.within == 0:
            raise ValueError("nothing is masked: the optimum is PCA, see closed_form.solve")
        if n_components > len(self.mu):
            raise ValueError(f"n_components={n_components} exceeds the rank {len(self.mu)} of the data")
        s = self._weights(corruption)
        values, vectors = leading_eigenpairs(self.G * np.outer(s, s), n_components)
        values = np.maximum(values, np.finfo(np.float64).tiny)
        U = fix_signs(self.F @ (s[:, None] * vectors) / np.sqrt(values))
        gain = corruption.gain * self.mu / (corruption.between * self.mu + corruption.within)
        encoder = self.whitening.whiten(self.Q @ (gain[:, None] * (self.F.T @ U)))
        scaled = values * corruption.gain**2 / corruption.scale
        return Solution(encoder, np.ascontiguousarray(U.T), scaled, self.total, corruption.scale)

    def full_rank_map(self, corruption: Corruption) -> Float64[np.ndarray, "d d"]:
        """The best linear map of any rank, a Q⁻¹ S (4), without an eigensolve."""
        gain = corruption.gain * self.mu / (corruption.between * self.mu + corruption.within)
        return self.whitening.whiten(self.Q * gain) @ self.F.T

    def full_rank_loss(self, corruption: Corruption) -> float:
        """Expected loss per sample of the best linear map of any rank (5), without an eigensolve."""
        s = self._weights(corruption)
        return self.total - corruption.gain**2 * float(s**2 @ np.diag(self.G))

    def _weights(self, corruption: Corruption) -> Float64[np.ndarray, " r"]:
        return self.mu / np.sqrt(corruption.between * self.mu + corruption.within)
