"""Stage ``shift``: what linear probes make of images that differ from those they were fitted to (claims B8, B9).

Corrupted test images, and images whose shape and texture are of different classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config
from spatialmae.data.cue_conflict import cue_conflict, with_classes_of
from spatialmae.data.dataset import ImageData
from spatialmae.layout import Layout
from spatialmae.probe.classification import label_targets
from spatialmae.probe.corruptions import corruption_rows
from spatialmae.probe.linear_probe import FittedProbe, ProbeTask, fit_linear_probe
from spatialmae.probe.representation import Feature, represent_splits
from spatialmae.probe.shape_bias import CueLeaves, leaves_shape_bias, shape_bias_row
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.stages.kept import Row
from spatialmae.tables import write_table
from spatialmae.train.runs import TrainedRun

FEATURE: Feature = "mean"
SEED = 7  # of corruptions and of cue-conflict leaves, whose images no model was trained on
CUES = {"n_train": 4000, "n_validation": 1000, "n_test": 2000}  # leaves that shape bias is measured with
PUBLISHED = "cifar10"  # the data set whose classes those of the published stimuli are mapped to


def run(config: Config, name: str) -> None:
    """Write the tables ``corruptions`` and ``shape_bias`` of an evaluation.

    Raises:
        UserError: images or a run are missing or damaged, or the stimuli are not to be had.
    """
    evaluated, layout = EvaluationSet(config, name), Layout.of(config)
    data = evaluated.data
    cues = _cue_leaves(data)
    published = _published_stimuli(layout, data)
    corrupted, biases = [], []
    for spec in tqdm(evaluated.specs, desc=f"shift {name}", unit="run"):
        trained, keys = evaluated.run(spec), spec.settings()
        biases.append(keys | leaves_shape_bias(trained, cues, FEATURE))
        for probe in _probes(trained, data):
            corrupted += [keys | row for row in _corruption_rows(trained, probe, data, evaluated.settings.n_test)]
            if published is not None:
                biases.append(keys | shape_bias_row(trained, probe, published))
    write_table(layout.table("corruptions", name), pd.DataFrame(corrupted))
    write_table(layout.table("shape_bias", name), pd.DataFrame(biases))


def _probes(trained: TrainedRun, data: ImageData) -> Iterator[FittedProbe]:
    """A probe of each class label, fitted to clean training images."""
    features = represent_splits(trained, data.images, dict(data.splits.items()), FEATURE)
    for target in label_targets(data):
        yield fit_linear_probe(ProbeTask.of(features, data, target, FEATURE))


def _corruption_rows(trained: TrainedRun, probe: FittedProbe, data: ImageData, n_test: int) -> list[Row]:
    rows = data.splits["test"][:n_test]
    return corruption_rows(trained, probe, data.images[rows], data.targets[probe.task.target][rows], SEED)


def _cue_leaves(data: ImageData) -> CueLeaves:
    """Leaves of the models' size, of the world that they were trained on if it was one of leaves."""
    height, _, channels = data.image_shape
    return CueLeaves.render(image_size=height, grayscale=channels == 1, world=data.provenance, seed=SEED, **CUES)


def _published_stimuli(layout: Layout, data: ImageData) -> ImageData | None:
    """Those of Geirhos et al. for models of CIFAR-10; None for others."""
    if data.name != PUBLISHED:
        return None
    stimuli = cue_conflict(cache=layout.downloads, image_size=data.image_shape[0])
    return with_classes_of(stimuli, data.class_names["label"])
