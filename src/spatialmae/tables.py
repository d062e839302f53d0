"""Tidy tables on disk."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from spatialmae.artifacts import atomic_path
from spatialmae.errors import UserError


def write_table(path: Path | str, table: pd.DataFrame) -> None:
    """Write a tidy CSV atomically; floats keep 10 significant digits."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g")


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a CSV written by :func:`write_table`.

    Raises:
        UserError: the file is missing or empty.
    """
    try:
        # "NULL" is a verdict here, not a missing value.
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise UserError(path, "table not found", "run the stage that makes it, e.g. `snakemake`") from None
    except pd.errors.EmptyDataError:
        raise UserError(path, "table is empty", "delete it and run its stage again") from None


def read_curve(path: Path | str, columns: list[str]) -> pd.DataFrame:
    """Columns of a CSV that a training run wrote.

    Raises:
        UserError: the file is missing, damaged, or lacks a column.
    """
    try:
        return pd.read_csv(path, usecols=columns)
    except (OSError, ValueError) as error:
        raise UserError(path, f"not readable ({error})", "delete the run and train it again") from None
