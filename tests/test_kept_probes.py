"""Fitted probes that are kept: the same answers when read back, and another fit when what decides them is other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from spatialmae.artifacts import read_tensors, write_tensors
from spatialmae.config import parse_config
from spatialmae.layout import Layout
from spatialmae.probe import corruptions as corrupted
from spatialmae.probe.linear_probe import FittedProbe
from spatialmae.probe.shape_bias import CueLeaves
from spatialmae.stages import corruptions, model_probe, probes, shape_bias
from spatialmae.stages.evaluation import EvaluationSet
from spatialmae.stages.probes import KeptProbe, ProbedModel
from spatialmae.tables import read_table
from spatialmae.train import code
from trained_stages import imported_modules, train_stages

ROOT = Path(__file__).parent.parent
CUES = {"n_train": 60, "n_validation": 20, "n_test": 40}
TARGETS = ("shape", "texture")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    values = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"calibration": []}
    values["results"] = str(tmp_path_factory.mktemp("results"))
    values["datasets"]["leaves"]["source"] |= {"n_train": 300, "n_validation": 100, "n_test": 100}
    small = {"epochs": 1, "batch_size": 100, "warmup_epochs": 0.0, "snapshots": []}
    values["training"] = {"ratios": values["training"]["ratios"] | {"seeds": 1, "train": small}}
    analyses = ["probe", "corruptions", "shape_bias"]
    values["evaluations"] = {"ratios": {"models": ["ratios"], "analyses": analyses, "n_test": 40}}
    config = parse_config(values, "test")
    train_stages(config)
    return config


@pytest.fixture
def fits(monkeypatch):
    """Targets of the probes that are fitted from now on."""
    found, fit = [], probes.fit_linear_probe

    def counted(task):
        found.append(task.target)
        return fit(task)

    monkeypatch.setattr(probes, "fit_linear_probe", counted)
    return found


def probed(config) -> ProbedModel:
    evaluated = EvaluationSet(config, "ratios")
    return ProbedModel(evaluated, evaluated.specs[0], evaluated.run(evaluated.specs[0]))


def arrays(probe: FittedProbe) -> list[np.ndarray]:
    return [probe.standardiser.mean, probe.standardiser.scale, probe.classes, probe.weights, probe.bias]


def test_a_kept_probe_is_the_one_that_was_fitted_bit_for_bit(config, tmp_path):
    model = probed(config)
    features = np.random.default_rng(0).normal(size=(500, 32)).astype(np.float32)
    for target in TARGETS:
        fitted = probes.fit_linear_probe(model.task(target))
        kept = KeptProbe(tmp_path, target, {"of": target})
        assert kept.read() is None
        kept.write(fitted)
        read = kept.read()
        assert read.row == fitted.row
        for ours, theirs in zip(arrays(read), arrays(fitted), strict=True):
            assert ours.dtype == theirs.dtype and ours.flags.c_contiguous == theirs.flags.c_contiguous
            assert np.array_equal(ours, theirs)
        asked = features[:, : read.weights.shape[1]]
        assert np.array_equal(read.predict(asked), fitted.predict(asked))


def test_three_analyses_of_one_evaluation_fit_each_probe_once(config, fits, monkeypatch):
    monkeypatch.setattr(corrupted, "CORRUPTIONS", {"contrast": corrupted.CORRUPTIONS["contrast"]})
    monkeypatch.setattr(shape_bias, "CUES", CUES)
    # As if stimuli were published with the labels of these images.
    monkeypatch.setattr(shape_bias, "PUBLISHED", "leaves")
    monkeypatch.setattr(shape_bias, "LABEL", "shape")
    conflict = CueLeaves.render(image_size=16, seed=1, **CUES).conflict
    monkeypatch.setattr(shape_bias, "_published_stimuli", lambda layout, data: replace(conflict, name="published"))
    stages = {"corruptions": corruptions, "shape_bias": shape_bias, "linear_probe": model_probe}
    tables = []
    for _ in range(2):  # fitted now, and kept before
        for stage in stages.values():
            stage.run(config, "ratios")
        tables.append({name: read_table(Layout.of(config).table(name, "ratios")) for name in stages})
    names = [spec.name for spec in config.evaluation_runs("ratios")]
    assert len(names) == 2 and fits == [*TARGETS] * 2
    for name in stages:
        pd.testing.assert_frame_equal(tables[0][name], tables[1][name], check_exact=True)
    published = tables[0]["shape_bias"].query("stimuli == 'published'")
    of_shape = tables[0]["linear_probe"].query("target == 'shape'")
    assert published["probe_accuracy"].tolist() == of_shape["accuracy"].tolist()


@pytest.mark.parametrize("what", ["weights", "data", "code"])
def test_a_probe_of_other_weights_images_or_code_is_another(config, fits, monkeypatch, what):
    model = probed(config)
    model.linear_probe("shape")
    fits.clear()
    if what == "weights":
        record = model.trained.record | {"weights_sha256": "other"}
        model = replace(model, trained=replace(model.trained, record=record))
    elif what == "data":
        monkeypatch.setitem(vars(model.evaluated), "data_sha256", "other")
    else:
        monkeypatch.setattr(probes, "code_digest", lambda numeric: "other")
    model.linear_probe("shape")
    assert fits == ["shape"]
    model.linear_probe("shape")
    assert fits == ["shape"]


def without_weights(path: Path) -> None:
    tensors, about = read_tensors(path)
    del tensors["weights"]
    write_tensors(path, tensors, about)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        without_weights,
        lambda path: write_tensors(path, read_tensors(path)[0]),
        lambda path: write_tensors(path, read_tensors(path)[0], read_tensors(path)[1] | {"key": {}}),
    ],
    ids=["cut", "no weights", "no metadata", "another key"],
)
def test_a_damaged_file_is_fitted_and_written_anew(config, fits, damage):
    model = probed(config)
    expected = model.linear_probe("texture")
    fits.clear()
    (path,) = Layout.of(config).rows("linear_probe").glob(f"{model.spec.name}-texture-*")
    damage(path)
    again = model.linear_probe("texture")
    assert fits == ["texture"]
    assert np.array_equal(again.weights, expected.weights)
    assert read_tensors(path)[1]["row"] == again.row


def test_the_digest_covers_all_that_a_probe_is_computed_with():
    # What images, labels and devices are called; ridge regressions, which stand beside the labels.
    not_numeric = {
        *("data/dataset.py", "errors.py", "setting.py", "shapes.py", "train/hardware.py", "train/runs.py"),
        *("probe/settings.py", "probe/ridge.py"),
    }
    assert imported_modules(probes.NUMERIC) - not_numeric <= {*probes.NUMERIC, *code.NUMERIC}
