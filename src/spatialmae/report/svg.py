"""Figures inside the page: SVG made small, as data addresses."""

from __future__ import annotations

from urllib.parse import quote
from xml.etree import ElementTree

from scour.scour import sanitizeOptions, scourString

# What an address in double quotes may hold as it is; '%', '#', '&', '"' and what is not ASCII are escaped.
_PLAIN = " !$'()*+,-./:;<=>?@[\\]^_`{|}~"
_OPTIONS = {
    "digits": 5,  # significant, of coordinates in points
    "strip_xml_prolog": True,
    "strip_comments": True,
    "remove_metadata": True,
    "strip_ids": True,
    "shorten_ids": True,
    "indent_type": "none",
    "newlines": False,
}


def data_address(svg: str) -> str:
    """An SVG as an address that stands in double quotes: the page needs no other file."""
    text = compact(svg).replace("'", "&#39;").replace('"', "'")
    return "data:image/svg+xml;charset=utf-8," + quote(text, safe=_PLAIN)


def compact(svg: str) -> str:
    """The same picture in two thirds of the text that matplotlib writes."""
    options = sanitizeOptions()
    vars(options).update(_OPTIONS)
    small = scourString(svg, options).strip()
    return small[small.index("<svg") :]  # without the document type, whose quotes an address would have to escape


def size(svg: str) -> tuple[float, float]:
    """Width and height in points."""
    _, _, width, height = map(float, ElementTree.fromstring(svg).attrib["viewBox"].split())
    return width, height
