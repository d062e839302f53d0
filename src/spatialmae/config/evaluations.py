"""Evaluations: what is measured of trained models, and how."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Literal, NamedTuple

from pydantic import ConfigDict, Field

from spatialmae.config.section import MASK_RATIOS, Count, MaskRatio, Name, Section, Unique, one_of
from spatialmae.probe.settings import FineTuneConfig

# What FineTuning takes beside its own keys.
FINE_TUNE_FIELDS = tuple(f.name for f in fields(FineTuneConfig) if f.name != "n_blocks")


class AnalysisOfModels(NamedTuple):
    """What can be measured of trained models.

    Attributes:
        says: what it measures, and of which images.
        stage: that makes it, among :mod:`spatialmae.stages`.
        tables: that it writes.
        reads: settings of an evaluation whose change reruns it.
        has_pictures: it writes what it shows at a few images as well.
        of_pixels: it needs predictions of pixels, which models that predict normalised patches have none of.
    """

    says: str
    stage: str
    tables: tuple[str, ...]
    reads: tuple[str, ...] = ()
    has_pictures: bool = False
    of_pixels: bool = False


MODEL_ANALYSES = {
    "jacobian": AnalysisOfModels(
        "Jacobians of the reconstruction: reach, spectra, basis, along training too (A5, A6, A9, A10)",
        "jacobian",
        ("model_reach", "model_profile", "model_basis", "reach_in_training"),
        ("mask_ratios", "mask_ratio", "mask_unit", "n_images", "n_masks"),
        has_pictures=True,
        of_pixels=True,
    ),
    "second_order": AnalysisOfModels(
        "reconstruction error against the best linear one from second moments (A11)",
        "second_order",
        ("second_order",),
        of_pixels=True,
    ),
    "probe": AnalysisOfModels(
        "linear probe and k nearest neighbours on the frozen encoder (A12, A13, A15, B7); images with labels",
        "model_probe",
        ("linear_probe", "nearest_neighbours"),
        ("mask_ratio", "mask_unit"),
    ),
    "fine_tuning": AnalysisOfModels(
        "fine-tuning of the last blocks or all, with time and memory (A12, A14); images with labels",
        "fine_tuning",
        ("fine_tuning",),
        ("fine_tuning",),
    ),
    "reconstruction": AnalysisOfModels(
        "SSIM, PSNR, MSE and FSIM of reconstructed unmasked test images (B4)",
        "reconstruction",
        ("image_quality",),
        ("n_test",),
        of_pixels=True,
    ),
    "attention": AnalysisOfModels(
        "how object-centred attention is, on leaves rendered at the models' size (B5)",
        "attention",
        ("attention",),
        has_pictures=True,
    ),
    "embedding": AnalysisOfModels(
        "separability of classes and t-SNE (B6); images with labels", "embedding", ("separability", "tsne"), ("n_test",)
    ),
    "corruptions": AnalysisOfModels(
        "the linear probe on corrupted test images (B8); images with labels",
        "corruptions",
        ("corruptions",),
        ("n_test",),
    ),
    "shape_bias": AnalysisOfModels(
        "the linear probe on images whose shape and texture disagree (B9): leaves, and published ones for CIFAR-10",
        "shape_bias",
        ("shape_bias",),
    ),
    "dense": AnalysisOfModels(
        "segmentation and depth from frozen and fine-tuned encoders, on leaves (B10)", "dense", ("dense",), ("dense",)
    ),
}


class FineTuning(Section):
    """What is fine-tuned of each model, and how: all that takes hours is set here."""

    model_config = ConfigDict(extra="allow")  # the fields of FineTuneConfig, which it checks itself

    n_blocks: Annotated[list[Annotated[int, Field(ge=0)] | None], Unique] = Field(
        [None],
        min_length=1,
        description="last encoder blocks that are trained, with the norm after them, in turn; 0: the head alone; "
        "null: the whole encoder, patch embedding and [CLS] too",
    )
    from_scratch: bool = Field(
        True, description="train all blocks from fresh weights as well, once for each seed and architecture"
    )

    def configs(self) -> list[FineTuneConfig]:
        """The settings for each of ``n_blocks``.

        Raises:
            ValueError: naming the first field that is wrong.
        """
        return [FineTuneConfig.from_dict({**(self.model_extra or {}), "n_blocks": n}) for n in self.n_blocks]


class Dense(Section):
    """Heads for segmentation and depth, on leaves rendered at the models' size."""

    n_train: int = Field(2000, ge=64, description="images that heads are trained on")
    n_validation: Count = Field(500, description="images that choose the learning rate")
    n_test: Count = Field(1000, description="images that they are scored on")
    epochs: int = Field(20, ge=2, description="passes over the images of a head on a frozen encoder")
    fine_tuning_epochs: Literal[0] | Annotated[int, Field(ge=2)] = Field(
        10, description="of a head with its encoder; 0: frozen ones alone"
    )


class Evaluation(Section):
    """Trained models that are compared with each other, and how."""

    models: Annotated[list[Name], Unique] = Field(
        min_length=1, description="trainings whose models are compared, all on one data set"
    )
    analyses: Annotated[list[Annotated[str, one_of(MODEL_ANALYSES)]], Unique] = Field(
        min_length=1, description="what is measured, see below"
    )
    mask_ratios: Annotated[list[MaskRatio], Unique] = Field(
        MASK_RATIOS, min_length=1, description="of the masks that all models are evaluated under"
    )
    mask_unit: Count | None = Field(
        None, description="side in px of what these masks hide together; null: the patch size, if all models share it"
    )
    mask_ratio: MaskRatio = Field(
        0.75, description="of the masks where there is one: for models along training, and the error beside probes"
    )
    n_images: int = Field(8, ge=2, description="test images that Jacobians are taken of, for each seed")
    n_masks: Count = Field(4, description="masks that Jacobians are taken under, for each seed, each for all images")
    n_test: Count = Field(
        1000, description="test images that `reconstruction`, `embedding` and `corruptions` take, at most"
    )
    dense: Dense = Dense()
    fine_tuning: FineTuning | None = Field(
        None, description="what the analysis `fine_tuning` trains, see below; null: by its defaults"
    )
