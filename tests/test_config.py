"""Configurations are valid, refuse what is wrong in one line, and hold every cell that the ledger asks for."""

import subprocess
import sys
from copy import deepcopy
from itertools import product
from pathlib import Path

import pytest
import yaml

from spatialmae.claims.ledger import Difference, load_ledger
from spatialmae.config import FINE_TUNE_FIELDS, MODEL_FIELDS, TRAIN_FIELDS, FineTuning, load_config, parse_config
from spatialmae.config_docs import configuration_page
from spatialmae.errors import UserError
from spatialmae.figures.declaration import declared_figures, drawn_figures
from spatialmae.layout import subjects_with
from spatialmae.report.claims import figure_of
from spatialmae.stages import checks, hierarchy, identifiability, ising

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


@pytest.fixture
def values():
    return yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    config = load_config(path)
    assert parse_config(config.model_dump(mode="json"), "again") == config


@pytest.mark.parametrize(
    ("where", "value", "field", "hint"),
    [
        (("nmae",), "x", "nmae", "remove it or correct its spelling"),
        (("name",), "a b", "name", "use letters"),
        (("linear", "mask_ratios"), [0.5, 1.0], "linear.mask_ratios.1", "type and range"),
        (("linear", "mask_ratios"), [], "linear.mask_ratios", "type and range"),
        (("linear", "noise_std"), "0.2", "linear.noise_std", "type and range"),
        (("linear", "masking"), "random", "linear.masking", "type and range"),
        (("linear", "masking"), "fixed", "datasets.leaves.patch_sizes", "lower it"),
        (("datasets", "leaves", "patch_sizes"), [3], "datasets.leaves.patch_sizes", "use a divisor"),
        (("datasets", "leaves", "patch_sizes"), [2, 2], "datasets.leaves.patch_sizes", "remove one"),
        (("datasets", "leaves", "patch_sizes"), [16], "datasets.leaves.patch_sizes", "use a smaller divisor"),
        (("datasets", "leaves", "n_components"), [999], "datasets.leaves.n_components", "lower it"),
        (("datasets", "leaves", "sigmas"), [9.0], "datasets.leaves.sigmas", "change them"),
        (("datasets", "leaves", "analyses"), ["statistic"], "datasets.leaves.analyses.0", "use one of statistics, "),
        (("datasets", "leaves", "source", "image_sise"), 16, "datasets.leaves.source.image_sise", "remove it"),
        (("datasets", "leaves", "source", "kind"), "leafs", "datasets.leaves.source", "use one of 'dead_leaves', "),
        (("datasets", "leaves", "source"), {}, "datasets.leaves.source", "add one"),
        (("datasets", "leaves", "source"), {"kind": "textures"}, "datasets.leaves.source.grayscale", "set it to true"),
        (("datasets", "digits", "analyses"), ["probe_depth"], "datasets.digits.analyses", "remove probe_depth"),
        (("datasets", "digits", "groups"), 1, "datasets.digits.groups", "type and range"),
        (("checks", "patch_size"), 3, "checks.patch_size", "use a divisor"),
        (("checks", "wrong_patch_size"), 2, "checks.wrong_patch_size", "the control needs another"),
        (("checks", "n_components"), 99, "checks.n_components", "lower it"),
        (("checks", "dataset"), "photos", "checks.dataset", "name one of them"),
        (("ising", "n_components"), [64], "ising.n_components", "lower it"),
        (("ising", "patch_sizes"), [16], "ising.patch_sizes", "lower it"),
        (("seeds", "first"), 50, "seeds.first", "type and range"),
        (("training", "ratios/2"), {}, "training.ratios/2.[key]", "use letters"),
        (("training", "ratios", "dataset"), "photos", "training.ratios.dataset", "name one of them"),
        (("training", "ratios", "seeds"), 0, "training.ratios.seeds", "type and range"),
        (("training", "ratios", "epochs"), 3, "training.ratios.epochs", "remove it"),
        (("training", "ratios", "model", "patch_size"), 3, "training.ratios.model.patch_size", "use a divisor"),
        (("training", "ratios", "model", "depth"), 3, "training.ratios.model.depth", "remove it"),
        (("training", "ratios", "model", "epochs"), 3, "training.ratios.model.epochs", "remove it"),
        (("training", "ratios", "model", "channels"), 3, "training.ratios.model.channels", "remove it"),
        (("training", "ratios", "model", "mask_ratio"), 0.5, "training.ratios.model.mask_ratio", "remove one"),
        (("training", "ratios", "train", "beta3"), 0.5, "training.ratios.train.beta3", "remove it"),
        (("training", "ratios", "train", "snapshots"), [9], "training.ratios.train.snapshots", ""),
        (("training", "ratios", "train"), {"epochs": 2}, "training.ratios.train.warmup_epochs", ""),
        (("training", "ratios", "train", "batch_size"), 9999, "training.ratios.train.batch_size", "lower it"),
        (("training", "ratios", "grid", "mask_ratio"), [0.5, 0.99], "training.ratios.grid.mask_ratio", ""),
        (("training", "ratios", "grid", "mask_ratio"), [], "training.ratios.grid.mask_ratio", "type and range"),
        (("training", "ratios", "grid", "mask_ratio"), [0.5, 0.5], "training.ratios.grid.mask_ratio", "remove one"),
        (("training", "ratios", "grid", "snapshots"), [[0], [0, 1]], "training.ratios.grid.snapshots", "set them in"),
        (("training", "ratios", "grid", "ratio"), [0.5], "training.ratios.grid.ratio", "remove it"),
        (("training", "ratios", "grid", "image_size"), [8], "training.ratios.grid.image_size", "remove it"),
        (("training", "ratios", "grid", "mask_unit"), [None, 4], "training.ratios.grid.mask_unit", "remove one"),
        (("evaluations", "ratios", "models"), ["ratio"], "evaluations.ratios.models", "name one of these"),
        (("evaluations", "ratios", "analyses"), ["jacobi"], "evaluations.ratios.analyses.0", "use one of attention, "),
    ],
)
def test_wrong_values_are_refused_in_one_line_with_field_and_hint(values, where, value, field, hint):
    target = values
    for key in where[:-1]:
        target = target[key]
    target[where[-1]] = value
    with pytest.raises(UserError) as error:
        parse_config(values, "my.yaml")
    assert str(error.value).startswith(f"my.yaml: {field}: ")
    assert error.value.hint
    assert hint in error.value.hint
    assert "\n" not in str(error.value)


