"""A whole configuration: its sections, and what they demand of each other."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated

from pydantic import Field, model_validator

from spatialmae.config.datasets import Dataset
from spatialmae.config.evaluations import Evaluation, FineTuning
from spatialmae.config.hierarchy import Hierarchy, Identifiability
from spatialmae.config.section import Count, Name, Section, Unique
from spatialmae.config.sources import check_batch
from spatialmae.config.theory import Checks, Ising, Linear
from spatialmae.config.training import Training
from spatialmae.masks import n_visible
from spatialmae.measures import MEASURES
from spatialmae.train.plan import RunSpec

# Names of steps of the pipeline, which a part of a study therefore cannot have.
RESERVED = (
    "all|data|linear|training|analysis|probes|evaluation|calibration|claims|figures|report|prepare_data|solve_linear|"
    "check_closed_form|train|collect_training|measure_.*|probe_features|evaluate_.*|calibrate|judge_claims|draw_.*|"
    "finish_part|write_report"
)


class Seeds(Section):
    """The seeds that are run: below the ledger's verdict_seeds_from (200) they explore, from there on give verdicts."""

    first: int = Field(200, ge=0, multiple_of=100, description="first seed of the block of a hundred")
    count: int = Field(10, ge=1, le=100, description="seeds of simulations; data sets have a seed for each group")


class Claims(Section):
    """The ledger and how it is read."""

    ledger: str = Field("claims", description="the folder of the records, relative to where the command runs")
    configuration: Name | None = Field(None, description="whose tests of the ledger to judge by; default: name")


