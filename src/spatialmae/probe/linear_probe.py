"""Linear probe of a frozen encoder: how much of a class label is linearly readable from its features."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.errors import UserError
from spatialmae.probe.classification import chance_accuracy, label_targets
from spatialmae.probe.representation import LAYER, Feature, Standardiser

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
        standardiser: of features of the same model, by its training images.
    """

    features: Mapping[str, Float32[np.ndarray, "_ D"]]
    labels: Mapping[str, Int64[np.ndarray, " _"]]
    target: str
    feature: Feature
    standardiser: Standardiser

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
        standardiser = Standardiser.of(features["train"])
        standardised = {split: standardiser.apply(x) for split, x in features.items()}
        return cls(standardised, labels, target, feature, standardiser)

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
            **keys,
        }


@dataclass(frozen=True)
class FittedProbe:
    """The linear classifier that a probe chose, to be asked about other images than the task's.

    Attributes:
        standardiser: the task's.
        classes: those that were trained on, ascending.
        weights: of standardised features, for each class; of two classes for the second alone.
        bias: likewise.
        row: its score on the task's test images, a row of a tidy table, which names the task's target and feature.
    """

    standardiser: Standardiser
    classes: Int64[np.ndarray, " classes"]
    weights: Float[np.ndarray, "scores D"]
    bias: Float[np.ndarray, " scores"]
    row: dict[str, Any]

    def predict(
        self, features: Float32[np.ndarray, "n D"], among: Int64[np.ndarray, " _"] | None = None
    ) -> Int64[np.ndarray, " n"]:
        """The class of each image.

        Args:
            features: of the same model and kind as the task's, not standardised: the training images' mean and
                variance standardise them, whatever their own.
            among: classes to choose from; None: all that were trained on.

        Raises:
            ValueError: no class to choose from was trained on.
        """
        classes = self.classes
        allowed = np.ones(len(classes), dtype=bool) if among is None else np.isin(classes, among)
        if not allowed.any():
            raise ValueError(f"among: none of {among} was trained on; use some of {classes.tolist()}")
        scores = self.standardiser.apply(features) @ self.weights.T + self.bias
        if scores.shape[1] == 1:
            scores = np.concatenate([-scores, scores], axis=1)
        return classes[allowed][scores[:, allowed].argmax(axis=1)]

    def score(self, features: Float32[np.ndarray, "n D"], labels: Int64[np.ndarray, " n"]) -> float:
        """Share of images that are given their class, 0 … 1; see :meth:`predict`."""
        return float(np.mean(self.predict(features) == labels))


def fit_linear_probe(task: ProbeTask, penalties: Sequence[float] = PENALTIES) -> FittedProbe:
    """Multinomial logistic regression on frozen features.

    The penalty is the one with the best validation accuracy, the strongest of ties; the test split is scored once.
    The optimum is unique and found by L-BFGS, so that there is no seed.

    Args:
        task: features and labels.
        penalties: λ to choose from, positive; see :data:`PENALTIES`.

    Returns:
        The probe. Its row: ``at_grid_edge``: the best penalty is the largest or the smallest tried;
        ``converged``: whether every fit did.

    Raises:
        ValueError: a penalty is not positive, or there is none.
    """
    if not len(penalties) or min(penalties) <= 0:
        raise ValueError(f"penalties: {list(penalties)} must be positive, at least one")
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
    row = task.row(
        chosen.predict(x["test"]),
        validation_accuracy,
        classifier="multinomial logistic regression",
        penalty=float(penalty),
        at_grid_edge=len(path) > 1 and penalty in (path[0], path[-1]),
        converged=all(int(fit.n_iter_.max()) < MAX_ITERATIONS for _, _, fit in fits),
    )
    # In C order, in which they are read back when a probe is cached: the order may change how a product is rounded.
    weights, bias = (np.ascontiguousarray(array) for array in (chosen.coef_, chosen.intercept_))
    return FittedProbe(task.standardiser, chosen.classes_, weights, bias, row)
