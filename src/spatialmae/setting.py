"""Settings of the model and its training: dataclasses, since pydantic is not on every machine that trains."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any

NUMBERS = ("float", "float | None")  # types of fields that hold them


def setting(default: Any, meaning: str) -> Any:
    """A dataclass field with its default and its meaning, from which docs/configuration.md is generated."""
    return field(default=default, metadata={"meaning": meaning})


def whole_numbers_to_float(settings: Any) -> None:
    """Make floats of whole numbers in float fields of a frozen dataclass, so that 4 and 4.0 are one setting."""
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.type in NUMBERS and isinstance(value, int) and not isinstance(value, bool):
            object.__setattr__(settings, f.name, float(value))


def check_known(cls: type, values: dict[str, Any]) -> None:
    """Refuse keys that are no field of a dataclass.

    Raises:
        ValueError: naming the first.
    """
    unknown = sorted(set(values) - {f.name for f in fields(cls)})
    if unknown:
        raise ValueError(f"{unknown[0]}: unknown key; remove it or correct its spelling")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuse what is no integer of at least ``least``.

    Raises:
        ValueError: naming the field.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: {value!r} is not an integer of {least} or more; {_hint(value)}")


def check_number(name: str, value: object, *, positive: bool = True) -> None:
    """Refuse what is no finite number, or negative, or zero where ``positive``.

    Raises:
        ValueError: naming the field.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf") or (positive and value == 0):  # type: ignore[operator]
        kind = "positive" if positive else "non-negative"
        raise ValueError(f"{name}: {value!r} is not a {kind} number; {_hint(value)}")


def check_choice(name: str, value: object, choices: tuple[Any, ...]) -> None:
    """Refuse what is not among the choices.

    Raises:
        ValueError: naming the field.
    """
    # 1 equals True, and is another type.
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        raise ValueError(f"{name}: {value!r} is unknown; use one of {', '.join(map(str, choices))}")


def _hint(value: object) -> str:
    if not isinstance(value, str):
        return "change it"
    # YAML reads 1e-3 as text, and 1.0e-3 as a number.
    return "write it with a point, as 1.0e-3" if "e" in value and "." not in value else "write it without quotes"
