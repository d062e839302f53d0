"""Trainings: grids of models on one data set."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from typing import Annotated, Any

from pydantic import Field

from spatialmae.config.section import Name, Section, Unique
from spatialmae.model.config import MAEConfig
from spatialmae.train.plan import FROM_DATASET
from spatialmae.train.settings import TrainConfig

# What a training may set: the rest of the model follows from its data set.
MODEL_FIELDS = tuple(f.name for f in fields(MAEConfig) if f.name not in FROM_DATASET)
TRAIN_FIELDS = tuple(f.name for f in fields(TrainConfig))


class Training(Section):
    """Every model of a grid on one data set, each from several seeds."""

    dataset: Name = Field(description="data set that is trained and validated on")
    seeds: int = Field(ge=1, le=100, description="runs of each model; their seeds count up from seeds.first")
    model: dict[str, Any] = Field({}, description="architecture, masking and objective of all its models, see below")
    train: dict[str, Any] = Field({}, description="length, optimizer and augmentation of all its runs, see below")
    grid: dict[str, Annotated[list[Any], Field(min_length=1), Unique]] = Field(
        {}, description="settings of either kind that vary, each with its values; all combinations are trained"
    )

    def cells(self, shape: tuple[int, int, int]) -> list[tuple[MAEConfig, TrainConfig]]:
        """Model and training of each combination of the grid, for images of ``shape`` (h, w, c).

        Raises:
            ValueError: naming the first setting that is wrong as "<section>.<field>: problem; hint".
        """
        self._check_fields()
        height, width, channels = shape
        found: list[tuple[MAEConfig, TrainConfig]] = []
        for values in product(*self.grid.values()):
            cell = dict(zip(self.grid, values, strict=True))
            model = self.model | {name: value for name, value in cell.items() if name in MODEL_FIELDS}
            train = self.train | {name: value for name, value in cell.items() if name in TRAIN_FIELDS}
            try:
                built = MAEConfig.from_dict(model | {"image_size": (height, width), "channels": channels})
                found.append((built, TrainConfig.from_dict(train)))
            except ValueError as error:
                raise ValueError(f"{self._section(str(error).partition(': ')[0])}.{error}") from None
        # The values of each setting differ; only a mask_unit of null and one of the patch are the same model.
        if len(set(found)) < len(found):
            raise ValueError("grid.mask_unit: null and the patch size are the same model; remove one")
        return found

    def _section(self, field: str) -> str:
        """The section of the file that a setting belongs in."""
        if field in self.grid:
            return "grid"
        return "model" if field in (*MODEL_FIELDS, *FROM_DATASET) else "train"

    def _check_fields(self) -> None:
        known = {"grid": (*MODEL_FIELDS, *TRAIN_FIELDS), "model": MODEL_FIELDS, "train": TRAIN_FIELDS}
        for section, names in known.items():
            for name in getattr(self, section):
                if name in FROM_DATASET:
                    raise ValueError(f"{section}.{name}: the data set decides it; remove it")
                if name not in names:
                    hint = "remove it or correct its spelling (docs/configuration.md lists all)"
                    raise ValueError(f"{section}.{name}: unknown key; {hint}")
                if section == "grid" and name == "snapshots":
                    raise ValueError("grid.snapshots: they change no trained model; set them in train, for all runs")
                if section != "grid" and name in self.grid:
                    raise ValueError(f"{section}.{name}: it is in grid as well; remove one")
