"""How well classes separate in the features of a frozen encoder (claim B6): a picture, and the numbers that judge it.

A t-SNE shows clusters or none as its perplexity has it, so that it is only looked at. Verdicts go by the features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from sklearn import config_context
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from spatialmae.probe.classification import chance_accuracy
from spatialmae.probe.nearest_neighbours import CosineNeighbours
from spatialmae.probe.representation import standardise

PERPLEXITY = 30.0
N_NEIGHBOURS = 20
WORKING_MEMORY = 128  # MiB, of distances alive at once


def tsne(features: Float32[np.ndarray, "n D"], seed: int, perplexity: float = PERPLEXITY) -> Float32[np.ndarray, "n 2"]:
    """A t-SNE (van der Maaten and Hinton, 2008) of standardised features, begun at their first two principal axes.

    Args:
        features: not standardised.
        seed: of the principal axes' random projections; the same seed gives the same picture.
        perplexity: about how many neighbours a point has, below n.

    Raises:
        ValueError: there are too few points for the perplexity.
    """
    if not 0 < perplexity < len(features):
        raise ValueError(f"perplexity: {perplexity} is not between 0 and the {len(features)} points; lower it")
    # Threads add up forces in an order of their own, and t-SNE makes much of last bits.
    with threadpool_limits(1):
        return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(_standardised(features))


def separability(
    features: Float32[np.ndarray, "n D"], labels: Int64[np.ndarray, " n"], n_neighbours: int = N_NEIGHBOURS
) -> dict[str, Any]:
    """How well classes separate in features, standardised by their own means and variances. Nothing is fitted.

    Args:
        features: of held-out images, not standardised.
        labels: class of each image.
        n_neighbours: k of the nearest neighbours that vote, below n.

    Returns:
        A row of a tidy table. ``silhouette``: mean over images of (b − a) / max(a, b), with a the mean Euclidean
        distance to images of the same class and b that to the nearest other class (Rousseeuw, 1987), −1 … 1.
        ``knn_accuracy``: share of images whose class is that of most of their k nearest others by cosine similarity,
        and ``chance``, the share of the most frequent class.

    Raises:
        ValueError: there are fewer than two classes, no two images of a class, or too few images for the neighbours.
    """
    n = len(features)
    n_classes = len(np.unique(labels))
    if not 2 <= n_classes < n:
        raise ValueError(f"labels: {n_classes} classes among {n} images; separability needs from 2 to n − 1")
    if not 1 <= n_neighbours < n:
        raise ValueError(f"n_neighbours: {n_neighbours} is not in 1–{n - 1}")
    standardised = _standardised(features)
    index = CosineNeighbours(standardised, labels)
    # Asked for no points in particular, the search leaves each point out of its own neighbours.
    nearest = index.search.kneighbors(n_neighbors=n_neighbours, return_distance=False)
    with config_context(working_memory=WORKING_MEMORY):
        silhouette = silhouette_score(standardised, labels)
    return {
        "silhouette": float(silhouette),
        "knn_accuracy": float(np.mean(index.vote(index.indices[nearest]) == labels)),
        "chance": chance_accuracy(labels, labels),
        "n_neighbours": n_neighbours,
        "n_images": n,
        "n_classes": n_classes,
        "normalisation": "standardised by these images",
    }


def _standardised(features: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n D"]:
    return standardise({"train": features})["train"]
