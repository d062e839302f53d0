"""Linear probe of a frozen encoder: how much of a class label is linearly readable from its features."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.errors import UserError
from spatialmae.probe.classification import chance_accuracy, label_targets
from spatialmae.probe.representation import LAYER, Feature, standardise
from spatialmae.train.hardware import cpu_name

# Weights of λ/2 ‖W‖² beside the mean cross-entropy of the training images; scikit-learn's C is 1 / (n λ).
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class ProbeTask:
    """Features of the three splits, standardised on train, and the labels of one target.

    Attributes:
        features: float32 (n, D) of each split.
        labels: int64 (n,) of each split.
        target: name of the labels.
        feature: how tokens became one vector.
    """

    features: Mapping[str, Float32[np.ndarray, "_ D"]]
    labels: Mapping[str, Int64[np.ndarray, " _"]]
    target: str
    feature: Feature

    @classmethod
    def of(
        cls, features: Mapping[str, Float32[np.ndarray, "_ D"]], data: ImageData, target: str, feature: Feature
    ) -> ProbeTask:
        """The task of one label target of a data set.

        Args:
            features: of :func:`~spatialmae.probe.representation.represent_splits`, not standardised.
            data: the data set that the features are of.
            target: name of an int64 target.
            feature: the feature that ``features`` hold.

        Raises:
            UserError: the target is no class label, a split is empty, or there is one class alone.
        """
        names = label_targets(data)
        if target not in names:
            raise UserError(data.name, f"{target} is no class label", f"use one of {', '.join(names) or 'none'}")
        for split in SPLITS:
            if not len(data.splits[split]):
                raise UserError(data.name, f"no images in split {split}", "give every split of a probed data set some")
        labels: dict[str, np.ndarray] = {split: data.target(target, split) for split in SPLITS}
        if len(np.unique(labels["train"])) < 2:
            raise UserError(data.name, f"{target} has one class in the training split", "probe another target")
        return cls(standardise(features), labels, target, feature)

    def row(self, test_predictions: Int64[np.ndarray, " n_test"], validation_accuracy: float, **keys: Any) -> dict:
        """A row of a tidy table: the score on the test split and the contract it was made under, then ``keys``."""
        return {
            "target": self.target,
            "accuracy": float(np.mean(test_predictions == self.labels["test"])),
            "validation_accuracy": validation_accuracy,
            "chance": chance_accuracy(self.labels["train"], self.labels["test"]),
            "n_train": len(self.labels["train"]),
            "n_test": len(self.labels["test"]),
            "feature": self.feature,
            "layer": LAYER,
            "normalisation": "batch norm without affine, statistics of train",
            "selected_on": "validation",
            "device": f"cpu ({cpu_name()})",
            **keys,
        }


def linear_probe(task: ProbeTask, penalties: Sequence[float] = PENALTIES) -> dict[str, Any]:
    """Multinomial logistic regression on frozen features.

    The penalty is the one with the best validation accuracy, the strongest of ties; the test split is scored once.
    The optimum is unique and found by L-BFGS, so that there is no seed.

    Args:
        task: features and labels.
        penalties: λ to choose from, positive; see :data:`PENALTIES`.

    Returns:
        A row of a tidy table; ``at_grid_edge``: the best penalty is the largest or the smallest tried;
        ``converged``: whether every fit did; ``seconds``: of fitting and choosing.

    Raises:
        ValueError: a penalty is not positive, or there is none.
    """
    if not len(penalties) or min(penalties) <= 0:
        raise ValueError(f"penalties: {list(penalties)} must be positive, at least one")
    start = time.perf_counter()
    x, y = task.features, task.labels
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    # Strongest first: it converges fastest, and each fit starts where the last one ended.
    path = sorted(penalties, reverse=True)
    fits: list[tuple[float, float, LogisticRegression]] = []
    for penalty in path:
        model.set_params(C=1 / (len(y["train"]) * penalty))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the row says so
            model.fit(x["train"], y["train"])
        fits.append((float(model.score(x["validation"], y["validation"])), penalty, deepcopy(model)))
    validation_accuracy, penalty, chosen = max(fits, key=lambda fit: fit[0])
    seconds = time.perf_counter() - start
    return task.row(
        chosen.predict(x["test"]),
        validation_accuracy,
        classifier="multinomial logistic regression",
        penalty=float(penalty),
        at_grid_edge=len(path) > 1 and penalty in (path[0], path[-1]),
        converged=all(int(fit.n_iter_.max()) < MAX_ITERATIONS for _, _, fit in fits),
        seconds=seconds,
    )
