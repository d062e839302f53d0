"""Bad input is refused by what a user needs to mend it: file, field and hint. How the problem is put may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from spatialmae.errors import UserError


@contextmanager
def refused(where: str, hint: str, about: str = "") -> Iterator[None]:
    """Expect a UserError of one line.

    Args:
        where: file and field, or the end of their name.
        hint: what must stand in the hint.
        about: what the problem must name, where other problems have the same file and hint.
    """
    with pytest.raises(UserError) as raised:
        yield
    error = raised.value
    assert error.where.endswith(where), error
    assert hint in error.hint, error
    assert about in error.problem, error
    assert "\n" not in str(error)
