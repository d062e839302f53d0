"""Measure fine_tuning: a row for each start and number of blocks, made once, cached, and made again if it must be."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from spatialmae.artifacts import read_tensors, write_json
from spatialmae.config import FineTuning, parse_config
from spatialmae.data.dataset import ImageData
from spatialmae.errors import UserError
from spatialmae.evaluation.cache import CachedResult
from spatialmae.layout import Layout
from spatialmae.measures.fine_tuning import from_scratch
from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.probe import fine_tuning
from spatialmae.probe.fine_tuning import fine_tune
from spatialmae.probe.labelled_images import LabelledImages
from spatialmae.probe.settings import FineTuneConfig
from spatialmae.stages import evaluate
from spatialmae.stages.evaluate import open_evaluation
from spatialmae.tables import read_table
from spatialmae.train.runs import load_run, sha256_of
from trained_models import small_values

pytestmark = pytest.mark.slow  # whole stages

ROOT = Path(__file__).parent.parent
SETTINGS = {"n_blocks": [None, 1, 0], "epochs": 1, "batch_size": 400, "base_lr": [0.001, 0.02]}
SETTINGS |= {"warmup_epochs": 0.5, "augmentation": "none", "precision": "fp32"}
N_ROWS = 4 * 3 + 2 + 3 + 1  # runs of the first stage, its seeds from scratch, and the same of the second


@pytest.fixture(scope="module")
def made(tmp_path_factory, trained_models):
    """A configuration whose evaluation was run."""
    trainings = ["deep", "deeper"]
    evaluation = {"models": trainings, "analyses": ["fine_tuning"], "fine_tuning": SETTINGS}
    values = small_values(tmp_path_factory.mktemp("results"), trainings, {"depths": evaluation})
    config = parse_config(values, "test")
    trained_models.provide(config)
    evaluate.run(config, "fine_tuning", "depths")
    return values


@pytest.fixture
def values(made, tmp_path):
    """The same with results of its own."""
    shutil.copytree(made["results"], tmp_path / "results")
    return made | {"results": str(tmp_path / "results")}


@pytest.fixture
def config(values):
    return parse_config(values, "test")


@pytest.fixture
def calls(monkeypatch):
    """Arguments of each fine-tuning from now on."""
    found = []

    def counted(*args, **kwargs):
        found.append((args, kwargs))
        return fine_tune(*args, **kwargs)

    monkeypatch.setattr(fine_tuning, "fine_tune", counted)
    return found


def changed(values, **settings):
    evaluation = values["evaluations"]["depths"]
    settings = evaluation["fine_tuning"] | settings
    return values | {"evaluations": {"depths": evaluation | {"fine_tuning": settings}}}


def files(config):
    """The cached rows, and when they were written."""
    cached = Layout.of(config).cache("fine_tuning").iterdir()
    return {path: path.stat().st_mtime_ns for path in cached if "-time-" not in path.name}


def read_cached(path):
    """A cached row."""
    [row] = json.loads(read_tensors(path)[1]["values"])["fine_tuning"]
    return row


def table(config):
    return read_table(Layout.of(config).table("fine_tuning", "depths"))


def test_every_run_has_a_row_for_each_number_of_blocks_and_every_seed_one_from_scratch(config):
    rows = table(config)
    assert len(rows) == N_ROWS == len(files(config))
    tuned, fresh = rows[~rows["from_scratch"]], rows[rows["from_scratch"]]
    expected = {(run.name, n) for run in config.evaluation_runs("depths") for n in (run.model.encoder_depth, 1, 0)}
    assert set(zip(tuned["name"], tuned["n_blocks"], strict=True)) == expected
    # Decoders take no part: models that differ in them alone share their start from scratch.
    assert fresh[["encoder_depth", "seed"]].to_numpy().tolist() == [[2, 0], [2, 1], [3, 0]]
    assert fresh["decoder_depth"].isna().all() and fresh["embedding_trained"].all()
    assert (rows["from_scratch"] == (rows["initialisation"] == "scratch")).all()
    assert (rows["accuracy"] > 0).all() and rows["target"].eq("label").all()
    # The settings of fine-tuning, and those of the training before it, under names of their own.
    assert rows["batch_size"].eq(400).all() and tuned["pretraining_batch_size"].eq(200).all()
    assert rows["base_lr"].isin([0.001, 0.02]).all() and tuned["pretraining_base_lr"].eq(1.5e-4).all()


def test_a_row_is_that_of_fine_tuning_by_hand(config):
    layout = Layout.of(config)
    rows, spec = table(config), config.evaluation_runs("depths")[1]
    images = LabelledImages.load(layout.data("digits"), "label")
    settings = FineTuneConfig.from_dict(SETTINGS | {"n_blocks": 1})
    by_hand = fine_tune(load_run(layout.runs / spec.name).model, images, settings, spec.seed)
    row = rows[(rows["name"] == spec.name) & (rows["n_blocks"] == 1)].iloc[0]
    assert {*by_hand} <= {*rows.columns}
    for name, value in by_hand.items():
        if value not in (None, ""):
            assert row[name] == pytest.approx(value) if isinstance(value, float) else row[name] == value, name


def test_a_start_from_scratch_has_the_encoder_that_training_starts_from(config):
    run = open_evaluation(config, "depths")[0].runs[-1]
    models = [
        MaskedAutoencoder(model, torch.Generator().manual_seed(1))
        for model in (run.spec.model, from_scratch(run).load().model.config)
    ]
    own, fresh = (model.encoder.state_dict() for model in models)
    assert own.keys() == fresh.keys() and all(torch.equal(own[name], fresh[name]) for name in own)


def test_a_second_call_trains_nothing_and_writes_the_same(config, calls):
    before, written = files(config), Layout.of(config).table("fine_tuning", "depths")
    text = written.read_text()
    evaluate.run(config, "fine_tuning", "depths")
    assert not calls
    assert files(config) == before
    assert written.read_text() == text


def test_a_stage_that_was_stopped_goes_on_where_it_was(config, calls, monkeypatch):
    before, text = files(config), table(config)
    lost = sorted(before)[:3]
    for path in lost:
        path.unlink()
    write = CachedResult.write

    def stop_after_one(self, result):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(self, result)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CachedResult, "write", stop_after_one)
        evaluate.run(config, "fine_tuning", "depths")
    assert len(files(config)) == N_ROWS - 2
    evaluate.run(config, "fine_tuning", "depths")
    assert len(calls) == 2 + 2
    after = files(config)
    assert after.keys() == before.keys()
    assert all(after[path] == before[path] for path in before.keys() - set(lost))
    assert table(config).equals(text)


@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: b"", lambda data: b"[1]"])
def test_a_damaged_row_is_made_again(config, calls, damage):
    path = min(files(config))
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    evaluate.run(config, "fine_tuning", "depths")
    assert len(calls) == 1
    assert path.read_bytes() == whole


def test_changed_settings_make_new_rows_and_leave_the_old(values, config, calls):
    before = files(config)
    other = parse_config(changed(values, n_blocks=[1], weight_decay=0.5, from_scratch=False), "test")
    evaluate.run(other, "fine_tuning", "depths")
    assert len(calls) == 5 == len(table(other))
    assert table(other)["weight_decay"].eq(0.5).all() and not table(other)["from_scratch"].any()
    after = files(config)
    assert len(after) == N_ROWS + 5 and before.items() <= after.items()
    # What is asked for again is there; fewer blocks to train need no new row.
    del calls[:]
    evaluate.run(parse_config(changed(values, n_blocks=[0]), "test"), "fine_tuning", "depths")
    assert not calls
    evaluate.run(config, "fine_tuning", "depths")
    assert not calls and len(table(config)) == N_ROWS


def test_changed_weights_make_new_rows_of_their_run_alone(config, calls):
    run = Layout.of(config).runs / config.evaluation_runs("depths")[-1].name
    before = files(config)
    weights = bytearray((run / "model.safetensors").read_bytes())
    weights[-4] ^= 1
    (run / "model.safetensors").write_bytes(weights)
    record, sha = json.loads((run / "run.json").read_text()), sha256_of(run / "model.safetensors")
    files_of_run = record["files"] | {"model.safetensors": sha}
    write_json(run / "run.json", record | {"weights_sha256": sha, "files": files_of_run})
    evaluate.run(config, "fine_tuning", "depths")
    assert [kwargs["from_scratch"] for _, kwargs in calls] == [False] * 3
    assert before.items() <= files(config).items()


@pytest.mark.parametrize("what", ["code", "labels"])
def test_other_code_or_labels_make_all_rows_anew(config, calls, monkeypatch, what):
    before = files(config)
    row = read_cached(min(before))
    # Which rows are made is what counts here, not how they come out.
    monkeypatch.setattr(fine_tuning, "fine_tune", lambda *args, **kwargs: calls.append(1) or row)
    if what == "code":
        monkeypatch.setattr(evaluate, "fingerprint", lambda *modules: "other")
    else:
        path = Layout.of(config).data("digits")
        source = ImageData.load(path)
        source.targets["label"][source.splits["test"][0]] += 1
        source.save(path)
    evaluate.run(config, "fine_tuning", "depths")
    assert len(calls) == N_ROWS
    assert before.items() <= files(config).items()


def test_costs_hold_the_time_of_a_step_of_each_number_of_blocks_side_by_side(config):
    costs = read_table(Layout.of(config).table("costs", "fine_tuning_depths"))
    tuned = table(config)[lambda rows: ~rows["from_scratch"]]
    keys = ["name", "n_blocks", "embedding_trained"]
    assert sorted(costs[keys].itertuples(index=False)) == sorted(tuned[keys].itertuples(index=False))
    assert (costs["seconds_per_step"] > 0).all() and costs["threads"].eq(1).all()
    medians = costs.groupby("n_blocks")["seconds_per_step"].median()
    assert medians[0] < medians[2], "a head alone is faster than an encoder"


def test_no_other_table_holds_times_or_devices(config):
    assert not {"seconds", "seconds_per_step", "device", "threads"} & set(table(config))


def test_rows_that_diverged_are_cached_as_missing_numbers(values, calls):
    diverging = parse_config(changed(values, n_blocks=[1], base_lr=[1e38], from_scratch=False), "test")
    for _ in range(2):
        evaluate.run(diverging, "fine_tuning", "depths")
        rows = table(diverging)
        assert rows["accuracy"].isna().all()
        assert rows["reason"].eq("diverged at base_lr 1e+38").all()
    assert len(calls) == 5


def test_every_label_target_has_rows_and_images_without_are_refused(config, monkeypatch):
    path = Layout.of(config).data("digits")
    source = ImageData.load(path)
    label = source.targets["label"]
    row = {"accuracy": 0.5, "other": math.nan}
    monkeypatch.setattr(fine_tuning, "fine_tune", lambda *args, **kwargs: row | {"target": args[1].target})
    source.targets.update(odd=label % 2, map=np.zeros((len(label), 8, 8), dtype=np.int64))
    source.save(path)
    evaluate.run(config, "fine_tuning", "depths")
    assert table(config).groupby("target").size().to_dict() == {"label": N_ROWS, "odd": N_ROWS}
    for name in ("label", "odd"):
        del source.targets[name]
    source.save(path)
    with pytest.raises(UserError, match=r"evaluations.depths.analyses: .* has no class labels; remove fine_tuning"):
        evaluate.run(config, "fine_tuning", "depths")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "evaluations.depths.fine_tuning.epoch: unknown key; remove it"),
        ({"epochs": 0}, "evaluations.depths.fine_tuning.epochs: 0 is not an integer of 1 or more; change it"),
        ({"base_lr": [0.0]}, "evaluations.depths.fine_tuning.base_lr: 0.0 is not a positive number; change it"),
        ({"warmup_epochs": 1}, "fine_tuning.warmup_epochs: 1.0 is not less than epochs=1; lower it"),
        ({"n_blocks": 1}, "evaluations.depths.fine_tuning.n_blocks: Input should be a valid list, got 1; "),
        ({"n_blocks": []}, "evaluations.depths.fine_tuning.n_blocks: List should have at least 1 item"),
        ({"n_blocks": [1, 1]}, "evaluations.depths.fine_tuning.n_blocks: a value occurs twice; remove one"),
        ({"n_blocks": [None, -1]}, "fine_tuning.n_blocks.1: Input should be greater than or equal to 0"),
        ({"n_blocks": [3]}, "fine_tuning.n_blocks: 3 exceeds the 2 blocks of an encoder; lower it"),
        ({"from_scratch": 1}, "evaluations.depths.fine_tuning.from_scratch: Input should be a valid boolean"),
    ],
)
def test_impossible_settings_are_refused_by_name(values, settings, message):
    with pytest.raises(UserError) as error:
        parse_config(changed(values, **settings), "test")
    assert message in str(error.value)


def test_settings_without_the_analysis_and_the_analysis_without_labels_are_refused(values):
    evaluation = values["evaluations"]["depths"]
    without = values | {"evaluations": {"depths": evaluation | {"analyses": ["linear_probe"]}}}
    with pytest.raises(UserError, match=r"evaluations.depths.fine_tuning: it is not among analyses; add it there, or"):
        parse_config(without, "test")
    photos = {"source": {"kind": "photos", "image_size": 8, "grayscale": True}, "groups": 2, "patch_sizes": [4]}
    photos |= {"n_components": [4], "analyses": []}
    training = {name: stage | {"dataset": "photos"} for name, stage in values["training"].items()}
    unlabelled = values | {"datasets": values["datasets"] | {"photos": photos}, "training": training}
    with pytest.raises(UserError, match=r"evaluations.depths.analyses: .* without labels; remove fine_tuning"):
        parse_config(unlabelled, "test")


def test_batches_larger_than_the_training_images_are_refused(values, config):
    small = parse_config(changed(values, batch_size=5000), "test")
    with pytest.raises(UserError, match=r"evaluations.depths.fine_tuning.batch_size: 5000 exceeds the .*; lower it"):
        evaluate.run(small, "fine_tuning", "depths")
    training = {name: stage | {"dataset": "leaves"} for name, stage in values["training"].items()}
    leaves = changed(values, batch_size=100_000) | {"training": training}
    with pytest.raises(UserError, match=r"evaluations.depths.fine_tuning.batch_size: 100000 exceeds the"):
        parse_config(leaves, "test")


def test_settings_left_out_are_the_defaults_and_all_survive_being_written(values):
    evaluation = {name: value for name, value in values["evaluations"]["depths"].items() if name != "fine_tuning"}
    config = parse_config(values | {"evaluations": {"depths": evaluation}}, "test")
    assert FineTuning().configs() == [FineTuneConfig()]
    assert parse_config(config.model_dump(mode="json"), "again") == config
    given = parse_config(values, "test")
    assert parse_config(given.model_dump(mode="json"), "again") == given
