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
        header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is no mapping")
        metadata = header.pop("__metadata__", {})
        entries = {name: _entry(name, entry, size - 8 - length) for name, entry in header.items()}
        tensors = {}
        for name, (dtype, shape, begin) in entries.items():
            if wanted(name):
                file.seek(8 + length + begin)
                tensors[name] = np.fromfile(file, dtype=dtype, count=prod(shape)).reshape(shape)
    return tensors, metadata


def _entry(name: str, entry: Any, n_bytes: int) -> tuple[np.dtype, tuple[int, ...], int]:
    """Type, shape and first byte of a tensor, checked against the bytes there are."""
    try:
        dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        numbers = (*shape, begin, end)
        fits = all(type(n) is int and n >= 0 for n in numbers) and end <= n_bytes
        if not fits or end - begin != prod(shape) * dtype.itemsize:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the header's entry of {name!r} does not fit the file") from None
    return dtype, shape, begin
