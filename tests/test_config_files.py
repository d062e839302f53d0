"""What configuration files may leave out, extend and divide into parts, and what became of earlier keys."""

import re
from copy import deepcopy
from pathlib import Path
from typing import get_args

import pytest
import yaml

from spatialmae.config import DATASET_ANALYSES, Config, Source, load_config, parse_config, read_values
from spatialmae.errors import UserError
from spatialmae.evaluation.measure import COSTS
from spatialmae.figures.declaration import declared_figures
from spatialmae.layout import parts_of, subjects_with
from spatialmae.measures import MEASURES

ROOT = Path(__file__).parent.parent
LEAVES = {"kind": "dead_leaves", "image_size": 16, "n_train": 90, "n_validation": 9, "n_test": 9}
MODEL = {"encoder_dim": 16, "encoder_heads": 2, "decoder_dim": 16, "decoder_heads": 2}
TRAIN = {"epochs": 2, "batch_size": 30, "warmup_epochs": 0.5}


@pytest.fixture
def values():
    """A study with two parts."""
    return {
        "name": "study",
        "datasets": {"leaves": {"source": LEAVES}, "digits": {"source": {"kind": "digits"}, "groups": 2}},
        "checks": {"dataset": "digits"},
        "hierarchy": {},
        "training": {
            "low": {"dataset": "leaves", "seeds": 2, "model": MODEL | {"mask_ratio": 0.25}, "train": TRAIN},
            "high": {"extends": "low", "model": {"mask_ratio": 0.75}},
        },
        "evaluations": {
            "ratios": {"models": ["low", "high"], "analyses": ["linear_probe"]},
            "errors": {"models": ["high"], "analyses": ["image_quality"]},
        },
        "parts": {"theory": ["checks", "hierarchy"], "models": ["evaluations.ratios", "evaluations.errors"]},
    }


def write(folder, **files):
    for name, values in files.items():
        (folder / f"{name}.yaml").write_text(
            values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False)
        )
    return folder / "own.yaml"


def refused(values):
    with pytest.raises(UserError) as error:
        parse_config(values, "my.yaml")
    assert error.value.where == "my.yaml"
    assert error.value.hint
    return error.value


# Files that extend others.


def test_a_file_says_what_differs_from_the_file_that_it_extends(tmp_path, values):
    own = write(
        tmp_path,
        base=values,
        own={
            "extends": "base.yaml",
            "name": "own",
            "seeds": {"first": 0},
            "checks": None,
            "training": {"low": {"model": {"mask_ratio": 0.5}}},
            "parts": {"theory": ["hierarchy"]},
        },
    )
    config, base = load_config(own), load_config(tmp_path / "base.yaml")
    assert (config.name, config.seeds.first, config.checks) == ("own", 0, None)
    assert config.datasets == base.datasets
    assert config.training["low"].model == MODEL | {"mask_ratio": 0.5}
    # Of entries that extend each other, only after the files are merged.
    assert config.training["high"] == base.training["high"]
    assert list(config.parts) == ["theory", "models"]


def test_an_entry_takes_over_what_an_extending_file_changes_of_another(tmp_path, values):
    own = write(tmp_path, base=values, own={"extends": "base.yaml", "training": {"low": {"seeds": 5}}})
    assert load_config(own).training["high"].seeds == 5


def test_of_several_files_the_later_one_counts_and_lists_and_kinds_are_replaced(tmp_path, values):
    other = {
        "results": "elsewhere",
        "datasets": {"leaves": {"source": {"kind": "digits"}}},
        "evaluations": {"ratios": {"analyses": ["separability"]}},
    }
    own = write(tmp_path, base=values, other=other, own={"extends": ["base.yaml", "other.yaml"], "name": "own"})
    config = load_config(own)
    assert (config.name, config.results) == ("own", "elsewhere")
    assert config.datasets["leaves"].source.kind == "digits"
    assert config.evaluations["ratios"].analyses == ["separability"]
    assert config.evaluations["ratios"].models == ["low", "high"]
    assert read_values([own], {"name": "last"})["name"] == "last"


def test_extended_files_lie_relative_to_the_file_that_names_them(tmp_path, values):
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", base=values, middle={"extends": "base.yaml", "name": "middle"})
    own = write(tmp_path, own={"extends": "below/middle.yaml", "results": "own"})
    assert load_config(own).name == "middle"


