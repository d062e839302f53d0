"""Fine-tuning trains what it says, from a copy, chooses on validation, and counts its memory."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm

from refusals import refused
from small_models import randomise
from spatialmae.data.dataset import ImageData, consecutive_splits
from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.probe import fine_tuning
from spatialmae.probe.classifier import Classifier, accuracy
from spatialmae.probe.fine_tuning import fine_tune
from spatialmae.probe.labelled_images import LabelledImages
from spatialmae.probe.settings import FineTuneConfig
from spatialmae.probe.step_memory import LiveBytes, SavedBytes
from spatialmae.train.hardware import Hardware
from spatialmae.train.plan import RunSpec
from spatialmae.train.settings import TrainConfig
from spatialmae.train.trainer import Trainer

DEPTH = 3
MODEL = MAEConfig(
    image_size=8, patch_size=4, channels=1,
    encoder_dim=16, encoder_depth=DEPTH, encoder_heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2,
)  # fmt: skip
CONFIG = FineTuneConfig(epochs=2, batch_size=32, base_lr=(1e-2,), warmup_epochs=0.5, precision="fp32")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Images whose class is their orientation: gratings of rows or of columns, with noise; labels are 3 and 8."""
    rng = np.random.default_rng(0)
    orientation = rng.integers(0, 2, 240)
    grating = np.broadcast_to(np.arange(8)[:, None] % 2, (8, 8))
    pictures = np.where(orientation[:, None, None] == 1, grating.T, grating) * 120 + rng.integers(0, 120, (240, 8, 8))
    targets = {"orientation": np.where(orientation == 1, 3, 8), "shuffled": rng.integers(0, 2, 240)}
    targets |= {"same": np.zeros(240, dtype=np.int64), "depth": np.zeros((240, 8, 8))}
    data = ImageData("gratings", pictures.astype(np.uint8)[..., None], consecutive_splits(128, 48, 64), targets)
    path = tmp_path_factory.mktemp("data") / "gratings.safetensors"
    data.save(path)
    return path


@pytest.fixture(scope="module")
def data(stored):
    return LabelledImages.load(stored, "orientation")


@pytest.fixture
def model():
    return MaskedAutoencoder(MODEL, torch.Generator().manual_seed(3))


def classifier_of(config: FineTuneConfig, model: MaskedAutoencoder | None = None) -> Classifier:
    model = MaskedAutoencoder(MODEL, torch.Generator().manual_seed(3)) if model is None else model
    return Classifier(model, 2, config, torch.Generator().manual_seed(0), bf16=False)


def changed_parameters(monkeypatch, model, data, config, **arguments) -> set[str]:
    """Names of the encoder's parameters that fine-tuning moved in its copy."""
    tuned = []
    prepare = fine_tuning.prepare

    def keep(*args):
        tuned.append(prepare(*args))
        start.append({name: value.clone() for name, value in tuned[-1].classifier.mae.state_dict().items()})
        return tuned[-1]

    start: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(fine_tuning, "prepare", keep)
    fine_tune(model, data, config, 0, device="cpu", **arguments)
    end = tuned[0].classifier.mae.state_dict()
    return {name for name, value in end.items() if not torch.equal(value, start[0][name])}


