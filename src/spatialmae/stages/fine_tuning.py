"""Stage ``fine_tuning``: trained encoders, all of them or their last blocks, fine-tuned to the class labels.

A row takes minutes on CIFAR-10 and a table hours, so each row is kept when it is finished, and a stage that was stopped
goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config, FineTuning
from spatialmae.errors import UserError
from spatialmae.fingerprint import fingerprint
from spatialmae.layout import Layout
from spatialmae.model.config import MAEConfig
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.probe.classification import label_targets
from spatialmae.probe.fine_tuning import fine_tune
from spatialmae.probe.labelled_images import LabelledImages
from spatialmae.probe.settings import FineTuneConfig
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.stages.kept import KeptRow, Row
from spatialmae.tables import write_table
from spatialmae.train.plan import FROM_DATASET, RunSpec
from spatialmae.train.runs import RunFolder, load_run, sha256_of

# Modules that a row depends on beside those of the trained weights.
NUMERIC = (
    *("probe/settings.py", "probe/representation.py", "probe/head_training.py", "probe/labelled_images.py"),
    *("probe/classifier.py", "probe/step_memory.py", "probe/fine_tuning.py"),
)
ENCODER = (
    *("image_size", "channels", "patch_size", "encoder_dim", "encoder_depth", "encoder_heads"),
    *("mlp_ratio", "layer_norm_eps"),
)
PROGRESS = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} rows [{elapsed}<{remaining}]"


@dataclass(frozen=True)
class Start:
    """Where fine-tuning begins: a trained run, or fresh weights.

    Attributes:
        name: of the run, or of architecture and seed.
        model: its architecture.
        seed: of the run, of fresh weights, and of fine-tuning.
        weights_sha256: of the run; None: from scratch.
        columns: what the table tells of it.
    """

    name: str
    model: MAEConfig
    seed: int
    weights_sha256: str | None
    columns: Row

    @classmethod
    def of_run(cls, spec: RunSpec, runs: Path) -> Start:
        """A finished run.

        Raises:
            UserError: it is missing or damaged.
        """
        weights = RunFolder(runs / spec.name).read_record()["weights_sha256"]
        return cls(spec.name, spec.model, spec.seed, weights, spec.pretraining_settings())

    @classmethod
    def from_scratch(cls, spec: RunSpec) -> Start:
        """Fresh weights in a run's encoder, the same for all runs that share encoder and seed."""
        encoder = {name: getattr(spec.model, name) for name in ENCODER}
        # [CLS] is drawn after the decoder, so that another decoder would make it another start.
        decoder = {"decoder_dim": spec.model.encoder_dim, "decoder_heads": spec.model.encoder_heads, "decoder_depth": 1}
        model = MAEConfig.from_dict(encoder | decoder | {"mask_ratio": 0.0, "loss_on": "all"})
        name = f"{spec.dataset}-p{model.patch_size}-d{model.encoder_depth}-scratch-s{spec.seed}"
        shown = {key: value for key, value in encoder.items() if key not in FROM_DATASET}
        return cls(name, model, spec.seed, None, {"name": name, "dataset": spec.dataset, "seed": spec.seed, **shown})

    def load(self, runs: Path) -> MaskedAutoencoder:
        """The model; from scratch its weights do not matter, for fine-tuning draws others.

        Raises:
            UserError: the run is missing or damaged.
        """
        return MaskedAutoencoder(self.model) if self.weights_sha256 is None else load_run(runs / self.name).model


@dataclass(frozen=True)
class Tuning:
    """One row of the table, and the file that keeps it.

    Evaluations share no rows: those that are compared in time are of one job.
    """

    evaluation: str
    start: Start
    target: str
    config: FineTuneConfig
    data_sha256: str
    folder: Path

    def key(self) -> Row:
        """All that decides the row, JSON-able."""
        return {
            "evaluation": self.evaluation,
            "start": self.start.name,
            "model": self.start.model.to_dict(),
            "seed": self.start.seed,
            "weights_sha256": self.start.weights_sha256,
            "target": self.target,
            "settings": self.config.to_dict(),
            "data_sha256": self.data_sha256,
            "code_digest": fingerprint("spatialmae.stages.fine_tuning"),
        }

    def kept(self) -> Row | None:
        """The row, if it was made before."""
        return self._file().read()

    def keep(self, row: Row) -> Row:
        """Keep the row."""
        return self._file().write(row)

    def _file(self) -> KeptRow:
        return KeptRow(self.folder, self.start.name, self.key())