@pytest.mark.parametrize(
    ("files", "where", "problem"),
    [
        ({"own": "extends: base.yaml"}, "base.yaml", "not found"),
        ({"own": "extends: 3"}, "own.yaml", "extends: 3 is no name"),
        ({"own": "extends: [base.yaml, 3]"}, "own.yaml", "extends: "),
        ({"own": "extends: own.yaml"}, "own.yaml", "extends: own.yaml extends this file"),
        ({"own": "extends: base.yaml", "base": "extends: own.yaml"}, "base.yaml", "extends: own.yaml extends this"),
        ({"own": "extends: base.yaml", "base": "name: a\nname: b"}, "base.yaml", "name occurs twice"),
        ({"own": "extends: base.yaml", "base": "- 1"}, "base.yaml", "configuration: "),
        ({"own": "extends: base.yaml", "base": "name: a\nseed: 1"}, "own.yaml", "seed: unknown key"),
    ],
)
def test_files_that_cannot_be_extended_are_refused(tmp_path, files, where, problem):
    with pytest.raises(UserError) as error:
        load_config(write(tmp_path, **files))
    assert Path(error.value.where).name == where
    assert error.value.problem.startswith(problem)
    assert error.value.hint


def test_entries_extend_entries_of_their_section(values):
    training = parse_config(values, "my.yaml").training
    assert training["high"].model == MODEL | {"mask_ratio": 0.75}
    assert (training["high"].seeds, training["high"].train) == (2, TRAIN)
    values["training"]["low"]["grid"] = {"beta1": [0.8, 0.9]}
    values["training"]["high"]["grid"] = None
    assert parse_config(values, "my.yaml").training["high"].grid == {}


@pytest.mark.parametrize(
    ("section", "entry", "problem"),
    [
        ("training", {"extends": "lower"}, "training.low.extends: 'lower' is not among training"),
        ("training", {"extends": "high"}, "training.high.extends: low extends high in turn"),
        ("training", {"extends": 1}, "training.low.extends: 1 is no name"),
        ("datasets", {"extends": "low"}, "datasets.low.extends: low extends low in turn"),
    ],
)
def test_entries_that_cannot_be_extended_are_refused(values, section, entry, problem):
    values[section]["low"] = entry
    assert refused(values).problem.startswith(problem)


# Sections and settings that are not needed.


def test_a_data_set_that_is_only_trained_on_needs_its_source_alone():
    config = parse_config({"name": "bare", "datasets": {"leaves": {"source": LEAVES}}}, "my.yaml")
    assert config.datasets["leaves"].analyses == []
    assert config.dataset_seeds("leaves") == []
    assert config.sections == []


@pytest.mark.parametrize(
    ("dataset", "field"),
    [
        ({"analyses": ["statistics"]}, "groups"),
        ({"analyses": ["reach"], "groups": 2, "n_components": [4]}, "patch_sizes"),
        ({"analyses": ["sampling"], "groups": 2, "patch_sizes": [4]}, "n_components"),
    ],
)
def test_what_an_analysis_needs_and_lacks_is_named(values, dataset, field):
    values["datasets"]["leaves"] |= dataset
    error = refused(values)
    assert error.problem.startswith(f"datasets.leaves.{field}: missing")
    assert dataset["analyses"][0] in error.problem


def test_checks_need_groups(values):
    del values["datasets"]["digits"]["groups"]
    assert refused(values).problem.startswith("datasets.digits.groups: missing")


# Keys of earlier versions.


@pytest.mark.parametrize(
    ("section", "change", "field", "says"),
    [
        ("evaluations", {"stages": ["low"], "analyses": ["linear_probe"]}, "evaluations.old.stages", "models"),
        ("training", {"extends": "low", "minutes": 3}, "training.old.minutes", "gone"),
        ("datasets", {"source": LEAVES | {"kind": "leaves"}}, "datasets.old.source", "dead_leaves"),
    ],
)
def test_a_key_of_an_earlier_version_is_told_its_new_name(values, section, change, field, says):
    del values["parts"]
    values[section]["old"] = change
    error = refused(values)
    assert error.problem.startswith(f"{field}: ")
    assert says in f"{error.problem} {error.hint}"


# Parts.


def test_parts_hold_tables_and_trainings(values):
    theory, models = parts_of(parse_config(values, "my.yaml"))
    assert (theory.name, theory.training) == ("theory", ())
    assert theory.tables == (
        ("checks", "digits"),
        ("hierarchy_theorem", "hierarchy"),
        ("hierarchy_levels", "hierarchy"),
    )
    assert models.training == ("low", "high")
    assert models.tables == (
        ("linear_probe", "ratios"),
        ("linear_probe_neighbours", "ratios"),
        ("image_quality", "errors"),
    )