def names_of(model: MaskedAutoencoder, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def test_labels_are_those_of_the_images_in_every_split(stored, data):
    source = ImageData.load(stored)
    for split in ("train", "validation", "test"):
        assert np.array_equal(np.array([3, 8])[data.labels[split]], source.target("orientation", split))
    assert np.array_equal(data.test[:, 0], source.images[source.splits["test"]][..., 0])
    expected = max(np.mean(source.target("orientation", "test") == label) for label in (3, 8))
    assert data.chance in (pytest.approx(expected), pytest.approx(1 - expected))


def test_a_class_without_training_images_is_none_of_the_classes(stored, tmp_path):
    source = ImageData.load(stored)
    labels = source.targets["orientation"].copy()
    labels[source.splits["test"][:4]] = [2, 5, 9, 3]
    replace(source, targets={"orientation": labels}).save(tmp_path / "d.safetensors")
    changed = LabelledImages.load(tmp_path / "d.safetensors", "orientation")
    assert changed.labels["test"][:4].tolist() == [-1, -1, -1, 0]


def test_data_that_cannot_be_fine_tuned_on_are_refused(stored, tmp_path):
    for target in ("depth", "colour"):
        with refused(stored.name, "name an int64 target", about=target):
            LabelledImages.load(stored, target)
    with refused(stored.name, "another target", about="same"):
        LabelledImages.load(stored, "same")
    source = ImageData.load(stored)
    replace(source, splits=consecutive_splits(200, 40, 0)).save(tmp_path / "d.safetensors")
    with refused("d.safetensors", "give every split", about="test"):
        LabelledImages.load(tmp_path / "d.safetensors", "orientation")


def test_few_labels_are_as_many_of_each_class_and_another_draw_for_each_seed(data):
    few = data.few(5, torch.Generator().manual_seed(3))
    assert few.labels["train"].bincount().tolist() == [5, 5]
    # Each image keeps its label.
    labelled = zip(data.images.train, data.labels["train"], strict=True)
    known = {pixels.numpy().tobytes(): int(label) for pixels, label in labelled}
    assert [known[pixels.numpy().tobytes()] for pixels in few.images.train] == few.labels["train"].tolist()
    assert len({pixels.numpy().tobytes() for pixels in few.images.train}) == 10
    assert torch.equal(data.few(5, torch.Generator().manual_seed(3)).images.train, few.images.train)
    assert not torch.equal(data.few(5, torch.Generator().manual_seed(4)).images.train, few.images.train)
    assert torch.equal(few.images.mean, data.images.mean)
    assert torch.equal(few.images.validation, data.images.validation)
    # A class that has fewer gives all it has.
    assert len(data.few(1000, torch.Generator().manual_seed(3)).labels["train"]) == len(data.labels["train"])
    assert data.few(None, torch.Generator().manual_seed(3)) is data


def test_few_labels_are_all_that_is_trained_on(model, data):
    few = fine_tune(model, data, replace(CONFIG, labels_per_class=16), seed=3, device="cpu")
    assert (few["n_train"], few["labels_per_class"], few["steps"]) == (32, 16, 2)
    with pytest.raises(ValueError, match="batch_size: 32 exceeds the 10 training images"):
        fine_tune(model, data, replace(CONFIG, labels_per_class=5), seed=3, device="cpu")


def test_fine_tuning_learns_and_leaves_the_model_alone(model, data):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps = []
    row = fine_tune(model, data, replace(CONFIG, epochs=6), 0, device="cpu", on_step=lambda: steps.append(1))
    assert row["accuracy"] > 0.95
    assert row["validation_accuracy"] > 0.95
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert len(steps) == row["steps"] == replace(CONFIG, epochs=6).n_steps(128) == 24
    assert row["reason"] == ""


def test_shuffled_labels_stay_at_chance(model, stored):
    row = fine_tune(model, LabelledImages.load(stored, "shuffled"), CONFIG, 0, device="cpu")
    assert row["accuracy"] == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(64))
    assert row["accuracy"] < 0.75


def test_a_row_is_a_function_of_its_seed_but_for_times(model, data):
    rows = [fine_tune(model, data, CONFIG, seed, device="cpu") for seed in (1, 1, 2)]
    assert rows[0] == rows[1]
    tuned = [tuned_weights(model, data, seed) for seed in (1, 1, 2)]
    assert torch.equal(tuned[0], tuned[1])
    assert not torch.equal(tuned[0], tuned[2])


def tuned_weights(model: MaskedAutoencoder, data: LabelledImages, seed: int) -> torch.Tensor:
    hardware = Hardware.choose("fp32", 1, device="cpu", compiled="no")
    tuning = fine_tuning.prepare(model, data, CONFIG, 1e-2, seed, hardware, False)
    torch.rand(3)  # the global generator must not matter
    tuning.run(lambda: None)
    return nn.utils.parameters_to_vector(tuning.classifier.parameters())


