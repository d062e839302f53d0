"""Training is a function of its settings and seed, goes on bit for bit, and runs with torch and numpy alone."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from spatialmae.artifacts import read_tensors, write_tensors
from spatialmae.data.digits import digits
from spatialmae.errors import UserError
from spatialmae.model import MAEConfig
from spatialmae.train import hardware as hardware_module
from spatialmae.train import runs, workers
from spatialmae.train import trainer as trainer_module
from spatialmae.train.batches import TrainingImages, channel_statistics, random_flip, random_resized_crop
from spatialmae.train.command import main
from spatialmae.train.hardware import Hardware, reserved_device
from spatialmae.train.plan import Plan, RunSpec
from spatialmae.train.runs import RunFolder, load_run, sha256_of
from spatialmae.train.schedule import cosine, warmup_stable_decay
from spatialmae.train.settings import TrainConfig
from spatialmae.train.trainer import REPEATED, DivergedError, Trainer

CPU = Hardware(torch.device("cpu"), "fp32", False, "explicit")
MODEL = MAEConfig(
    image_size=8, patch_size=2, channels=1,
    encoder_dim=16, encoder_depth=1, encoder_heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2,
)  # fmt: skip
TRAIN = TrainConfig(epochs=3, batch_size=64, base_lr=4e-3, warmup_epochs=1, precision="fp32")
SPEC = RunSpec("digits", MODEL, TRAIN, 7)
CPU_OPTIONS = workers.Options(threads=1, device="cpu", compiled="no")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "digits.safetensors"
    digits(seed=0).save(path)
    return path


@pytest.fixture(scope="module")
def images(stored):
    return TrainingImages.load(stored)


def take(trainer: Trainer, steps: int | None = None) -> Trainer:
    for step in trainer.train():
        if step == steps:
            break
    return trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@given(st.integers(2, 500), st.data())
def test_learning_rate_warms_up_linearly_and_falls_to_the_final_one(total, data):
    warmup = data.draw(st.integers(0, total - 1))
    rates = [cosine(step, peak=0.3, final=0.01, warmup_steps=warmup, total_steps=total) for step in range(total + 1)]
    assert np.allclose(np.diff([0, *rates[:warmup]]), 0.3 / max(warmup, 1))
    assert rates[warmup] == pytest.approx(0.3)
    assert rates[total] == pytest.approx(0.01)
    assert (np.diff(rates[warmup:]) < 1e-12).all()


def test_peak_learning_rate_is_in_proportion_to_the_batch():
    assert TrainConfig(base_lr=1e-3, batch_size=64).peak_lr == pytest.approx(2.5e-4)


@pytest.mark.parametrize(
    ("model", "train"),
    [
        ({}, {}),
        ({"noise_std": 0.5, "mask_ratio": 0.0, "loss_on": "all", "bottleneck": 2}, {"augmentation": "crop"}),
        ({"masking": "bernoulli"}, {"augmentation": "none", "clip_grad": 0.1}),
        ({"mask_unit": 4, "norm_pix_loss": True}, {"precision": "bf16"}),
    ],
)
@pytest.mark.parametrize("stop", [5, 16, 40])  # early in an epoch of 16 steps, at its end, and in the last one
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(images, tmp_path, model, train, stop):
    spec = RunSpec("digits", replace(MODEL, **model), replace(TRAIN, **train), 3)
    hardware = replace(CPU, precision=spec.train.precision)
    whole = take(Trainer(spec, images, hardware))
    assert whole.steps_per_epoch == 16
    folder = RunFolder(tmp_path)
    folder.save_state(take(Trainer(spec, images, hardware), stop))
    torch.rand(3)  # the global generator must not matter
    resumed = Trainer(spec, images, hardware)
    assert folder.restore(resumed) is None
    assert resumed.progress.step == stop
    take(resumed)
    assert same(weights(whole), weights(resumed))
    assert whole.progress.log == resumed.progress.log
    assert whole.progress.validation == resumed.progress.validation
    assert whole.progress.train_loss == resumed.progress.train_loss


# Its random pixels come from torch's global generator, which the worker's earlier runs have used.
CONTROL = replace(SPEC, model=replace(MODEL, mask_unit=4, loss_margin=1, loss_margin_control=True))


@pytest.mark.parametrize("stop", [5, 16])
def test_the_random_pixels_that_a_control_leaves_out_go_on_after_a_restart(stored, images, tmp_path, stop):
    plan = Plan("control", stored, tmp_path / "runs", (CONTROL,))
    torch.rand(3)
    list(workers.train_run(CONTROL, plan, workers.Options(threads=1, device="cpu"), {}))
    whole = load_run(plan.runs_dir / CONTROL.name).model.state_dict()
    folder, hardware = RunFolder(tmp_path / "again"), Hardware.choose("fp32", 48, device="cpu")
    folder.save_state(take(workers._new_trainer(CONTROL, images, hardware), stop))
    torch.rand(5)
    resumed = Trainer(CONTROL, images, hardware)
    assert folder.restore(resumed) is None
    assert same(whole, weights(take(resumed)))


def test_validation_is_under_the_same_masks_at_every_step(images):
    trainer = Trainer(SPEC, images, CPU)
    first = trainer.validate()
    trainer.progress.step = 7
    assert trainer.validate() == first


def test_training_learns(images):
    trainer = take(Trainer(replace(SPEC, train=replace(TRAIN, epochs=12, base_lr=0.02)), images, CPU))
    losses = [row["loss"] for row in trainer.progress.validation]
    assert losses[-1] < 0.75 < losses[0]  # 1 is what the mean predicts
    assert trainer.progress.train_loss == pytest.approx(losses[-1], rel=0.15)


def test_a_step_is_plain_adamw_on_the_masked_loss(images):
    trainer = Trainer(SPEC, images, CPU)
    reference = Trainer(SPEC, images, CPU)
    decayed = [p for p in reference.model.parameters() if p.ndim > 1]
    plain = [p for p in reference.model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    order = torch.randperm(len(images.train), generator=reference.order_rng)
    for step in range(4):
        trainer.step()
        for group in optimizer.param_groups:
            group["lr"] = (step + 1) / 16 * TRAIN.peak_lr
        batch = images.train[order[64 * step : 64 * (step + 1)]].float() / 255
        batch = random_flip((batch - images.mean) / images.std, reference.rng)
        noise = torch.rand(64, 16, generator=reference.rng)
        optimizer.zero_grad()
        reference.model(batch, noise).loss.backward()
        optimizer.step()
    for name, value in reference.model.state_dict().items():
        trained = trainer.model.state_dict()[name]
        if name.endswith("qkv.bias"):
            # The bias of keys has no gradient but rounding, which Adam scales up to steps of any direction.
            value, trained = (torch.cat([bias.chunk(3)[0], bias.chunk(3)[2]]) for bias in (value, trained))
        torch.testing.assert_close(trained, value, atol=5e-6, rtol=1e-5)


def test_seeds_differ_and_ratios_of_one_seed_are_paired(images):
    first, again, other = (Trainer(replace(SPEC, seed=seed), images, CPU) for seed in (1, 1, 2))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))
    ratio = Trainer(replace(SPEC, seed=1, model=replace(MODEL, mask_ratio=0.25)), images, CPU)
    assert same(weights(first), weights(ratio))
    assert torch.equal(first._next_ids(), ratio._next_ids())
    assert not torch.equal(first._next_ids(), other._next_ids())


def test_every_image_is_seen_once_an_epoch_and_orders_differ(images):
    trainer = Trainer(SPEC, images, CPU)
    epochs = []
    for _ in range(2):
        ids = []
        for _ in range(trainer.steps_per_epoch):
            ids.append(trainer._next_ids())
            trainer.progress.step += 1
        epochs.append(torch.cat(ids))
        assert len(set(epochs[-1].tolist())) == 16 * 64
    assert not torch.equal(*epochs)


def test_a_diverging_loss_stops_the_run(images):
    with pytest.raises(DivergedError, match=r"the loss is .* at step \d+, and was"):
        take(Trainer(replace(SPEC, train=replace(TRAIN, base_lr=1e4)), images, CPU))


def test_images_that_do_not_fit_are_refused(images):
    with pytest.raises(ValueError, match=r"batch_size: 5000 exceeds the \d+ training images"):
        Trainer(replace(SPEC, train=replace(TRAIN, batch_size=5000)), images, CPU)
    with pytest.raises(ValueError, match=r"image_size: images are \(1, 8, 8\), the model takes \(3, 8, 8\)"):
        Trainer(replace(SPEC, model=replace(MODEL, channels=3)), images, CPU)


def test_normalisation_is_by_channel_of_the_training_images(images):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 4, 5, 3), dtype=np.uint8)
    pixels[..., 2] = 7
    mean, std = channel_statistics(pixels)
    scaled = pixels / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, [*scaled.std(axis=(0, 1, 2))[:2], 1], rtol=1e-6)
    batch = images.batch(torch.arange(len(images.train)), "none", 1.0, torch.Generator())
    assert batch.mean().abs() < 1e-5
    assert batch.std() == pytest.approx(1, abs=1e-4)


def test_flips_mirror_half_of_the_images():
    images = torch.arange(2.0).expand(4000, 1, 3, 2)
    flipped = random_flip(images, torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(3)).all(dim=(1, 2, 3))
    assert ((flipped == images).all(dim=(1, 2, 3)) ^ mirrored).all()
    assert 0.45 < mirrored.float().mean() < 0.55


def test_crops_show_a_part_of_the_image_of_the_asked_size():
    ramp = torch.linspace(0, 1, 64)
    images = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)]).expand(2000, 2, 64, 64)
    crops = random_resized_crop(images, 0.2, torch.Generator().manual_seed(0))
    assert crops.shape == images.shape
    assert crops.min() >= 0 and crops.max() <= 1
    # A ramp's range over the crop is its side, as a share of the image's.
    width = (crops[:, 0, 0, -1] - crops[:, 0, 0, 0]).abs()
    height = crops[:, 1, -1, 0] - crops[:, 1, 0, 0]
    area, aspect = width * height, width / height
    assert 0.15 < area.min() < 0.25 and 0.9 < area.max() <= 1
    assert 0.7 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.4
    mirrored = (crops[:, 0, 0, -1] < crops[:, 0, 0, 0]).float().mean()
    assert 0.45 < mirrored < 0.55
    constant = torch.full((3, 1, 8, 8), 5.0)
    torch.testing.assert_close(random_resized_crop(constant, 0.3, torch.Generator()), constant)


def test_a_run_is_named_by_every_setting():
    names = {SPEC.name, replace(SPEC, seed=8).name, replace(SPEC, dataset="other").name}
    other = {
        "image_size": 16, "patch_size": 4, "channels": 3, "encoder_dim": 32, "encoder_depth": 2, "encoder_heads": 4,
        "decoder_dim": 16, "decoder_depth": 2, "decoder_heads": 4, "mlp_ratio": 2.0, "mask_ratio": 0.5, "mask_unit": 4,
        "masking": "bernoulli", "loss_on": "all", "norm_pix_loss": True, "noise_std": 0.1, "bottleneck": 3,
        "layer_norm_eps": 1e-5,
    }  # fmt: skip
    margin = replace(MODEL, mask_unit=4, loss_margin=1)  # a unit of one patch leaves no room for one
    names |= {replace(SPEC, model=replace(margin, loss_margin_control=control)).name for control in (False, True)}
    assert {*other, "loss_margin", "loss_margin_control"} == {f.name for f in fields(MAEConfig)}
    names |= {replace(SPEC, model=replace(MODEL, **{name: value})).name for name, value in other.items()}
    train = {
        "epochs": 4, "batch_size": 32, "base_lr": 1e-3, "min_lr": 1e-6, "warmup_epochs": 0.0, "weight_decay": 0.1,
        "beta1": 0.8, "beta2": 0.999, "clip_grad": 1.0, "augmentation": "crop", "crop_scale": 0.5, "precision": "bf16",
        "snapshots": (1,), "snapshot_steps": (1,), "surrogate": "gaussian", "schedule": "wsd", "cooldown": 0.5,
    }  # fmt: skip
    assert set(train) == {f.name for f in fields(TrainConfig)}
    plain = replace(TRAIN, augmentation="none")  # the surrogate's only one
    names |= {replace(SPEC, train=replace(plain, **{name: value})).name for name, value in train.items()}
    assert len(names) == 3 + 2 + len(other) + len(train)
    assert replace(SPEC, train=replace(plain, surrogate="gaussian")).name.startswith("digits-gaussian-p2-")
    assert SPEC.name.startswith("digits-p2-m0.75-e3-s7-")
    model = MAEConfig.from_dict(MODEL.to_dict() | {"mlp_ratio": 4, "mask_unit": 2, "noise_std": 0})
    train = TrainConfig.from_dict(TRAIN.to_dict() | {"warmup_epochs": 1, "min_lr": 0})
    assert RunSpec("digits", model, train, 7).name == SPEC.name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs: 0 is not an integer of 1 or more"),
        ({"batch_size": True}, "batch_size: True is not an integer"),
        ({"base_lr": 0}, "base_lr: 0 is not a positive number"),
        ({"base_lr": math.inf}, "base_lr: inf is not a positive number"),
        ({"weight_decay": -1}, "weight_decay: -1 is not a non-negative number"),
        ({"epochs": 5, "warmup_epochs": 5}, "warmup_epochs: 5.0 is not less than epochs=5"),
        ({"beta2": 1.0}, "beta2: 1.0 is not below 1"),
        ({"crop_scale": 1.5}, "crop_scale: 1.5 is more than the whole image"),
        ({"snapshots": (200,)}, "snapshots: 200 is after the last of 100 epochs"),
        ({"min_lr": 1.0}, "min_lr: 1.0 is above the peak learning rate"),
        ({"lr": 1.0}, "lr: unknown key"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        TrainConfig.from_dict(values)


@pytest.fixture
def plan(tmp_path, stored):
    """A plan of two runs, on disk, its paths relative."""
    runs = (SPEC, replace(SPEC, seed=8, train=replace(TRAIN, snapshots=(0, 2))))
    plan = Plan("test", stored, tmp_path / "runs", runs)
    plan.save(tmp_path / "training" / "test.json")
    return tmp_path / "training" / "test.json"


def test_plans_come_back_and_can_be_carried(plan, tmp_path):
    values = json.loads(plan.read_text())
    assert values["runs_dir"] == "../runs"
    loaded = Plan.load(plan)
    assert loaded.runs[0] == SPEC
    assert loaded.runs_dir.resolve() == tmp_path / "runs"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("training"), "training: missing"),
        (lambda v: v["runs"][0]["model"].update(patch_size=3), "patch_size: 3 does not tile"),
        (lambda v: v["runs"][0]["train"].update(pace=3), "pace: unknown key"),
    ],
)
def test_damaged_plans_are_said_so(plan, change, message):
    values = json.loads(plan.read_text())
    change(values)
    plan.write_text(json.dumps(values))
    with pytest.raises(UserError, match=f"test.json: .*{message}"):
        Plan.load(plan)
    plan.write_text("{")
    with pytest.raises(UserError, match="test.json: not a valid plan"):
        Plan.load(plan)
    with pytest.raises(UserError, match="plan not found; write it again: spatialmae plan"):
        Plan.load(plan.parent / "no.json")


@pytest.mark.slow
def test_a_setting_that_is_new_renames_no_run_and_outdates_no_record(plan, tmp_path):
    main([str(plan), "--workers", "1"])
    spec = Plan.load(plan).runs[0]
    folder = RunFolder(tmp_path / "runs" / spec.name)
    record = json.loads(folder.record.read_text())
    # The record of a version that did not know two of today's settings.
    del record["spec"]["model"]["loss_margin"], record["spec"]["train"]["surrogate"]
    folder.record.write_text(json.dumps(record))
    assert folder.finished(spec, record["data_sha256"]) is not None
    for other in (replace(spec, train=replace(spec.train, beta1=0.8)), replace(spec, seed=spec.seed + 1)):
        assert other.name != spec.name
        assert folder.finished(other, record["data_sha256"]) is None
    margin = replace(spec.model, mask_unit=4, loss_margin=1)
    names = [replace(spec, model=replace(margin, loss_margin_control=control)).name for control in (False, True)]
    assert names[0].startswith("digits-p2-u4-m0.75-margin1-e") and "-margin1-control-e" in names[1]


def record_of(tmp_path: Path, spec: RunSpec) -> Path:
    return tmp_path / "runs" / spec.name / "run.json"


@pytest.mark.slow
def test_a_plan_is_trained_once_and_damage_is_trained_again(plan, tmp_path, capsys):
    main([str(plan), "--workers", "2"])
    assert "train test: 2/2 runs" in capsys.readouterr().err
    folders = [tmp_path / "runs" / spec.name for spec in Plan.load(plan).runs]
    made = {"model.safetensors", "config.json", "log.csv", "validation.csv", "run.json"}
    beside = {"finished.json", "costs.json", "state.safetensors", "repeat.json"}
    assert {path.name for path in folders[0].iterdir()} == made | beside
    assert {path.name for path in (folders[1] / "snapshots").iterdir()} == {"epoch0000", "epoch0002"}

    weights = [folder / "model.safetensors" for folder in folders]
    records = [(folder / "run.json").read_bytes() for folder in folders]
    times = [path.stat().st_mtime_ns for path in weights]
    weights[1].write_bytes(b"damaged")
    main([str(plan), "--workers", "1"])
    after = [path.stat().st_mtime_ns for path in weights]
    assert after[0] == times[0] and after[1] > times[1]
    assert [(folder / "run.json").read_bytes() for folder in folders] == records


@pytest.mark.slow
def test_a_record_is_the_same_whenever_the_run_is_made_and_its_costs_are_apart(plan, tmp_path):
    main([str(plan), "--workers", "1"])
    record = record_of(tmp_path, SPEC)
    first, text = json.loads(record.read_text()), record.read_bytes()
    assert not {"seconds", "device_name", "threads", "images_per_second"} & set(first)
    costs = json.loads((record.parent / "costs.json").read_text())
    assert costs["seconds"] > 0 and {"device", "threads", "images_per_second"} <= set(costs)
    shutil.rmtree(record.parent)
    main([str(plan), "--workers", "1"])
    assert record.read_bytes() == text


@pytest.mark.slow
def test_a_record_that_a_workflow_deletes_is_made_again_without_training(plan, tmp_path):
    main([str(plan), "--workers", "1"])
    record = record_of(tmp_path, SPEC)
    text, stamp = record.read_bytes(), (record.parent / "model.safetensors").stat().st_mtime_ns
    record.unlink()
    main([str(plan), "--workers", "1"])
    assert record.read_bytes() == text
    assert (record.parent / "model.safetensors").stat().st_mtime_ns == stamp


def other_code(monkeypatch, name: str = "other") -> None:
    """The code is another from here on, by name alone."""
    for module in (runs, trainer_module, workers):
        monkeypatch.setattr(module, "today", lambda: name)


@pytest.mark.slow
def test_runs_of_other_code_that_does_the_same_are_taken_and_both_codes_are_told(plan, tmp_path, monkeypatch, capsys):
    main([str(plan), "--workers", "1"])
    folder = RunFolder(record_of(tmp_path, SPEC).parent)
    stamp = folder.weights.stat().st_mtime_ns
    before = json.loads(folder.record.read_text())
    folder.record.unlink()  # as Snakemake does
    other_code(monkeypatch)
    told = list(workers.train_run(SPEC, Plan.load(plan), CPU_OPTIONS, {}))
    assert [message.ended for message in told] == ["kept"]
    assert "made by other code, whose steps today's repeats bit for bit" in capsys.readouterr().err
    assert json.loads(folder.record.read_text()) == before | {"code": [*before["code"], "other"]}
    assert folder.weights.stat().st_mtime_ns == stamp


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["from the start", "late in the run"])
def test_runs_of_other_code_that_does_otherwise_are_trained_again(plan, tmp_path, monkeypatch, changed):
    main([str(plan), "--workers", "1"])
    folder = RunFolder(record_of(tmp_path, SPEC).parent)
    before, whole = json.loads(folder.record.read_text()), sha256_of(folder.weights)
    other_code(monkeypatch)
    rate = Trainer.learning_rate
    first = 0 if changed == "from the start" else 20
    monkeypatch.setattr(Trainer, "learning_rate", lambda self, step: rate(self, step) * (1 + (step >= first)))
    told = list(workers.train_run(SPEC, Plan.load(plan), CPU_OPTIONS, {}))
    assert told[-1].ended == "trained"
    after = json.loads(folder.record.read_text())
    assert after["code"] == ["other"] != before["code"]
    assert sha256_of(folder.weights) != whole


@pytest.mark.slow
def test_runs_of_other_code_are_taken_unseen_where_the_user_says_so(plan, tmp_path, monkeypatch):
    main([str(plan), "--workers", "1"])
    folder = RunFolder(record_of(tmp_path, SPEC).parent)
    before = folder.record.read_bytes()
    monkeypatch.setenv("SPATIALMAE_KEEP_TRAINED", "yes")
    with pytest.raises(UserError, match="SPATIALMAE_KEEP_TRAINED: 'yes' is neither 0 nor 1"):
        main([str(plan), "--workers", "1"])
    other_code(monkeypatch)
    (folder.path / "repeat.json").unlink()  # nothing that could be repeated
    kept = replace(CPU_OPTIONS, keep_trained=True)
    assert [message.ended for message in workers.train_run(SPEC, Plan.load(plan), kept, {})] == ["kept"]
    assert folder.record.read_bytes() == before
    assert list(workers.train_run(SPEC, Plan.load(plan), CPU_OPTIONS, {}))[-1].ended == "trained"


def stopped(plan: Path, monkeypatch, step: int) -> RunFolder:
    """A run that ran out of time after some steps."""
    loaded = Plan.load(plan)
    with monkeypatch.context() as patch:
        clock = iter(range(10**6))
        patch.setattr(workers.time, "time", lambda: next(clock))
        told = list(workers.train_run(SPEC, loaded, replace(CPU_OPTIONS, deadline=step), {}))
    assert told[-1].ended == "left"
    return RunFolder(loaded.runs_dir / SPEC.name)


@pytest.mark.parametrize("same", [True, False])
def test_a_state_of_other_code_is_taken_only_if_todays_does_the_same(plan, tmp_path, images, monkeypatch, same):
    whole = take(Trainer(SPEC, images, CPU)).weights_sha256()
    folder = stopped(plan, monkeypatch, 12)
    # What a run notes some steps after its state, when it is killed before the next one.
    noted = Trainer(SPEC, images, CPU)
    assert folder.restore(noted) is None
    folder.save_repeat(take(noted, 12 + REPEATED))
    other_code(monkeypatch)
    if not same:
        step = Trainer.learning_rate
        monkeypatch.setattr(Trainer, "learning_rate", lambda self, s: step(self, s) * (1 + (s == 14)))
    told = list(workers.train_run(SPEC, Plan.load(plan), CPU_OPTIONS, {}))
    assert (sum(message.resumed for message in told) > 0) == same
    record = json.loads(folder.record.read_text())
    assert record["code"][-1] == "other" and len(record["code"]) == 1 + same
    assert (json.loads(folder.repeat.read_text())["weights_sha256"] == whole) == same


@pytest.mark.slow
def test_out_of_time_leaves_states_that_the_next_call_goes_on_from(plan, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"test: time ran out with 0 of 2 runs finished; run the same command again"):
        main([str(plan), "--workers", "1", "--max-minutes", "0.0001"])
    main([str(plan), "--workers", "1"])
    folder = RunFolder(tmp_path / "runs" / SPEC.name)
    whole = sha256_of(folder.weights)
    shutil.rmtree(folder.path)
    # The clock passes the deadline at the sixth step.
    stopped(plan, monkeypatch, 6)
    assert read_tensors(folder.state, "order")[1]["step"] == 6
    main([str(plan), "--workers", "1"])
    assert sha256_of(folder.weights) == whole


TRUNK = TrainConfig(
    epochs=2, batch_size=64, base_lr=4e-3, warmup_epochs=0.5, precision="fp32", schedule="constant", snapshot_steps=(3,)
)


def wsd(epochs: int) -> RunSpec:
    return replace(SPEC, train=replace(TRUNK, schedule="wsd", epochs=epochs, cooldown=0.3))


@given(st.integers(4, 500), st.data())
def test_wsd_warms_up_stays_and_cools_down_and_shares_all_before_with_longer_runs(total, data):
    cooldown = data.draw(st.integers(1, total - 2))
    warmup = data.draw(st.integers(0, total - cooldown))
    options = {"peak": 0.3, "final": 0.01, "warmup_steps": warmup, "cooldown_steps": cooldown}
    rates = [warmup_stable_decay(step, **options, total_steps=total) for step in range(total + 1)]
    longer = [warmup_stable_decay(step, **options, total_steps=2 * total) for step in range(total + 1)]
    start = total - cooldown
    assert np.allclose(np.diff([0, *rates[:warmup]]), 0.3 / max(warmup, 1))
    assert np.allclose(rates[warmup : start + 1], 0.3)
    assert rates[:start] == longer[:start]
    assert rates[total] == pytest.approx(0.01)
    assert (np.diff(rates[start:]) < 0).all()
    assert rates[start + cooldown // 2] == pytest.approx(0.01 + 0.29 * (1 - math.sqrt(cooldown // 2 / cooldown)))


def test_a_branch_of_a_trunk_equals_the_run_that_was_trained_alone_in_weights_and_logs(stored, images, tmp_path):
    trunk, branch = replace(SPEC, train=TRUNK), wsd(3)
    assert (branch.train.cooldown_epochs, branch.train.stable_until) == (1, 2)
    longer = replace(SPEC, train=replace(TRUNK, epochs=4))
    plan = Plan("chain", stored, tmp_path / "runs", (branch, longer, trunk))
    assert workers.in_order(plan.runs)[0] == trunk
    assert branch.trunk(plan.runs) == longer.trunk(plan.runs) == trunk
    assert trunk.trunk(plan.runs) is None and SPEC.trunk(plan.runs) is None
    resumed = {}
    for spec in workers.in_order(plan.runs):
        told = list(workers.train_run(spec, plan, CPU_OPTIONS, {}))
        resumed[spec] = sum(message.resumed for message in told)
    assert resumed == {trunk: 0, branch: 2 * 16 * 64, longer: 2 * 16 * 64}
    for spec in (branch, longer):
        alone = Plan("alone", stored, tmp_path / "alone", (spec,))
        list(workers.train_run(spec, alone, CPU_OPTIONS, {}))
        files = [json.loads((p.runs_dir / spec.name / "run.json").read_text())["files"] for p in (plan, alone)]
        assert files[0] == files[1], "weights, logs and snapshots"


def test_a_trunk_of_other_settings_or_beyond_the_cool_down_is_none():
    trunk = replace(SPEC, train=TRUNK)
    other = [
        replace(trunk, seed=8),
        replace(trunk, model=replace(MODEL, mask_ratio=0.5)),
        replace(trunk, train=replace(TRUNK, base_lr=1e-3)),
        replace(trunk, train=replace(TRUNK, epochs=3)),
    ]
    assert wsd(3).trunk(other) is None
    assert wsd(3).trunk([*other, trunk]) == trunk
    assert wsd(8).trunk([*other, trunk]) == other[-1], "the longest"


def test_a_trunk_of_another_precision_or_without_its_end_is_not_gone_on_from(stored, tmp_path, capsys):
    trunk, branch = replace(SPEC, train=TRUNK), wsd(3)
    plan = Plan("chain", stored, tmp_path / "runs", (branch, trunk))
    list(workers.train_run(trunk, plan, CPU_OPTIONS, {}))
    RunFolder(plan.runs_dir / trunk.name).end.write_bytes(b"damaged")
    told = list(workers.train_run(branch, plan, CPU_OPTIONS, {}))
    assert not any(message.resumed for message in told)
    assert "so it starts alone" in capsys.readouterr().err


def test_each_process_has_a_gpu_of_its_own_or_shares_one_as_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware_module.tempfile, "gettempdir", lambda: str(tmp_path))
    gpus = ["GPU-a", "GPU-b"]
    with ExitStack() as held:
        taken = [held.enter_context(reserved_device("auto", 2, gpus)) for _ in range(4)]
        assert taken == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
        monkeypatch.setattr(hardware_module.time, "sleep", lambda _: held.close())  # the others end
        with reserved_device("cuda", 2, gpus) as device:
            assert device in ("cuda:0", "cuda:1")
    for device in ("cpu", "cuda:1"):
        with reserved_device(device, 1, gpus) as chosen:
            assert chosen == device
    with reserved_device("auto", 1, []) as chosen:
        assert chosen == "auto"


def test_damaged_and_foreign_states_are_not_used(images, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    fresh = Trainer(SPEC, images, CPU)
    before = weights(fresh)
    assert folder.restore(fresh) == ""
    folder.save_state(take(Trainer(SPEC, images, CPU), 3))
    others = {
        "spec": Trainer(replace(SPEC, seed=9), images, CPU),
        "data": Trainer(SPEC, replace(images, sha256="other"), CPU),
        "precision": Trainer(SPEC, images, replace(CPU, precision="bf16")),
    }
    for name, trainer in others.items():
        assert folder.restore(trainer) == f"begun with other {name}"
    other_code(monkeypatch)
    assert folder.restore(fresh) == "begun with other code"
    assert folder.restore(Trainer(SPEC, images, CPU), any_code=True) is None
    monkeypatch.undo()
    for damaged in (folder.state.read_bytes()[:-100], b""):
        folder.state.write_bytes(damaged)
        assert folder.restore(fresh) == "its state is damaged"
    write_tensors(folder.state, {}, None)
    assert folder.restore(fresh) == "its state is damaged"
    assert same(before, weights(fresh)) and fresh.progress.step == 0


@pytest.mark.slow
def test_a_failed_run_is_said_in_a_line_and_the_others_go_on(plan, tmp_path):
    values = json.loads(plan.read_text())
    values["runs"][0]["train"]["base_lr"] = 1e5
    plan.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"the loss is .* \(1 of 2 runs failed\); lower base_lr \(now 100000\)"):
        main([str(plan), "--workers", "2"])
    assert not record_of(tmp_path, Plan.load(plan).runs[0]).exists()
    assert (tmp_path / "runs" / Plan.load(plan).runs[1].name / "run.json").exists()


@pytest.mark.slow
def test_finished_runs_are_read_with_their_normalisation(plan, tmp_path, images):
    main([str(plan), "--workers", "1"])
    folder = tmp_path / "runs" / SPEC.name
    run = load_run(folder)
    pixels = images.validation[:5]
    normalised = run.normalise(pixels.permute(0, 2, 3, 1))
    torch.testing.assert_close(normalised, images.normalise(pixels))
    torch.testing.assert_close(run.denormalise(normalised), pixels.permute(0, 2, 3, 1) / 255)
    assert not run.model.training
    assert run.record["images"] == 3 * 16 * 64
    (folder / "model.safetensors").write_bytes((tmp_path / "runs" / SPEC.name / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(
        UserError, match=r"model\.safetensors: missing, or not as .*run\.json is removed; run the same command"
    ):
        load_run(folder)
    assert not (folder / "run.json").exists(), "nothing vouches for a damaged run"
    with pytest.raises(UserError, match="no finished training run; train it: snakemake"):
        load_run(tmp_path / "runs" / "none")


def bare_machine(folder: Path) -> dict[str, str]:
    """Environment of an interpreter that finds torch, numpy, what these need, and our sources; nothing else."""
    folder.mkdir()
    names, tops = ["torch", "numpy"], set()
    for name in names:
        distribution = metadata.distribution(name)
        wanted = [Requirement(text) for text in distribution.requires or []]
        names += [r.name for r in wanted if r.name not in names and (r.marker is None or r.marker.evaluate())]
        tops |= {Path(distribution.locate_file(file.parts[0])) for file in distribution.files if file.parts[0] != ".."}
    for path in tops:
        if path.exists():
            (folder / path.name).symlink_to(path)
    assert not {"pandas", "pydantic", "safetensors"} & {path.name for path in folder.iterdir()}
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parent.parent / 'src'}"}


@pytest.mark.slow
def test_training_needs_torch_and_numpy_alone(plan, tmp_path):
    # -S: no site-packages.
    command = [sys.executable, "-S", "-m", "spatialmae", "train", str(plan), "--workers", "1"]
    environment = bare_machine(tmp_path / "bare")
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert record_of(tmp_path, SPEC).exists()


def test_bad_input_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "spatialmae", "train", "no.json"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: no.json: plan not found; write it again: spatialmae plan TRAINING --config FILE\n"


@pytest.mark.slow
def test_a_run_is_trained_by_one_process_at_a_time(plan, tmp_path):
    message = r"another process is training it \(1 of 2 runs failed\); wait for that, or end it"
    with RunFolder(tmp_path / "runs" / SPEC.name).locked(), pytest.raises(UserError, match=message):
        main([str(plan), "--workers", "1"])
    main([str(plan), "--workers", "1"])
    assert all((tmp_path / "runs" / spec.name / "run.json").exists() for spec in Plan.load(plan).runs)


@pytest.mark.slow
def test_workers_end_with_a_command_that_is_killed(plan):
    values = json.loads(plan.read_text())
    values["runs"][0]["train"]["epochs"] = 100_000
    plan.write_text(json.dumps(values))
    command = subprocess.Popen([sys.executable, "-m", "spatialmae", "train", str(plan), "--workers", "1"])
    folder = RunFolder(Path(plan).parent.parent / "runs" / Plan.load(plan).runs[0].name)
    wait_for((folder.path.parent / ".locks" / folder.path.name).exists)
    command.kill()
    command.wait()

    def released() -> bool:
        try:
            with folder.locked():
                return True
        except UserError:
            return False

    wait_for(released)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.2)


@pytest.mark.slow
def test_a_finished_run_with_a_file_missing_is_trained_again(plan, tmp_path):
    main([str(plan), "--workers", "1"])
    folder = tmp_path / "runs" / Plan.load(plan).runs[1].name
    whole = sha256_of(folder / "model.safetensors")
    for name in ("config.json", "log.csv", "snapshots/epoch0002/model.safetensors"):
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"{Path(name).name}: missing, or not as it was"):
            load_run(folder)
        main([str(plan), "--workers", "1"])
        assert sha256_of(folder / "model.safetensors") == whole
        load_run(folder)


def test_images_split_otherwise_are_other_data(tmp_path, stored):
    tensors, metadata = read_tensors(stored)
    train, validation = tensors["splits/train"], tensors["splits/validation"]
    moved = {"splits/train": np.append(train, validation[:1]), "splits/validation": validation[1:]}
    write_tensors(tmp_path / "other.safetensors", tensors | moved, metadata)
    hashes = {TrainingImages.load(path).sha256 for path in (stored, tmp_path / "other.safetensors")}
    assert len(hashes) == 2


def test_the_logged_gradient_is_that_before_clipping(images):
    norms = []
    for clip in (None, 1e-3):
        trainer = Trainer(replace(SPEC, train=replace(TRAIN, clip_grad=clip)), images, CPU)
        take(trainer, trainer.log_every)
        norms.append(trainer.progress.log[0]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1]) and norms[0] > 0.1


def test_logs_tell_of_a_divergence_and_no_state_stays(plan, tmp_path):
    spec = replace(SPEC, train=replace(TRAIN, base_lr=1e5))
    with pytest.raises(DivergedError):
        list(workers.train_run(spec, Plan.load(plan), workers.Options(threads=1), {}))
    rows = (tmp_path / "runs" / spec.name / "log.csv").read_text().splitlines()
    losses = [float(row.split(",")[4]) for row in rows[1:]]
    assert not losses[-1] < 10 * losses[0]
    assert not (tmp_path / "runs" / spec.name / "state.safetensors").exists()


@pytest.mark.slow
def test_what_a_worker_did_not_expect_is_said_and_others_go_on(plan, tmp_path):
    blocked = tmp_path / "runs" / SPEC.name
    blocked.parent.mkdir()
    blocked.write_text("a file where the run's folder should be")
    with pytest.raises(UserError, match=r"Not a directory \(1 of 2 runs failed\); check path"):
        main([str(plan), "--workers", "1"])
    assert (tmp_path / "runs" / Plan.load(plan).runs[1].name / "run.json").exists()


def test_compilation_is_chosen_where_it_pays_and_can_be_had(monkeypatch):
    assert not Hardware.choose("fp32", 10, device="cpu").compiled
    monkeypatch.setattr(hardware_module, "has_amx", lambda: True)
    monkeypatch.setattr(hardware_module, "has_compiler", lambda: True)
    assert Hardware.choose("fp32", 10**6, device="cpu").compiled
    assert not Hardware.choose("fp32", 10**6, device="cpu", static_shapes=False).compiled
    monkeypatch.setattr(hardware_module, "has_compiler", lambda: False)
    assert not Hardware.choose("fp32", 10**6, device="cpu").compiled
    with pytest.raises(UserError, match="--compile: there is no C\\+\\+ compiler; install one, or use --compile no"):
        Hardware.choose("fp32", 10**6, device="cpu", compiled="yes")


SURROGATE = replace(TRAIN, surrogate="gaussian", augmentation="none")


def test_surrogate_has_the_moments_of_the_normalised_training_images(images):
    rows = images.normalise(images.train).flatten(1).double()
    drawn = images.surrogate.draw(400_000, torch.Generator().manual_seed(0)).flatten(1).double()
    assert drawn.dtype == torch.float64 and drawn.shape[1] == rows.shape[1]
    assert (drawn.mean(dim=0) - rows.mean(dim=0)).abs().max() < 0.01
    assert (drawn.T.cov() - rows.T.cov(correction=0)).abs().max() < 0.02
    constant = rows.std(dim=0) == 0
    assert constant.any()
    assert drawn[:, constant].std(dim=0).max() < 1e-6


def test_surrogate_is_gaussian_fresh_and_neither_clipped_nor_rounded(images):
    draw = torch.Generator().manual_seed(0)
    first, second = images.surrogate.draw(5000, draw), images.surrogate.draw(5000, draw)
    assert not torch.equal(first, second)
    varying = first.flatten(1)[:, images.train.float().std(dim=0).flatten() > 0.1]
    kurtosis = ((varying - varying.mean(dim=0)) / varying.std(dim=0)).pow(4).mean(dim=0)
    assert (kurtosis - 3).abs().max() < 0.6
    assert first.unique().numel() > 0.9 * varying.numel()
    assert first.max() > images.normalise(images.train).max()


def test_surrogate_needs_ten_images_for_each_feature(images):
    few = replace(images, train=images.train[:639])
    with pytest.raises(ValueError, match="639 training images are fewer than 10 × 64 features"):
        few.surrogate.draw(1, torch.Generator())


def test_surrogate_takes_no_augmentation():
    with pytest.raises(ValueError, match="augmentation: flip would change the surrogate's moments; set it to none"):
        replace(TRAIN, surrogate="gaussian")


def test_training_on_the_surrogate_goes_on_bit_for_bit_and_never_sees_the_images(images):
    spec = replace(SPEC, train=SURROGATE)
    whole, begun = take(Trainer(spec, images, CPU)), take(Trainer(spec, images, CPU), 25)
    resumed = Trainer(spec, images, CPU)
    resumed.restore(*begun.state())
    take(resumed)
    assert same(weights(whole), weights(resumed))
    assert whole.progress.validation == resumed.progress.validation
    # With the moments at hand, the images themselves may be anything.
    blank = replace(images, train=torch.zeros_like(images.train), validation=torch.zeros_like(images.validation))
    vars(blank)["surrogate"] = images.surrogate
    assert same(weights(whole), weights(take(Trainer(spec, blank, CPU))))
