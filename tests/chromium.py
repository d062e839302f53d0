"""The browser that tests of the report run in."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Path of an installed browser; None: there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)
