"""Shape bias: counts and interval by hand, and probes whose cue is known."""

import math

import numpy as np
import pytest
import torch

from small_models import small_model
from spatialmae.data.dataset import ImageData, consecutive_splits
from spatialmae.data.dead_leaves import dead_leaves
from spatialmae.model.trained import TrainedModel
from spatialmae.probe import shape_bias
from spatialmae.probe.linear_probe import ProbeTask, fit_linear_probe
from spatialmae.probe.shape_bias import CueDecisions, CueLeaves, leaves_shape_bias, shape_bias_row

N_CLASSES = 5
COUNTS = {"n_train": 60, "n_validation": 20, "n_test": 40}


@pytest.fixture(scope="module")
def run():
    model = small_model(torch.float32, channels=3).eval()
    return TrainedModel(model, (0.5,) * 3, (0.3,) * 3)


def decisions(predicted, shape, texture) -> CueDecisions:
    return CueDecisions.of(*(np.array(labels, dtype=np.int64) for labels in (predicted, shape, texture)))


def test_decisions_are_counted_where_cues_conflict():
    found = decisions(predicted=[0, 1, 2, 3, 0, 1, 4], shape=[0, 2, 2, 3, 1, 1, 0], texture=[1, 1, 3, 0, 2, 1, 3])
    assert found == CueDecisions(shape=3, texture=1, neither=2)
    assert found.shape_bias == 0.75
    assert found.row() | {"low": 0, "high": 0} == {
        "shape_bias": 0.75, "low": 0, "high": 0, "confidence": 0.95,
        "n_shape": 3, "n_texture": 1, "n_neither": 2, "n": 6,
    }  # fmt: skip


