"""Separability of classes in features, against loops and known cases; t-SNE pictures."""

import numpy as np
import pytest

from spatialmae.probe.embedding import separability, tsne

RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat([0, 3, 7], [20, 25, 15]))


def clustered(distance: float) -> np.ndarray:
    """Features around a centre for each class, in axes of very different size and place."""
    draw = np.random.default_rng(1)
    centres = distance * draw.normal(size=(8, 5))
    return ((centres[LABELS] + draw.normal(size=(60, 5))) * 10.0 ** np.arange(-1, 4) + 50).astype(np.float32)


def by_hand(features: np.ndarray, labels: np.ndarray, k: int) -> tuple[float, float]:
    """Silhouette and leave-one-out accuracy in loops."""
    x = features.astype(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    silhouettes, correct = [], []
    rows_of = {label: np.flatnonzero(labels == label) for label in (0, 3, 7)}
    for i, own in enumerate(labels):
        distances = np.linalg.norm(x - x[i], axis=1)
        a = distances[rows_of[own]].sum() / (len(rows_of[own]) - 1)
        b = min(distances[rows].mean() for label, rows in rows_of.items() if label != own)
        silhouettes.append((b - a) / max(a, b))
        others = np.delete(np.arange(60), i)
        nearest = others[np.argsort(-(unit[others] @ unit[i]))[:k]]
        classes, votes = np.unique(labels[nearest], return_counts=True)
        correct.append(classes[votes.argmax()] == own)
    return float(np.mean(silhouettes)), float(np.mean(correct))


@pytest.mark.parametrize("k", [1, 7])
def test_separability_is_that_of_loops(k):
    row = separability(clustered(0.7), LABELS, k)
    silhouette, accuracy = by_hand(clustered(0.7), LABELS, k)
    assert row["silhouette"] == pytest.approx(silhouette, abs=1e-4)
    assert row["knn_accuracy"] == accuracy
    assert 0.5 < accuracy < 1
    assert (row["chance"], row["n_neighbours"], row["n_images"], row["n_classes"]) == (25 / 60, k, 60, 3)


def test_separability_grows_with_the_distance_of_classes_and_is_none_without():
    none, some, much = (separability(clustered(d), LABELS, 5) for d in (0.0, 0.7, 5.0))
    assert none["silhouette"] < some["silhouette"] < much["silhouette"]
    assert none["knn_accuracy"] < some["knn_accuracy"] < much["knn_accuracy"] == 1
    assert none["silhouette"] == pytest.approx(0, abs=0.1)


def test_an_image_is_no_neighbour_of_itself_even_beside_its_double():
    # Each image has one double of another class: its nearest neighbour is wrong, unless it were itself.
    features = np.repeat(RNG.normal(size=(10, 4)), 2, axis=0).astype(np.float32)
    row = separability(features, np.tile([0, 1], 10), 1)
    assert row["knn_accuracy"] == 0


def test_what_cannot_separate_is_refused():
    features = clustered(1.0)
    with pytest.raises(ValueError, match="1 classes"):
        separability(features, np.zeros(60, np.int64))
    with pytest.raises(ValueError, match="n_neighbours"):
        separability(features, LABELS, 60)
    with pytest.raises(ValueError, match="perplexity"):
        tsne(features, 0, perplexity=60)


def test_a_tsne_repeats_and_keeps_far_clusters_apart():
    features = clustered(8.0)
    picture = tsne(features, seed=3, perplexity=8.0)
    assert picture.shape == (60, 2) and np.isfinite(picture).all()
    assert np.array_equal(picture, tsne(features, seed=3, perplexity=8.0))
    assert separability(picture, LABELS, 3)["knn_accuracy"] == 1
