"""Results that take minutes to make, each kept in a file of its own when it is made.

A stage that was stopped goes on where it was, and evaluations share the results of the models that they have in common.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spatialmae.artifacts import read_tensors, write_json, write_tensors
from spatialmae.errors import UserError

Row = dict[str, Any]


@dataclass(frozen=True)
class KeptFile:
    """One result.

    Attributes:
        folder: that keeps it.
        name: what its file's name begins with.
        key: all that decides the result, JSON-able.
    """

    suffix: ClassVar[str]

    folder: Path
    name: str
    key: Row

    @property
    def path(self) -> Path:
        """Another file for each key."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{self.name}-{digest[:16]}{self.suffix}"


class KeptArrays(KeptFile):
    """Named arrays, bit for bit."""

    suffix = ".safetensors"

    def read(self) -> dict[str, np.ndarray] | None:
        """The arrays, if they were made before and their file is whole."""
        try:
            arrays, about = read_tensors(self.path)
            return arrays if about["key"] == self.key else None
        except (UserError, KeyError, TypeError):
            return None

    def write(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Keep the arrays."""
        write_tensors(self.path, arrays, {"key": self.key})
        return arrays


class _KeptJson(KeptFile):
    suffix = ".json"

    def _read(self) -> Any:
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            return kept["row"] if kept["key"] == self.key else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _write(self, made: Any) -> Any:
        write_json(self.path, {"key": self.key, "row": made})
        return made


class KeptRow(_KeptJson):
    """One row of a table."""

    def read(self) -> Row | None:
        """The row, if it was made before and its file is whole."""
        return self._read()

    def write(self, row: Row) -> Row:
        """Keep the row; as it will be read back, NaN as None."""
        return self._write(_nan_as_none(row))


class KeptRows(_KeptJson):
    """Rows of a table that are made together."""

    def read(self) -> list[Row] | None:
        """The rows, if they were made before and their file is whole."""
        return self._read()

    def write(self, rows: list[Row]) -> list[Row]:
        """Keep the rows; as they will be read back, NaN as None."""
        return self._write([_nan_as_none(row) for row in rows])


def _nan_as_none(row: Row) -> Row:
    return row | {name: None for name, value in row.items() if isinstance(value, float) and math.isnan(value)}
