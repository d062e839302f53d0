"""The answer as one page that opens without a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO

from matplotlib.figure import Figure

import spatialmae
from spatialmae.errors import printable
from spatialmae.recommend.advice import Advice
from spatialmae.recommend.answer import Answer
from spatialmae.recommend.images import FolderImages
from spatialmae.report.templates import page_environment

CAPTIONS = {
    "examples": "Some of your images, and what a model sees of them at this setting (hidden patches grey).",
    "correlation": "How alike two pixels of your images are, by their distance; dotted: 1/e, and where it falls to it.",
    "map": "What the closed form of the linear MAE says of each setting: how far its reconstruction reaches, and how "
    "much of the hidden pixels no linear reconstruction explains. Framed: the setting above",
}
PICKED = ", and others that were picked when a fifth of the images, or a data set of the calibration, was left out"


def render(advice: Advice, images: FolderImages, figures: Mapping[str, Figure]) -> str:
    """The page as HTML.

    Args:
        advice: the answer.
        images: that it is about.
        figures: of :func:`~spatialmae.recommend.pictures.draw`.
    """
    environment = page_environment("spatialmae.recommend")
    calibration, folder = advice.calibration, images.path.resolve()
    captions = CAPTIONS | {"map": f"{CAPTIONS['map']}{PICKED if len(advice.picks) > 1 else ''}."}
    return environment.get_template("recommend.html.j2").render(
        folder=printable(str(folder)),
        name=printable(folder.name),
        version=spatialmae.__version__,
        date=datetime.now(UTC).date().isoformat(),
        answer=Answer.of(advice, images),
        figures=[
            {"address": _address(figure), "caption": captions[name], "is_wide": name == "map"}
            for name, figure in figures.items()
        ],
        held_out=[] if calibration is None else calibration.held_out.to_dict("records"),
        skipped=images.skipped,
    )


def _address(figure: Figure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
