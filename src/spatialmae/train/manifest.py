"""The manifest of a training stage: its finished runs, and the hash of their weights, so that a change is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from spatialmae.artifacts import write_json
from spatialmae.errors import UserError


@dataclass(frozen=True)
class Entry:
    """A finished run.

    Attributes:
        name: of the run, and of its folder.
        weights_sha256: of ``model.safetensors``.
        code_matches: whether the code that finished the stage is the code that trained the run.
    """

    name: str
    weights_sha256: str
    code_matches: bool


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Write as JSON, atomically."""
    write_json(path, [asdict(entry) for entry in entries])


def read_manifest(path: Path) -> dict[str, Entry]:
    """The entries by the name of the run.

    Raises:
        UserError: the manifest is missing, or damaged.
    """
    try:
        entries = [Entry(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise UserError(path, "the stage is not trained", "run snakemake training") from None
    except (OSError, ValueError, TypeError):
        entries = []
    if not entries:
        raise UserError(path, "not a readable manifest", "delete it and run snakemake training")
    return {str(entry.name): entry for entry in entries}