def run(config: Config, name: str) -> None:
    """Write ``tables/fine_tuning/<name>.csv``: each model with each of ``n_blocks`` trained, and from scratch.

    Raises:
        UserError: images or a run are missing or damaged, the images have no class labels, or there are too few.
    """
    evaluated, layout = EvaluationSet(config, name), Layout.of(config)
    labelled = _labelled_images(evaluated, layout)
    tunings = list(_tunings(evaluated, layout, list(labelled)))
    rows = [tuning.kept() for tuning in tunings]
    n_kept = len(rows) - rows.count(None)
    with tqdm(
        desc=f"fine-tuning {name}", total=len(rows), initial=n_kept, mininterval=1, smoothing=0, bar_format=PROGRESS
    ) as bar:
        for i, tuning in enumerate(tunings):
            if rows[i] is None:
                rows[i] = tuning.keep(_made(tuning, layout.runs, labelled[tuning.target], bar))
                n_kept += 1
                bar.update(n_kept - bar.n)  # a learning rate that diverges takes fewer steps
    columns = [tuning.start.columns | {"from_scratch": tuning.start.weights_sha256 is None} for tuning in tunings]
    table = pd.DataFrame([known | (row or {}) for known, row in zip(columns, rows, strict=True)])
    write_table(layout.table("fine_tuning", name), table)


def _labelled_images(evaluated: EvaluationSet, layout: Layout) -> dict[str, LabelledImages]:
    """The images with each of their class labels, by target."""
    path = layout.data(evaluated.specs[0].dataset)
    targets = label_targets(evaluated.data)
    where = f"evaluations.{evaluated.name}"
    if not targets:
        raise UserError(f"{where}.analyses", f"{path} has no class labels", "remove fine_tuning")
    settings, labelled = _settings(evaluated).configs()[0], {t: LabelledImages.load(path, t) for t in targets}
    for target, images in labelled.items():
        n_train = images.n_few(settings.labels_per_class)
        if settings.batch_size > n_train:
            problem = f"{settings.batch_size} exceeds the {n_train} labelled training images ({target})"
            raise UserError(f"{where}.fine_tuning.batch_size", problem, "lower it")
    return labelled


def _settings(evaluated: EvaluationSet) -> FineTuning:
    return evaluated.settings.fine_tuning or FineTuning()


def _tunings(evaluated: EvaluationSet, layout: Layout, targets: list[str]) -> Iterator[Tuning]:
    """Every row of the table, each once; those from scratch come last."""
    settings, specs = _settings(evaluated), evaluated.specs
    configs = settings.configs()
    cells = [(Start.of_run(spec, layout.runs), config) for spec in specs for config in configs]
    if settings.from_scratch:
        whole, fresh = replace(configs[0], n_blocks=None), [Start.from_scratch(spec) for spec in specs]
        cells += [(start, whole) for start in {(start.model, start.seed): start for start in fresh}.values()]
    data_sha256 = sha256_of(layout.data(specs[0].dataset))
    for target in targets:
        for start, config in cells:
            yield Tuning(evaluated.name, start, target, config, data_sha256, layout.rows("fine_tuning"))


def _made(tuning: Tuning, runs: Path, data: LabelledImages, bar: tqdm) -> Row:
    """Fine-tune; the bar moves on with each step."""
    config = tuning.config
    share = 1 / config.n_steps(data.n_few(config.labels_per_class))
    return fine_tune(
        tuning.start.load(runs),
        data,
        config,
        tuning.start.seed,
        from_scratch=tuning.start.weights_sha256 is None,
        on_step=partial(bar.update, share),
    )
