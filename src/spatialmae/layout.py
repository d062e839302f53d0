"""Which artifacts a configuration makes and where they lie, for workflow and command line alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spatialmae.config import Config
from spatialmae.evaluation.measure import COSTS
from spatialmae.measures import MEASURES


@dataclass(frozen=True)
class Layout:
    """Paths of one configuration's results; ``dataset`` and ``stage`` may be Snakemake wildcards."""

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

    def plan(self, stage: str) -> Path:
        """What a training stage trains."""
        return self.root / "training" / f"{stage}.json"

    def reconstructions(self, stage: str) -> Path:
        """Images, masks and reconstructions of a training stage."""
        return self.root / "training" / f"{stage}.safetensors"

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

    def table(self, name: str, dataset: str) -> Path:
        """One tidy table of one data set or training stage."""
        return self.tables / name / f"{dataset}.csv"

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
    def provenance(self) -> Path:
        """What the results were made from and with."""
        return self.root / "provenance.json"


# Analyses whose tables have other names.
_ANALYSIS_OF = {
    "statistics_summary": "statistics",
    "jacobian": "reach",
    "reach_lags": "sampling",
    "reach_sampled": "sampling",
}


def costs_subject(measure: str, evaluation: str) -> str:
    """What the costs of a measure are called by: trainings and evaluations may have the same names."""
    return f"{measure}_{evaluation}"


def datasets_with(config: Config, table: str) -> list[str]:
    """The data sets, training stages or evaluations of a configuration with a ``tables/<table>/<dataset>.csv``."""
    if table == "theory":
        return [config.checks.dataset] if config.checks else []
    if table in ("ising", "ising_profile"):
        return ["ising"] if config.ising else []
    if table in ("theorem", "levels"):
        return ["hierarchy"] if config.hierarchy else []
    if table == "identifiability":
        return ["hierarchy"] if config.identifiability else []
    if table in ("runs", "training", "validation"):
        return list(config.training)
    if table == "calibration":
        return ["cells", "held_out"] if config.calibration else []
    if table == COSTS:
        asked = ((measure, name) for name, one in config.evaluations.items() for measure in one.analyses)
        return [*config.training, *(costs_subject(*one) for one in asked if MEASURES[one[0]].has_costs)]
    makers = {name for name, measure in MEASURES.items() if table in measure.tables}
    if makers:
        return [name for name, evaluation in config.evaluations.items() if makers & set(evaluation.analyses)]
    analysis = _ANALYSIS_OF.get(table, table.removeprefix("probe_"))
    solved = {"features", "reach", "gabor", "depth", "class"}
    wanted = solved if table == "sweep" else {analysis}
    return [name for name, dataset in config.datasets.items() if wanted & set(dataset.analyses)]


def makes_table(config: Config, table: str, dataset: str) -> bool:
    """Whether a configuration makes ``tables/<table>/<dataset>.csv``."""
    return dataset in datasets_with(config, table)
