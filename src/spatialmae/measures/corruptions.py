"""Measure ``corruptions``: what linear probes make of corrupted test images (claim B8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialmae.evaluation.measure import Measure, MeasuredModel, Row, Rows

if TYPE_CHECKING:
    from spatialmae.evaluation.shared import Shared


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """For each class label a row for each corruption and severity."""
    from spatialmae.evaluation.fitted_probe import fitted_probe
    from spatialmae.probe.classification import label_targets
    from spatialmae.probe.corruptions import CorruptedImages, corruption_rows

    data, test = shared.data, shared.test_images(settings["n_test"], model.seed)
    trained = model.load()
    corrupted = shared.once(
        "corrupted", (model.seed, len(test)), lambda: CorruptedImages.of(data.images[test], model.seed)
    )
    return {
        "corruptions": [
            row
            for target in label_targets(data)
            for row in corruption_rows(
                trained, fitted_probe(model, target, shared), corrupted, data.targets[target][test]
            )
        ]
    }


MEASURE = Measure(
    "the linear probe on corrupted test images (B8); images with labels",
    tables=("corruptions",),
    rows=rows,
    reads=("n_test",),
    takes_up=("linear_probe",),
    needs_labels=True,
)
