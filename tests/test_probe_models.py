"""Probes of frozen models: the representation, the linear probe, and nearest neighbours."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import batch_norm

from small_models import small_model
from spatialmae.data.dataset import SPLITS, ImageData
from spatialmae.errors import UserError
from spatialmae.model.patches import patchify
from spatialmae.model.trained import TrainedModel
from spatialmae.probe.linear_probe import FittedProbe, ProbeTask, fit_linear_probe
from spatialmae.probe.nearest_neighbours import CosineNeighbours, nearest_neighbour_probe
from spatialmae.probe.representation import represent, represent_splits, standardise

N_CLASSES, DIM = 4, 6


def linear_probe(task: ProbeTask, penalties: Sequence[float]) -> dict[str, Any]:
    return fit_linear_probe(task, penalties).row


PROBES = {
    "linear": (linear_probe, "penalty", (1e-1, 1e-3)),
    "neighbours": (nearest_neighbour_probe, "n_neighbours", (1, 15)),
}
parametrize_probes = pytest.mark.parametrize(("probe", "chosen", "grid"), PROBES.values(), ids=PROBES.keys())


@pytest.fixture(scope="module")
def run():
    """A model whose masks, bottleneck and input noise would all show if encoding used them."""
    model = small_model(torch.float32, bottleneck=3, noise_std=0.5).eval()
    return TrainedModel(model, (0.2, 0.6), (0.5, 0.25))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 8, 8, 2), dtype=np.uint8)


def by_hand(run: TrainedModel, images: np.ndarray) -> np.ndarray:
    """Tokens of each image, block after block, in float64."""
    model = small_model(torch.float64, bottleneck=3, noise_std=0.5)
    normalised = (images / 255 - np.array([0.2, 0.6])) / np.array([0.5, 0.25])
    patches = patchify(torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy()), 2)
    with torch.no_grad():
        x = model.patch_embedding(patches) + model.encoder_positions[1:]
        x = torch.cat([model.cls_token.expand(len(x), 1, -1), x], dim=1)
        for block in model.encoder:
            x = block(x)[0]
        return model.encoder_norm(x).numpy()


def test_features_are_the_encoders_last_tokens_by_hand(run, images):
    tokens = by_hand(run, images)
    assert run.model.cls_token.dtype == torch.float32
    np.testing.assert_allclose(represent(run, images), tokens[:, 1:].mean(axis=1), atol=2e-5)
    np.testing.assert_allclose(represent(run, images, "cls"), tokens[:, 0], atol=2e-5)
    assert not np.allclose(represent(run, images, "cls"), represent(run, images), atol=1e-2)


def test_features_are_float32_under_a_callers_autocast_and_repeat(run, images):
    expected = represent(run, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(represent(run, images), expected)
    assert expected.dtype == np.float32


def test_an_images_features_do_not_depend_on_the_others_of_its_batch(run, images):
    expected = represent(run, images)
    changed = images.copy()
    changed[3] = 255 - changed[3]
    others = np.arange(7) != 3
    np.testing.assert_allclose(represent(run, changed)[others], expected[others], atol=1e-6)
    assert not np.allclose(represent(run, changed)[3], expected[3], atol=1e-3)
    np.testing.assert_allclose(represent(run, images, batch_size=3), expected, atol=1e-6)


def test_the_encoder_is_left_as_it_is(run, images):
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    represent(run, images)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in run.model.parameters())
    assert not run.model.training


def test_features_of_splits_are_those_of_their_images(run, images):
    splits = {"train": np.array([4, 1]), "validation": np.array([0]), "test": np.array([6, 2])}
    features, expected = represent_splits(run, images, splits, "cls"), represent(run, images, "cls")
    for name, rows in splits.items():
        np.testing.assert_allclose(features[name], expected[rows], atol=1e-6)


def test_standardising_is_batch_norm_with_the_statistics_of_train():
    rng = np.random.default_rng(0)
    x = {name: (3 + 2 * rng.standard_normal((n, DIM))).astype(np.float32) for name, n in (("train", 50), ("test", 20))}
    z = standardise(x)
    train, test = (torch.from_numpy(x[name]) for name in ("train", "test"))
    np.testing.assert_allclose(z["train"], batch_norm(train, None, None, training=True, eps=1e-6), atol=1e-5)
    statistics = train.mean(dim=0), train.var(dim=0, correction=0)
    np.testing.assert_allclose(z["test"], batch_norm(test, *statistics, eps=1e-6), atol=1e-5)


def test_a_feature_that_is_constant_but_for_rounding_stays_near_zero():
    x = np.full((100, 1), 0.3, dtype=np.float32)
    x[::2] = np.nextafter(np.float32(0.3), np.float32(1))
    assert np.abs(standardise({"train": x})["train"]).max() < 1e-4


def labelled(labels: np.ndarray) -> ImageData:
    """A data set in name alone: its features are made up."""
    n = len(labels)
    splits = dict(zip(SPLITS, np.split(np.arange(n), [n // 2, 3 * n // 4]), strict=True))
    targets = {"shape": labels, "texture": labels % 2, "depth": np.zeros((n, 1, 1))}
    return ImageData("made up", np.zeros((n, 1, 1, 1), dtype=np.uint8), splits, targets)


def clusters(data: ImageData, spread: float) -> dict[str, np.ndarray]:
    """Features around a centre for each class, all of them far from 0 in one direction."""
    rng = np.random.default_rng(1)
    centres = np.eye(N_CLASSES, DIM) * 3 + 20
    features = centres[data.targets["shape"]] + spread * rng.standard_normal((len(data.images), DIM))
    return {name: features[rows].astype(np.float32) for name, rows in data.splits.items()}


@pytest.fixture(scope="module")
def data():
    return labelled(np.random.default_rng(0).integers(0, N_CLASSES, 800).astype(np.int64))


def with_labels(data: ImageData, split: str, labels: np.ndarray) -> ImageData:
    changed = data.targets["shape"].copy()
    changed[data.splits[split]] = labels
    return replace(data, targets={"shape": changed})


@parametrize_probes
def test_separable_features_give_full_accuracy_for_every_target(data, probe, chosen, grid):
    for target, n_classes in (("shape", 4), ("texture", 2)):
        row = probe(ProbeTask.of(clusters(data, 0.3), data, target, "mean"), grid)
        assert row["accuracy"] == row["validation_accuracy"] == 1.0
        assert row["target"] == target
        assert row["chance"] == pytest.approx(1 / n_classes, abs=0.1)
        assert (row["n_train"], row["n_test"]) == (400, 200)
        # Ties go to the more even answer: the stronger penalty, more neighbours.
        assert row[chosen] == max(grid)
        assert {"feature", "layer", "normalisation", "classifier", "selected_on"} <= set(row)


@parametrize_probes
def test_features_without_information_stay_at_chance(data, probe, chosen, grid):
    shuffled = {name: np.random.default_rng(5).permutation(x) for name, x in clusters(data, 0.3).items()}
    accuracy = probe(ProbeTask.of(shuffled, data, "shape", "mean"), grid)["accuracy"]
    assert accuracy == pytest.approx(1 / N_CLASSES, abs=5 * np.sqrt(0.25 * 0.75 / 200))


@parametrize_probes
def test_test_labels_have_no_part_in_the_choice_and_validation_labels_do(data, probe, chosen, grid):
    features = clusters(data, 2.0)
    row = probe(ProbeTask.of(features, data, "shape", "mean"), grid)
    assert 0.4 < row["accuracy"] < 0.95
    wrong = (data.target("shape", "test") + 1) % N_CLASSES
    permuted = probe(ProbeTask.of(features, with_labels(data, "test", wrong), "shape", "mean"), grid)
    assert permuted[chosen] == row[chosen]
    assert permuted["validation_accuracy"] == row["validation_accuracy"]
    assert permuted["accuracy"] < row["accuracy"] - 0.2
    # Validation labels that are what another hyper-parameter answers make it the chosen one.
    for value in grid:
        answers = answer(features, data, probe, value)
        agreeing = with_labels(data, "validation", answers)
        row = probe(ProbeTask.of(features, agreeing, "shape", "mean"), grid)
        assert row[chosen] == value
        assert row["validation_accuracy"] == 1.0


def answer(features: dict[str, np.ndarray], data: ImageData, probe, value: float) -> np.ndarray:
    """What scikit-learn's estimator answers for the validation images."""
    z, labels = standardise(features), data.target("shape", "train")
    if probe is linear_probe:
        estimator = LogisticRegression(C=1 / (len(labels) * value), max_iter=1000)
    else:
        estimator = KNeighborsClassifier(value, metric="cosine")
    return estimator.fit(z["train"], labels).predict(z["validation"])


