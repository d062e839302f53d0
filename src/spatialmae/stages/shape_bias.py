"""Stage ``shape_bias``: whether probes go by shape or by texture where the two are of different classes (claim B9)."""

from __future__ import annotations

import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config
from spatialmae.data.cue_conflict import cue_conflict, with_classes_of
from spatialmae.data.dataset import ImageData
from spatialmae.layout import Layout
from spatialmae.probe.shape_bias import CueLeaves, leaves_shape_bias, shape_bias_row
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.stages.probes import FEATURE, ProbedModel
from spatialmae.tables import write_table

SEED = 7  # of the leaves, whose images no model was trained on
CUES = {"n_train": 4000, "n_validation": 1000, "n_test": 2000}
# The data set whose classes those of the published stimuli are mapped to, and its labels.
PUBLISHED, LABEL = "cifar10", "label"


def run(config: Config, name: str) -> None:
    """Write ``tables/shape_bias/<name>.csv``, a row for each model and kind of stimuli.

    Raises:
        UserError: images or a run are missing or damaged, or the published stimuli are needed and not to be had.
    """
    evaluated, layout = EvaluationSet(config, name), Layout.of(config)
    data = evaluated.data
    height, _, channels = data.image_shape
    cues = CueLeaves.render(image_size=height, grayscale=channels == 1, world=data.provenance, seed=SEED, **CUES)
    published = _published_stimuli(layout, data) if data.name == PUBLISHED else None
    rows = []
    for spec in tqdm(evaluated.specs, desc=f"shape bias {name}", unit="run"):
        trained, keys = evaluated.run(spec), spec.settings()
        rows.append(keys | leaves_shape_bias(trained, cues, FEATURE))
        if published is not None:
            probe = ProbedModel(evaluated, spec, trained).linear_probe(LABEL)
            rows.append(keys | shape_bias_row(trained, probe, published))
    write_table(layout.table("shape_bias", name), pd.DataFrame(rows))


def _published_stimuli(layout: Layout, data: ImageData) -> ImageData:
    """Those of Geirhos et al., at the models' size, with the data set's labels."""
    stimuli = cue_conflict(cache=layout.downloads, image_size=data.image_shape[0])
    return with_classes_of(stimuli, data.class_names[LABEL])
