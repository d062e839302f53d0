"""Results that take minutes to make, each cached in a file of its own when it is made.

A job that was stopped goes on where it was, and evaluations share the results of the models that they have in common.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spatialmae.artifacts import read_tensors, write_tensors
from spatialmae.errors import UserError

Result = tuple[Any, dict[str, np.ndarray]]  # JSON-able values, and arrays


@dataclass(frozen=True)
class CachedResult:
    """One result: JSON-able values, and named arrays, bit for bit.

    Attributes:
        folder: of its file.
        name: what the file's name begins with.
        key: all that decides the result, JSON-able.
    """

    folder: Path
    name: str
    key: dict[str, Any]

    @property
    def path(self) -> Path:
        """Another file for each key."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{self.name}-{digest[:16]}.safetensors"

    def read(self) -> Result | None:
        """The result, if it was made before and its file is whole."""
        try:
            arrays, about = read_tensors(self.path)
            whole = about["key"] == self.key and about["arrays"] == sorted(arrays)
            return (json.loads(about["values"]), arrays) if whole else None
        except (UserError, KeyError, TypeError, ValueError):
            return None

    def write(self, result: Result) -> Result:
        """Cache the result; as it will be read back."""
        values, arrays = json.dumps(result[0]), result[1]  # NaN and infinities too, which the file's header refuses
        write_tensors(self.path, arrays, {"key": self.key, "values": values, "arrays": sorted(arrays)})
        return json.loads(values), arrays

    def or_make(self, make: Callable[[], Result]) -> Result:
        """The result, made and cached if it was not before."""
        found = self.read()
        return self.write(make()) if found is None else found