@parametrize_probes
def test_the_row_says_whether_the_choice_is_at_the_grids_edge(data, probe, chosen, grid):
    task = ProbeTask.of(clusters(data, 0.3), data, "shape", "mean")
    assert probe(task, grid)["at_grid_edge"]
    assert not probe(task, grid[:1])["at_grid_edge"]  # nothing was chosen


def test_a_linear_probe_that_did_not_converge_says_so(data, monkeypatch):
    task = ProbeTask.of(clusters(data, 2.0), data, "shape", "mean")
    assert linear_probe(task, [1e-3])["converged"]
    monkeypatch.setattr("spatialmae.probe.linear_probe.MAX_ITERATIONS", 2)
    assert not linear_probe(task, [1e-3])["converged"]


def fitted(data: ImageData, target: str) -> tuple[dict[str, np.ndarray], FittedProbe, LogisticRegression]:
    """Features, a probe of them, and the classifier that scikit-learn makes of them."""
    features = clusters(data, 2.0)
    classifier = LogisticRegression(C=1 / (400 * 1e-2), max_iter=1000)
    classifier.fit(standardise(features)["train"], data.target(target, "train"))
    return features, fit_linear_probe(ProbeTask.of(features, data, target, "mean"), [1e-2]), classifier


@pytest.mark.parametrize("target", ["shape", "texture"])
def test_a_fitted_probe_answers_as_scikit_learn_and_as_it_did_for_the_test_split(data, target):
    features, probe, classifier = fitted(data, target)
    assert probe.score(features["test"], data.target(target, "test")) == probe.row["accuracy"] > 0.4
    shifted = {"train": features["train"], "asked": features["validation"] + np.float32(0.7)}
    for name, standardised in (standardise(features) | standardise(shifted)).items():
        asked = (features | shifted)[name]
        assert np.array_equal(probe.predict(asked), classifier.predict(standardised))
    # By the statistics of the training images, whatever those of what it is asked about.
    predicted = probe.predict(features["test"])
    alone = np.concatenate([probe.predict(features["test"][i : i + 1]) for i in range(20)])
    assert np.array_equal(alone, predicted[:20])
    assert not np.array_equal(probe.predict(features["test"] + 3 * np.eye(DIM, dtype=np.float32)[0]), predicted)