@pytest.mark.parametrize("n_blocks", [0, 1, 2, DEPTH, None])
def test_exactly_the_last_blocks_are_trained(monkeypatch, model, data, n_blocks):
    blocks = [f"encoder.{i}." for i in range(DEPTH)]
    expected = names_of(model, *blocks[DEPTH - n_blocks :], "encoder_norm") if n_blocks else set()
    if n_blocks is None:
        expected = names_of(model, "patch_embedding", "cls_token", "encoder")
    changed = changed_parameters(monkeypatch, model, data, replace(CONFIG, n_blocks=n_blocks, feature="cls"))
    assert changed == expected
    row = fine_tune(model, data, replace(CONFIG, n_blocks=n_blocks), 0, device="cpu")
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert row["trained_parameters"] == sum(sizes[name] for name in expected) + 2 * 16 + 2
    assert row["n_blocks"] == (DEPTH if n_blocks is None else n_blocks)
    assert row["embedding_trained"] == (n_blocks is None)


def test_from_scratch_starts_where_training_from_that_seed_does(monkeypatch, model, data):
    prepared = []
    prepare = fine_tuning.prepare
    monkeypatch.setattr(fine_tuning, "prepare", lambda *args: prepared.append(prepare(*args)) or prepared[-1])
    monkeypatch.setattr(fine_tuning.FineTuning, "run", lambda self, on_step: None)
    rows = [fine_tune(model, data, CONFIG, 5, from_scratch=fresh, device="cpu") for fresh in (False, True)]
    assert [row["initialisation"] for row in rows] == ["pretrained", "scratch"]
    spec = RunSpec("gratings", MODEL, TrainConfig(epochs=9, batch_size=32, precision="fp32"), 5)
    trainer = Trainer(spec, data.images, Hardware.choose("fp32", 1, device="cpu", compiled="no"))
    pretrained, scratch = (tuning.classifier.mae.state_dict() for tuning in prepared)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(scratch[name], value)
        assert torch.equal(pretrained[name], model.state_dict()[name])
    heads = [tuning.classifier.linear.weight for tuning in prepared]
    assert torch.equal(*heads)


def test_memory_falls_with_the_blocks_that_are_trained(model, data):
    rows = [fine_tune(model, data, replace(CONFIG, n_blocks=n), 0, device="cpu") for n in (0, 1, 2, 3, None)]
    for column in ("memory_bytes", "gradients_bytes", "moments_bytes", "saved_bytes"):
        assert (np.diff([row[column] for row in rows]) > 0).all(), column
    assert len({row["weights_bytes"] for row in rows}) == 1
    for row in rows:
        assert row["gradients_bytes"] == 4 * row["trained_parameters"]
        # Two moments a parameter; a step count a tensor beside them.
        assert 0 <= row["moments_bytes"] - 2 * row["gradients_bytes"] < 400
        # What is saved is alive when the backward pass begins; gradients come later, and other tensors pass by.
        least = sum(row[f"{part}_bytes"] for part in ("weights", "moments", "saved"))
        assert row["memory_bytes"] >= least
    encoder = sum(model.state_dict()[name].numel() for name in names_of(model, "patch", "cls", "encoder"))
    assert rows[0]["weights_bytes"] == 4 * (encoder + 2 * 16 + 2)
    # Each block saves as much as another.
    saved = np.diff([row["saved_bytes"] for row in rows[1:4]])
    assert saved[0] == saved[1]


def test_saved_bytes_are_those_of_a_layer_by_hand():
    x, layer = torch.randn(10, 6), nn.Linear(6, 4)
    with SavedBytes(layer.parameters()) as saved:
        y = layer(x).exp()  # the linear layer saves x, exp its own result
        (y * y.detach()).sum()  # shares its storage with y
    assert saved.total == 4 * (10 * 6 + 10 * 4)
    with SavedBytes([x, *layer.parameters()]) as saved:
        layer(x).sum()
    assert saved.total == 0