def test_missing_field_is_named(values):
    del values["checks"]["dataset"]
    with pytest.raises(UserError, match=r"checks.dataset: missing; add it"):
        parse_config(values, "my.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "not valid YAML at line"),
        ("", "configuration: empty"),
        ("- 1", "configuration: "),
        ("seeds: {first: 200}\nname: a\nseeds: {first: 300}", "seeds occurs twice, again at line 3; remove one"),
        ("a: {b: 1,\n b: 2}", "b occurs twice, again at line 2"),
    ],
)
def test_unreadable_files_are_said_so(tmp_path, content, message):
    path = tmp_path / "my.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_config(path)
    with pytest.raises(UserError, match="configuration not found"):
        load_config(tmp_path / "no.yaml")


def test_documentation_is_that_of_the_model():
    assert (ROOT / "docs" / "configuration.md").read_text() == configuration_page()


def test_seeds_follow_groups(values):
    config = parse_config(values, "my.yaml")
    assert config.dataset_seeds("leaves") == [0, 1]
    values["seeds"]["first"] = 300
    assert parse_config(values, "my.yaml").dataset_seeds("leaves") == [300, 301]


def test_a_training_is_the_product_of_its_grid_and_the_seeds(values):
    values["seeds"]["first"] = 300
    grid = {"mask_ratio": [0.5, 0.75], "beta1": [0.8, 0.9], "precision": ["auto", "fp32"]}
    values["training"]["ratios"]["grid"] = grid
    values["calibration"] = []  # of models that differ in less
    runs = parse_config(values, "my.yaml").training_runs("ratios")
    cells = [(run.model.mask_ratio, run.train.beta1, run.train.precision, run.seed) for run in runs]
    assert cells == list(product([0.5, 0.75], [0.8, 0.9], ["auto", "fp32"], [300, 301]))
    assert len({run.name for run in runs}) == len(runs)
    assert {(run.dataset, run.model.image_size, run.model.channels) for run in runs} == {("leaves", 16, 3)}
    values["training"]["ratios"]["grid"] = {}
    assert [run.seed for run in parse_config(values, "my.yaml").training_runs("ratios")] == [300, 301]


def test_no_two_settings_of_training_share_a_name():
    assert not set(MODEL_FIELDS) & set(TRAIN_FIELDS)
    assert not set(FINE_TUNE_FIELDS) & set(FineTuning.model_fields)


