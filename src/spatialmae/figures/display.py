"""Showing a figure in a notebook by the file that was saved of it."""

from __future__ import annotations

from pathlib import Path

from IPython.display import Image
from matplotlib.figure import Figure

from spatialmae.figures.theme import save


def show(figure: Figure, path_stem: Path | str, alt: str) -> Image:
    """Save a figure as SVG and PNG; what is returned displays the PNG at half its pixels, with a text for readers.

    Args:
        figure: the figure.
        path_stem: path without suffix; see :func:`spatialmae.figures.theme.save`.
        alt: what the figure shows, for those who cannot see it.
    """
    return Image(filename=str(save(figure, path_stem)), retina=True, alt=alt)
