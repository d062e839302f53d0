"""Measure ``shape_bias``: whether probes go by shape or by texture where the two are of different classes (B9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialmae.evaluation.measure import Measure, MeasuredModel, Row, Rows

if TYPE_CHECKING:
    from spatialmae.data.dataset import ImageData
    from spatialmae.evaluation.shared import Shared

SEED = 7  # of the leaves, whose images no model was trained on
CUES = {"n_train": 4000, "n_validation": 1000, "n_test": 2000}
# The data set whose classes those of the published stimuli are mapped to, and its labels.
PUBLISHED, LABEL = "cifar10", "label"


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """A row for each kind of stimuli: leaves, and for CIFAR-10 those of Geirhos et al.

    Raises:
        UserError: the published stimuli are needed and not to be had.
    """
    from spatialmae.evaluation.fitted_probe import FEATURE, fitted_probe
    from spatialmae.probe.shape_bias import CueLeaves, leaves_shape_bias, shape_bias_row

    data, trained = shared.data, model.load()
    height, _, channels = data.image_shape
    cues = shared.once(
        "cues",
        SEED,
        lambda: CueLeaves.render(image_size=height, grayscale=channels == 1, world=data.provenance, seed=SEED, **CUES),
    )
    found = [leaves_shape_bias(trained, cues, FEATURE)]
    if data.name == PUBLISHED:
        published = shared.once("published stimuli", PUBLISHED, lambda: _published_stimuli(shared))
        found.append(shape_bias_row(trained, fitted_probe(model, LABEL, shared), published))
    return {"shape_bias": found}


def _published_stimuli(shared: Shared) -> ImageData:
    """At the models' size, with the data set's labels."""
    from spatialmae.data.cue_conflict import cue_conflict, with_classes_of

    stimuli = cue_conflict(cache=shared.downloads, image_size=shared.data.image_shape[0])
    return with_classes_of(stimuli, shared.data.class_names[LABEL])


MEASURE = Measure(
    "the linear probe on images whose shape and texture disagree (B9): leaves, and published ones for CIFAR-10",
    tables=("shape_bias",),
    rows=rows,
    takes_up=("linear_probe",),
)
