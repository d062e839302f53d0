"""Drawing declared figures in a notebook: reading what each is drawn from, saving it, and showing what was saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Image, display
from matplotlib.figure import Figure

from spatialmae.artifacts import read_tensors
from spatialmae.claims.ledger import load_ledger
from spatialmae.config import load_config
from spatialmae.figures.declaration import DrawnFigure, figures_of, name_and_subject
from spatialmae.figures.theme import save, use_theme
from spatialmae.layout import Layout
from spatialmae.tables import read_table


class Drawing:
    """Draws the figures of a configuration from its results; as the last line of a cell it names the configuration.

    Args:
        results: folder of the results, in which figures go to ``figures/``.
        subjects: the data sets, trainings or evaluations of each figure, by its name; others are not drawn.
    """

    def __init__(self, results: Path | str, subjects: Mapping[str, Sequence[str]]) -> None:
        use_theme()
        self.layout = Layout(Path(results), Path(results).parent / "downloads")
        self.subjects = subjects

    def __call__(self, draw: Callable[..., Figure]) -> None:
        """Draw a figure for each of its subjects, or once, save it as SVG and PNG, and show it at half its pixels.

        Args:
            draw: a function that :func:`~spatialmae.figures.declaration.declare` decorates.

        Raises:
            UserError: something that it is drawn from is missing or damaged.
        """
        subjects = self.subjects.get(draw.__name__)
        for drawn in [] if subjects is None else figures_of(draw.__name__, subjects):
            png = save(draw(*self.read(drawn)), self.layout.figures / drawn.stem)
            display(Image(filename=str(png), retina=True, alt=drawn.alt))

    def read(self, drawn: DrawnFigure) -> list[Any]:
        """The arguments of a figure's function, see :class:`~spatialmae.figures.declaration.Declaration`."""
        kind, subject, root = drawn.kind, drawn.subject, self.layout.root
        return [
            *(self._read_table(table, drawn) for table in kind.tables),
            *(self._read_table(table, drawn, optional=True) for table in kind.optional),
            *(_read_artifact(root / artifact.format(subject=subject)) for artifact in kind.artifacts),
            *([control_range(self.layout.config, kind.control_of, str(subject))] if kind.control_of else []),
            *([] if subject is None else [subject]),
        ]

    def _read_table(self, table: str, drawn: DrawnFigure, *, optional: bool = False) -> pd.DataFrame | None:
        """A table of the figure's subject or of another one; of all subjects, with a first column ``dataset``."""
        if drawn.kind.once and "/" not in table:
            parts = {one: read_table(self.layout.table(table, one)) for one in self.subjects[drawn.kind.name]}
            return pd.concat(parts, names=["dataset"]).reset_index(level="dataset").reset_index(drop=True)
        path = self.layout.table(*name_and_subject(table, drawn.subject or ""))
        return read_table(path) if path.is_file() or not optional else None

    def _repr_markdown_(self) -> str:
        return f"Configuration **{self.layout.root.name}**."


def _read_artifact(path: Path) -> Any:
    """A table, arrays with what is said of them, or the path of anything else."""
    readers: dict[str, Callable[[Path], Any]] = {".csv": read_table, ".safetensors": read_tensors}
    return readers.get(path.suffix, Path)(path)


def control_range(config: Path | str, claim: str, subject: str) -> tuple[float | None, float | None]:
    """Least and largest value of a valid control of a claim; None: any, or this evaluation does not test the claim.

    Args:
        config: the resolved configuration, which names the ledger.
        claim: its id.
        subject: name of an evaluation; the claim may be tested on another one.

    Raises:
        UserError: the configuration or the ledger is missing or faulty.
    """
    settings = load_config(config)
    ledger, configuration = load_ledger(settings.claims.ledger), settings.claims.configuration or settings.name
    for record in ledger.claims:
        plan = record.tests.get(configuration) if record.id == claim else None
        if plan is not None and plan.dataset == subject and record.estimand and record.estimand.control:
            return record.estimand.control.min, record.estimand.control.max
    return None, None
