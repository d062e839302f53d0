"""What the models of a table differ in: every setting of a model and its training is a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from spatialmae.model.config import MAEConfig
from spatialmae.train.settings import TrainConfig

MARGIN_CONTROL = "loss_margin_control"
_SETTINGS = [f.name for f in (*fields(MAEConfig), *fields(TrainConfig))]
_NAMES = {
    **{"mask_ratio": "m = {:.2g}", "patch_size": "patch {:.0f} px", "mask_unit": "mask unit {:.0f} px"},
    "loss_margin": "margin {:.0f} px",
}
_CHOICES = {MARGIN_CONTROL: {False: "boundary left out", True: "as many random pixels left out"}}


def varied(models: pd.DataFrame) -> list[str]:
    """The settings that differ between models.

    A mask unit that is the patch in every model varies with the patch, and is no setting of its own.
    """
    found = [name for name in _SETTINGS if name in models and len(models[name].unique()) > 1]
    if (models["mask_unit"] == models["patch_size"]).all():
        found = [name for name in found if name != "mask_unit"]
    return found


def models_along(table: pd.DataFrame, setting: str) -> pd.DataFrame:
    """The rows of models that others differ from in one setting alone; there may be none.

    Along ``loss_margin`` its control is no other setting. Rows of no model have no name.
    """
    rows = table[table["name"].notna()]
    own = [setting, *([MARGIN_CONTROL] if setting == "loss_margin" else [])]
    same = [name for name in varied(rows) if name not in own]
    kinds = rows.assign(all=0, kind=rows[own].astype(str).agg(" ".join, axis=1)).groupby(["all", *same], dropna=False)
    return rows[kinds["kind"].transform("nunique") > 1]


def setting_label(name: str, value: Any) -> str:
    """A setting as legends write it: m = 0.75, patch 4 px, encoder dim 64."""
    if value is None or value != value:
        return f"no {name.replace('_', ' ')}"
    if name in _NAMES:
        return _NAMES[name].format(value)
    if name in _CHOICES:
        return _CHOICES[name][bool(value)]
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return f"{name.replace('_', ' ')} {format(value, '.3g') if number else value}"


def settings_label(names: Sequence[str], values: Sequence[Any], separator: str = ", ") -> str:
    """Several settings as legends write them."""
    return separator.join(setting_label(name, value) for name, value in zip(names, values, strict=True))
