"""Linear theory: the grid of the linear models, checks of the closed form, and Ising data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spatialmae.config.section import MASK_RATIOS, Count, MaskRatio, Name, Section, Unique


class Linear(Section):
    """Grid of the linear theory."""

    mask_ratios: Annotated[list[MaskRatio], Unique] = Field(
        MASK_RATIOS, min_length=1, description="masking ratios of the MAE; AE and DAE are added"
    )
    masking: Literal["bernoulli", "fixed"] = Field(
        "bernoulli", description="independent masks, or a fixed count; checks and Ising always take independent ones"
    )
    noise_std: float = Field(0.2, gt=0, description="σ of the DAE, images in [0, 1]; 0.2 is the paper's")


class Checks(Section):
    """Closed form against independent answers (claim A1)."""

    dataset: Name = Field(description="data set whose replicates are used; small images, gradient descent is slow")
    mask_ratio: MaskRatio = 0.75
    patch_size: Count = 2
    wrong_patch_size: Count = Field(4, description="patch size of the negative control")
    n_components: Count = 8
    n_masks: Count = Field(500, description="random masks per sample of the Monte-Carlo check")


class Ising(Section):
    """Ising chains and lattices (claim A3)."""

    length: int = Field(64, ge=8, description="spins of the free chain")
    couplings: Annotated[list[float], Unique] = Field(min_length=1, description="couplings J of the chain")
    patch_sizes: Annotated[list[Count], Unique] = Field(min_length=1, description="patch lengths on the chain")
    n_components: Annotated[list[Count], Unique] = Field(min_length=1, description="ranks k")
    n_samples: Count = Field(description="chains (and lattices) sampled per seed")
    lattice_size: int = Field(16, ge=6, description="side of the free 2-D lattice")
    lattice_coupling: float = Field(0.4, gt=0, lt=0.44, description="J of the lattice, below the critical 0.4407")
    lattice_patch_size: Count = 4
    lattice_sweeps: Count = Field(200, description="heat-bath sweeps from a random start")

    @model_validator(mode="after")
    def _fits(self) -> Ising:
        for patch_size in self.patch_sizes:
            if self.length % patch_size or self.length // patch_size < 3:
                raise ValueError(
                    f"patch_sizes: {patch_size} does not cut length={self.length} into 3 patches or more; lower it"
                )
        most = min(self.length, self.lattice_size**2, self.n_samples)
        if max(self.n_components) > most:
            raise ValueError(f"n_components: spins and samples allow {most} at most; lower it")
        if self.lattice_size % self.lattice_patch_size or self.lattice_size // self.lattice_patch_size < 3:
            raise ValueError("lattice_patch_size: it does not cut lattice_size into 3 patches a side or more; lower it")
        return self
