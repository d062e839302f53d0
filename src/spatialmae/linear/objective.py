"""The objective of linear AE, DAE and MAE in second moments: docs/theory.md, section 1.

All three reconstruct x from a corrupted x̃ by a linear map W of rank k, and see the data only through

    E[x̃ᵀ x] = a S,    E[x̃ᵀ x̃] = Q = b S + c D + σ² I,    D = blkdiag_p(S)

so that the expected loss is  tr S − 2a tr(S W) + tr(Wᵀ Q W)  (2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from spatialmae.masks import check_mask_ratio, n_visible


@dataclass(frozen=True)
class Corruption:
    """Weights of S, D and the identity in the moments of a corrupted input.

    Attributes:
        gain: a in E[x̃ᵀ x] = a S.
        between: b, weight of S: how often two patches are visible together.
        within: c, additional weight of the diagonal blocks D.
        noise_variance: σ², in squared units of the features.
        scale: the factor s in loss = tr S − s Σ λ that fixes the scale of the eigenvalues (5).
    """

    gain: float
    between: float
    within: float
    noise_variance: float
    scale: float

    @classmethod
    def bernoulli(cls, mask_ratio: float) -> Corruption:
        """Every patch hidden independently with probability m: a = 1−m, b = (1−m)², c = m(1−m) (paper A)."""
        visible = 1 - check_mask_ratio(mask_ratio)
        return cls(visible, visible**2, visible * (1 - visible), 0.0, visible)

    @classmethod
    def fixed_count(cls, mask_ratio: float, n_patches: int) -> Corruption:
        """Exactly K of N patches visible: a = q = K/N, b = q (K−1)/(N−1), c = q − b (6)."""
        visible = n_visible(n_patches, mask_ratio)
        gain = visible / n_patches
        between = gain * (visible - 1) / (n_patches - 1) if n_patches > 1 else 1.0
        return cls(gain, between, gain - between, 0.0, gain**2)

    @classmethod
    def gaussian(cls, noise_std: float) -> Corruption:
        """Additive white noise of standard deviation σ, in units of the features (7); σ = 0 is the AE."""
        if noise_std < 0:
            raise ValueError(f"noise_std={noise_std} must not be negative")
        return cls(1.0, 1.0, 0.0, float(noise_std) ** 2, 1.0)

    def input_moments(
        self, S: Float64[np.ndarray, "d d"], labels: Int64[np.ndarray, " d"]
    ) -> Float64[np.ndarray, "d d"]:
        """Q = E[x̃ᵀ x̃] for data of second moments S and patches ``labels``."""
        same_patch = labels[:, None] == labels[None, :]
        Q = S * (self.between + self.within * same_patch)
        Q[np.diag_indices_from(Q)] += self.noise_variance
        return Q

    def expected_loss(
        self,
        S: Float64[np.ndarray, "d d"],
        labels: Int64[np.ndarray, " d"],
        encoder: Float64[np.ndarray, "d k"],
        decoder: Float64[np.ndarray, "k d"],
    ) -> float:
        """Expected squared error per sample of any W = encoder @ decoder, summed over features (2)."""
        Q = self.input_moments(S, labels)
        linear = np.sum((S @ encoder) * decoder.T)
        quadratic = np.sum((encoder.T @ Q @ encoder) * (decoder @ decoder.T))
        return float(np.trace(S) - 2 * self.gain * linear + quadratic)
