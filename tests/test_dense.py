"""Dense heads: scores by hand, what a token can say of which pixels, and what is learned, chosen and left alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from refusals import refused
from spatialmae.data.dataset import ImageData, consecutive_splits
from spatialmae.data.dead_leaves import dead_leaves
from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.model.patches import patchify
from spatialmae.model.trained import TrainedModel
from spatialmae.probe import dense
from spatialmae.probe.dense import (
    DensePredictor,
    DenseTask,
    dense_rows,
    intersection_over_union,
    root_mean_squared_error,
)
from spatialmae.probe.dense_settings import DenseConfig

MODEL = MAEConfig(
    image_size=8, patch_size=4, channels=1,
    encoder_dim=16, encoder_depth=2, encoder_heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2,
)  # fmt: skip
FROZEN = DenseConfig(epochs=8, batch_size=32, base_lr=(0.2,), precision="fp32")
TUNED = replace(FROZEN, n_blocks=None, base_lr=(6e-2,))


@pytest.fixture(scope="module")
def run():
    model = MaskedAutoencoder(MODEL, torch.Generator().manual_seed(3)).eval()
    return TrainedModel(model, (0.5,), (0.3,))


def blocks(n: int = 400, seed: int = 0) -> ImageData:
    """Images of bright and dark blocks of 2 × 2 px: bright is the object, and depth is darkness."""
    bright = np.random.default_rng(seed).random((n, 4, 4)).repeat(2, axis=1).repeat(2, axis=2)
    segmentation = (bright > 0.6).astype(np.uint8)
    value = np.where(segmentation == 1, 200, 50) + 20 * bright
    targets = {"segmentation": segmentation, "depth": (1 - value / 255).astype(np.float32)}
    targets["label"] = np.zeros(n, dtype=np.int64)
    return ImageData("blocks", value.astype(np.uint8)[..., None], consecutive_splits(n // 2, n // 4, n // 4), targets)


@pytest.fixture(scope="module")
def data():
    return blocks()


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_intersection_over_union_by_hand():
    truth = np.array([[[0, 0], [1, 1]], [[0, 0], [0, 1]]], dtype=np.uint8)
    predicted = np.array([[[0, 1], [1, 1]], [[0, 0], [1, 0]]], dtype=np.uint8)
    # Background: both 3, either 6; object: both 2, either 5. All images together, not image by image.
    np.testing.assert_allclose(intersection_over_union(predicted, truth), [3 / 6, 2 / 5])
    nothing = np.zeros_like(truth)
    np.testing.assert_array_equal(intersection_over_union(nothing, nothing), [1, np.nan])
    np.testing.assert_allclose(intersection_over_union(nothing, truth), [5 / 8, 0])


def test_root_mean_squared_error_by_hand():
    truth, predicted = np.zeros((2, 1, 2), np.float32), np.array([[[3, 0]], [[0, 4]]], np.float32)
    assert root_mean_squared_error(predicted, truth) == 2.5


def test_the_baseline_is_what_a_pixels_place_tells():
    maps = np.zeros((4, 8, 8))
    maps[:3, 0, 0], maps[3, 0, 1] = 1, 1
    data = ImageData("m", np.zeros((4, 8, 8, 1), np.uint8), consecutive_splits(4, 0, 0), {})
    for target, expected in (("segmentation", [1, 0]), ("depth", [0.75, 0.25])):
        changed = replace(data, targets={target: maps.astype(np.uint8 if target == "segmentation" else np.float32)})
        changed = replace(changed, splits=data.splits | {"train": np.arange(3, -1, -1)[:0]})
        task = DenseTask.of(changed, target, np.arange(4))
        task = replace(task, maps=task.maps | {"test": maps[:2]})
        baseline = task.baseline()
        assert baseline.shape == (2, 8, 8)
        np.testing.assert_allclose(baseline[:, 0, :2], [expected] * 2)
        assert baseline[:, 1:].max() == 0


@pytest.mark.parametrize("config", [FROZEN, TUNED], ids=["frozen", "fine-tuned"])
def test_heads_learn_what_tokens_show_and_leave_the_model_alone(run, data, config):
    before, steps = weights(run.model), []
    segmentation, depth = dense_rows(run, data, config, 0, device="cpu", on_step=lambda: steps.append(1))
    assert (segmentation["target"], segmentation["metric"]) == ("segmentation", "miou")
    assert segmentation["score"] > 0.9 > 0.6 > segmentation["baseline"]
    assert segmentation["score"] == pytest.approx((segmentation["iou_background"] + segmentation["iou_object"]) / 2)
    assert (depth["target"], depth["metric"]) == ("depth", "rmse")
    assert depth["score"] < 0.35 * depth["baseline"]
    assert depth["iou_object"] is None
    assert len(steps) == 2 * config.n_steps(200) == segmentation["steps"] + depth["steps"]
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in run.model.parameters())
    assert (segmentation["n_train"], segmentation["n_test"]) == (200, 100)


@pytest.mark.parametrize("config", [replace(FROZEN, epochs=3), replace(TUNED, epochs=3)], ids=["frozen", "fine-tuned"])
def test_shuffled_maps_stay_at_the_baseline(run, data, config):
    order = np.random.default_rng(1).permutation(len(data.images))
    shuffled = {name: data.targets[name][order] for name in dense.TARGETS}
    segmentation, depth = dense_rows(run, replace(data, targets=shuffled), config, 0, device="cpu")
    assert segmentation["score"] < 0.5  # chance: at most that of a coin
    assert depth["score"] > 0.95 * depth["baseline"]


def test_a_token_says_something_of_its_own_patch_alone_at_the_right_pixels(run):
    draw = torch.Generator().manual_seed(0)
    model = MaskedAutoencoder(MODEL)
    predictor = DensePredictor(model, 2, FROZEN, draw, bf16=False).eval()
    tokens = torch.randn(1, 4, 16, generator=draw)
    before = predictor.read(tokens)
    assert before.shape == (1, 2, 8, 8)
    changed = tokens.clone()
    changed[:, 2] += 1
    moved = (predictor.read(changed) != before).squeeze(0).all(dim=0)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[4:, :4] = True
    assert torch.equal(moved, expected)
    # A head that copies the first 16 numbers of a token puts them where patchify took them from.
    with torch.no_grad():
        predictor.linear.weight.zero_()
        predictor.linear.weight[::2] = torch.eye(16)
    images = torch.randn(1, 1, 8, 8, generator=draw)
    copied = predictor.read(patchify(images, 4))
    torch.testing.assert_close(copied[:, :1], images, atol=1e-4, rtol=1e-4)
    assert copied[:, 1].abs().max() == 0


def trainings(monkeypatch, run, data, config, seed=0) -> list[dense._Training]:
    kept = []
    take_steps = dense._Training.run
    monkeypatch.setattr(dense._Training, "run", lambda self, on_step: (kept.append(self), take_steps(self, on_step)))
    dense_rows(run, data, config, seed, device="cpu", targets=("segmentation",))
    monkeypatch.undo()
    return kept


@pytest.mark.parametrize("n_blocks", [0, 1, None])
def test_exactly_what_is_named_is_trained(monkeypatch, run, data, n_blocks):
    (training,) = trainings(monkeypatch, run, data, replace(FROZEN, epochs=2, n_blocks=n_blocks))
    expected = {0: (), 1: ("encoder.1.", "encoder_norm")}.get(
        n_blocks, ("patch_embedding", "cls_token", "encoder.", "encoder_norm")
    )
    names = {name for name, _ in run.model.named_parameters() if name.startswith(expected)} if expected else set()
    after = training.predictor.mae.state_dict()
    assert {name for name, value in run.model.state_dict().items() if not torch.equal(value, after[name])} == names


def test_a_frozen_encoders_tokens_are_those_of_the_whole_predictor(monkeypatch, run, data):
    (training,) = trainings(monkeypatch, run, data, FROZEN)
    predictor = training.predictor.eval()
    images = data.images[data.splits["test"]]
    with torch.no_grad():
        whole = predictor(run.normalise(torch.from_numpy(images)))
    np.testing.assert_array_equal(training.maps("test"), whole.argmax(dim=1))


def test_test_maps_have_no_part_in_the_choice_and_validation_maps_do(run, data):
    config = replace(FROZEN, epochs=3, base_lr=(1e-6, 0.2))
    row, depth = dense_rows(run, data, config, 0, device="cpu")
    assert row["base_lr"] == depth["base_lr"] == 0.2 and row["at_grid_edge"]
    test, validation = data.splits["test"], data.splits["validation"]

    def inverted(rows: np.ndarray) -> ImageData:
        maps = {name: data.targets[name].copy() for name in dense.TARGETS}
        for values in maps.values():
            values[rows] = 1 - values[rows]
        return replace(data, targets=maps)

    for same, other in zip((row, depth), dense_rows(run, inverted(test), config, 0, device="cpu"), strict=True):
        assert (other["base_lr"], other["validation_score"]) == (same["base_lr"], same["validation_score"])
        assert other["score"] != same["score"]
    # What is learned is wrong there, so that the smallest learning rate is the better one.
    assert all(other["base_lr"] == 1e-6 for other in dense_rows(run, inverted(validation), config, 0, device="cpu"))


def test_rows_are_a_function_of_the_seed(run, data):
    config = replace(TUNED, epochs=2, n_train=100)
    rows = [dense_rows(run, data, config, seed, device="cpu") for seed in (1, 1, 2)]
    assert rows[0] == rows[1]
    assert rows[0][0]["score"] != rows[2][0]["score"]
    assert rows[0][0]["n_train"] == 100


def test_training_images_are_drawn_from_the_training_split_with_their_maps(monkeypatch, run, data):
    (training,) = trainings(monkeypatch, run, data, replace(TUNED, epochs=2, n_train=50))
    images = run.normalise(torch.from_numpy(data.images[data.splits["train"]]))
    known = {image.numpy().tobytes(): data.target("segmentation", "train")[i] for i, image in enumerate(images)}
    drawn = training.inputs["train"]
    assert len(drawn) == len({image.numpy().tobytes() for image in drawn}) == 50
    for image, segmentation in zip(drawn, training.task.maps["train"], strict=True):
        np.testing.assert_array_equal(known[image.numpy().tobytes()], segmentation)


def test_divergence_is_said_and_another_learning_rate_taken(run, data):
    config = replace(FROZEN, epochs=2, warmup_epochs=0, base_lr=(5e-2, 1e38))
    for row in dense_rows(run, data, config, 0, device="cpu"):
        assert row["base_lr"] == 5e-2 and row["reason"] == "diverged at base_lr 1e+38"
        assert math.isfinite(row["score"])
    for row in dense_rows(run, data, replace(config, base_lr=(1e38,)), 0, device="cpu"):
        assert math.isnan(row["score"]) and math.isnan(row["validation_score"])
        assert row["iou_object"] is None and math.isfinite(row["baseline"])


def test_leaves_at_the_models_size_can_be_probed_whatever_it_was_trained_on():
    config = replace(MODEL, image_size=16, channels=3, encoder_dim=64)
    model = MaskedAutoencoder(config, torch.Generator().manual_seed(0)).eval()
    run = TrainedModel(model, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
    data = dead_leaves(n_train=600, n_validation=60, n_test=60, image_size=16, seed=0)
    segmentation, depth = dense_rows(run, data, replace(FROZEN, base_lr=(0.1,)), 0, device="cpu")
    assert segmentation["score"] > segmentation["baseline"]
    assert depth["score"] < depth["baseline"]


def test_what_cannot_be_predicted_is_refused(run, data):
    with pytest.raises((ValueError, TypeError), match="colour"):
        dense_rows(run, data, FROZEN, 0, targets=("colour",))
    without = replace(data, targets={"label": data.targets["label"]})
    with refused(data.name, "use leaves", about="segmentation"):
        dense_rows(run, without, FROZEN, 0)
    holes = data.targets["depth"].copy()
    holes[3, 0, 0] = np.nan
    with refused(data.name, "use leaves", about="depth"):
        dense_rows(run, replace(data, targets=data.targets | {"depth": holes}), FROZEN, 0)
    with refused(data.name, "use leaves", about="classes"):
        dense_rows(run, replace(data, targets={"segmentation": data.targets["segmentation"] + 1}), FROZEN, 0)
    with refused(data.name, "give every split", about="test"):
        dense_rows(run, replace(data, splits=consecutive_splits(300, 100, 0)), FROZEN, 0)
    with pytest.raises(ValueError, match=r"images are \(16, 16, 3\), the model takes \(8, 8, 1\)"):
        dense_rows(run, dead_leaves(n_train=40, n_validation=2, n_test=2, image_size=16, seed=0), FROZEN, 0)
    with pytest.raises(ValueError, match="batch_size: 32 exceeds the 20 training images"):
        dense_rows(run, data, replace(FROZEN, n_train=20), 0)
    with pytest.raises(ValueError, match="n_blocks: 3 exceeds the 2 blocks"):
        dense_rows(run, data, replace(FROZEN, n_blocks=3), 0)


def test_settings_read_back_and_impossible_ones_are_refused():
    config = DenseConfig(n_blocks=1, base_lr=(2e-2, 1e-2), warmup_epochs=2)
    assert config.base_lr == (1e-2, 2e-2) and config.warmup_epochs == 2.0
    assert DenseConfig.from_dict(config.to_dict()) == config
    for values, message in (
        ({"n_blocks": -1}, "n_blocks"),
        ({"n_train": 0}, "n_train"),
        ({"base_lr": []}, "base_lr: .* is no list"),
        ({"base_lr": [0.0]}, "base_lr: 0.0 is not a positive"),
        ({"layer_decay": 1.5}, "layer_decay: 1.5 is above 1"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"epochs": 2, "warmup_epochs": 2}, "warmup_epochs: 2.0 is not less than epochs=2"),
        ({"head": "conv"}, "head: unknown key"),
    ):
        with pytest.raises(ValueError, match=message):
            DenseConfig.from_dict(values)
