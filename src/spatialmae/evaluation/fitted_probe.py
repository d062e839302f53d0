"""Linear probes of the models of an evaluation, each cached when it is fitted.

A fit takes minutes on CIFAR-10, and several measures ask the same probe: whichever comes first fits it. Two that come
at the same time both do, to the same end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spatialmae.evaluation.measure import MeasuredModel
from spatialmae.evaluation.shared import Shared
from spatialmae.probe.linear_probe import FittedProbe, ProbeTask, fit_linear_probe
from spatialmae.probe.representation import Feature, Standardiser, represent_splits

FEATURE: Feature = "mean"


def fitted_probe(model: MeasuredModel, target: str, shared: Shared) -> FittedProbe:
    """The linear probe of one class label, fitted now or cached before.

    Raises:
        UserError: the target cannot be probed, see :meth:`~spatialmae.probe.linear_probe.ProbeTask.of`.
    """

    def fit() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        probe = fit_linear_probe(probe_task(model, target, shared))
        arrays = {"mean": probe.standardiser.mean, "scale": probe.standardiser.scale}
        return probe.row, arrays | {"classes": probe.classes, "weights": probe.weights, "bias": probe.bias}

    row, arrays = shared.cached(__name__, model, {"target": target}, target, fit)
    standardiser = Standardiser(arrays["mean"], arrays["scale"])
    return FittedProbe(standardiser, arrays["classes"], arrays["weights"], arrays["bias"], row)


def probe_task(model: MeasuredModel, target: str, shared: Shared) -> ProbeTask:
    """Features of all images, made once for all labels of a model, and one class label.

    Raises:
        UserError: the target cannot be probed.
    """
    data = shared.data

    def represented() -> dict[str, np.ndarray]:
        return represent_splits(model.load(), data.images, dict(data.splits.items()), FEATURE)

    return ProbeTask.of(shared.once("features", model.name, represented), data, target, FEATURE)
