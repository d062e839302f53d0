"""A digest of the code that decides a run's weights, so that a run made by other code is known for it."""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from functools import cache
from pathlib import Path

import spatialmae

# Modules that the weights depend on; saving and orchestration are not among them.
NUMERIC = (
    "masks.py",
    "model/config.py",
    "model/patches.py",
    "model/masking.py",
    "model/margin.py",
    "model/transformer.py",
    "model/mae.py",
    "train/settings.py",
    "train/surrogate.py",
    "train/batches.py",
    "train/schedule.py",
    "train/trainer.py",
)


@cache
def code_digest(more: tuple[str, ...] = ()) -> str:
    """SHA-256 of the numeric modules, and ``more`` of the package's files, whatever the Python.

    Comments, docstrings and blank lines do not count.
    """
    root = Path(spatialmae.__file__).parent
    digest = hashlib.sha256()
    for name in NUMERIC + more:
        digest.update(bare_source((root / name).read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


def bare_source(source: str) -> str:
    """Source without comments, docstrings and blank lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) or ast.get_docstring(node) is None:
            continue
        docstring = node.body[0]
        for row in range(docstring.lineno - 1, docstring.end_lineno or docstring.lineno):
            lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())
