"""Templates of pages: strict about what they name, and escaping what they are given."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def page_environment(package: str) -> Environment:
    """Where the templates of a package's pages are found."""
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
