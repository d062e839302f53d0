"""Gaussian images with the first two moments of the training images: data without correlations beyond second order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from spatialmae.shapes import Float

IMAGES_PER_FEATURE = 10  # with fewer images the small eigenvalues of the moments are noise


@dataclass(frozen=True)
class GaussianSurrogate:
    """A Gaussian over normalised images; what is drawn is float, never clipped or rounded to grey levels.

    On such images no reconstruction from visible pixels has a lower expected error than the conditional mean, which
    is linear, so that a model that beats it on the real images uses more than their second moments (claim A11).

    Attributes:
        mean: float32 (C, H, W).
        root: float32 (d, d), the symmetric square root of the covariance, features in the order of (C, H, W). Unlike
            a product of eigenvectors it does not depend on their signs, so that machines draw the same images.
    """

    mean: Float[Tensor, "C H W"]
    root: Float[Tensor, "d d"]

    @classmethod
    def of(cls, batches: Iterator[Float[Tensor, "_ C H W"]]) -> GaussianSurrogate:
        """The surrogate of normalised images, on their device; moments in float64.

        Raises:
            ValueError: there are fewer images than ten for each feature.
        """
        first = next(batches)
        shape, device, d = first.shape[1:], first.device, first[0].numel()
        n = 0
        total, products = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
        for batch in chain([first], batches):
            rows = batch.flatten(1).double().cpu()
            n += len(rows)
            total += rows.sum(dim=0)
            products.addmm_(rows.T, rows)
        if n < IMAGES_PER_FEATURE * d:
            problem = f"{n} training images are fewer than {IMAGES_PER_FEATURE} × {d} features"
            raise ValueError(f"surrogate: {problem}; give more or smaller images")
        mean = total / n
        # Constant pixels make the covariance singular, and rounding its eigenvalues negative.
        values, vectors = torch.linalg.eigh(products / n - torch.outer(mean, mean))
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        return cls(mean.float().reshape(shape).to(device), root.float().to(device))

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, "N C H W"]:
        """Fresh images; a generator on the CPU draws the same on every device."""
        normal = torch.randn(n, len(self.root), generator=generator, device=generator.device)
        return self.mean + (normal.to(self.root.device) @ self.root).reshape(n, *self.mean.shape)