def test_a_configuration_is_read_without_importing_what_is_slow():
    slow = "torch", "pandas", "sklearn", "scipy", "matplotlib"
    code = "import sys, spatialmae.config as c; c.load_config('config/smoke.yaml'); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    imported = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert "spatialmae.config" in imported
    assert not set(slow) & set(imported)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_ledger_asks_only_for_cells_that_the_configuration_has(path):
    config = load_config(path)
    for claim in load_ledger(ROOT / "claims").claims:
        plan = claim.tests.get(config.name)
        if plan is None:
            continue
        assert plan.dataset in subjects_with(config, claim.estimand.table), claim.id
        arms = claim.arms_of(plan) or [{}]
        cells = [side for arm in arms for side in ([arm.plus, arm.minus] if isinstance(arm, Difference) else [arm])]
        for cell in cells:
            wanted = {**claim.estimand.where, **plan.where, **cell}
            assert available(config, plan.dataset, claim.estimand.table, wanted), (claim.id, wanted)


def test_a_configuration_may_leave_out_everything_but_its_name():
    config = parse_config({"name": "bare"}, "bare.yaml")
    assert [figure.stem for figure in drawn_figures(config)] == ["claims"]
    for stage in (checks, ising, hierarchy, identifiability):
        with pytest.raises(UserError, match="the configuration has none; add "):
            stage.run(config)


def available(config, dataset, table, wanted):
    """Whether the configuration makes a cell with these keys."""
    wanted = deepcopy(dict(wanted))
    if table == "costs":
        table, dataset = "fine_tuning", dataset.removeprefix("fine_tuning_")
    if table == "checks":
        return wanted.pop("check") in ("gradient_descent", "pca", "monte_carlo")
    if table == "ising":
        grids = {
            "coupling": config.ising.couplings,
            "patch_size": config.ising.patch_sizes,
            "n_components": config.ising.n_components,
            "mask_ratio": [0.0, *config.linear.mask_ratios],
        }
    elif table == "hierarchy_levels":
        trees = config.hierarchy
        grids = {
            "patch_size": trees.binary_patch_sizes if wanted.get("tree") == "binary" else trees.quad_patch_sizes,
            "mask_ratio": trees.mask_ratios,
        }
    elif table == "hierarchy_theorem":
        grids = {"check": ["minimal_set", "independence"], "role": ["claim"]}
    elif table == "identifiability":
        grids = {"noise_scale": config.identifiability.noise_scales, "variant": ["plain"]}
    elif dataset in config.evaluations:
        runs, settings = config.evaluation_runs(dataset), config.evaluations[dataset]
        grids = {
            "patch_size": {run.model.patch_size for run in runs},
            "mask_ratio": {run.model.mask_ratio for run in runs},
            "encoder_depth": {run.model.encoder_depth for run in runs},
            "decoder_depth": {run.model.decoder_depth for run in runs},
            "surrogate": {run.train.surrogate for run in runs},
            "epoch": {epoch for run in runs for epoch in (*run.train.snapshots, run.train.epochs)},
            "evaluation_mask_ratio": settings.mask_ratios,
        }
        if table == "fine_tuning":
            tuned = (settings.fine_tuning or FineTuning()).n_blocks
            grids |= {
                "n_blocks": {depth if n is None else n for n in tuned for depth in grids["encoder_depth"]},
                "embedding_trained": {str(n is None) for n in tuned},
            }
    else:
        settings = config.datasets[dataset]
        grids = {
            "patch_size": settings.patch_sizes,
            "n_components": settings.n_components,
            "sigma": settings.sigmas,
            "mask_ratio": config.linear.mask_ratios,
            "noise_std": [config.linear.noise_std],
        }
    return all(wanted[key] in grid for key, grid in grids.items() if key in wanted)


def test_every_tested_claim_names_a_figure_that_is_drawn():
    names = {*declared_figures(), "edge_ratio"}
    for claim in load_ledger(ROOT / "claims").claims:
        assert not claim.tests or claim.figure in names, claim.id


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_claim_that_a_configuration_tests_has_its_figure_there(path):
    config = load_config(path)
    drawn = drawn_figures(config)
    for claim in load_ledger(ROOT / "claims").claims:
        plan = claim.tests.get(config.name)
        assert plan is None or figure_of(claim, plan.dataset, drawn), claim.id
