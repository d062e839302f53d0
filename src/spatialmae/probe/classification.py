"""Class labels predicted from linear features by a ridge classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.errors import UserError
from spatialmae.probe.ridge import ALPHAS, LinearCode, SplitArrays, indicator_accuracy, nested_ridge, split_features


def label_targets(data: ImageData) -> list[str]:
    """Names of the class labels among the targets: int64, one for each image."""
    return [name for name, array in data.targets.items() if array.dtype == np.int64 and array.ndim == 1]


def indicators(
    labels: Int64[np.ndarray, " n"], classes: Int64[np.ndarray, " classes"]
) -> Float64[np.ndarray, "n classes"]:
    """+1 in the column of an image's class, −1 elsewhere."""
    return np.where(labels[:, None] == classes[None, :], 1.0, -1.0)


def chance_accuracy(train: Int64[np.ndarray, " n_train"], test: Int64[np.ndarray, " n_test"]) -> float:
    """Accuracy on ``test`` of always answering the class that is most frequent in ``train``, 0 … 1."""
    classes, counts = np.unique(train, return_counts=True)
    return float(np.mean(test == classes[np.argmax(counts)]))


class ClassProbe:
    """The class labels of one data set; :meth:`rows` probes the code of one encoder.

    Args:
        data: a data set.
        targets: names of int64 targets; None: all of them.
        alphas: penalties to choose from on the validation split.

    Raises:
        UserError: there is no class label.
    """

    def __init__(self, data: ImageData, targets: Sequence[str] | None = None, alphas: Sequence[float] = ALPHAS) -> None:
        self.alphas = alphas
        names = label_targets(data) if targets is None else targets
        if not names:
            raise UserError(f"{data.name}", "its images have no class labels", "remove class from analyses")
        self.targets: dict[str, SplitArrays] = {}
        self.chance: dict[str, float] = {}
        for name in names:
            labels = {split: data.target(name, split) for split in SPLITS}
            classes = np.unique(labels["train"])
            self.targets[name] = {split: indicators(labels[split], classes) for split in SPLITS}
            self.chance[name] = chance_accuracy(labels["train"], labels["test"])

    def rows(self, code: LinearCode, n_components: Sequence[int]) -> pd.DataFrame:
        """A row for each target and rank: ``accuracy`` on the test split, ``chance``, and the contract.

        ``chance`` is the accuracy of :func:`chance_accuracy`.
        """
        return pd.DataFrame(
            [
                probe.row("accuracy", target=name, chance=self.chance[name])
                for name, targets in self.targets.items()
                for probe in nested_ridge(code, targets, n_components, self.alphas, indicator_accuracy)
            ]
        )


def probe_class(
    data: ImageData,
    encoder: Float64[np.ndarray, "d k"],
    mean: Float64[np.ndarray, " d"],
    n_components: Sequence[int],
    targets: Sequence[str] | None = None,
) -> pd.DataFrame:
    """:class:`ClassProbe` for a single encoder."""
    return ClassProbe(data, targets).rows(LinearCode.project(split_features(data), encoder, mean), n_components)
