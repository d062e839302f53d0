"""Training as stages: plans, tables and reconstructions of finished runs."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from spatialmae.analysis.convergence import epochs_to, mean_image_loss
from spatialmae.analysis.reconstruction import reconstruct
from spatialmae.artifacts import read_tensors
from spatialmae.config import MODEL_FIELDS, TRAIN_FIELDS, parse_config
from spatialmae.data.dataset import ImageData
from spatialmae.errors import UserError
from spatialmae.layout import Layout
from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.model.trained import TrainedModel
from spatialmae.stages import training
from spatialmae.tables import read_table
from spatialmae.train.plan import Plan
from trained_models import SMALL, small_values

N_TRAIN = SMALL["n_train"]
SIZES = {"encoder_dim": 8, "encoder_depth": 1, "encoder_heads": 1, "decoder_dim": 8, "decoder_depth": 1}
NORMALISATION = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, trained_models):
    """Configuration and layout of a training: two ratios, two seeds."""
    config = parse_config(small_values(tmp_path_factory.mktemp("results"), ["ratios"], {}), "test")
    trained_models.provide(config)
    training.run(config, "ratios")
    return config, Layout.of(config)


def test_the_plan_holds_the_runs_of_the_configuration_by_paths_that_can_be_carried(trained):
    config, layout = trained
    written = Plan.load(layout.plan("ratios"))
    assert list(written.runs) == config.training_runs("ratios")
    text = json.loads(layout.plan("ratios").read_text())
    assert text["data"] == "../data/leaves.safetensors"
    assert text["runs_dir"] == "../runs"


def test_a_row_for_each_run_with_every_setting_and_what_was_measured(trained):
    config, layout = trained
    table = read_table(layout.table("training_runs", "ratios"))
    assert table["name"].tolist() == [run.name for run in config.training_runs("ratios")]
    assert set(table) >= {*MODEL_FIELDS, *TRAIN_FIELDS, "code_matches"} - {"snapshots", "snapshot_steps"}
    assert table["mask_unit"].tolist() == table["patch_size"].tolist()
    assert table["realised_mask_ratio"].tolist() == [0.5, 0.5, 0.75, 0.75]
    assert table["images"].tolist() == [2 * N_TRAIN] * 4
    assert set(table["precision"]) == {"auto"}, "the setting, as the file has it"
    assert set(table["precision_used"]) <= {"bf16", "fp32"}, "what it came to"
    images = ImageData.load(layout.data("leaves"))
    train, validation = (images.features(split).reshape(-1, 16, 16, 3) for split in ("train", "validation"))
    error = np.square((validation - train.mean(axis=0)) / train.std(axis=(0, 1, 2))).mean()
    np.testing.assert_allclose(table["mean_image_loss"], error, rtol=1e-6)
    assert table["validation_loss"].notna().all()
    last = read_table(layout.table("training_validation", "ratios")).groupby("name")["loss"].last()
    np.testing.assert_allclose(table.set_index("name")["validation_loss"].sort_index(), last.sort_index())


def test_curves_hold_name_seed_and_measurements_whatever_the_grid(trained):
    _, layout = trained
    measured = {
        "training": ["step", "epoch", "lr", "loss", "grad_norm"],
        "training_validation": ["epoch", "step", "loss"],
    }
    for name, columns in measured.items():
        table = read_table(layout.table(name, "ratios"))
        assert list(table) == ["name", "seed", "images", *columns]
        assert table.groupby("name")["images"].max().tolist() == [2 * N_TRAIN] * 4
        assert not table.duplicated(["name", "step"]).any()


def test_the_first_seed_of_each_model_reconstructs_the_same_validation_images(trained):
    config, layout = trained
    tensors, _ = read_tensors(layout.reconstructions("ratios"))
    first = [run for run in config.training_runs("ratios") if run.seed == config.first_seed]
    assert set(tensors) == {"images"} | {f"{run.name}/{part}" for run in first for part in ("mask", "seen", "pred")}
    stored = ImageData.load(layout.data("leaves"))
    np.testing.assert_array_equal(tensors["images"], stored.images[stored.splits["validation"][:6]])
    for run in first:
        np.testing.assert_allclose(tensors[f"{run.name}/seen"], tensors["images"] / 255, atol=1e-6)
    low, high = (tensors[f"{run.name}/mask"] for run in first)
    assert (low.mean(), high.mean()) == (0.5, 0.75)
    assert (low <= high).all(), "a higher ratio hides what a lower one hides"


def test_times_and_machine_are_in_the_table_of_costs_alone(trained):
    config, layout = trained
    costs = read_table(layout.table("costs", "ratios"))
    assert costs["name"].tolist() == [run.name for run in config.training_runs("ratios")]
    assert (costs["seconds"] > 0).all() and (costs["images_per_second"] > 0).all() and costs["device"].notna().all()
    for name in ("training_runs", "training", "training_validation"):
        assert not {"seconds", "wall_seconds", "images_per_second", "device"} & set(
            read_table(layout.table(name, "ratios"))
        )


def test_a_damaged_run_is_said_so_nothing_vouches_for_it_any_more_and_no_table_is_written(trained):
    config, layout = trained
    folder, table = layout.runs / config.training_runs("ratios")[0].name, layout.table("training_runs", "ratios")
    log, record = folder / "log.csv", folder / "run.json"
    before, vouched, stamp = log.read_bytes(), record.read_bytes(), table.stat().st_mtime_ns
    log.write_bytes(before + b"0")
    try:
        with pytest.raises(
            UserError, match=r"log\.csv: missing, or not as it was .*run\.json is removed; run the same"
        ):
            training.run(config, "ratios")
        assert not record.exists()
        with pytest.raises(UserError, match="no finished training run; train it"):
            training.run(config, "ratios")
    finally:
        log.write_bytes(before)
        record.write_bytes(vouched)
    assert table.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("name", ["precision", "steps"])
def test_a_record_of_another_version_is_said_so(trained, name):
    config, layout = trained
    path = layout.runs / config.training_runs("ratios")[0].name / "run.json"
    before = path.read_text()
    path.write_text(json.dumps({key: value for key, value in json.loads(before).items() if key != name}))
    try:
        with pytest.raises(UserError, match=rf"run.json: {name} is not in it, another version .*; delete the run"):
            training.run(config, "ratios")
    finally:
        path.write_text(before)


def test_epochs_to_a_share_of_the_way_by_hand():
    epochs, losses = np.array([1.0, 2.0, 4.0]), np.array([0.6, 0.4, 0.2])
    # From 1.0 to 0.2: a quarter of the way is 0.8, three quarters 0.4, nine tenths 0.28.
    assert epochs_to(0.25, epochs, losses, 1.0) == pytest.approx(0.5)
    assert epochs_to(0.75, epochs, losses, 1.0) == pytest.approx(2.0)
    assert epochs_to(0.9, epochs, losses, 1.0) == pytest.approx(3.2)
    # The first time counts, though the loss rises again.
    assert epochs_to(0.75, epochs, np.array([0.1, 0.9, 0.2]), 1.0) == pytest.approx(2 / 3)
    assert np.isnan(epochs_to(0.9, epochs, losses, 0.2))


def test_the_mean_image_of_images_that_differ_in_colour_alone_is_no_better_than_the_mean_colour():
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 1, 1, 3), dtype=np.uint8)
    splits = {"train": np.arange(1500), "validation": np.arange(1500, 2000), "test": np.arange(0)}
    same = ImageData("colours", np.broadcast_to(pixels, (2000, 4, 4, 3)), splits)
    assert mean_image_loss(same) == pytest.approx(1, abs=0.05)
    unvalidated = replace(same, splits=splits | {"validation": np.arange(0)})
    assert np.isnan(mean_image_loss(unvalidated))


def untrained(**changes) -> TrainedModel:
    sizes = {"image_size": 8, "patch_size": 4, **SIZES, "decoder_heads": 1, "mask_ratio": 0.5} | changes
    model = MaskedAutoencoder(MAEConfig(**sizes), generator=torch.Generator().manual_seed(0)).eval()
    return TrainedModel(model, *map(tuple, NORMALISATION.values()))


def some_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def test_visible_pixels_are_the_images_own_only_where_the_loss_is_on_hidden_ones():
    images = some_images()
    made = reconstruct(untrained(), images)
    visible = made.mask == 0
    np.testing.assert_allclose(made.pred[visible], images[visible] / 255, atol=1e-6)
    assert np.abs(made.pred - images / 255)[~visible].max() > 0.1
    assert (made.pred.min() >= 0, made.pred.max() <= 1) == (True, True)
    everywhere = reconstruct(untrained(loss_on="all"), images)
    np.testing.assert_array_equal(everywhere.mask, made.mask)
    assert np.abs(everywhere.pred - images / 255)[visible].max() > 0.1


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_a_model_that_predicts_its_targets_reconstructs_the_images(norm_pix_loss, monkeypatch):
    run, images = untrained(norm_pix_loss=norm_pix_loss, loss_on="all"), some_images()
    forward = run.model.forward

    def perfect(x, *rest, **seen):
        return replace(forward(x, *rest, **seen), pred=run.model.targets(x))

    monkeypatch.setattr(run.model, "forward", perfect)
    np.testing.assert_allclose(reconstruct(run, images).pred, images / 255, atol=1e-5)


def test_what_a_dae_sees_is_shown_with_its_noise_and_is_what_it_reconstructs():
    run, images = untrained(noise_std=0.1, mask_ratio=0, loss_on="all"), np.full((50, 8, 8, 3), 128, np.uint8)
    made = reconstruct(run, images)
    noise = (made.seen - 128 / 255) / NORMALISATION["std"]
    np.testing.assert_allclose(noise.std(axis=(0, 1, 2)), 0.1, rtol=0.1)
    seen = torch.from_numpy((made.seen - NORMALISATION["mean"]) / NORMALISATION["std"]).permute(0, 3, 1, 2)
    with torch.no_grad():
        pred = run.denormalise(run.model.reconstruct(seen.float()))
    np.testing.assert_allclose(made.pred, pred.clamp(0, 1), atol=1e-4)


def test_reconstructions_are_the_same_every_time_and_leave_no_trace_in_torchs_random_state():
    run, images, state = untrained(noise_std=0.3), some_images(), torch.get_rng_state()
    first, second = reconstruct(run, images), reconstruct(run, images)
    np.testing.assert_array_equal(first.pred, second.pred)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_nan_validation_loss_stays_missing_and_a_log_without_a_column_is_said_so(trained, tmp_path):
    spec = trained[0].training_runs("ratios")[0]
    path = tmp_path / "validation.csv"
    path.write_text("epoch,step,loss\n1,2,nan\n")
    table = training._curve(path, training.VALIDATION, spec)
    assert pd.isna(table["loss"]).all()
    assert table[["name", "images"]].to_numpy().tolist() == [[spec.name, 2 * spec.train.batch_size]]
    path.write_text("epoch,loss\n1,nan\n")
    with pytest.raises(UserError, match=r"not readable \(.*step.*\); delete the run"):
        training._curve(path, training.VALIDATION, spec)
