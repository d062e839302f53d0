"""Stage ``figures``: execute one figure notebook."""

from __future__ import annotations

from pathlib import Path

from spatialmae.config import Config
from spatialmae.figures.declaration import figure_subjects
from spatialmae.layout import Layout, finished
from spatialmae.notebook import run_notebook


def run(config: Config, source: Path, log: Path | None = None) -> None:
    """Execute ``source`` into ``notebooks/`` (ipynb and HTML) and its figures into ``figures/``.

    ``log`` is the executed copy that keeps the traceback where a cell fails.
    """
    layout, name, config = Layout.of(config), source.stem, finished(config)
    run_notebook(
        source,
        output=layout.notebook(name, "ipynb"),
        html=layout.notebook(name, "html"),
        log_copy=log or layout.root / "logs" / "notebooks" / f"{name}.ipynb",
        parameters={"results": str(layout.root), "subjects": figure_subjects(config, name)},
    )
