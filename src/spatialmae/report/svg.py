"""Figures inside the page, as data addresses."""

from __future__ import annotations

from urllib.parse import quote
from xml.etree import ElementTree

# What an address in double quotes may hold as it is; '%', '#', '&', '"' and what is not ASCII are escaped.
_PLAIN = " !$'()*+,-./:;<=>?@[\\]^_`{|}~"


def data_address(svg: str) -> str:
    """An SVG as an address that stands in double quotes: the page needs no other file."""
    text = svg.replace("'", "&#39;").replace('"', "'")
    return "data:image/svg+xml;charset=utf-8," + quote(text, safe=_PLAIN)


def size(svg: str) -> tuple[float, float]:
    """Width and height in points."""
    _, _, width, height = map(float, ElementTree.fromstring(svg).attrib["viewBox"].split())
    return width, height
