"""Linear probes of trained models, each kept when it is fitted.

A fit takes minutes on CIFAR-10, and several analyses ask the same probe: whichever comes first fits it. Two that come
at the same time both do, to the same end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32

from spatialmae.artifacts import read_tensors, write_tensors
from spatialmae.errors import UserError
from spatialmae.fingerprint import fingerprint
from spatialmae.layout import Layout
from spatialmae.probe.linear_probe import FittedProbe, ProbeTask, fit_linear_probe
from spatialmae.probe.representation import Feature, Standardiser, represent_splits
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.stages.kept import KeptFile, Row
from spatialmae.train.plan import RunSpec
from spatialmae.train.runs import TrainedRun

FEATURE: Feature = "mean"
# Modules that a linear probe depends on beside those of the trained weights.
NUMERIC = tuple(f"probe/{name}.py" for name in ("representation", "classification", "linear_probe"))


class KeptProbe(KeptFile[FittedProbe]):
    """One fitted probe: its arrays, and in the metadata its row, which says how it was fitted."""

    suffix = ".safetensors"

    def read(self) -> FittedProbe | None:
        """The probe, if it was fitted before and its file is whole."""
        try:
            arrays, about = read_tensors(self.path)
            standardiser = Standardiser(arrays.pop("mean"), arrays.pop("scale"))
            return FittedProbe(standardiser, **arrays, row=about["row"]) if about["key"] == self.key else None
        except (UserError, KeyError, TypeError):
            return None

    def write(self, probe: FittedProbe) -> FittedProbe:
        """Keep the probe."""
        arrays = {"mean": probe.standardiser.mean, "scale": probe.standardiser.scale}
        arrays |= {"classes": probe.classes, "weights": probe.weights, "bias": probe.bias}
        write_tensors(self.path, arrays, {"key": self.key, "row": probe.row})
        return probe


@dataclass(frozen=True)
class ProbedModel:
    """A model of an evaluation, whose frozen encoder is probed for the class labels of the evaluation's images."""

    evaluated: EvaluationSet
    spec: RunSpec
    trained: TrainedRun

    def linear_probe(self, target: str) -> FittedProbe:
        """The linear probe of one class label, fitted now or kept before.

        Raises:
            UserError: the target cannot be probed, see :meth:`~spatialmae.probe.linear_probe.ProbeTask.of`.
        """
        folder = Layout.of(self.evaluated.config).rows("linear_probe")
        kept = KeptProbe(folder, f"{self.spec.name}-{target}", self.key(target, NUMERIC))
        return kept.or_make(lambda: fit_linear_probe(self.task(target)))

    def task(self, target: str) -> ProbeTask:
        """Features of all images, and one class label.

        Raises:
            UserError: the target cannot be probed.
        """
        return ProbeTask.of(self._features, self.evaluated.data, target, FEATURE)

    def key(self, target: str, numeric: tuple[str, ...]) -> Row:
        """All that decides a probe that is made by the code of ``numeric``."""
        return {
            "weights_sha256": self.trained.record["weights_sha256"],
            "feature": FEATURE,
            "data_sha256": self.evaluated.data_sha256,
            "code_digest": fingerprint("spatialmae.stages.probes"),
            "target": target,
        }

    @cached_property
    def _features(self) -> dict[str, Float32[np.ndarray, "_ D"]]:
        data = self.evaluated.data
        return represent_splits(self.trained, data.images, dict(data.splits.items()), FEATURE)
