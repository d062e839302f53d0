"""Measure ``embedding``: how well classes separate in frozen features, as numbers and as a picture (claim B6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialmae.evaluation.measure import Measure, MeasuredModel, Row, Rows

if TYPE_CHECKING:
    from spatialmae.evaluation.shared import Shared
    from spatialmae.probe.settings import Feature

FEATURE: Feature = "mean"
N_SHOWN = 1000  # test images in the picture, at most


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """A row of ``separability`` for each label, and in ``separability_tsne`` coordinates of the first seed's models."""
    from spatialmae.probe.classification import label_targets
    from spatialmae.probe.embedding import separability, tsne
    from spatialmae.probe.representation import represent

    data, test = shared.data, shared.test_images(settings["n_test"], model.seed)
    labels = {target: data.targets[target][test] for target in label_targets(data)}
    features = represent(model.load(), data.images[test], FEATURE)
    found: Rows = {
        "separability": [
            {"target": target, "feature": FEATURE} | separability(features, classes)
            for target, classes in labels.items()
        ],
        "separability_tsne": [],
    }
    if model.seed == shared.first_seed:
        for i, (x, y) in enumerate(tsne(features[:N_SHOWN], shared.first_seed).tolist()):
            names = {target: data.class_names[target][classes[i]] for target, classes in labels.items()}
            found["separability_tsne"].append({"x": x, "y": y} | names)
    return found


MEASURE = Measure(
    "separability of classes and t-SNE (B6); images with labels",
    tables=("separability", "separability_tsne"),
    rows=rows,
    reads=("n_test",),
    needs_labels=True,
)
