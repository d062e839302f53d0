"""Measures of trained models: each module of this folder declares one, and is found here by its name."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from spatialmae.evaluation.measure import Measure

MEASURES: dict[str, Measure] = {
    module.name: import_module(f"{__name__}.{module.name}").MEASURE for module in iter_modules(__path__)
}
