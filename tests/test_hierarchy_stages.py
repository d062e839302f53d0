"""The theory of latent hierarchies as stages: what the tables hold, and the figures drawn from them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from figure_checks import run_notebook_cells
from spatialmae.config import load_config, parse_config
from spatialmae.errors import UserError
from spatialmae.figures import hierarchy as figures
from spatialmae.hierarchy.mechanisms import GRAPHS, HierarchicalModel
from spatialmae.layout import Layout
from spatialmae.stages import hierarchy, identifiability
from spatialmae.tables import read_table

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    values = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text()) | {"calibration": []}
    values["results"] = str(tmp_path_factory.mktemp("results"))
    values["identifiability"] |= {"counterexamples": True, "n_train": 500, "steps": 10, "random_mask_steps": 10}
    return values


@pytest.fixture(scope="module")
def config(values):
    config = parse_config(values, "test")
    hierarchy.run(config)
    identifiability.run(config)
    return config


def table(config, name):
    return read_table(Layout.of(config).table(name, "hierarchy"))


def test_theorem_1_holds_and_its_controls_fail(config):
    rows = table(config, "hierarchy_theorem")
    assert sorted(rows["seed"].unique()) == [0, 1]
    assert (rows.loc[rows["role"] == "claim", "relative_error"] == 0).all()
    assert (rows.loc[rows["role"] == "control", "relative_error"] > 0.1).all()


def test_levels_have_a_row_for_each_tree_patch_size_ratio_and_seed(config):
    rows = table(config, "hierarchy_levels")
    assert rows.groupby(["tree", "patch_size", "mask_ratio"]).size().to_dict() == {
        (tree, size, ratio): 2
        for tree, sizes in (("binary", (1, 4)), ("quad", (1, 2)))
        for size in sizes
        for ratio in config.hierarchy.mask_ratios
    }
    assert rows["n_masks"].eq(50).all()


def test_identifiability_has_every_variant_from_the_same_seeds(config):
    rows = table(config, "identifiability")
    assert rows.groupby("variant")["seed"].unique().map(sorted).to_dict() == {
        "plain": [0, 1],
        "wider": [0, 1],
        "turned": [0, 1],
    }
    assert rows.loc[rows["variant"] == "wider", "extra_dims"].eq(2).all()
    plain = rows[rows["variant"] == "plain"]
    assert plain["extra_dims"].eq(0).all() and plain["turned"].isna().all()
    assert len(set(plain.groupby(["predictor", "predicted"]).size())) == 1


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_variant_of_every_graph_has_mechanisms(values, graph):
    settings = parse_config(values | {"identifiability": {"graphs": [graph], "counterexamples": True}}, "test")
    for _, cell in identifiability._cells(settings.identifiability):
        HierarchicalModel(GRAPHS[graph](), noise_scale=cell.noise_scale, turned=cell.turned, seed=0)
    assert cell.turned  # by the last variant


def test_figures_draw_what_there_is(config):
    names = ("theorem", "levels", "identifiability")
    run_notebook_cells("hierarchy", Layout.of(config).root, dict.fromkeys(names, ("hierarchy",)))
    assert len(figures.theorem(table(config, "hierarchy_theorem"), "hierarchy").axes) == 2
    levels = figures.levels(table(config, "hierarchy_levels"), "hierarchy")
    assert len(levels.axes) == 4
    assert [text.get_text() for text in levels.legends[0].get_texts()] == ["patch 1 px", "patch 2 px", "patch 4 px"]
    rows = table(config, "identifiability")
    for variants in (["plain"], ["plain", "turned", "wider"]):
        drawn = figures.identifiability(rows[rows["variant"].isin(variants)], "hierarchy")
        assert sum(axis.get_visible() for axis in drawn.axes) == len(variants)


def test_the_lowest_panel_of_each_column_names_what_is_predicted(config):
    rows = table(config, "identifiability")
    noisy = rows[rows["variant"] == "plain"].assign(noise_scale=2.0)
    figure = figures.identifiability(pd.concat([rows, noisy]), "hierarchy")
    figure.canvas.draw()
    grid = np.reshape(figure.axes, (3, 2))  # a row for each variant; of the second noise level the first alone
    for line in range(3):
        for column, lowest in enumerate((2, 0)):
            named = [tick.label1.get_visible() for tick in grid[line, column].xaxis.get_major_ticks()]
            assert all(named) if line == lowest else not any(named) or not grid[line, column].get_visible()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"binary_patch_sizes": [3]}, "hierarchy.binary_patch_sizes: 3 is no power of two below 2^6; change it"),
        ({"quad_patch_sizes": [16]}, "hierarchy.quad_patch_sizes: 16 is no power of two below 2^4; change it"),
        (
            {"quad_depth": 2, "quad_patch_sizes": [2]},
            "hierarchy.mask_ratios: 0.9 leaves none of 4 patches visible (quad, patch 2)",
        ),
    ],
)
def test_trees_without_patches_to_mask_are_refused(values, change, message):
    with pytest.raises(UserError) as error:
        parse_config(values | {"hierarchy": values["hierarchy"] | change}, "test")
    assert message in str(error.value)


def test_both_parts_may_be_left_out():
    config = load_config(ROOT / "config" / "paper.yaml")
    assert config.hierarchy is None and config.identifiability is None
