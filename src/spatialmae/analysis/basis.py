"""How the basis of a non-linear MAE, its Jacobian A(x̃), adapts to the image (claim A9).

Around a masked image x̃ the reconstruction is h(x̃) ≈ A(x̃) x̃ + b (Kadkhodaie et al., 2024, for denoisers). A linear
MAE has one A for all images under a mask; measured here is what of A changes with the image, whether influence
respects the image's objects, and how good the expansion is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from spatialmae.analysis.reach import Influence, ReachGeometry
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.model.masking import Masks


def dispersion(jacobians: Float[Tensor, "n d_in d_out"]) -> float:
    """Share of the Jacobians' squared size that changes from image to image, all under one mask.

    n/(n − 1) Σ‖Aₙ − Ā‖² / Σ‖Aₙ‖²: 0 where A is the same for all images, 1 where the images' A have nothing in common.

    Raises:
        ValueError: there are fewer than two images.
    """
    n = len(jacobians)
    if n < 2:
        raise ValueError("how a basis changes needs two images or more")
    total = jacobians.double().square().sum()
    common = n * jacobians.double().mean(dim=0).square().sum()
    return float((total - common) / total * n / (n - 1))


@dataclass(frozen=True)
class ObjectContrast:
    """Influence within objects and across their borders, at equal distance; sums that images add to.

    Attributes:
        within: weighted influence of inputs in the output's own object.
        across: likewise of inputs in another, over the same strata with the same weights.
    """

    within: float = 0.0
    across: float = 0.0

    @classmethod
    def of(
        cls,
        influence: Influence,
        geometry: ReachGeometry,
        segmentation: Integer[np.ndarray, "h w"],
        visible: Bool[np.ndarray, " pixels"],
    ) -> ObjectContrast:
        """The contrast in one image.

        A stratum is one output and one distance (rounded to whole pixels); those that have visible inputs of both kinds
        count with the weight n₁n₂/(n₁ + n₂) of Mantel and Haenszel, so that neither distance nor the size of the object
        can make a difference. Influence is |J| as a share of its output's.
        """
        share = influence.absolute / np.maximum(influence.absolute.sum(axis=0), np.finfo(float).tiny)
        labels = segmentation.ravel()
        same = labels[:, None] == labels[None, geometry.outputs]
        bins = np.rint(geometry.distances).astype(np.int64)
        strata = bins * share.shape[1] + np.arange(share.shape[1])
        n_strata = int(strata.max()) + 1

        def count_and_mean(chosen: Bool[np.ndarray, "pixels outputs"]) -> tuple[np.ndarray, np.ndarray]:
            count = np.bincount(strata[chosen], minlength=n_strata)
            total = np.bincount(strata[chosen], weights=share[chosen], minlength=n_strata)
            return count, total / np.maximum(count, 1)

        n_same, mean_same = count_and_mean(same & visible[:, None])
        n_other, mean_other = count_and_mean(~same & visible[:, None])
        weight = n_same * n_other / np.maximum(n_same + n_other, 1)
        return cls(float(weight @ mean_same), float(weight @ mean_other))

    def __add__(self, other: ObjectContrast) -> ObjectContrast:
        """Both images together."""
        return ObjectContrast(self.within + other.within, self.across + other.across)

    @property
    def log_ratio(self) -> float:
        """log(within / across): positive where influence respects objects; NaN where no stratum has both kinds."""
        return float(np.log(self.within / self.across)) if self.within > 0 and self.across > 0 else np.nan


@torch.no_grad()
def linearisation_error(
    model: MaskedAutoencoder,
    images: Float[Tensor, "N C H W"],
    masks: Masks,
    jacobians: Float[Tensor, "N d_in d_out"],
    outputs: Integer[Tensor, " o"],
    step: float,
    generator: torch.Generator,
) -> float:
    """How far the first-order expansion is from the model: ‖Δh − A δ‖ / ‖Δh‖ over images and outputs.

    Args:
        model: the model whose Jacobians these are.
        images: normalised.
        masks: of each image.
        jacobians: as :func:`~spatialmae.analysis.jacobian.reconstruction_jacobian` gives them.
        outputs: pixels, row-major, that the Jacobians' columns belong to.
        step: standard deviation of the Gaussian change δ of the visible pixels, in units of the normalised image.
        generator: draws δ.
    """

    def predicted(x: Tensor) -> Tensor:
        return model.reconstruct(x, masks).permute(0, 2, 3, 1).flatten(1, 2)[:, outputs].flatten(1)

    change = step * torch.randn(images.shape, generator=generator, dtype=images.dtype)
    actual = predicted(images + change) - predicted(images)
    expected = torch.einsum("ni,nio->no", change.permute(0, 2, 3, 1).flatten(1), jacobians)
    return float((actual - expected).norm() / actual.norm())