def test_without_parts_the_whole_is_one(values):
    del values["parts"]
    values["training"]["alone"] = {"extends": "low"}
    config = parse_config(values, "my.yaml")
    (whole,) = parts_of(config)
    assert (whole.name, whole.training) == ("study", ("low", "high", "alone"))
    assert whole.sections == ("checks", "hierarchy", "evaluations.ratios", "evaluations.errors")


@pytest.mark.parametrize(
    ("parts", "field", "says"),
    [
        ({"theory": ["checks", "hierarchy", "ising"]}, "parts.theory", "'ising'"),
        ({"theory": ["checks", "datasets.leaves"]}, "parts.theory", "'datasets.leaves'"),
        ({"theory": ["checks", "hierarchy", "evaluations.errors"]}, "parts.models", "theory"),
        ({"theory": ["checks"]}, "parts", "hierarchy"),
        ({"theory": ["checks"], "training": ["hierarchy"]}, "parts.training", "choose another"),
        ({"theory": ["checks"], "draw_reach": ["hierarchy"]}, "parts.draw_reach", "choose another"),
        ({"theory": ["checks", "checks"]}, "parts.theory", "twice"),
    ],
)
def test_parts_that_do_not_divide_the_study_are_refused(values, parts, field, says):
    values["parts"] |= parts
    error = refused(values)
    assert error.problem.startswith(f"{field}: ")
    assert says in f"{error.problem} {error.hint}"


def test_a_training_that_no_part_evaluates_is_refused(values):
    values["training"]["alone"] = {"extends": "low"}
    assert refused(values).problem.startswith("training.alone: ")


def test_no_part_can_have_the_name_of_a_rule(values):
    text = "\n".join(path.read_text() for path in (ROOT / "workflow").rglob("*") if path.is_file())
    named = re.findall(r"^rule (\w+):", text, flags=re.MULTILINE)
    made = re.findall(r"name:\s+f\"(\w+)\{(\w+)\}\"", text)
    names = {"notebook": {kind.notebook for kind in declared_figures().values()}, "measure": MEASURES}
    rules = {*named, *(prefix + name for prefix, wildcard in made for name in names[wildcard])}
    assert {"all", "report", "draw_reach", "evaluate_linear_probe"} <= rules
    for rule in rules:
        changed = deepcopy(values)
        changed["parts"][rule] = changed["parts"].pop("theory")
        assert refused(changed).problem.startswith(f"parts.{rule}: "), rule


def test_the_parts_of_cifar10_make_all_its_tables():
    config = load_config(ROOT / "config" / "cifar10.yaml")
    parts = parts_of(config)
    made = [table for part in parts for table in part.tables]
    assert len(set(made)) == len(made)
    for table in {table for table, _ in made}:
        of_trainings = set(config.training) if table == COSTS else set()
        expected = sorted(set(subjects_with(config, table)) - of_trainings)
        assert sorted(subject for name, subject in made if name == table) == expected
    assert {name for part in parts for name in part.training} == set(config.training)


# What sources and analyses say of themselves.


@pytest.mark.parametrize("source", get_args(get_args(Source)[0]), ids=lambda source: source.__name__)
def test_a_source_has_its_function_which_takes_its_fields(source):
    from importlib import import_module
    from inspect import signature

    (kind,) = get_args(source.model_fields["kind"].annotation)
    takes = set(signature(getattr(import_module(f"spatialmae.data.{source.module}"), kind)).parameters)
    given = {*source.model_fields, *["seed"] * source.takes_seed, *["cache"] * source.downloads} - {"kind"}
    assert given <= takes
    assert ("seed" in takes, "cache" in takes) == (source.takes_seed, source.downloads)


def test_an_analysis_has_its_stage_and_a_subject_in_each_table(values):
    from importlib.util import find_spec

    settings = {"groups": 2, "patch_sizes": [4], "n_components": [4], "analyses": list(DATASET_ANALYSES)}
    values["datasets"]["leaves"] |= settings
    del values["parts"]
    config: Config = parse_config(values, "my.yaml")
    for analysis in DATASET_ANALYSES.values():
        assert find_spec(f"spatialmae.stages.{analysis.stage}")
        for table in analysis.tables:
            assert subjects_with(config, table) == ["leaves"]
    assert subjects_with(config, "linear_sweep") == ["leaves"]
    values["datasets"]["leaves"]["analyses"] = ["statistics", "sampling"]
    assert subjects_with(parse_config(values, "my.yaml"), "sweep") == []