class Config(Section):
    """A whole configuration."""

    name: Name = Field(description="names the folder of results")
    results: str = Field("results", min_length=1, description="folder that holds the folder of results")
    seeds: Seeds = Seeds()
    datasets: dict[Name, Dataset] = Field({}, description="data sets by name")
    linear: Linear = Linear()
    checks: Checks | None = Field(None, description="the closed form against other ways to it; null: none")
    ising: Ising | None = Field(None, description="linear autoencoders of Ising chains and lattices; null: none")
    hierarchy: Hierarchy | None = Field(None, description="paper B's theory; null: none")
    identifiability: Identifiability | None = Field(None, description="paper B's Theorem 2 by experiment; null: none")
    training: dict[Name, Training] = Field({}, description="trainings by name, each of all models of a grid")
    evaluations: dict[Name, Evaluation] = Field({}, description="comparisons of trained models by name")
    calibration: Annotated[list[Name], Unique] = Field(
        [],
        description="evaluations that tune and test the recommender, one for each data set; their models differ in "
        "patch size and masking ratio alone",
    )
    parts: dict[Name, Annotated[list[str], Unique]] = Field(
        {},
        description="targets of their own by name, each with the sections whose tables it makes: "
        "`datasets.<name>`, `evaluations.<name>`, `checks`, `ising`, `hierarchy`, `identifiability`, `calibration`",
    )
    claims: Claims = Claims()
    runs_per_gpu: Count = Field(1, description="training runs that share a GPU, on a machine that has any")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.checks is not None:
            self._check_checks(self.checks)
        if self.linear.masking == "fixed":
            for name, dataset in self.datasets.items():
                self._check_visible(name, dataset)
        for name, training in self.training.items():
            self._check_training(name, training)
        for name, evaluation in self.evaluations.items():
            self._check_evaluation(f"evaluations.{name}", name, evaluation)
        self._check_calibration()
        if self.parts:
            self._check_parts()
        return self

    @property
    def sections(self) -> list[str]:
        """The sections that make tables, as ``parts`` name them."""
        single = ("checks", "ising", "hierarchy", "identifiability", "calibration")
        return [
            *(f"datasets.{name}" for name, dataset in self.datasets.items() if dataset.analyses),
            *(name for name in single if getattr(self, name)),
            *(f"evaluations.{name}" for name in self.evaluations),
        ]

    def only(self, parts: Collection[str]) -> Config:
        """The configuration without the sections of other parts, and without what only these need.

        A configuration that names no parts is one part, and comes back whole.
        """
        if not self.parts:
            return self
        kept = {section for part in parts for section in self.parts[part]}
        evaluations = {name: own for name, own in self.evaluations.items() if f"evaluations.{name}" in kept}
        used = {name for evaluation in evaluations.values() for name in evaluation.models}
        training = {name: own for name, own in self.training.items() if name in used}
        single = {name: None for name in ("checks", "ising", "hierarchy", "identifiability") if name not in kept}
        checked = {self.checks.dataset} if self.checks and "checks" in kept else set()
        needed = {own.dataset for own in training.values()} | checked
        datasets = {
            name: own if f"datasets.{name}" in kept else own.model_copy(update={"analyses": []})
            for name, own in self.datasets.items()
            if f"datasets.{name}" in kept or name in needed
        }
        calibration = self.calibration if "calibration" in kept else []
        found = {"datasets": datasets, "training": training, "evaluations": evaluations, "calibration": calibration}
        return self.model_copy(update={**found, **single, "parts": {part: self.parts[part] for part in parts}})

    def _check_parts(self) -> None:
        part_of: dict[str, str] = {}
        for part, sections in self.parts.items():
            if re.fullmatch(RESERVED, part):
                raise ValueError(f"parts.{part}: a step of the pipeline has this name; choose another")
            for section in sections:
                if section not in self.sections:
                    hint = f"use {', '.join(self.sections)}"
                    raise ValueError(f"parts.{part}: {section!r} is no section that makes tables; {hint}")
                if section in part_of:
                    raise ValueError(f"parts.{part}: {section} is in {part_of[section]} as well; remove one")
                part_of[section] = part
        for section in self.sections:
            if section not in part_of:
                raise ValueError(f"parts: {section} is in none; add it to one")
        unused = self.training.keys() - {name for one in self.evaluations.values() for name in one.models}
        if unused:
            raise ValueError(f"training.{min(unused)}: no part has an evaluation of it; add one, or remove this")

    def _check_calibration(self) -> None:
        varied = {"patch_size", "mask_ratio", "realised_mask_ratio", "mask_unit"}
        for name in self.calibration:
            if name not in self.evaluations:
                raise ValueError(f"calibration: {name!r} is not among evaluations; name one of them")
            if "linear_probe" not in self.evaluations[name].analyses:
                raise ValueError(f"calibration: evaluations.{name}.analyses lacks linear_probe; add it there")
            others = self.varying_settings(name) - varied
            if others:
                problem = f"models of {name} differ in {', '.join(sorted(others))}"
                raise ValueError(f"calibration: {problem}; let them differ in patch size and masking ratio alone")
        datasets = [self.evaluation_runs(name)[0].dataset for name in self.calibration]
        if len(set(datasets)) < len(datasets):
            raise ValueError("calibration: two evaluations are of one data set; remove one")

    def _check_checks(self, checks: Checks) -> None:
        if checks.dataset not in self.datasets:
            raise ValueError(f"checks.dataset: {checks.dataset!r} is not among datasets; name one of them")
        if self.datasets[checks.dataset].groups is None:
            hint = "add it (docs/configuration.md says what it means)"
            raise ValueError(f"datasets.{checks.dataset}.groups: missing, and checks need it; {hint}")
        height, width, channels = self.datasets[checks.dataset].source.shape
        sizes = {"patch_size": checks.patch_size, "wrong_patch_size": checks.wrong_patch_size}
        for field, size in sizes.items():
            if height % size or width % size:
                raise ValueError(f"checks.{field}: {size} does not tile {height}×{width} px; use a divisor")
        if checks.patch_size == checks.wrong_patch_size:
            raise ValueError("checks.wrong_patch_size: it equals patch_size; the control needs another")
        if checks.n_components > height * width * channels:
            raise ValueError(f"checks.n_components: {height * width * channels} features exist; lower it")

    def _check_visible(self, name: str, dataset: Dataset) -> None:
        height, width, _ = dataset.source.shape
        for patch_size in dataset.patch_sizes:
            try:
                n_visible(height * width // patch_size**2, max(self.linear.mask_ratios))
            except ValueError as error:
                raise ValueError(f"datasets.{name}.patch_sizes: {error}") from None

    def _check_training(self, name: str, training: Training) -> None:
        if training.dataset not in self.datasets:
            problem = f"{training.dataset!r} is not among datasets"
            raise ValueError(f"training.{name}.dataset: {problem}; name one of them")
        source = self.datasets[training.dataset].source
        try:
            for _, train in training.cells(source.shape):
                check_batch("train.batch_size", train.batch_size, source)
        except ValueError as error:
            raise ValueError(f"training.{name}.{error}") from None

    def _check_evaluation(self, where: str, name: str, evaluation: Evaluation) -> None:
        unknown = [training for training in evaluation.models if training not in self.training]
        if unknown:
            raise ValueError(f"{where}.models: {unknown[0]!r} is not among training; name one of these")
        datasets = {self.training[training].dataset for training in evaluation.models}
        if len(datasets) > 1:
            raise ValueError(f"{where}.models: they train on {' and '.join(sorted(datasets))}; compare on one data set")
        height, width, _ = self.datasets[datasets.pop()].source.shape
        patches = {run.model.patch_size for run in self.evaluation_runs(name)}
        unit = evaluation.mask_unit
        if unit is None and len(patches) > 1:
            raise ValueError(f"{where}.mask_unit: patch sizes differ; give a multiple of all")
        if unit is not None and (height % unit or width % unit or any(unit % size for size in patches)):
            raise ValueError(f"{where}.mask_unit: {unit} does not tile {height}×{width} px in whole patches; change it")
        self._check_measures(where, name, evaluation)
        if "fine_tuning" in evaluation.analyses:
            self._check_fine_tuning(where, name, evaluation.fine_tuning or FineTuning())
        elif evaluation.fine_tuning is not None:
            raise ValueError(f"{where}.fine_tuning: it is not among analyses; add it there, or remove this")

    def _check_measures(self, where: str, name: str, evaluation: Evaluation) -> None:
        """Refuse measures of what models or images do not have."""
        runs = self.evaluation_runs(name)
        source = self.datasets[runs[0].dataset].source
        for measure in evaluation.analyses:
            declared = MEASURES[measure]
            if declared.of_pixels and any(run.model.norm_pix_loss for run in runs):
                problem = f"{measure} is of pixels, and with norm_pix_loss models predict normalised patches"
                raise ValueError(f"{where}.analyses: {problem}; remove it, or train without norm_pix_loss")
            if declared.of_hidden and any(run.model.mask_ratio == 0 for run in runs):
                problem = f"{measure} is of hidden pixels, and models of masking ratio 0 hide none"
                raise ValueError(f"{where}.analyses: {problem}; remove it, or the training of these models")
            if declared.needs_labels and not source.has_labels:
                problem = f"images of kind {source.kind} come without labels"
                raise ValueError(f"{where}.analyses: {problem}; remove {measure}")

    def _check_fine_tuning(self, where: str, name: str, settings: FineTuning) -> None:
        runs = self.evaluation_runs(name)
        source, depth = self.datasets[runs[0].dataset].source, min(run.model.encoder_depth for run in runs)
        try:
            for config in settings.configs():
                if config.n_blocks is not None and config.n_blocks > depth:
                    raise ValueError(f"n_blocks: {config.n_blocks} exceeds the {depth} blocks of an encoder; lower it")
                check_batch("batch_size", config.batch_size, source)
        except ValueError as error:
            raise ValueError(f"{where}.fine_tuning.{error}") from None

    def evaluation_runs(self, name: str) -> list[RunSpec]:
        """The runs of an evaluation, each once, though trainings may share some."""
        runs = [run for training in self.evaluations[name].models for run in self.training_runs(training)]
        return list(dict.fromkeys(runs))

    def varying_settings(self, evaluation: str) -> set[str]:
        """Settings other than the seed in which the models of an evaluation differ."""
        settings = [run.settings() for run in self.evaluation_runs(evaluation)]
        names = settings[0].keys() - {"name", "seed"}
        return {name for name in names if len({row[name] for row in settings}) > 1}

    def training_runs(self, name: str) -> list[RunSpec]:
        """The runs of a training: its grid, and of each cell the seeds."""
        training = self.training[name]
        cells = training.cells(self.datasets[training.dataset].source.shape)
        seeds = range(self.seeds.first, self.seeds.first + training.seeds)
        return [RunSpec(training.dataset, model, train, seed) for model, train in cells for seed in seeds]

    def all_runs(self) -> list[RunSpec]:
        """The runs of all trainings, each once, though trainings may share some."""
        return list(dict.fromkeys(run for training in self.training for run in self.training_runs(training)))

    def dataset_seeds(self, dataset: str) -> list[int]:
        """The seeds of a data set: one for each group of images left out."""
        return [self.seeds.first + group for group in range(self.datasets[dataset].groups or 0)]

    @property
    def first_seed(self) -> int:
        """First seed of the block: all that groups and generated images depend on."""
        return self.seeds.first

    @property
    def simulation_seeds(self) -> list[int]:
        """Seeds of the Ising samples and of latent hierarchies."""
        return [self.seeds.first + i for i in range(self.seeds.count)]
