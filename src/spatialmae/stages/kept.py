"""Results that take minutes to make, each kept in a file of its own when it is made.

A stage that was stopped goes on where it was, and evaluations share the results of the models that they have in common.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from spatialmae.artifacts import nan_as_none, read_tensors, write_json, write_tensors
from spatialmae.errors import UserError

Row = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class KeptFile(ABC, Generic[Result]):
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

    @abstractmethod
    def read(self) -> Result | None:
        """The result, if it was made before and its file is whole."""

    @abstractmethod
    def write(self, result: Result) -> Result:
        """Keep the result; as it will be read back."""

    def or_make(self, make: Callable[[], Result]) -> Result:
        """The result, made and kept if it was not before."""
        kept = self.read()
        return self.write(make()) if kept is None else kept


class KeptArrays(KeptFile[dict[str, np.ndarray]]):
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


class KeptJson(KeptFile[Result]):
    """Rows of a table."""

    suffix = ".json"

    def read(self) -> Result | None:
        """The rows, if they were made before and their file is whole."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            return kept["row"] if kept["key"] == self.key else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, result: Result) -> Result:
        """Keep the rows; as they will be read back, NaN as None."""
        result = nan_as_none(result)
        write_json(self.path, {"key": self.key, "row": result})
        return result


KeptRow = KeptJson[Row]
KeptRows = KeptJson[list[Row]]  # that are made together
