"""The one typed, strictly validated model behind every configuration file: a module for each of its sections.

Unknown keys, wrong types and impossible values are refused with the field's name and a hint. What a field
means stands in its description, from which docs/configuration.md is generated.
"""

from spatialmae.config.datasets import DATASET_ANALYSES, Dataset
from spatialmae.config.evaluations import FINE_TUNE_FIELDS, Dense, Evaluation, FineTuning
from spatialmae.config.hierarchy import Hierarchy, Identifiability
from spatialmae.config.loading import load_config, parse_config, read_values, resolve_extends
from spatialmae.config.sources import Source
from spatialmae.config.study import Claims, Config, Seeds
from spatialmae.config.theory import Checks, Ising, Linear
from spatialmae.config.training import MODEL_FIELDS, TRAIN_FIELDS, Training

__all__ = [
    "DATASET_ANALYSES",
    "FINE_TUNE_FIELDS",
    "MODEL_FIELDS",
    "TRAIN_FIELDS",
    "Checks",
    "Claims",
    "Config",
    "Dataset",
    "Dense",
    "Evaluation",
    "FineTuning",
    "Hierarchy",
    "Identifiability",
    "Ising",
    "Linear",
    "Seeds",
    "Source",
    "Training",
    "load_config",
    "parse_config",
    "read_values",
    "resolve_extends",
]
