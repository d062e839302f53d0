"""Paper B's theory: latent hierarchies, and what masked prediction identifies of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spatialmae.config.section import MASK_RATIOS, Count, MaskRatio, Section, Unique
from spatialmae.masks import n_visible


class Hierarchy(Section):
    """Latent hierarchies (paper B): Theorem 1 on random graphs, and the level of the shared latents on trees."""

    n_graphs: Count = Field(200, description="random graphs of each seed that Theorem 1 is checked on")
    masks_per_graph: Count = Field(4, description="masks of each of them")
    binary_depth: int = Field(10, ge=2, le=16, description="of the binary tree, over a line of 2^depth pixels")
    binary_patch_sizes: Annotated[list[Count], Unique] = Field(
        [1, 4, 16], min_length=1, description="powers of two, px"
    )
    quad_depth: int = Field(5, ge=2, le=8, description="of the quad-tree, over an image of side 2^depth px")
    quad_patch_sizes: Annotated[list[Count], Unique] = Field([1, 2, 4], min_length=1, description="powers of 2, px")
    mask_ratios: Annotated[list[MaskRatio], Unique] = Field(MASK_RATIOS, min_length=1, description="masking ratios")
    n_masks: Count = Field(500, description="masks of each seed")

    @model_validator(mode="after")
    def _fits(self) -> Hierarchy:
        for tree, dimensions in (("binary", 1), ("quad", 2)):
            depth = getattr(self, f"{tree}_depth")
            for size in getattr(self, f"{tree}_patch_sizes"):
                if size.bit_count() != 1 or size >= 2**depth:
                    raise ValueError(f"{tree}_patch_sizes: {size} is no power of two below 2^{depth}; change it")
                n_patches, most = (2**depth // size) ** dimensions, max(self.mask_ratios)
                try:
                    n_visible(n_patches, most)
                except ValueError:
                    problem = f"{most} leaves none of {n_patches} patches visible ({tree}, patch {size})"
                    raise ValueError(f"mask_ratios: {problem}; lower it or {tree}_patch_sizes") from None
        return self


class Identifiability(Section):
    """Masked prediction on data with known latents (paper B, Theorem 2)."""

    graphs: Annotated[list[Literal["binary_tree", "uneven_tree", "two_roots"]], Unique] = Field(
        ["binary_tree", "uneven_tree", "two_roots"], min_length=1, description="graphs of the latents"
    )
    noise_scales: Annotated[list[Annotated[float, Field(gt=0)]], Unique] = Field(
        [0.5], min_length=1, description="standard deviations of a node's own noise beside what its parents give"
    )
    counterexamples: bool = Field(
        False,
        description="also give the representation two coordinates more than c has, and mechanisms whose conditional "
        "mean hides c, at the first of noise_scales",
    )
    seeds: int = Field(5, ge=1, le=100, description="draws of mechanisms, data and weights, from seeds.first on")
    n_train: Count = Field(30_000, description="samples to train on")
    steps: Count = Field(800, description="steps of a predictor of one mask")
    random_mask_steps: Count = Field(2000, description="steps of a predictor of random masks")
    n_regression: int = Field(4000, ge=300, description="samples that the regressions are fitted on")
    n_validation: Count = Field(1000, description="samples that choose their width and penalty")
    n_test: Count = Field(2000, description="samples that they are scored on")
