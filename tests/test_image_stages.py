"""Paper B's experiments on images as stages: which models and images, and what the tables hold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spatialmae.analysis.image_quality import quality_row
from spatialmae.config import parse_config
from spatialmae.errors import UserError
from spatialmae.evaluation.scenes import scenes
from spatialmae.layout import Layout
from spatialmae.measures import MEASURES, attention, shape_bias
from spatialmae.probe import corruptions, dense
from spatialmae.probe.representation import represent
from spatialmae.stages import evaluate
from spatialmae.stages.evaluate import open_evaluation
from spatialmae.tables import read_table
from trained_models import small_values

pytestmark = pytest.mark.slow  # whole stages

ROOT = Path(__file__).parent.parent
NAMES = ["image_quality", "attention", "separability", "corruptions", "shape_bias", "dense"]


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    head = {"n_train": 64, "n_validation": 20, "n_test": 20, "epochs": 2, "fine_tuning_epochs": 2}
    evaluation = {"models": ["ratios"], "analyses": NAMES, "n_test": 60, "dense": head}
    return small_values(tmp_path_factory.mktemp("results"), ["ratios"], {"ratios": evaluation})


@pytest.fixture(scope="module")
def config(values, trained_models):
    config = parse_config(values, "test")
    trained_models.provide(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape_bias, "CUES", {"n_train": 300, "n_validation": 100, "n_test": 100})
        patch.setattr(attention, "N_IMAGES", 24)
        for measure in NAMES:
            evaluate.run(config, measure, "ratios")
    return config


def table(config, name):
    return read_table(Layout.of(config).table(name, "ratios"))


def test_every_measure_writes_its_tables_with_every_model(config):
    names = [spec.name for spec in config.evaluation_runs("ratios")]
    for measure in NAMES:
        for one in MEASURES[measure].tables:
            found = set(table(config, one)["name"])
            assert found == set(names[::2] if one == "separability_tsne" else names), (
                one
            )  # pictures are of the first seed alone


def test_each_seed_has_test_images_of_its_own_while_there_are_enough(config):
    shared = open_evaluation(config, "ratios")[0].shared
    test, first = shared.data.splits["test"], config.first_seed
    n_parts = len(test) // 25
    found = [shared.test_images(25, first + i) for i in range(n_parts)]
    assert n_parts >= 2 and len(np.unique(np.concatenate(found))) == 25 * n_parts
    assert np.isin(np.concatenate(found), test).all()
    np.testing.assert_array_equal(found[0], shared.test_images(25, first + n_parts))


def test_reconstructions_are_of_the_seeds_test_images(config):
    evaluated = open_evaluation(config, "ratios")[0]
    model, shared = evaluated.runs[1], evaluated.shared
    row = table(config, "image_quality").set_index("name").loc[model.name]
    by_hand = quality_row(model.load(), shared.data.images[shared.test_images(60, model.seed)])
    assert row["n_images"] == 60
    for name in ("mse", "psnr", "ssim", "fsim"):
        assert row[name] == pytest.approx(by_hand[name])


def test_scenes_are_new_images_of_the_models_world(config):
    shared = open_evaluation(config, "ratios")[0].shared
    found = scenes(shared, 0, n_train=1, n_validation=0, n_test=50)
    assert scenes(shared, 0, n_train=1, n_validation=0, n_test=50) is found
    assert found.images.shape[1:] == shared.data.image_shape
    others = scenes(shared, 1, n_train=1, n_validation=0, n_test=50)
    own, first, second = ({image.tobytes() for image in data.images} for data in (shared.data, found, others))
    assert not own & first and not first & second
    shared.data.provenance["max_radius"] = 3.5  # of a copy in memory
    assert scenes(shared, 0, n_train=1, n_validation=0, n_test=1).provenance["max_radius"] == 3.5


def test_corruptions_are_scored_by_the_probe_of_clean_images(config):
    rows = table(config, "corruptions")
    assert rows.groupby(["name", "target"]).size().eq(12 * 5).all()
    assert rows["n_test"].eq(60).all()
    probes = rows.groupby(["name", "target"])["clean_accuracy"].nunique()
    assert probes.eq(1).all()


def test_shape_bias_of_models_of_leaves_is_of_leaves_alone(config):
    rows = table(config, "shape_bias")
    assert rows["stimuli"].eq("leaves").all() and len(rows) == 4
    assert (rows[["n_shape", "n_texture", "n_neither"]].sum(axis=1) == rows["n"]).all()


def test_separability_is_of_the_features_of_test_images(config):
    rows = table(config, "separability")
    assert set(rows["target"]) == {"shape", "texture"} and len(rows) == 4 * 2
    points = table(config, "separability_tsne")
    assert points.groupby("name").size().eq(60).all()
    evaluated = open_evaluation(config, "ratios")[0]
    model, data = evaluated.runs[0], evaluated.shared.data
    test = evaluated.shared.test_images(60, model.seed)
    features = represent(model.load(), data.images[test])
    assert len(np.unique(features, axis=0)) == 60
    shown = points[points["name"] == model.name]
    names = data.class_names["shape"]
    assert shown["shape"].tolist() == [names[label] for label in data.targets["shape"][test]]


def test_heads_are_trained_on_frozen_and_on_trained_encoders(config, values):
    rows = table(config, "dense")
    assert rows.groupby(["name", "encoder", "target"]).size().eq(1).all() and len(rows) == 4 * 2 * 2
    assert rows.groupby("encoder")["epochs"].unique().map(list).to_dict() == {"frozen": [2], "fine-tuned": [2]}
    assert pd.to_numeric(rows["pretraining_epochs"]).eq(2).all()
    augmentations = {spec.name: spec.train.augmentation for spec in config.evaluation_runs("ratios")}
    assert rows["pretraining_augmentation"].tolist() == rows["name"].map(augmentations).tolist()
    frozen = values["evaluations"]["ratios"] | {"dense": {"fine_tuning_epochs": 0}}
    alone = open_evaluation(parse_config(values | {"evaluations": {"ratios": frozen}}, "test"), "ratios")[0]
    assert {part.columns["encoder"] for part in MEASURES["dense"].parts_of(alone)} == {"frozen"}


@pytest.mark.parametrize(
    ("name", "module", "makes"), [("dense", dense, "dense_rows"), ("corruptions", corruptions, "corruption_rows")]
)
def test_a_model_that_was_measured_before_is_not_again(config, monkeypatch, name, module, makes):
    made = table(config, name)
    monkeypatch.setattr(module, makes, None)
    evaluate.run(config, name, "ratios")
    pd.testing.assert_frame_equal(table(config, name), made, check_exact=True)
    monkeypatch.setattr(evaluate, "fingerprint", lambda *modules: "other")
    with pytest.raises(TypeError, match="not callable"):
        evaluate.run(config, name, "ratios")


def test_models_of_normalised_patches_are_refused_where_pixels_are_needed(values):
    normalised = values["training"]["ratios"]
    normalised = {"ratios": normalised | {"model": normalised["model"] | {"norm_pix_loss": True}}}
    alone = {"ratios": values["evaluations"]["ratios"] | {"analyses": ["image_quality"]}}
    with pytest.raises(UserError, match="image_quality is of pixels, and with norm_pix_loss"):
        parse_config(values | {"training": normalised, "evaluations": alone}, "test")
