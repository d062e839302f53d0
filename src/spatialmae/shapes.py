"""Array types for signatures, for modules that also run where torch and numpy are all there is.

Annotations are strings and nothing evaluates them on such a machine; the tests, which enforce them, have jaxtyping.
"""

from __future__ import annotations

try:
    from jaxtyping import Bool, Float, Float32, Int64, UInt8
except ModuleNotFoundError:  # a bare GPU machine
    from typing import Any

    Bool = Float = Float32 = Int64 = UInt8 = Any  # type: ignore[assignment]

__all__ = ["Bool", "Float", "Float32", "Int64", "UInt8"]
