"""What the sections of a configuration share: strict models, and the types of their fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A section of a configuration: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="letters, digits, - and _")]
Count = Annotated[int, Field(ge=1)]
MaskRatio = Annotated[float, Field(gt=0, lt=1)]
MASK_RATIOS = [0.1, 0.25, 0.5, 0.75, 0.9]  # of theory and evaluations, unless given


def _unique(values: list[Any]) -> list[Any]:
    # Compared rather than hashed: a value of a training grid may be a list.
    if any(value in values[:i] for i, value in enumerate(values)):
        raise ValueError("a value occurs twice; remove one")
    return values


Unique = AfterValidator(_unique)


STALE_NAMES = {  # of analyses and measures
    **{name: f"probe_{name}" for name in ("gabor", "depth", "class")},
    **{"probe": "linear_probe", "reconstruction": "image_quality", "embedding": "separability"},
}


def one_of(names: Iterable[str]) -> AfterValidator:
    """A check that a string is one of these names."""
    known = tuple(names)

    def check(value: str) -> str:
        if value not in known:
            new = STALE_NAMES.get(value)
            hint = f"it is called {new} now" if new in known else f"use one of {', '.join(known)}"
            raise ValueError(f"unknown {value!r}; {hint}")
        return value

    return AfterValidator(check)
