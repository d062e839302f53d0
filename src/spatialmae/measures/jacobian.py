"""Measure ``jacobian``: how far trained models reach, how their basis adapts to the image, and how both came about.

All models are measured under the same masks, whatever masks they were trained with: mask geometry alone widens reach.
Beside them stand untrained networks, and the best linear predictor under each mask: the conditional mean, with a ridge
chosen on validation images, since the noise of its weights, too, is influence from afar.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from spatialmae.evaluation.measure import Measure, MeasuredModel, Part, Row, Rows

if TYPE_CHECKING:
    import numpy as np

    from spatialmae.evaluation.shared import Evaluated, Shared

TABLES = ("jacobian_reach", "jacobian_profile", "jacobian_basis")
IN_TRAINING = {"jacobian_reach": "jacobian_training"}


def parts(evaluated: Evaluated) -> Iterator[Part]:
    """Each predictor under masks of each ratio, and snapshots under those of one."""
    ratios, common = evaluated.settings.mask_ratios, evaluated.settings.mask_ratio
    untrained: list[Row] = []
    for run in evaluated.runs:
        yield from (_part(evaluated, run, "trained", ratio) for ratio in ratios)
        initial = run.snapshots.get(0)
        # Runs of one seed begin as the same network, whatever their masking.
        if initial is not None and initial.identity not in untrained:
            untrained.append(initial.identity)
            yield from (_part(evaluated, initial, "untrained", ratio) for ratio in ratios)
        assert run.spec is not None
        for epoch, model in {**run.snapshots, run.spec.train.epochs: run}.items():
            part = _part(evaluated, model, "trained" if epoch else "untrained", common)
            columns = {"epoch": epoch} | part.columns | {"predictor": "trained"}
            yield Part(model, part.settings, part.label, columns, IN_TRAINING)
    for seed in sorted({run.seed for run in evaluated.runs}):
        model = _linear_predictor(evaluated, seed)
        yield from (_part(evaluated, model, "linear", ratio) for ratio in ratios)


def _part(evaluated: Evaluated, model: MeasuredModel, predictor: str, ratio: float) -> Part:
    settings = {"predictor": predictor} | _masks(evaluated, ratio)
    columns = {"predictor": predictor, "evaluation_mask_ratio": ratio}
    return Part(model, settings, f"at{ratio:g}", columns, {table: table for table in TABLES})


def _masks(evaluated: Evaluated, ratio: float) -> Row:
    """What decides images and masks."""
    n_images, n_masks = evaluated.settings.n_images, evaluated.settings.n_masks
    return {"mask_ratio": ratio, "mask_unit": evaluated.mask_unit, "n_images": n_images, "n_masks": n_masks}


def _linear_predictor(evaluated: Evaluated, seed: int) -> MeasuredModel:
    """The best linear predictor, of which a seed has its own masks alone."""
    shared = evaluated.shared

    def load() -> Any:
        from spatialmae.evaluation.jacobians import LinearPredictors

        make = LinearPredictors.of
        return shared.once("linear predictors", None, lambda: make(evaluated.runs[0].load(), shared))

    return MeasuredModel(f"linear-s{seed}", seed, {"of": "training images"}, load, {"seed": seed})


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """Means over the masks of a seed."""
    from spatialmae.evaluation.jacobians import LinearPredictors, measure

    predictor = model.load()
    means = measure(predictor, settings, model.seed, shared)
    ridge = {"ridge": predictor.ridge(settings)} if isinstance(predictor, LinearPredictors) else {}
    basis = [means.basis]
    if means.reversed is not None:  # the negative control
        control = f"{settings['predictor']}, reversed"
        basis.append({"predictor": control, "expansion_error": means.reversed})
    found = {"jacobian_reach": [means.reach], "jacobian_profile": means.profile, "jacobian_basis": basis}
    return {table: [ridge | row for row in made] for table, made in found.items()}


def pictures(evaluated: Evaluated) -> tuple[dict[str, np.ndarray], Any]:
    """The basis of one run: the first seed's first one whose ratio is nearest that which snapshots are measured at."""
    from spatialmae.evaluation.jacobians import basis_pictures

    common = evaluated.settings.mask_ratio
    first = [run for run in evaluated.runs if run.seed == evaluated.shared.first_seed]
    run = min(first, key=lambda run: abs(run.columns["mask_ratio"] - common))
    linear = _linear_predictor(evaluated, run.seed).load()
    about = {"run": run.name, "mask_ratio": run.columns["mask_ratio"], "evaluation_mask_ratio": common}
    return basis_pictures(run.load(), linear, _masks(evaluated, common), run.seed, evaluated.shared), about


MEASURE = Measure(
    "Jacobians of the reconstruction: reach, spectra, basis, along training too (A5, A6, A9, A10)",
    tables=(*TABLES, "jacobian_training"),
    rows=rows,
    reads=("mask_ratios", "mask_ratio", "mask_unit", "n_images", "n_masks"),
    parts=parts,
    pictures=pictures,
    of_pixels=True,
)