def test_live_bytes_are_those_of_tensors_that_live_together():
    x = torch.zeros(1000)
    with LiveBytes() as live:
        for _ in range(5):  # each frees the one before
            y = x + 1
            y = y.exp()
        y.view(10, 100).add_(1)  # no new memory
        z = torch.cat([y, y])
        assert live.now == 4 * 3000
        del y, z
    assert live.now == 0
    # The last pass adds to the one before's result, then frees it.
    assert live.peak == 4 * 3000
    model = nn.Sequential(*(nn.Linear(50, 50, bias=False) for _ in range(8)), nn.Flatten(0))
    with LiveBytes() as forward, torch.no_grad():
        model(torch.zeros(100, 50))
    with LiveBytes() as both:
        model(torch.zeros(100, 50)).sum().backward()
    sheet, gradient = 4 * 100 * 50, 4 * 50 * 50
    assert forward.peak == 2 * sheet + sheet  # input, one layer's input and its output
    assert both.peak > 8 * sheet
    assert both.now == 8 * gradient


def test_nothing_is_saved_of_frozen_layers(model, data):
    classifier = classifier_of(replace(CONFIG, n_blocks=0), model)
    with SavedBytes(classifier.parameters()) as saved:
        classifier(data.images.normalise(data.images.train[:32]))
    assert saved.total == 4 * 32 * 16  # what the linear layer sees


def test_the_learning_rate_is_chosen_on_validation_and_test_is_scored_once(monkeypatch, model, data):
    config = replace(CONFIG, base_lr=(1e-7, 1e-2))
    scored = []
    score = fine_tuning.accuracy

    def counted(classifier, images, pixels, labels):
        scored.append("test" if pixels is data.test else "validation")
        return score(classifier, images, pixels, labels)

    monkeypatch.setattr(fine_tuning, "accuracy", counted)
    monkeypatch.setattr(LabelledImages, "to", lambda self, device: self)
    row = fine_tune(model, data, config, 0, device="cpu")
    assert scored == ["validation", "validation", "test"]
    assert row["base_lr"] == 1e-2
    assert row["lr"] == pytest.approx(1e-2 / 8)
    assert row["at_grid_edge"]
    # Labels that are turned round in the test split alone change nothing but the score.
    opposite = replace(data, labels=data.labels | {"test": 1 - data.labels["test"]})
    turned = fine_tune(model, opposite, config, 0, device="cpu")
    assert turned["base_lr"] == row["base_lr"]
    assert turned["validation_accuracy"] == row["validation_accuracy"]
    assert turned["accuracy"] == pytest.approx(1 - row["accuracy"])


def test_ties_take_the_lowest_learning_rate(model, data):
    config = replace(CONFIG, base_lr=(3e-9, 1e-9, 2e-9), n_blocks=0)
    row = fine_tune(model, data, config, 0, device="cpu")
    assert row["base_lr"] == 1e-9


def test_divergence_gives_nan_and_a_reason(model, data):
    row = fine_tune(model, data, replace(CONFIG, base_lr=(1e38,)), 0, device="cpu")
    assert math.isnan(row["accuracy"])
    assert math.isnan(row["validation_accuracy"])
    assert row["reason"] == "diverged at base_lr 1e+38"
    assert row["memory_bytes"] > 0
    one = fine_tune(model, data, replace(CONFIG, base_lr=(1e-2, 1e38)), 0, device="cpu")
    assert one["base_lr"] == 1e-2
    assert one["accuracy"] > 0.5
    assert one["reason"] == "diverged at base_lr 1e+38"


def test_logits_that_are_not_finite_have_no_accuracy(data):
    classifier = classifier_of(CONFIG)
    labels, pixels = data.labels["validation"], data.images.validation
    assert 0 <= accuracy(classifier, data.images, pixels, labels) <= 1
    with torch.no_grad():
        classifier.linear.bias[0] = math.nan
    assert math.isnan(accuracy(classifier, data.images, pixels, labels))


def test_accuracy_is_the_share_of_images_given_their_class(monkeypatch, data):
    monkeypatch.setattr("spatialmae.probe.classifier.EVALUATION_BATCH", 20)
    classifier = classifier_of(CONFIG)
    randomise(classifier.linear)
    with torch.no_grad():
        answers = classifier.eval()(data.images.normalise(data.test)).argmax(dim=1)
    labels = answers.clone()
    labels[:16] = -1
    # In evaluation mode: with a batch's own statistics the answers would be others, and the running ones would move.
    assert accuracy(classifier.train(), data.images, data.test, labels) == pytest.approx(48 / 64)
    assert torch.equal(classifier.batch_norm.running_mean, torch.zeros(16))


