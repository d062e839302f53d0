"""Templates of pages: strict about what they name, and escaping what they are given."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.colors import to_hex

from spatialmae.figures import theme


def page_environment(package: str) -> Environment:
    """Where the templates of a package's pages are found; all know the styles and the colours of links."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["css"] = files("spatialmae.report").joinpath("report.css").read_text(encoding="utf-8")
    environment.globals["links"] = {"light": to_hex(theme.PALETTE[0]), "dark": to_hex(theme.PALETTE[9])}
    return environment
