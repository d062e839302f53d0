"""Artifacts on disk: written to a temporary name and renamed, so that none is ever half-written.

Needs numpy alone, because training does; tables, which need pandas, are in :mod:`spatialmae.tables`.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from spatialmae import tensorfile
from spatialmae.errors import UserError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` if the block succeeds, else is deleted."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    # mkstemp makes private files; artifacts get what the user's umask grants any other file.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    try:
        yield temporary
        # Else a crash of the machine soon after may leave the name on an empty file.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(lock: Path | str, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock that one process at a time can have; it ends with the process, however that ends.

    Args:
        lock: file of the lock. It stays, since a lock whose file is deleted can be held twice.
        wait: while another process has it.

    Raises:
        BlockingIOError: another process has it, and ``wait`` is false.
    """
    lock = Path(lock)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON atomically, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def nan_as_none(value: Any) -> Any:
    """A JSON-able value in which None stands for NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {name: nan_as_none(own) for name, own in value.items()}
    if isinstance(value, list):
        return [nan_as_none(own) for own in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_tensors(path: Path | str, tensors: Mapping[str, np.ndarray], metadata: Any = None) -> None:
    """Write named arrays as one safetensors file, with JSON-able ``metadata`` in its header.

    Raises:
        ValueError: the metadata hold NaN or an infinity, or the format does not store an array's type.
    """
    # "format" tells other readers of safetensors, Hugging Face's among them, how to take the arrays.
    header = {"format": "pt", "spatialmae": json.dumps(metadata, allow_nan=False)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        tensorfile.write(file, tensors, header)


def read_tensors(path: Path | str, prefix: str = "") -> tuple[dict[str, np.ndarray], Any]:
    """Read the arrays whose names start with ``prefix``, and the metadata, of :func:`write_tensors`.

    Raises:
        UserError: the file is missing, truncated or not a safetensors file of this project.
    """
    try:
        tensors, header = tensorfile.read(path, lambda name: name.startswith(prefix))
        return tensors, json.loads(header["spatialmae"])
    except FileNotFoundError:
        raise UserError(path, "artifact not found", "run the stage that makes it, e.g. `snakemake`") from None
    except (ValueError, KeyError, RecursionError) as error:
        raise UserError(path, f"not a readable artifact ({error})", "delete it and run its stage again") from None
