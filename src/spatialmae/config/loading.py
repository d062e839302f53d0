"""Configuration files: what they extend, and errors that name file, field and a hint.

A file that ``extends`` others, and an entry of ``datasets``, ``training`` or ``evaluations`` that ``extends`` others of
its section, says what differs: mappings are merged, anything else replaces, and null takes a key away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spatialmae.config.study import Config
from spatialmae.errors import UserError
from spatialmae.yamlfile import read_yaml

EXTENDS = "extends"
# Sections whose entries may extend each other.
EXTENSIBLE = ("datasets", "training", "evaluations")
MISSING = ("configuration not found", "give an existing file, e.g. config/config.yaml")
# Keys and kinds of earlier versions.
STALE_KEYS = {
    ("evaluations", "stages"): ("the key is called models now", "rename it"),
    ("training", "minutes"): ("the key is gone, since each run is a job of its own and can be resumed", "remove it"),
}
STALE_KINDS = {"leaves": "dead_leaves"}


def load_config(path: Path | str) -> Config:
    """Read and validate a YAML configuration file.

    Raises:
        UserError: the file or one that it extends is missing, not YAML, or not a valid configuration; a key occurs
            twice; or files extend each other.
    """
    return parse_config(read_values([path]), path)


def read_values(paths: Iterable[Path | str], overrides: Mapping[str, Any] | None = None) -> Any:
    """The contents of configuration files, each over what it extends and over the files before it.

    Args:
        paths: of the files.
        overrides: go over all of them.

    Raises:
        UserError: see :func:`load_config`.
    """
    values: Any = {}
    for path in paths:
        values = _merged(values, resolve_extends(_read(path, MISSING), path))
    return _merged(values, overrides or {})


def resolve_extends(values: Mapping[str, Any], path: Path | str, *, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The contents of a file, merged over those of the files that it extends.

    Args:
        values: the contents.
        path: the file; those that it extends are relative to its folder.
        above: files that extend this one, directly or not.

    Raises:
        UserError: a file that is extended is missing, not YAML, no configuration, or extends this one in turn; a key
            occurs twice.
    """
    above = (*above, Path(path).resolve())
    below: dict[str, Any] = {}
    for name in _names(values, path, EXTENDS):
        base = Path(path).parent / name
        if base.resolve() in above:
            raise UserError(path, f"{EXTENDS}: {name} extends this file in turn", "remove one of the two")
        missing = (f"not found, and {path} extends it", "name a file, relative to that file's folder")
        below = _merged(below, resolve_extends(_read(base, missing), base, above=above))
    return _merged(below, {key: value for key, value in values.items() if key != EXTENDS})


def parse_config(values: Any, where: object) -> Config:
    """Validate the contents of a configuration file.

    Raises:
        UserError: naming the first field that is wrong, and a hint.
    """
    if isinstance(values, Mapping):
        values = _without_nulls({key: _resolved_entries(key, value, where) for key, value in values.items()})
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        # What an unknown key was meant for may be missing as well, so that stale keys come first.
        first = min(error.errors(include_url=False), key=lambda one: _stale_key(one) is None)
        problem, hint = _explain(first)
        raise UserError(where, _named(problem, first), hint) from None


def _read(path: Path | str, missing: tuple[str, str]) -> Mapping[str, Any]:
    values = read_yaml(path, missing)
    if not isinstance(values, Mapping):
        problem = "empty" if values is None else "no mapping of keys to values"
        raise UserError(path, f"configuration: {problem}", "write it (docs/configuration.md lists its keys)")
    return values


def _merged(below: Any, above: Any) -> Any:
    """``above``, and of mappings what it does not name of ``below``. A source of another kind shares nothing."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    if "kind" in above and above["kind"] != below.get("kind"):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _names(values: Mapping[str, Any], where: object, field: str) -> list[str]:
    """What a file or an entry extends."""
    names = values.get(EXTENDS, [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(where, f"{field}: {names!r} is no name and no list of names", "give one, or remove it")
    return names


def _resolved_entries(section: str, entries: Any, where: object) -> Any:
    """The entries of a section, each merged over those that it extends."""
    if section not in EXTENSIBLE or not isinstance(entries, Mapping):
        return entries

    def resolved(name: str, above: tuple[str, ...]) -> Any:
        entry = entries[name]
        if not isinstance(entry, Mapping):
            return entry
        field = f"{section}.{name}.{EXTENDS}"
        below: dict[str, Any] = {}
        for base in _names(entry, where, field):
            if base not in entries:
                raise UserError(where, f"{field}: {base!r} is not among {section}", "name one of them")
            if base in (*above, name):
                raise UserError(where, f"{field}: {base} extends {name} in turn", "remove one of the two")
            below = _merged(below, resolved(base, (*above, name)))
        return _merged(below, {key: value for key, value in entry.items() if key != EXTENDS})

    return {name: resolved(name, ()) for name in entries}


def _without_nulls(values: Any) -> Any:
    """Without the keys that are null, so that their defaults hold."""
    if not isinstance(values, Mapping):
        return values
    return {key: _without_nulls(value) for key, value in values.items() if value is not None}


def _stale_key(error: Any) -> tuple[str, str] | None:
    """What became of a key of an earlier version, and a hint; None for another error."""
    return STALE_KEYS.get((error["loc"][0], error["loc"][-1])) if error["type"] == "extra_forbidden" else None


def _named(problem: str, error: Any) -> str:
    """A problem behind the dotted name of the field that has it."""
    # The discriminated union puts its tag after "source", which is no field of the file.
    before = (None, *error["loc"])
    section = ".".join(str(part) for i, part in enumerate(error["loc"]) if before[i] != "source")
    if error["type"] == "value_error" and re.match(r"[\w.]+: ", problem):  # of a field of the section
        return f"{section}.{problem}" if section else problem
    return f"{section or 'configuration'}: {problem}"


def _explain(error: Any) -> tuple[str, str]:
    if stale := _stale_key(error):
        return stale
    if error["type"] == "extra_forbidden":
        return "unknown key", "remove it or correct its spelling (docs/configuration.md lists all)"
    if error["type"] == "missing":
        return "missing", "add it (docs/configuration.md says what it means)"
    if error["type"] == "value_error":
        problem, _, hint = str(error["ctx"]["error"]).partition("; ")
        return problem, hint
    if error["type"] == "union_tag_invalid":
        tag, known = error["ctx"]["tag"], error["ctx"]["expected_tags"]
        hint = f"the kind is called {STALE_KINDS[tag]} now" if tag in STALE_KINDS else f"use one of {known}"
        return f"unknown kind {tag!r}", hint
    if error["type"] == "union_tag_not_found":
        return "lacks its kind", "add one (docs/configuration.md lists all)"
    if error["type"] == "string_pattern_mismatch":
        return f"{error['input']!r} is no name", "use letters, digits, - and _, the first no sign"
    return f"{error['msg']}, got {error['input']!r}", "change it (docs/configuration.md gives type and range)"
