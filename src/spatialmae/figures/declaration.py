"""The figures of the report, each declared once, beside the function that draws it.

A drawing module says in ``SECTION`` and ``NOTEBOOK`` where its figures go, and decorates each function that draws one::

    @declare(tables=["image_quality"], papers="B", caption="What do models make of … ({subject}). {seeds}", alt="…")
    def reconstruction(table: pd.DataFrame, subject: str) -> Figure: ...

Which figures a configuration has, what a notebook reads, and what the report says of them follow from that. Importing
the drawing modules takes seconds, for they need the plotting libraries, and the workflow asks each time that it is
parsed. So declarations are read from the source, and their arguments are literals.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from spatialmae.claims.ledger import ledger_files
from spatialmae.config import Config
from spatialmae.layout import Layout, makes_table, subjects_with

MODULES = (
    *("claims", "theory", "reach", "features", "ising", "probes", "sweep", "statistics", "hierarchy", "training"),
    *("nonlinear", "practice", "images", "calibration"),
)
"""The drawing modules in the report's order; within one, figures come in the order of their functions."""

_WORDS = {
    "units": "Points are jackknife pseudo-values of groups of images, bars their mean and two-sided 95 % t interval.",
    "seeds": "Points are training seeds, bars their mean and two-sided 95 % t interval.",
}

Draw = TypeVar("Draw", bound=Callable)


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a figure is drawn from, and what the report says of it; decorates the function that draws it.

    The function takes, in this order, each of ``tables``, ``optional`` and ``artifacts``, the range of ``control_of``,
    and the subject; of these what there is.

    Attributes:
        caption: what was asked, what is shown, how to read it; ``{subject}`` is filled in, and ``{units}`` or
            ``{seeds}`` say what points and bars are.
        alt: what it shows, for those who cannot see it.
        tables: the tables it is drawn from: of its subject or, written ``<table>/<other>``, of another, in whose name
            ``{subject}`` is filled in.
        optional: tables that are drawn as well where they are made; None elsewhere.
        artifacts: other files and folders of the results, ``{subject}`` filled in. A table is read, as are arrays with
            what is said of them; of anything else the function gets the path.
        control_of: a claim whose range of valid controls it shows, from the ledger.
        where: another table that its subjects have.
        once: drawn once, from the tables of all subjects together, rather than for each.
        compares: drawn for evaluations alone whose models differ in more than the seed.
        along: drawn for evaluations alone of which some models differ in this setting alone.
        papers: the papers whose claims it bears on.
    """

    caption: str
    alt: str
    tables: Sequence[str] = ()
    optional: Sequence[str] = ()
    artifacts: Sequence[str] = ()
    control_of: str | None = None
    where: str | None = None
    once: bool = False
    compares: bool = False
    along: str | None = None
    papers: Literal["A", "B", "both"] = "A"

    def __call__(self, draw: Draw) -> Draw:
        """The function as it is: declarations are read from the source."""
        return draw


declare = Declaration


@dataclass(frozen=True, kw_only=True)
class FigureKind(Declaration):
    """A declared figure.

    Attributes:
        name: of the function that draws it, and stem of its files; claims name their figure by it.
        section: of the report.
        notebook: the notebook that draws it.
    """

    name: str
    section: str
    notebook: str

    def subjects(self, config: Config) -> list[str] | None:
        """Data sets, trainings or evaluations of a configuration that it is drawn for; None: it is not drawn."""
        needed = [*self.tables, *([self.where] if self.where else [])]
        own = [table for table in needed if "/" not in table]
        if not own:
            return [] if _makes(config, needed, "") else None
        subjects = [name for name in subjects_with(config, own[0]) if _makes(config, needed, name)]
        if self.compares:
            subjects = [name for name in subjects if config.varying_settings(name)]
        if self.along:
            subjects = [name for name in subjects if _have_models_along(config, name, self.along)]
        return subjects or None

    def made_tables(self, config: Config, subjects: Sequence[str]) -> list[tuple[str, str]]:
        """The tables that it is drawn from for some subjects, each with what it is of."""
        tables = [*self.tables, *self.optional]
        pairs = dict.fromkeys(name_and_subject(table, one) for one in subjects or [""] for table in tables)
        return [pair for pair in pairs if makes_table(config, *pair)]

    def inputs(self, config: Config, layout: Layout, subjects: Sequence[str]) -> Iterator[str]:
        """Paths of all that it is drawn from for some subjects."""
        yield from (str(layout.table(*pair)) for pair in self.made_tables(config, subjects))
        for artifact in self.artifacts:
            yield from (str(layout.root / artifact.format(subject=subject)) for subject in subjects or [""])
        if self.control_of:
            yield from map(str, ledger_files(config.claims.ledger))


def name_and_subject(table: str, subject: str) -> tuple[str, str]:
    """The name of a table that a figure declares, and what the table is of, for a figure of a subject."""
    name, _, other = table.partition("/")
    return name, other.format(subject=subject) or subject


def _makes(config: Config, tables: Sequence[str], subject: str) -> bool:
    return all(makes_table(config, *name_and_subject(table, subject)) for table in tables)


@dataclass(frozen=True)
class DrawnFigure:
    """One figure of a configuration; files are ``<stem>.svg`` and ``<stem>.png``."""

    kind: FigureKind
    subject: str | None

    @property
    def stem(self) -> str:
        """Name of its files without suffix."""
        return self.kind.name if self.subject is None else f"{self.kind.name}_{self.subject}"

    @property
    def caption(self) -> str:
        """Caption with the subject's name."""
        return self.kind.caption.format(subject=self.subject, **_WORDS)

    @property
    def alt(self) -> str:
        """What it shows, with the subject's name."""
        return self.kind.alt.format(subject=self.subject)