@pytest.mark.parametrize("feature", ["mean", "cls"])
def test_the_head_is_batch_norm_and_a_linear_layer_on_the_feature(model, data, feature):
    classifier = classifier_of(replace(CONFIG, feature=feature), model).train()
    images = data.images.normalise(data.images.train[:32])
    tokens = model.encode(images)
    vectors = tokens[:, 0] if feature == "cls" else tokens[:, 1:].mean(dim=1)
    expected = classifier.linear(batch_norm(vectors, None, None, training=True, eps=1e-6))
    torch.testing.assert_close(classifier(images), expected)


def test_a_fine_tuned_images_logits_do_not_depend_on_the_others(data):
    classifier = classifier_of(CONFIG)
    classifier(data.images.normalise(data.images.train))  # moves the running statistics off their start
    images = data.images.normalise(data.test)
    changed = images.clone()
    changed[0] *= -2
    with torch.no_grad():
        logits, after = classifier.eval()(images), classifier(changed)
    torch.testing.assert_close(logits[1:], after[1:])
    assert not torch.allclose(logits[0], after[0])


def test_layers_further_from_the_head_learn_slower_and_matrices_alone_decay():
    classifier = classifier_of(replace(CONFIG, layer_decay=0.5))
    scales, decays = {}, {}
    for group in classifier.parameter_groups(0.1, 0.5):
        for parameter in group["params"]:
            scales[id(parameter)], decays[id(parameter)] = group["scale"], group["weight_decay"]
    mae = classifier.mae
    by_layer = [mae.patch_embedding.bias, *(block.norm1.weight for block in mae.encoder), mae.encoder_norm.weight]
    assert [scales[id(p)] for p in by_layer] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
    assert scales[id(classifier.linear.weight)] == scales[id(classifier.linear.bias)] == 1
    assert scales[id(mae.cls_token)] == 1 / 16
    trained = [p for p in classifier.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == set(scales)
    assert all(decays[id(p)] == (0.1 if p.ndim > 1 else 0.0) for p in trained)


def test_bf16_trains_too_and_needs_no_more_memory(model, data):
    full = fine_tune(model, data, replace(CONFIG, epochs=6), 0, device="cpu")
    half = fine_tune(model, data, replace(CONFIG, epochs=6, precision="bf16"), 0, device="cpu")
    assert half["precision"] == "bf16"
    assert half["accuracy"] > 0.9
    assert half["gradients_bytes"] == full["gradients_bytes"]


def test_what_does_not_fit_is_refused(model, data):
    with pytest.raises(ValueError, match="n_blocks: 4 exceeds the 3 blocks of the encoder; lower it"):
        fine_tune(model, data, replace(CONFIG, n_blocks=4), 0, device="cpu")
    with pytest.raises(ValueError, match="batch_size: 129 exceeds the 128 training images; lower it"):
        fine_tune(model, data, replace(CONFIG, batch_size=129), 0, device="cpu")
    other = MaskedAutoencoder(replace(MODEL, channels=3))
    with pytest.raises(ValueError, match=r"images are \(1, 8, 8\), the model takes \(3, 8, 8\)"):
        fine_tune(other, data, CONFIG, 0, device="cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_blocks": -1}, "n_blocks: -1 is not an integer of 0 or more"),
        ({"labels_per_class": 0}, "labels_per_class: 0 is not a"),
        ({"batch_size": 1}, "batch_size: 1 is not an integer of 2 or more"),
        ({"base_lr": ()}, "base_lr: .* is no list of learning rates"),
        ({"base_lr": (1e-3, 0.0)}, "base_lr: 0.0 is not a positive number"),
        ({"layer_decay": 1.5}, "layer_decay: 1.5 is above 1; lower it"),
        ({"warmup_epochs": 20}, "warmup_epochs: 20.0 is not less than epochs=20; lower it"),
        ({"blocks": 3}, "blocks: unknown key"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FineTuneConfig.from_dict(settings)


def test_settings_survive_json():
    config = FineTuneConfig(n_blocks=2, base_lr=(4e-3, 1, 4e-3))
    assert config.base_lr == (4e-3, 1.0)
    assert FineTuneConfig.from_dict(config.to_dict()) == config
