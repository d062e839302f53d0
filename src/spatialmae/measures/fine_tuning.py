"""Measure ``fine_tuning``: trained encoders, all of them or their last blocks, fine-tuned to the class labels.

A row takes minutes on CIFAR-10 and a table hours, so each row is cached when it is finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from spatialmae.evaluation.measure import COSTS, Measure, MeasuredModel, Part, Row, Rows

if TYPE_CHECKING:
    from spatialmae.evaluation.shared import Evaluated, Shared
    from spatialmae.probe.labelled_images import LabelledImages

ENCODER = (
    *("image_size", "channels", "patch_size", "encoder_dim", "encoder_depth", "encoder_heads"),
    *("mlp_ratio", "layer_norm_eps"),
)


def parts(evaluated: Evaluated) -> Iterator[Part]:
    """For each label each run with each of ``n_blocks`` trained, and from scratch; and the time that a step takes.

    Raises:
        UserError: there are too few labelled images.
    """
    from spatialmae.config import FineTuning
    from spatialmae.probe.classification import label_targets

    settings, targets = evaluated.settings.fine_tuning or FineTuning(), label_targets(evaluated.shared.data)
    configs = [config.to_dict() for config in settings.configs()]
    _check_batches(evaluated, settings.configs()[0], targets)
    for target in targets:
        for run in evaluated.runs:
            for config in configs:
                yield _part(run, target, config, from_scratch=False)
        if settings.from_scratch:
            whole = configs[0] | {"n_blocks": None}
            fresh = {model.name: model for model in map(from_scratch, evaluated.runs)}
            yield from (_part(model, target, whole, from_scratch=True) for model in fresh.values())
    for run in evaluated.runs:
        # They hardly depend on the target.
        columns = {"from_scratch": False, "target": targets[0]}
        yield Part(run, {"target": targets[0], "side by side": configs}, "time", columns)


def _part(model: MeasuredModel, target: str, config: Row, *, from_scratch: bool) -> Part:
    settings = {"target": target, "config": config, "from_scratch": from_scratch}
    return Part(model, settings, target, {"from_scratch": from_scratch})


def from_scratch(run: MeasuredModel) -> MeasuredModel:
    """Fresh weights in a run's encoder, the same for all runs that share encoder and seed."""
    from spatialmae.model.config import MAEConfig
    from spatialmae.train.plan import FROM_DATASET

    assert run.spec is not None
    encoder = {name: getattr(run.spec.model, name) for name in ENCODER}
    # [CLS] is drawn after the decoder, so that another decoder would make it another start.
    decoder = {"decoder_dim": encoder["encoder_dim"], "decoder_heads": encoder["encoder_heads"], "decoder_depth": 1}
    model = MAEConfig.from_dict(encoder | decoder | {"mask_ratio": 0.0, "loss_on": "all"})
    settings = {key: value for key, value in encoder.items() if key not in FROM_DATASET}

    def load() -> Any:
        from spatialmae.model.mae import MaskedAutoencoder
        from spatialmae.model.trained import TrainedModel

        return TrainedModel(MaskedAutoencoder(model), (), ())  # fine-tuning draws the weights

    digest = "-".join(f"{value:g}" for value in settings.values())
    name = f"{run.spec.dataset}-p{model.patch_size}-d{model.encoder_depth}-scratch-s{run.seed}"
    columns = {"name": name, "dataset": run.spec.dataset, "seed": run.seed, **settings}
    return MeasuredModel(f"{name}-{digest}", run.seed, {"model": model.to_dict()}, load, columns)


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """A row of ``fine_tuning``, or one of ``costs`` for each number of blocks."""
    from spatialmae.probe.fine_tuning import fine_tune
    from spatialmae.probe.settings import FineTuneConfig
    from spatialmae.probe.step_time import step_times

    data, network = _labelled(settings["target"], shared), model.load().model
    if "side by side" in settings:
        configs = [FineTuneConfig.from_dict(config) for config in settings["side by side"]]
        return {COSTS: step_times(network, data, configs, model.seed)}
    config = FineTuneConfig.from_dict(settings["config"])
    on_step = partial(shared.progress, 1 / config.n_steps(data.n_few(config.labels_per_class)))
    fresh = settings["from_scratch"]
    return {"fine_tuning": [fine_tune(network, data, config, model.seed, from_scratch=fresh, on_step=on_step)]}


def _labelled(target: str, shared: Shared) -> LabelledImages:
    from spatialmae.probe.labelled_images import LabelledImages

    return shared.once(f"labelled {target}", None, lambda: LabelledImages.load(shared.data_path, target))


def _check_batches(evaluated: Evaluated, config: Any, targets: list[str]) -> None:
    from spatialmae.errors import UserError

    for target in targets:
        n_train = _labelled(target, evaluated.shared).n_few(config.labels_per_class)
        if config.batch_size > n_train:
            problem = f"{config.batch_size} exceeds the {n_train} labelled training images ({target})"
            raise UserError(f"evaluations.{evaluated.name}.fine_tuning.batch_size", problem, "lower it")


MEASURE = Measure(
    "fine-tuning of the last blocks or all, with memory and, in `costs`, time (A12, A14); images with labels",
    tables=("fine_tuning",),
    rows=rows,
    reads=("fine_tuning",),
    parts=parts,
    has_costs=True,
    needs_labels=True,
    trains=True,
)