@pytest.mark.parametrize(("shape", "texture"), [(0, 10), (3, 1), (50, 50), (210, 0), (7, 180)])
def test_intervals_are_wilsons_by_hand(shape, texture):
    z, n = 1.959963984540054, shape + texture
    centre = (shape + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(shape * texture / n + z**2 / 4)
    # A third class has no part in it.
    assert CueDecisions(shape, texture, 99).interval() == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_without_a_decision_for_either_cue_there_is_no_bias():
    row = decisions([4, 4], [0, 1], [1, 2]).row()
    assert all(math.isnan(row[name]) for name in ("shape_bias", "low", "high"))
    assert (row["n_neither"], row["n"]) == (2, 2)


def told(images: np.ndarray, see_shape: float, see_texture: float) -> np.ndarray:
    """Features that show the shape (of the first pixel's red) and the texture (green) with a strength each."""
    one_hot = np.eye(10, dtype=np.float32)
    return see_shape * one_hot[images[:, 0, 0, 0]] + see_texture * one_hot[images[:, 0, 0, 1]]


def pictured(name: str, shape: np.ndarray, texture: np.ndarray, splits=None) -> ImageData:
    images = np.zeros((len(shape), 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0, :2] = np.stack([shape, texture], axis=1)
    targets = {"shape": shape.astype(np.int64), "texture": texture.astype(np.int64)}
    return ImageData(name, images, splits or consecutive_splits(1, 0, len(shape) - 1), targets)


def cues(n: int = 400) -> CueLeaves:
    rng = np.random.default_rng(0)
    shape = rng.integers(0, N_CLASSES, n)
    other = (shape + rng.integers(1, N_CLASSES, n)) % N_CLASSES
    matched = pictured("matched", shape, shape, consecutive_splits(n // 2, n // 4, n // 4))
    return CueLeaves(matched, pictured("conflict", shape, other))


@pytest.mark.parametrize(("seen", "bias"), [((1.0, 0.0), 1.0), ((0.0, 1.0), 0.0), ((1.0, 0.3), 1.0), ((0.3, 1.0), 0.0)])
def test_a_probe_that_sees_one_cue_better_goes_by_it(monkeypatch, run, seen, bias):
    see(monkeypatch, *seen)
    row = leaves_shape_bias(run, cues(), penalties=[1e-3])
    assert row["shape_bias"] == bias
    assert row["probe_accuracy"] == 1.0 and row["probe_target"] == "shape"
    assert (row["n"], row["n_classes"], row["n_same_cue"], row["n_train"]) == (399, 5, 0, 200)
    assert row["same_cue_accuracy"] is None
    assert row["low"] <= bias <= row["high"] and row["high"] - row["low"] < 0.02


def test_a_probe_that_sees_nothing_decides_for_neither_more_often(monkeypatch, run):
    rng = np.random.default_rng(1)
    noise = lambda images: rng.standard_normal((len(images), 10)).astype(np.float32)  # noqa: E731
    see_by(monkeypatch, noise)
    row = leaves_shape_bias(run, cues(2000), penalties=[1e-1])
    assert row["shape_bias"] == pytest.approx(0.5, abs=0.09)
    assert row["n_neither"] / row["n"] == pytest.approx(3 / 5, abs=0.06)


def see(monkeypatch, see_shape: float, see_texture: float) -> None:
    see_by(monkeypatch, lambda images: told(images, see_shape, see_texture))


def see_by(monkeypatch, features) -> None:
    monkeypatch.setattr(shape_bias, "represent", lambda run, images, feature: features(images))
    monkeypatch.setattr(
        shape_bias,
        "represent_splits",
        lambda run, images, splits, feature: {name: features(images[rows]) for name, rows in splits.items()},
    )


def test_decisions_are_among_the_classes_of_the_stimuli(monkeypatch, run):
    """A probe of ten classes to which every stimulus looks most like class 9, which none of them shows."""
    rng = np.random.default_rng(0)
    label = np.concatenate([np.arange(10), rng.integers(0, 10, 390)])
    splits = consecutive_splits(200, 100, 100)
    pictures = pictured("ten", label, label, splits)
    features = {name: told(pictures.images[rows], 1.0, 0.0) for name, rows in splits.items()}
    probe = fit_linear_probe(ProbeTask.of(features, pictures, "shape", "mean"), [1e-3])
    stimuli = pictured(
        "stimuli", np.array([0, 0, 3, 3, 5, 0]), np.array([0, 3, 5, 3, 0, 5]), consecutive_splits(1, 0, 5)
    )
    nine = 3 * np.eye(10, dtype=np.float32)[9]
    monkeypatch.setattr(shape_bias, "represent", lambda run, images, feature: told(images, 1.0, 0.2) + nine)
    row = shape_bias_row(run, probe, stimuli)
    assert set(probe.predict(told(stimuli.images, 1.0, 0.2) + nine)) == {9}
    assert (row["n_shape"], row["n_texture"], row["n_neither"]) == (4, 0, 0)
    assert (row["n_classes"], row["n_same_cue"], row["same_cue_accuracy"]) == (3, 1, 1.0)
    assert row["stimuli"] == "stimuli"


def test_leaves_cues_are_of_one_world_and_of_the_models_size():
    world = dead_leaves(**COUNTS, image_size=16, n_leaves=5, min_radius=0.2, seed=0).provenance
    found = CueLeaves.render(image_size=8, **COUNTS, world=world, seed=1)
    for data in (found.matched, found.conflict):
        assert (data.provenance["n_leaves"], data.provenance["min_radius"], data.provenance["seed"]) == (5, 0.2, 1)
        assert data.image_shape == (8, 8, 3)
        assert len(data.splits["test"]) == 40
    assert np.array_equal(found.matched.targets["shape"], found.matched.targets["texture"])
    assert not np.any(found.conflict.targets["shape"] == found.conflict.targets["texture"])
    assert CueLeaves.render(image_size=8, **COUNTS, grayscale=True, seed=0).conflict.image_shape == (8, 8, 1)
    with pytest.raises(ValueError, match="seed: 0 is that of the images that the model was trained on"):
        CueLeaves.render(image_size=8, **COUNTS, world=world, seed=0)


def test_a_row_of_a_model_is_a_function_of_model_and_images(run):
    found = CueLeaves.render(image_size=8, **COUNTS, seed=1)
    row = leaves_shape_bias(run, found, "cls", penalties=[1e-2])
    assert row["n_shape"] + row["n_texture"] + row["n_neither"] == row["n"] == 40
    assert row["feature"] == "cls"
    assert leaves_shape_bias(run, found, "cls", penalties=[1e-2]) == row
