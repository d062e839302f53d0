"""Which artifacts a configuration makes and where they lie, for workflow and command line alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from spatialmae.config import DATASET_ANALYSES, Config
from spatialmae.evaluation.measure import COSTS
from spatialmae.measures import MEASURES


@dataclass(frozen=True)
class Layout:
    """Paths of one configuration's results; names may be Snakemake wildcards."""

    root: Path
    downloads: Path

    @classmethod
    def of(cls, config: Config) -> Layout:
        """Layout of a configuration: everything under ``results/<name>/``, downloads shared beside."""
        results = Path(config.results).expanduser()
        return cls(results / config.name, results / "downloads")

    @property
    def config(self) -> Path:
        """The resolved configuration, as validated."""
        return self.root / "config.yaml"

    def data(self, dataset: str) -> Path:
        """Images, targets and splits."""
        return self.root / "data" / f"{dataset}.safetensors"

    def linear(self, dataset: str) -> Path:
        """Folder of the encoders and decoders of a data set, a file for all images and for each replicate."""
        return self.root / "linear" / dataset

    @property
    def runs(self) -> Path:
        """Folder of the training runs, a folder for each; trainings that have a run in common share it."""
        return self.root / "runs"

    def run(self, name: str) -> Path:
        """Written when a training run is finished."""
        return self.runs / name / "run.json"

    def plan(self, training: str) -> Path:
        """What a training holds, for a machine without Snakemake."""
        return self.root / "training" / f"{training}.json"

    def reconstructions(self, training: str) -> Path:
        """Images, masks and reconstructions of a training."""
        return self.root / "training" / f"{training}.safetensors"

    def pictures(self, analysis: str, evaluation: str) -> Path:
        """What an analysis shows of the trained models of an evaluation at a few images."""
        return self.root / "pictures" / analysis / f"{evaluation}.safetensors"

    def cache(self, measure: str) -> Path:
        """Folder of the cached results of a measure, from which an interrupted job goes on."""
        return self.root / "cache" / measure

    @property
    def tables(self) -> Path:
        """Tidy tables."""
        return self.root / "tables"

    def table(self, name: str, subject: str) -> Path:
        """One tidy table of one data set, training or evaluation."""
        return self.tables / name / f"{subject}.csv"

    @property
    def figures(self) -> Path:
        """Figures as SVG and PNG."""
        return self.root / "figures"

    def notebook(self, name: str, suffix: str) -> Path:
        """Executed figure notebook (``ipynb``) or its page (``html``)."""
        return self.root / "notebooks" / f"{name}.{suffix}"

    @property
    def claims(self) -> Path:
        """Verdicts."""
        return self.root / "claims.csv"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report.html"

    @property
    def parts(self) -> Path:
        """Folder of the records of finished parts."""
        return self.root / "parts"

    def part(self, name: str) -> Path:
        """What a part of the study was made from and with; written when all its tables are there."""
        return self.parts / f"{name}.json"

    @property
    def provenance(self) -> Path:
        """What the results were made from and with."""
        return self.root / "provenance.json"


def tables_of(config: Config, section: str) -> list[tuple[str, str]]:
    """The tables that a section of a configuration makes, named as ``parts`` name it: (table, subject) of each.

    A table's subject is what it is of: a data set, a training, an evaluation, or a simulation.
    """
    kind, _, name = section.partition(".")
    if kind == "datasets":
        dataset = config.datasets[name]
        made = [table for analysis in dataset.analyses for table in DATASET_ANALYSES[analysis].tables]
        return [(table, name) for table in (["linear_sweep"] if dataset.solves else []) + made]
    if kind == "training":
        return [(table, name) for table in ("training_runs", "training", "training_validation", COSTS)]
    if kind == "evaluations":
        measures = config.evaluations[name].analyses
        costs = [(COSTS, costs_subject(measure, name)) for measure in measures if MEASURES[measure].has_costs]
        return [(table, name) for measure in measures for table in MEASURES[measure].tables] + costs
    if kind == "checks" and config.checks:
        return [("checks", config.checks.dataset)]
    return {
        "ising": [("ising", "ising"), ("ising_profile", "ising")],
        "hierarchy": [("hierarchy_theorem", "hierarchy"), ("hierarchy_levels", "hierarchy")],
        "identifiability": [("identifiability", "hierarchy")],
        "calibration": [("calibration", "cells"), ("calibration", "held_out")],
    }[kind]


def costs_subject(measure: str, evaluation: str) -> str:
    """What the costs of a measure are called by: trainings and evaluations may have the same names."""
    return f"{measure}_{evaluation}"


def subjects_with(config: Config, table: str) -> list[str]:
    """The subjects of a table: data sets, trainings or evaluations with a ``tables/<table>/<subject>.csv``."""
    sections = [*config.sections, *(f"training.{name}" for name in config.training)]
    return [subject for section in sections for made, subject in tables_of(config, section) if made == table]


def makes_table(config: Config, table: str, subject: str) -> bool:
    """Whether a configuration makes ``tables/<table>/<subject>.csv``."""
    return subject in subjects_with(config, table)


@dataclass(frozen=True)
class Part:
    """A part of a study, with a target of its own.

    Attributes:
        name: of the part.
        sections: of the configuration whose tables it makes.
        tables: (table, subject) of each of these.
        training: trainings whose models it evaluates; parts may share some.
    """

    name: str
    sections: tuple[str, ...]
    tables: tuple[tuple[str, str], ...]
    training: tuple[str, ...]


def parts_of(config: Config) -> list[Part]:
    """The parts of a configuration; without ``parts``, the whole as one, which has the configuration's name."""
    return [_part(config, name, sections) for name, sections in config.parts.items()] or [
        replace(_part(config, config.name, config.sections), training=tuple(config.training))
    ]


def finished(config: Config) -> Config:
    """The configuration as far as its parts have been made: what claims, figures and report are about."""
    layout = Layout.of(config)
    return config.only([name for name in config.parts if layout.part(name).is_file()])


def unfinished_parts(config: Config) -> list[Part]:
    """The parts of a study that have not been made."""
    layout = Layout.of(config)
    return [part for part in parts_of(config) if config.parts and not layout.part(part.name).is_file()]


def _part(config: Config, name: str, sections: list[str]) -> Part:
    evaluations = [section.removeprefix("evaluations.") for section in sections if section.startswith("evaluations.")]
    training = [model for evaluation in evaluations for model in config.evaluations[evaluation].models]
    tables = [made for section in sections for made in tables_of(config, section)]
    return Part(name, tuple(sections), tuple(tables), tuple(dict.fromkeys(training)))
