"""Data sets, and what is measured of them and of linear models on them."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from spatialmae.config.section import Count, Section, Unique, one_of
from spatialmae.config.sources import Source


class DatasetAnalysis(NamedTuple):
    """What can be measured of a data set.

    Attributes:
        says: what it measures.
        stage: that makes it, among :mod:`spatialmae.stages`.
        tables: that it writes.
        reads: settings of a data set whose change reruns it; it needs those of them that have no default.
        solves: whether it is of linear models, which are then solved first (table ``linear_sweep``).
        needs: what images must come with.
    """

    says: str
    stage: str
    tables: tuple[str, ...]
    reads: tuple[str, ...] = ("groups", "patch_sizes", "n_components")
    solves: bool = True
    needs: Literal["labels", "depth"] | None = None


DATASET_ANALYSES = {
    "statistics": DatasetAnalysis(
        "power spectrum and correlation length of the images",
        "statistics",
        ("statistics", "statistics_summary"),
        ("groups",),
        solves=False,
    ),
    "features": DatasetAnalysis(
        "what linear AEs and MAEs keep: variance, redundancy across patches (A2)", "features", ("features",)
    ),
    "reach": DatasetAnalysis(
        "influence, reach and entropy of linear MAEs, DAEs and AEs (A4 to A6)",
        "reach",
        ("reach", "reach_profile"),
        ("groups", "patch_sizes", "n_components", "source"),
    ),
    "sampling": DatasetAnalysis(
        "how much of the reach is noise of second moments (A5.8 to A5.11, A6.9)",
        "sampling",
        ("sampling_lags", "sampling_draws"),
        ("groups", "patch_sizes", "n_components", "source"),
        solves=False,
    ),
    "probe_gabor": DatasetAnalysis(
        "prediction of Gabor responses from linear features (A7)",
        "probe_gabor",
        ("probe_gabor",),
        ("groups", "patch_sizes", "n_components", "sigmas"),
    ),
    "probe_depth": DatasetAnalysis(
        "prediction of depth from linear features (A8); leaves and depth images alone",
        "probe_depth",
        ("probe_depth",),
        needs="depth",
    ),
    "probe_class": DatasetAnalysis(
        "prediction of class labels from linear features; images with labels",
        "probe_class",
        ("probe_class",),
        needs="labels",
    ),
}


class Dataset(Section):
    """A data set, and what is done with it."""

    source: Source = Field(description="where the images come from, of one of the kinds below")
    groups: Annotated[int, Field(ge=2, le=100)] | None = Field(
        None, description="disjoint groups of images, the unit: a seed leaves one out; all analyses and checks need it"
    )
    patch_sizes: Annotated[list[Count], Unique] = Field(
        [], description="patch sides in px; each must tile the image; analyses of linear models need some"
    )
    n_components: Annotated[list[Count], Unique] = Field(
        [], description="ranks k of the linear autoencoders; analyses of linear models need some"
    )
    analyses: Annotated[list[Annotated[str, one_of(DATASET_ANALYSES)]], Unique] = Field(
        [], description="what is done with it, see below"
    )
    sigmas: Annotated[list[float], Unique] = Field(
        [1.0, 2.0], min_length=1, description="Gabor envelopes σ in px, .83 to a quarter side"
    )
    threads: Count = Field(1, description="threads for its solves")

    @property
    def solves(self) -> bool:
        """Whether an analysis is of linear models."""
        return any(DATASET_ANALYSES[analysis].solves for analysis in self.analyses)

    @model_validator(mode="after")
    def _fits(self) -> Dataset:
        height, width, channels = self.source.shape
        for patch_size in self.patch_sizes:
            if height % patch_size or width % patch_size:
                raise ValueError(f"patch_sizes: {patch_size} does not tile {height}×{width} px; use a divisor")
            if patch_size == height == width:
                raise ValueError(f"patch_sizes: {patch_size} is the whole image; use a smaller divisor")
        if max(self.n_components, default=0) > height * width * channels:
            raise ValueError(f"n_components: at most {height * width * channels} features exist; lower it")
        if "probe_gabor" in self.analyses and not all(0.83 <= sigma <= min(height, width) / 4 for sigma in self.sigmas):
            raise ValueError(f"sigmas: a Gabor filter needs .83 ≤ σ ≤ {min(height, width) / 4} px here; change them")
        for name in self.analyses:
            self._check_analysis(name, DATASET_ANALYSES[name])
        return self

    def _check_analysis(self, name: str, analysis: DatasetAnalysis) -> None:
        if analysis.needs and not getattr(self.source, f"has_{analysis.needs}"):
            problem = f"images of kind {self.source.kind} come without {analysis.needs}"
            raise ValueError(f"analyses: {problem}; remove {name}")
        for setting in analysis.reads:
            if not getattr(self, setting):
                hint = "add it (docs/configuration.md says what it means)"
                raise ValueError(f"{setting}: missing, and {name} needs it; {hint}")