@cache
def declared_figures() -> Mapping[str, FigureKind]:
    """All figures by their names, in the report's order.

    Raises:
        ValueError: two figures have one name, or a declaration lacks an argument or has one that is no literal.
    """
    kinds = [kind for module in MODULES for kind in _declared_in(Path(__file__).with_name(f"{module}.py"))]
    named = {kind.name: kind for kind in kinds}
    if len(named) < len(kinds):
        raise ValueError(f"two figures have one name among {sorted(kind.name for kind in kinds)}")
    return named


def _declared_in(path: Path) -> Iterator[FigureKind]:
    place = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("SECTION", "NOTEBOOK"):
            place[ast.unparse(node.targets[0]).lower()] = ast.literal_eval(node.value)
        if isinstance(node, ast.FunctionDef):
            calls = [one for one in node.decorator_list if isinstance(one, ast.Call)]
            for call in [one for one in calls if ast.unparse(one.func) == "declare"]:
                try:
                    own = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
                    yield FigureKind(name=node.name, **place, **own)
                except (TypeError, ValueError) as error:
                    problem = f"{ast.unparse(call)} is no declaration ({error})"
                    raise ValueError(f"{path}:{call.lineno}: {problem}; give literals by their names") from None


def figure_subjects(config: Config, notebook: str | None = None) -> dict[str, list[str]]:
    """The figures that a configuration gets, of one notebook or of all, each with what it is drawn for."""
    kinds = [kind for kind in declared_figures().values() if notebook in (None, kind.notebook)]
    found = {kind.name: kind.subjects(config) for kind in kinds}
    return {name: subjects for name, subjects in found.items() if subjects is not None}


def figures_of(name: str, subjects: Sequence[str]) -> list[DrawnFigure]:
    """The figures that are drawn of some subjects: one of each, or one of all."""
    kind = declared_figures()[name]
    return [DrawnFigure(kind, None)] if kind.once else [DrawnFigure(kind, subject) for subject in subjects]


def drawn_figures(config: Config, notebook: str | None = None) -> list[DrawnFigure]:
    """The figures that a configuration gets, of one notebook or of all, in the report's order."""
    return [one for name, subjects in figure_subjects(config, notebook).items() for one in figures_of(name, subjects)]


def notebook_inputs(config: Config, layout: Layout, notebook: str) -> list[str]:
    """Paths of all that a notebook reads, in order."""
    kinds, drawn = declared_figures(), figure_subjects(config, notebook)
    return sorted({path for name, own in drawn.items() for path in kinds[name].inputs(config, layout, own)})


_FOLLOWING = ("name", "seed", "realised_mask_ratio")  # from other settings, or no setting of the model


def _have_models_along(config: Config, evaluation: str, setting: str) -> bool:
    """Whether some models differ in a setting alone, see :func:`~spatialmae.analysis.settings.models_along`."""
    own = [setting, *(["loss_margin_control"] if setting == "loss_margin" else [])]
    runs, kinds = config.evaluation_runs(evaluation), dict[str, set]()
    follows_patch = all(run.model.mask_unit_px == run.model.patch_size for run in runs)
    following = {*_FOLLOWING, *(["mask_unit"] if follows_patch else [])}
    for run in runs:
        settings = run.settings()
        kind = tuple(settings.pop(name) for name in own)
        same = str({name: value for name, value in settings.items() if name not in following})
        kinds.setdefault(same, set()).add(kind)
    return any(len(found) > 1 for found in kinds.values())
