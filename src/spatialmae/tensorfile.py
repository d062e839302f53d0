"""The safetensors format in numpy alone, for machines that have torch and numpy and nothing else.

A file is 8 bytes (the length of the header, little-endian), a JSON header that gives each tensor's dtype, shape and
place, and the tensors' bytes. Nothing in it is ever executed. The tests hold this against the safetensors package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# The format's names of little-endian types; bfloat16, which numpy lacks, is not among them.
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
NAMES = {np.dtype(code): name for name, code in DTYPES.items()}
MAX_HEADER = 100_000_000  # the format's own limit, in bytes

Entry = tuple[np.dtype, tuple[int, ...], int, int]  # type, shape, first byte and the one after the last


def write(file: BinaryIO, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write named arrays and the header's string metadata.

    Raises:
        ValueError: an array's type has no name in the format.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    arrays, end = [], 0
    for name, array in tensors.items():
        little = np.asarray(array).astype(np.asarray(array).dtype.newbyteorder("<"), copy=False)
        if little.dtype not in NAMES:
            raise ValueError(f"{name} is {array.dtype}, which safetensors does not store")
        header[name] = {
            "dtype": NAMES[little.dtype],
            "shape": list(little.shape),
            "data_offsets": [end, end + little.nbytes],
        }
        end += little.nbytes
        arrays.append(little)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays:
        file.write(array.tobytes())


def read(path: Path | str, wanted: Callable[[str], bool]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the arrays whose names are ``wanted``, and the string metadata.

    Raises:
        ValueError: the file is truncated, or not of the format.
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise ValueError("the header is longer than the file")
        header = _parse(file.read(length))
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("the header's metadata are no mapping of strings")
        entries = {name: _entry(name, entry) for name, entry in header.items()}
        _check_ranges(entries, size - 8 - length)
        tensors = {}
        for name, (dtype, shape, begin, _) in entries.items():
            if wanted(name):
                file.seek(8 + length + begin)
                tensors[name] = np.fromfile(file, dtype=dtype, count=prod(shape)).reshape(shape)
    return tensors, metadata


def _parse(text: bytes) -> dict[str, Any]:
    """The header, from its JSON.

    Raises:
        ValueError: it is no JSON in UTF-8, no mapping, or has a name twice.
    """
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("the header is no mapping")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("the header has a name twice")
    return names


def _entry(name: str, entry: Any) -> Entry:
    """Type, shape and place of a tensor, checked against each other."""
    try:
        code, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the header's entry of {name!r} lacks a known dtype, a shape or two data_offsets") from None
    dtype = np.dtype(code)
    # The bound is numpy's own; a dimension may exceed the file's size where another is 0.
    counts = isinstance(shape, list) and all(type(n) is int and 0 <= n < 2**63 for n in (*shape, begin, end))
    if not counts or end - begin != prod(shape) * dtype.itemsize:
        raise ValueError(f"the header's entry of {name!r} has a shape and data_offsets that do not fit each other")
    return dtype, tuple(shape), begin, end


def _check_ranges(entries: Mapping[str, Entry], n_bytes: int) -> None:
    """Refuse tensors that share bytes, or bytes of no tensor, as the format does.

    Raises:
        ValueError: naming the first tensor that does not begin where the one before ends.
    """
    at = 0
    for begin, end, name in sorted((begin, end, name) for name, (_, _, begin, end) in entries.items()):
        if begin != at:
            raise ValueError(f"{name!r} begins at byte {begin} of the data, where the tensor before ends at {at}")
        at = end
    if at != n_bytes:
        raise ValueError(f"the tensors take {at} bytes, and the file holds {n_bytes}")
