"""Shape bias: does a probe go by the shape or by the texture, where one image shows those of two classes?

After Geirhos et al. (ICLR 2019): of the decisions for either cue's class, the share for the shape's. Decisions for
other classes and images whose cues agree are counted and left out. A probe that guesses comes near 0.5, and so does one
that is drawn to both cues alike, so the counts belong beside the share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from statsmodels.stats.proportion import proportion_confint

from spatialmae.data.dataset import ImageData
from spatialmae.data.dead_leaves import dead_leaves, world_options
from spatialmae.model.trained import TrainedModel
from spatialmae.probe.linear_probe import PENALTIES, FittedProbe, ProbeTask, fit_linear_probe
from spatialmae.probe.representation import LAYER, Feature, represent, represent_splits

CONFIDENCE = 0.95


@dataclass(frozen=True)
class CueDecisions:
    """What a probe decided on images whose cues are of different classes: counts of images.

    Attributes:
        shape: the class of the shape.
        texture: the class of the texture.
        neither: another class.
    """

    shape: int
    texture: int
    neither: int

    @classmethod
    def of(
        cls,
        predicted: Int64[np.ndarray, " n"],
        shape: Int64[np.ndarray, " n"],
        texture: Int64[np.ndarray, " n"],
    ) -> CueDecisions:
        """Count decisions; images with the same class in shape and texture are left out."""
        conflict = shape != texture
        n_shape = int(np.sum(conflict & (predicted == shape)))
        n_texture = int(np.sum(conflict & (predicted == texture)))
        return cls(n_shape, n_texture, int(conflict.sum()) - n_shape - n_texture)

    @property
    def shape_bias(self) -> float:
        """Shape decisions / (shape + texture decisions), 0 … 1; NaN where there are none."""
        decided = self.shape + self.texture
        return self.shape / decided if decided else math.nan

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Wilson's interval of the shape bias, as if images were independent draws; NaN where there are none.

        Published stimuli share pictures (each object occurs with several textures), so that it is rather too narrow.
        """
        decided = self.shape + self.texture
        if not decided:
            return math.nan, math.nan
        low, high = proportion_confint(self.shape, decided, alpha=1 - confidence, method="wilson")
        return float(low), float(high)

    def row(self) -> dict[str, Any]:
        """Share, interval and counts for a tidy table; ``n`` images had conflicting cues."""
        low, high = self.interval()
        return {
            "shape_bias": self.shape_bias,
            "low": low,
            "high": high,
            "confidence": CONFIDENCE,
            "n_shape": self.shape,
            "n_texture": self.texture,
            "n_neither": self.neither,
            "n": self.shape + self.texture + self.neither,
        }


def shape_bias_row(run: TrainedModel, probe: FittedProbe, stimuli: ImageData) -> dict[str, Any]:
    """Shape bias of a linear probe on the test images of cue-conflict stimuli.

    The probe chooses among the classes that occur as shape or texture, as Geirhos et al. map decisions to the stimuli's
    classes.

    Args:
        run: the model that the probe is of.
        probe: fitted to labels that the stimuli's are of.
        stimuli: with targets ``shape`` and ``texture`` in the probe's labels, and the model's image size: the published
            ones (:func:`~spatialmae.data.cue_conflict.with_classes_of`), or those of :class:`CueLeaves`.

    Returns:
        :meth:`CueDecisions.row`, and the contract. ``n_same_cue`` images have cues that agree, and are given that class
        with ``same_cue_accuracy`` (None without such images): how well the probe sees these images at all.
        ``probe_accuracy`` is its accuracy on the test images of its own task.
    """
    rows = stimuli.splits["test"]
    shape, texture = stimuli.target("shape", "test"), stimuli.target("texture", "test")
    classes = np.union1d(shape, texture)
    feature = probe.row["feature"]
    predicted = probe.predict(represent(run, stimuli.images[rows], feature), among=classes)
    same = shape == texture
    return {
        "stimuli": stimuli.name,
        **CueDecisions.of(predicted, shape, texture).row(),
        "n_same_cue": int(same.sum()),
        "same_cue_accuracy": float(np.mean(predicted[same] == shape[same])) if same.any() else None,
        "n_classes": len(classes),
        "probe_target": probe.row["target"],
        "probe_accuracy": probe.row["accuracy"],
        "probe_chance": probe.row["chance"],
        "feature": feature,
        "layer": LAYER,
    }


@dataclass(frozen=True)
class CueLeaves:
    """Images of one world of leaves, in which class i is both a shape and a texture.

    A decision for one of two cues has a meaning only if both stand for the same classes. In the matched images they do:
    texture i lies on shape i, always, so that a probe can go by either, and nothing tells it by which. In the
    conflicting ones they are of different classes, and the probe has to take sides. A probe of the shape among
    independent cues, by contrast, learns that texture means nothing.

    Attributes:
        matched: with three splits, to fit the probe.
        conflict: test images.
    """

    matched: ImageData
    conflict: ImageData

    @classmethod
    def render(
        cls,
        *,
        image_size: int,
        n_train: int,
        n_validation: int,
        n_test: int,
        grayscale: bool = False,
        world: Mapping[str, Any] | None = None,
        seed: int,
    ) -> CueLeaves:
        """Render both.

        Args:
            image_size: the model's, whatever images it was trained on.
            n_train: matched images to fit the probe to.
            n_validation: matched images that choose its penalty.
            n_test: conflicting images, and matched test images.
            grayscale: one channel, if the model takes one.
            world: ``provenance`` of the leaves that the model was trained on, whose world is kept; None: the
                usual world.
            seed: another than that of ``world``, whose objects would come again.

        Raises:
            ValueError: the seed is that of the world.
            UserError: an impossible value.
        """
        known = world or {}
        if known.get("seed") == seed:
            raise ValueError(f"seed: {seed} is that of the images that the model was trained on; take another")
        options = world_options(known) | {"image_size": image_size, "grayscale": grayscale, "seed": seed}
        return cls(
            dead_leaves(cues="matched", n_train=n_train, n_validation=n_validation, n_test=n_test, **options),
            # A data set has a training image; nothing is fitted to it.
            dead_leaves(cues="conflict", n_train=1, n_validation=0, n_test=n_test, **options),
        )


def leaves_shape_bias(
    run: TrainedModel, cues: CueLeaves, feature: Feature = "mean", penalties: Sequence[float] = PENALTIES
) -> dict[str, Any]:
    """Shape bias on conflicting leaves of a linear probe that was fitted to matched ones: :func:`shape_bias_row`."""
    features = represent_splits(run, cues.matched.images, dict(cues.matched.splits.items()), feature)
    # Shape and texture are one label here.
    probe = fit_linear_probe(ProbeTask.of(features, cues.matched, "shape", feature), penalties)
    return shape_bias_row(run, probe, cues.conflict) | {
        "penalty": probe.row["penalty"],
        "n_train": probe.row["n_train"],
    }
