"""Fitted probes that are cached: the same answers when read back, and another fit when what decides them is other."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spatialmae.artifacts import read_tensors, write_tensors
from spatialmae.config import parse_config
from spatialmae.evaluation import fitted_probe as probes
from spatialmae.evaluation.fitted_probe import fitted_probe, probe_task
from spatialmae.layout import Layout
from spatialmae.measures import shape_bias
from spatialmae.probe import corruptions as corrupted
from spatialmae.probe.linear_probe import FittedProbe
from spatialmae.probe.shape_bias import CueLeaves
from spatialmae.stages import evaluate
from spatialmae.stages.evaluate import open_evaluation
from spatialmae.tables import read_table
from trained_models import small_values

ROOT = Path(__file__).parent.parent
CUES = {"n_train": 60, "n_validation": 20, "n_test": 40}
TARGETS = ("shape", "texture")


@pytest.fixture(scope="module")
def config(tmp_path_factory, trained_models):
    evaluation = {"models": ["ratios"], "analyses": ["linear_probe", "corruptions", "shape_bias"], "n_test": 40}
    values = small_values(tmp_path_factory.mktemp("results"), ["ratios"], {"ratios": evaluation})
    values["training"]["ratios"] |= {"seeds": 1}
    config = parse_config(values, "test")
    trained_models.provide(config)
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


class Probed:
    """The first model of the evaluation."""

    def __init__(self, config) -> None:
        evaluated, _ = open_evaluation(config, "ratios")
        self.shared, self.model = evaluated.shared, evaluated.runs[0]

    def fitted(self, target: str) -> FittedProbe:
        return fitted_probe(self.model, target, self.shared)


def arrays(probe: FittedProbe) -> list[np.ndarray]:
    return [probe.standardiser.mean, probe.standardiser.scale, probe.classes, probe.weights, probe.bias]


def test_a_cached_probe_is_the_one_that_was_fitted_bit_for_bit(config):
    probed = Probed(config)
    features = np.random.default_rng(0).normal(size=(500, 32)).astype(np.float32)
    for target in TARGETS:
        fitted = probes.fit_linear_probe(probe_task(probed.model, target, probed.shared))
        probed.fitted(target)
        read = probed.fitted(target)
        assert read.row == fitted.row
        for ours, theirs in zip(arrays(read), arrays(fitted), strict=True):
            assert ours.dtype == theirs.dtype and ours.flags.c_contiguous == theirs.flags.c_contiguous
            assert np.array_equal(ours, theirs)
        asked = features[:, : read.weights.shape[1]]
        assert np.array_equal(read.predict(asked), fitted.predict(asked))


def test_three_measures_of_one_evaluation_fit_each_probe_once(config, fits, monkeypatch):
    monkeypatch.setattr(corrupted, "CORRUPTIONS", {"contrast": corrupted.CORRUPTIONS["contrast"]})
    monkeypatch.setattr(shape_bias, "CUES", CUES)
    # As if stimuli were published with the labels of these images.
    monkeypatch.setattr(shape_bias, "PUBLISHED", "leaves")
    monkeypatch.setattr(shape_bias, "LABEL", "shape")
    conflict = CueLeaves.render(image_size=16, seed=1, **CUES).conflict
    monkeypatch.setattr(shape_bias, "_published_stimuli", lambda shared: replace(conflict, name="published"))
    # The order in which they come, and the table of each.
    measures = {"corruptions": "corruptions", "shape_bias": "shape_bias", "linear_probe": "linear_probe"}
    tables = []
    shutil.rmtree(Layout.of(config).cache("fitted_probe"), ignore_errors=True)
    for _ in range(2):  # fitted now, and cached before
        for measure in measures:
            shutil.rmtree(Layout.of(config).cache(measure), ignore_errors=True)
            evaluate.run(config, measure, "ratios")
        tables.append({name: read_table(Layout.of(config).table(name, "ratios")) for name in measures.values()})
    names = [spec.name for spec in config.evaluation_runs("ratios")]
    assert len(names) == 2 and fits == [*TARGETS] * 2
    for name in measures.values():
        pd.testing.assert_frame_equal(tables[0][name], tables[1][name], check_exact=True)
    published = tables[0]["shape_bias"].query("stimuli == 'published'")
    of_shape = tables[0]["linear_probe"].query("target == 'shape'")
    assert published["probe_accuracy"].tolist() == of_shape["accuracy"].tolist()


@pytest.mark.parametrize("what", ["weights", "data", "code"])
def test_a_probe_of_other_weights_images_or_code_is_another(config, fits, monkeypatch, what):
    probed = Probed(config)
    probed.fitted("shape")
    fits.clear()
    if what == "weights":
        probed.model = replace(probed.model, identity=probed.model.identity | {"weights_sha256": "other"})
    elif what == "data":
        monkeypatch.setattr(evaluate, "sha256_of", lambda path: "other")
        probed.shared = open_evaluation(config, "ratios")[0].shared
    else:
        monkeypatch.setattr(evaluate, "fingerprint", lambda *modules: "other")
    probed.fitted("shape")
    assert fits == ["shape"]
    probed.fitted("shape")
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
    probed = Probed(config)
    expected = probed.fitted("texture")
    fits.clear()
    (path,) = Layout.of(config).cache("fitted_probe").glob(f"{probed.model.name}-texture-*")
    damage(path)
    again = probed.fitted("texture")
    assert fits == ["texture"]
    assert np.array_equal(again.weights, expected.weights)
    assert json.loads(read_tensors(path)[1]["values"]) == again.row