def test_a_fitted_probe_chooses_among_some_classes(data):
    features, probe, classifier = fitted(data, "shape")
    scores = classifier.decision_function(standardise(features)["test"])
    assert np.array_equal(probe.predict(features["test"]), scores.argmax(axis=1))
    some = np.array([1, 3, 8])
    assert np.array_equal(probe.predict(features["test"], among=some), np.where(scores[:, 1] >= scores[:, 3], 1, 3))
    with pytest.raises(ValueError, match=r"among: none of \[8\] was trained on; use some of \[0, 1, 2, 3\]"):
        probe.predict(features["test"], among=np.array([8]))
    two, texture, _ = fitted(data, "texture")
    assert set(texture.predict(two["test"], among=np.array([1]))) == {1}


@pytest.mark.parametrize("k", [1, 2, 9])
def test_votes_are_scikit_learns(data, k):
    z, labels = standardise(clusters(data, 2.0)), data.target("shape", "train") * 3 - 5
    index = CosineNeighbours(z["train"], labels)
    theirs = KNeighborsClassifier(k, metric="cosine").fit(z["train"], labels).predict(z["test"])
    assert np.array_equal(index.vote(index.neighbours(z["test"], k)), theirs)


def test_classes_not_trained_on_count_as_wrong(data):
    unseen = with_labels(data, "test", np.full(200, 17))
    task = ProbeTask.of(clusters(data, 0.3), unseen, "shape", "mean")
    assert linear_probe(task, [1e-3])["accuracy"] == nearest_neighbour_probe(task, [5])["accuracy"] == 0.0


def test_what_cannot_be_probed_is_refused(data):
    features = clusters(data, 0.3)
    with pytest.raises(UserError, match="depth is no class label; use one of shape, texture"):
        ProbeTask.of(features, data, "depth", "mean")
    with pytest.raises(UserError, match="shape has one class in the training split"):
        ProbeTask.of(features, with_labels(data, "train", np.zeros(400, dtype=np.int64)), "shape", "mean")
    empty = replace(data, splits=data.splits | {"validation": np.empty(0, dtype=np.int64)})
    with pytest.raises(UserError, match="no images in split validation"):
        ProbeTask.of(features, empty, "shape", "mean")
    task = ProbeTask.of(features, data, "shape", "mean")
    for penalties in ([], [0.0, 1.0]):
        with pytest.raises(ValueError, match="penalties: .* must be positive, at least one"):
            linear_probe(task, penalties)
    for k in ([], [0], [401]):
        with pytest.raises(ValueError, match="n_neighbours: .* must be in 1–400, at least one"):
            nearest_neighbour_probe(task, k)
