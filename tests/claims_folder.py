"""A small ledger, as the folder of files that the loader reads, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml


def write_claims(folder: Path, records: Iterable[dict[str, Any]], designs: dict[str, str], first_seed: int) -> Path:
    """Write a ledger whose numbered claims share nothing; each record's paper is the first letter of its id."""
    papers: dict[str, dict[str, Any]] = {"A": {}, "B": {}}
    for record in records:
        number = record["id"].split(".")[0]
        numbered = papers[number[0]].setdefault(number, {"title": f"Title of {number}", "claims": {}})
        numbered["claims"][record["id"]] = {field: value for field, value in record.items() if field != "id"}
    folder.mkdir(parents=True, exist_ok=True)
    files = {"designs": {"verdict_seeds_from": first_seed, "designs": designs}, **papers}
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return folder
