"""Mean and second moments, accumulated in one streaming pass in float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.linalg.blas import dsyrk


@dataclass(frozen=True)
class Moments:
    """First two moments of n samples of d features: all that the linear theory needs to know.

    Attributes:
        n_samples: n.
        mean: float64 (d,).
        second_moment: float64 (d, d), Σ xᵀx / n, not centred.
    """

    n_samples: int
    mean: Float64[np.ndarray, " d"]
    second_moment: Float64[np.ndarray, "d d"]

    @classmethod
    def from_batches(cls, batches: Iterable[np.ndarray]) -> Moments:
        """Accumulate batches of any real dtype, each (batch, d), without holding more than one.

        Raises:
            ValueError: there is no sample.
        """
        n_samples, total, products = 0, np.zeros(0), np.zeros((0, 0), order="F")
        for batch in batches:
            rows = np.asarray(batch, dtype=np.float64)
            if n_samples == 0:
                total, products = np.zeros(rows.shape[1]), np.zeros((rows.shape[1],) * 2, order="F")
            n_samples += len(rows)
            total += rows.sum(axis=0)
            # A symmetric rank-n update does half the work of rowsᵀ @ rows; only the upper half is written.
            products = dsyrk(1.0, rows.T, beta=1.0, c=products, overwrite_c=1)
        if n_samples == 0:
            raise ValueError("no samples to take moments of")
        symmetric = np.triu(products) + np.triu(products, 1).T
        return cls(n_samples, total / n_samples, symmetric / n_samples)

    @property
    def covariance(self) -> Float64[np.ndarray, "d d"]:
        """Second moments about the mean, divided by n."""
        return self.second_moment - np.outer(self.mean, self.mean)

    def __add__(self, other: Moments) -> Moments:
        """Moments of both samples together."""
        n_samples = self.n_samples + other.n_samples
        own, others = self.n_samples / n_samples, other.n_samples / n_samples
        return Moments(
            n_samples,
            own * self.mean + others * other.mean,
            own * self.second_moment + others * other.second_moment,
        )
