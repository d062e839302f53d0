"""The tidy tables of a run as the figure notebooks find them: ``<tables>/<table>/<dataset>.csv``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from spatialmae.tables import read_table


def available(tables: Path | str, table: str, datasets: Iterable[str]) -> list[str]:
    """The ``datasets``, in their order, that have this table: not every data set has depth maps or labels."""
    return [dataset for dataset in datasets if _path(tables, table, dataset).is_file()]


def read(tables: Path | str, table: str, dataset: str) -> pd.DataFrame:
    """One table of one data set.

    Raises:
        UserError: the table is missing or empty.
    """
    return read_table(_path(tables, table, dataset))


def read_all(tables: Path | str, table: str, datasets: Iterable[str]) -> pd.DataFrame:
    """The table of all ``datasets`` that have it, with a first column ``dataset``.

    Raises:
        ValueError: none of them has it.
    """
    parts = {name: read(tables, table, name) for name in available(tables, table, datasets)}
    return pd.concat(parts, names=["dataset"]).reset_index(level="dataset").reset_index(drop=True)


def _path(tables: Path | str, table: str, dataset: str) -> Path:
    return Path(tables) / table / f"{dataset}.csv"
