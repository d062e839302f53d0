"""Evaluations: what is measured of trained models, and how."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from spatialmae.config.section import MASK_RATIOS, Count, MaskRatio, Name, Section, Unique, one_of
from spatialmae.measures import MEASURES
from spatialmae.probe.settings import FineTuneConfig

# What FineTuning takes beside its own keys.
FINE_TUNE_FIELDS = tuple(f.name for f in fields(FineTuneConfig) if f.name != "n_blocks")


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
    analyses: Annotated[list[Annotated[str, one_of(MEASURES)]], Unique] = Field(
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
