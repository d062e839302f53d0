"""Stage ``evaluate``: one measure of the trained models of an evaluation, from its cached rows to its tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from spatialmae.artifacts import write_tensors
from spatialmae.config import Config
from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.errors import UserError
from spatialmae.evaluation.cache import CachedResult, Result
from spatialmae.evaluation.measure import COSTS, MeasuredModel, Part, Row, Rows
from spatialmae.evaluation.shared import Evaluated, Shared
from spatialmae.fingerprint import fingerprint
from spatialmae.layout import Layout, costs_subject
from spatialmae.measures import MEASURES
from spatialmae.model.checkpoint import WEIGHTS
from spatialmae.probe.classification import label_targets
from spatialmae.tables import read_curve, write_table
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import RunFolder, load_model, sha256_of

MEASURES_PACKAGE = "spatialmae.measures"
# What rows depend on beside their measure's own code: how images are drawn and shown to a model, and the model itself.
COMMON = ("spatialmae.evaluation.shared", "spatialmae.model.trained")
# Settings of a model that weights do not show; the others are of training.
NETWORK = (
    *("image_size", "patch_size", "channels", "encoder_heads", "decoder_heads", "layer_norm_eps", "norm_pix_loss"),
    *("encoder_dim", "encoder_depth", "decoder_dim", "decoder_depth", "mlp_ratio", "bottleneck"),
)
PROGRESS = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}]"


def run(config: Config, measure: str, evaluation: str) -> None:
    """Write the tables of a measure, and its pictures if it has any.

    Raises:
        UserError: images or a run are missing or damaged, or the images lack what the measure needs.
    """
    declared, layout = MEASURES[measure], Layout.of(config)
    evaluated, cache = open_evaluation(config, evaluation, trains=declared.trains)
    if declared.needs_labels and not label_targets(evaluated.shared.data):
        problem = f"{evaluated.shared.data_path} has no class labels"
        raise UserError(f"evaluations.{evaluation}.analyses", problem, f"remove {measure}")
    tables: Rows = {table: [] for table in (*declared.tables, *([COSTS] if declared.has_costs else []))}
    for part, rows in _measured(measure, evaluated, cache):
        shown = {table: table for table in rows} if part.tables is None else part.tables
        for made, table in shown.items():
            tables[table] += [part.model.columns | part.columns | row for row in rows[made]]
    for table, found in tables.items():
        subject = costs_subject(measure, evaluation) if table == COSTS else evaluation
        write_table(layout.table(table, subject), pd.DataFrame(found))
    if declared.pictures is not None:
        write_tensors(layout.pictures(measure, evaluation), *declared.pictures(evaluated))


def _measured(measure: str, evaluated: Evaluated, cache: Cache) -> list[tuple[Part, Rows]]:
    """Each part of a measure and its rows, made now or cached before."""
    declared, module = MEASURES[measure], f"{MEASURES_PACKAGE}.{measure}"
    parts = declared.parts_of(evaluated)
    files = [cache.file(module, part.model, part.settings, part.label) for part in parts]
    found = {file.path: file.read() for file in files}
    missing = {file.path: (part, file) for part, file in zip(parts, files, strict=True) if found[file.path] is None}
    n_cached = len(found) - len(missing)
    with tqdm(
        desc=f"{measure} {evaluated.name}", total=len(found), initial=n_cached, smoothing=0, bar_format=PROGRESS
    ) as bar:
        evaluated.shared.progress = bar.update
        # What the models of a seed share is made once.
        for i, (part, file) in enumerate(sorted(missing.values(), key=lambda one: one[0].model.seed), start=1):
            rows = declared.rows(part.model, part.settings, evaluated.shared)
            found[file.path] = file.write((rows, {}))
            bar.update(n_cached + i - bar.n)
    return [(part, found[file.path][0]) for part, file in zip(parts, files, strict=True)]  # type: ignore[index]


@dataclass(frozen=True)
class Cache:
    """Where results are cached, and the keys that they are found by.

    Attributes:
        layout: of the results.
        first_seed: of the configuration.
        data_sha256: of the images' file.
    """

    layout: Layout
    first_seed: int
    data_sha256: str

    def file(self, module: str, model: MeasuredModel, settings: Row, label: str) -> CachedResult:
        """The file of a result that the code of a module makes."""
        key = {
            "model": model.identity,
            "seed": model.seed,
            "first_seed": self.first_seed,
            "data_sha256": self.data_sha256,
            "settings": settings,
            "code": fingerprint(module, *COMMON),
        }
        name = f"{model.name}-{label}" if label else model.name
        return CachedResult(self.layout.cache(module.rpartition(".")[2]), name, key)

    def or_make(
        self, module: str, model: MeasuredModel, settings: Row, label: str, make: Callable[[], Result]
    ) -> Result:
        """A result, made and cached if it was not before."""
        return self.file(module, model, settings, label).or_make(make)


def open_evaluation(config: Config, name: str, *, trains: bool = False) -> tuple[Evaluated, Cache]:
    """The models of an evaluation with what they are measured with, and where results are cached.

    Args:
        config: whose evaluation it is.
        name: of the evaluation.
        trains: columns of the models' own training get a prefix.

    Raises:
        UserError: images or a run are missing or damaged, or a split has no images.
    """
    layout, specs = Layout.of(config), config.evaluation_runs(name)
    path = layout.data(specs[0].dataset)
    data = ImageData.load(path)
    for split in SPLITS:
        if not len(data.splits[split]):
            problem = f"the split {split} has no images, and the evaluation {name} needs some"
            raise UserError(path, problem, "give every split of the data set a share, or remove the evaluation")
    cache = Cache(layout, config.first_seed, sha256_of(path))
    shared = Shared(data, path, config.first_seed, layout.downloads, cache.or_make)
    runs = [trained_run(RunFolder(layout.runs / spec.name), spec, trains=trains) for spec in specs]
    return Evaluated(name, config.evaluations[name], runs, shared), cache


def trained_run(folder: RunFolder, spec: RunSpec, *, trains: bool = False) -> MeasuredModel:
    """A finished run and its snapshots, to be measured.

    Raises:
        UserError: it is missing or damaged.
    """
    record = folder.read_record()
    precision = record.get("precision", "fp32")
    columns = spec.pretraining_settings() if trains else spec.settings()

    def model(path: Path, name: str, sha256: str, network: Row) -> MeasuredModel:
        identity = {"weights_sha256": sha256, "model": network, "precision": precision}
        load = partial(load_model, path, precision)
        return MeasuredModel(name, spec.seed, identity, load, columns, spec)

    snapshots, settings = {}, spec.model.to_dict()
    for epoch in spec.train.snapshots:
        weights = folder.snapshot(epoch) / WEIGHTS
        sha256 = record["files"][str(weights.relative_to(folder.path))]
        if epoch:
            snapshots[epoch] = model(weights.parent, f"{spec.name}-epoch{epoch}", sha256, settings)
        else:
            network, name = {key: settings[key] for key in NETWORK}, f"untrained-p{spec.model.patch_size}-s{spec.seed}"
            snapshots[epoch] = model(weights.parent, name, sha256, network)
    snapshots.pop(spec.train.epochs, None)  # the run itself
    whole = model(folder.path, spec.name, record["weights_sha256"], settings)
    return replace(whole, snapshots=snapshots, validation_losses=partial(_validation_losses, folder.path))


def _validation_losses(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    table = read_curve(folder / "validation.csv", ["epoch", "loss"])
    return table["epoch"].to_numpy(np.float64), table["loss"].to_numpy(np.float64)
