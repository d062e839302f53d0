"""k-nearest-neighbour probe of a frozen encoder: are images of one class near each other, with nothing fitted?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from spatialmae.probe.linear_probe import ProbeTask

N_NEIGHBOURS = (1, 5, 10, 20, 50, 100)


class CosineNeighbours:
    """The training images of a task, by the cosine of the angle between standardised features.

    Standardised, because features that share a large mean would all have a cosine near 1.
    """

    def __init__(self, features: Float32[np.ndarray, "n D"], labels: Int64[np.ndarray, " n"]) -> None:
        self.classes, self.indices = np.unique(labels, return_inverse=True)
        # Of vectors of unit length the nearest are those of the largest cosine, and this search is the faster one.
        self.search = NearestNeighbors(algorithm="brute").fit(normalize(features))

    def neighbours(self, features: Float32[np.ndarray, "n D"], k: int) -> Int64[np.ndarray, "n k"]:
        """Class index of the k nearest training images, nearest first."""
        return self.indices[self.search.kneighbors(normalize(features), k, return_distance=False)]

    def vote(self, neighbours: Int64[np.ndarray, "n k"]) -> Int64[np.ndarray, " n"]:
        """The class with most of the neighbours; of ties the one with the lowest label, as scikit-learn does."""
        n, n_classes = len(neighbours), len(self.classes)
        flat = neighbours + n_classes * np.arange(n)[:, None]
        votes = np.bincount(flat.ravel(), minlength=n * n_classes).reshape(n, n_classes)
        return self.classes[votes.argmax(axis=1)]


def nearest_neighbour_probe(task: ProbeTask, n_neighbours: Sequence[int] = N_NEIGHBOURS) -> dict[str, Any]:
    """k-NN by cosine similarity on standardised features, each neighbour with one vote.

    k is the one with the best validation accuracy, the largest of ties; the test split is scored once.

    Args:
        task: features and labels.
        n_neighbours: k to choose from, in 1 … training images.

    Returns:
        A row of a tidy table, like that of :func:`~spatialmae.probe.linear_probe.fit_linear_probe`, with
        ``n_neighbours`` for the penalty.

    Raises:
        ValueError: a k is not in 1 … training images, or there is none.
    """
    n_train = len(task.labels["train"])
    if not len(n_neighbours) or not 1 <= min(n_neighbours) <= max(n_neighbours) <= n_train:
        raise ValueError(f"n_neighbours: {list(n_neighbours)} must be in 1–{n_train}, at least one")
    index = CosineNeighbours(task.features["train"], task.labels["train"])
    path = sorted(n_neighbours, reverse=True)
    nearest = index.neighbours(task.features["validation"], path[0])
    accuracies = [float(np.mean(index.vote(nearest[:, :k]) == task.labels["validation"])) for k in path]
    best = int(np.argmax(accuracies))
    return task.row(
        index.vote(index.neighbours(task.features["test"], path[best])),
        accuracies[best],
        classifier="k-NN, cosine",
        n_neighbours=path[best],
        at_grid_edge=len(path) > 1 and best in (0, len(path) - 1),
    )
