from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from scipy import stats

from claims_folder import write_claims
from figure_checks import check_text, labels, level, line, run_notebook_cells
from model_tables import (
    CROSS,
    EPOCHS,
    EVALUATED,
    OBJECTIVES,
    RATIOS,
    SEEDS,
    make_basis,
    make_fine_tuning,
    make_models,
    make_probe,
    make_profile,
    make_reach,
    make_runs,
    make_second_order,
    make_training,
    split_costs,
)
from spatialmae.artifacts import write_tensors
from spatialmae.config import load_config
from spatialmae.figures import nonlinear, theme
from spatialmae.figures.declaration import declared_figures, drawn_figures
from spatialmae.figures.drawing import control_range
from spatialmae.figures.training import HIDDEN
from spatialmae.layout import Layout, subjects_with
from spatialmae.tables import write_table

pytestmark = pytest.mark.slow  # many pictures
ROOT = Path(__file__).parents[1]
ABOUT = {"run": "leaves-p4", "mask_ratio": 0.75, "evaluation_mask_ratio": 0.75}


def make_pictures(n_images: int = 4, n_directions: int = 4, channels: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    hidden = np.repeat(np.repeat(rng.permutation(16).reshape(4, 4) < 12, 4, 0), 4, 1)
    influence = np.where(hidden, 0, rng.random((n_images + 1, 16, 16)) ** 9)
    directions = np.where(hidden[..., None], 0, rng.standard_normal((n_images + 1, n_directions, 16, 16, channels)))
    return {
        "images": rng.integers(0, 256, (n_images, 16, 16, channels), dtype=np.uint8),
        "hidden": hidden,
        "output": np.argwhere(hidden)[len(np.argwhere(hidden)) // 2],
        "influence": influence[:-1].astype(np.float32),
        "linear/influence": influence[-1].astype(np.float32),
        "inputs": directions[:-1].astype(np.float32),
        "linear/inputs": directions[-1].astype(np.float32),
    }


def draw(runs: pd.DataFrame, **options: bool) -> dict[str, Callable[[], Figure]]:
    """All figures of some runs."""
    return {
        "nonlinear_reach": lambda: nonlinear.nonlinear_reach(make_reach(runs, **options), "ratios"),
        "nonlinear_profile": lambda: nonlinear.nonlinear_profile(make_profile(runs, **options), "ratios"),
        "agreement": lambda: nonlinear.agreement(make_reach(runs, **options), "ratios"),
        "basis": lambda: nonlinear.basis(make_basis(runs, **options), "ratios"),
        "basis_training": lambda: nonlinear.basis_training(make_training(runs), "ratios"),
        "beyond_second_order": lambda: nonlinear.beyond_second_order(make_second_order(runs), (None, None), "ratios"),
    }


CASES = {
    "several ratios": (make_runs(), {}),
    "one ratio of one seed": (make_runs((0.75,), 1), {}),
    "a ratio that no mask evaluates": (make_runs((0.9,), 2), {}),
    "two patch sizes": (make_runs(RATIOS[2:4], 2, (2, 4)), {}),
    "no untrained networks": (make_runs(RATIOS[2:4], 2), {"untrained": False}),
    "patch sizes at one ratio": (make_runs((0.75,), 2, (2, 4, 8)), {}),
    "a cross": (make_models(CROSS, 2), {}),
    "objectives": (make_models(OBJECTIVES, 2), {}),
}
NAMES = list(draw(make_runs()))


@pytest.fixture(autouse=True, scope="module")
def themed() -> None:
    theme.use_theme()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_figure_draws_without_warnings_and_its_text_is_readable_and_inside(name: str, case: str) -> None:
    runs, options = CASES[case]
    figure = check_text(draw(runs, **options)[name])
    if case != "a ratio that no mask evaluates":
        assert f"n = {runs['seed'].nunique()} seed" in " ".join(figure.get_supxlabel().split())


def test_reach_has_a_column_for_each_evaluation_ratio_and_the_references_of_that_ratio() -> None:
    table = make_reach(make_runs())
    axes = nonlinear.nonlinear_reach(table, "ratios").axes
    assert len(axes) == 2 * len(EVALUATED)
    for axis, (value, ratio) in zip(axes, itertools.product(("rms_radius_squared", "entropy"), EVALUATED), strict=True):
        rows = table[table["evaluation_mask_ratio"] == ratio]
        means = {kind: part[value].mean() for kind, part in rows.groupby("predictor")}
        expected = rows[rows["predictor"] == "trained"].groupby("mask_ratio")[value].mean()
        np.testing.assert_allclose(line(axis, "trained MAE"), np.column_stack([expected.index, expected]))
        assert level(axis, "best linear predictor") == pytest.approx(means["linear"])
        assert level(axis, "untrained") == pytest.approx(means["untrained"])
    assert [axis.get_title() for axis in axes[:3]] == ["evaluated at 0.25", "evaluated at 0.5", "evaluated at 0.75"]
    assert [axes[0].get_ylabel()[-4:], axes[3].get_ylabel()[-6:]] == ["(px)", "(nats)"]


def test_each_patch_size_has_a_line_and_an_untrained_network_of_its_own() -> None:
    table = make_reach(make_runs(RATIOS, 3, (2, 4)))
    axis = nonlinear.nonlinear_reach(table, "patches").axes[0]
    kinds = ["patch 2 px", "untrained, patch 2 px", "patch 4 px", "untrained, patch 4 px"]
    assert labels(axis) == [*kinds, "best linear predictor"]
    rows = table[(table["evaluation_mask_ratio"] == 0.25) & (table["patch_size"] == 4)]
    means = rows.groupby(["predictor", "mask_ratio"])["rms_radius_squared"].mean()
    np.testing.assert_allclose(line(axis, "patch 4 px")[:, 1], means["trained"])
    assert level(axis, "untrained, patch 4 px") == pytest.approx(means["untrained"].item())


def test_profile_leaves_out_distances_without_a_visible_input_and_shows_the_ratio_nearest_to_three_quarters() -> None:
    runs = make_runs()
    table = make_profile(runs)
    table = table[table["evaluation_mask_ratio"] < 0.75]
    figure = nonlinear.nonlinear_profile(table, "ratios")
    assert "evaluated at ratio 0.5" in figure.get_supxlabel()
    axis = figure.axes[0]
    assert labels(axis) == [*(f"m = {ratio:g}" for ratio in RATIOS), "best linear predictor"]
    shown = table[(table["evaluation_mask_ratio"] == 0.5) & table["distance"].between(1, 14)]
    for label, rows in {
        "m = 0.9": shown[(shown["predictor"] == "trained") & (shown["mask_ratio"] == 0.9)],
        "best linear predictor": shown[shown["predictor"] == "linear"],
    }.items():
        expected = rows.groupby("distance")["mean_abs"].mean()
        np.testing.assert_allclose(line(axis, label), np.column_stack([expected.index, expected]))
    assert axis.get_yscale() == "log"


def test_agreement_has_a_point_for_each_model_at_its_own_ratio_and_the_rank_correlations() -> None:
    table = make_reach(make_runs()).sample(frac=1, random_state=0)
    figure = nonlinear.agreement(table, "ratios")
    axis = figure.axes[0]
    found = {}
    for kind, own in (("trained", True), ("untrained", False)):
        rows = table[table["predictor"] == kind]
        rows = rows[rows["mask_ratio"] == rows["evaluation_mask_ratio"]] if own else rows
        linear = table[table["predictor"] == "linear"].set_index(["seed", "evaluation_mask_ratio"])[
            "rms_radius_squared"
        ]
        keys = list(zip(rows["seed"], rows["evaluation_mask_ratio"], strict=True))
        found[kind] = np.column_stack([linear[keys], rows["rms_radius_squared"]])
    assert labels(axis) == ["untrained", *(f"m = {ratio:g}" for ratio in EVALUATED), "identity"]
    drawn = np.vstack([line(axis, f"m = {ratio:g}") for ratio in EVALUATED])
    assert len(drawn) == len(EVALUATED) * SEEDS
    for points, expected in ((drawn, found["trained"]), (line(axis, "untrained"), found["untrained"])):
        np.testing.assert_allclose(points[np.lexsort(points.T)], expected[np.lexsort(expected.T)])
    rho = {kind: f"{stats.spearmanr(*points.T).statistic:.2f}" for kind, points in found.items()}
    text = " ".join(figure.get_supxlabel().split())
    assert f"Spearman ρ of the models {rho['trained']}, of untrained networks {rho['untrained']}." in text
    assert axis.get_xlim() == axis.get_ylim()
    assert axis.get_xlim()[0] < drawn.min() < drawn.max() < axis.get_xlim()[1]


def test_a_rank_correlation_of_two_models_is_called_undefined() -> None:
    text = nonlinear.agreement(make_reach(make_runs((0.75,), 2), untrained=False), "one").get_supxlabel()
    assert "Spearman ρ of the models undefined" in " ".join(text.split())
    assert "untrained" not in text


def test_basis_is_drawn_at_one_evaluation_ratio_and_notes_the_control() -> None:
    table = make_basis(make_runs())
    figure = nonlinear.basis(table, "ratios")
    rows = table[table["evaluation_mask_ratio"] == 0.75]
    values = ["dispersion", "object_log_ratio", "expansion_error"]
    for axis, value in zip(figure.axes, values, strict=True):
        expected = rows[rows["predictor"] == "trained"].groupby("mask_ratio")[value].mean()
        np.testing.assert_allclose(line(axis, "trained MAE"), np.column_stack([expected.index, expected]))
        assert level(axis, "untrained") == pytest.approx(rows.loc[rows["predictor"] == "untrained", value].mean())
    assert level(figure.axes[0], "best linear predictor") == 0
    assert "best linear predictor" not in labels(figure.axes[2]), "its expansion is exact and not in the table"
    text = " ".join(figure.get_supxlabel().split())
    assert "evaluated at ratio 0.75" in text
    assert "in reverse order the expansion's error is 1.4 to 1.4" in text


def test_without_segmentations_the_object_panel_is_left_out() -> None:
    figure = nonlinear.basis(make_basis(make_runs(), objects=False), "digits")
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["Change from image to image", "First-order expansion"]


def test_reach_of_a_cross_has_a_column_for_each_setting_with_untrained_networks_along_it() -> None:
    runs = make_models([{}, {"patch_size": 8}, {"mask_ratio": 0.5}], 3)
    # As in the table, which has the network that the two patches of 4 px begin as once, as that of the first run.
    table = make_reach(runs.sort_values("mask_ratio"))
    figure = nonlinear.nonlinear_reach(table, "cross")
    assert [axis.get_xlabel() for axis in figure.axes[2:]] == ["patch size (px)", "training ratio m"]
    assert "baseline: patch 4 px, m = 0.75; others change one" in " ".join(figure.get_supxlabel().split())
    rows = table[table["evaluation_mask_ratio"] == 0.75]
    means = rows.groupby(["predictor", "patch_size", "mask_ratio"])["rms_radius_squared"].mean()
    patches, ratios = figure.axes[:2]
    trained = means["trained"]
    np.testing.assert_allclose(line(patches, "trained MAE"), [[4, trained[4, 0.75]], [8, trained[8, 0.75]]])
    np.testing.assert_allclose(line(ratios, "trained MAE"), [[0.5, trained[4, 0.5]], [0.75, trained[4, 0.75]]])
    untrained = means["untrained"]
    np.testing.assert_allclose(line(patches, "untrained"), [[4, untrained[4, 0.5]], [8, untrained[8, 0.75]]])
    assert level(ratios, "untrained") == pytest.approx(untrained[4, 0.5])


def test_basis_of_a_cross_has_a_row_for_each_setting() -> None:
    figure = nonlinear.basis(make_basis(make_models(CROSS)), "depth")
    found = [axis.get_xlabel() for axis in figure.axes]
    assert found == ["encoder depth (blocks)"] * 3 + ["decoder depth (blocks)"] * 3
    assert [len(line(axis, "trained MAE")) for axis in figure.axes] == [3, 3, 3, 4, 4, 4]


def test_models_that_no_number_orders_stand_side_by_side_without_a_line() -> None:
    table = make_reach(make_models(OBJECTIVES))
    figure = nonlinear.nonlinear_reach(table, "objectives")
    axis = figure.axes[-1]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["AE", "DAE", "MAE"]
    drawn = {item.get_label(): item for item in axis.lines}
    assert drawn["trained model"].get_linestyle() == "None"
    np.testing.assert_array_equal(drawn["trained model"].get_xdata(), [0, 1, 2])
    # Autoencoders begin as one network, the MAE without bottleneck as another.
    assert drawn["untrained"].get_linestyle() == "None"
    np.testing.assert_array_equal(drawn["untrained"].get_xdata(), [0, 2])


def test_training_is_drawn_over_the_logarithm_of_epochs_with_untrained_networks_apart_at_the_left() -> None:
    table = make_training(make_runs((0.5, 0.9)))
    axis = nonlinear.basis_training(table, "ratios").axes[0]
    expected = table[table["mask_ratio"] == 0.9].groupby("epoch")["rms_radius_squared"].mean()
    np.testing.assert_allclose(line(axis, "m = 0.9"), np.column_stack([np.log2(EPOCHS[1:]), expected[1:]]))
    alone = [item.get_xydata() for item in axis.lines if item.get_linestyle() == "None"]
    np.testing.assert_allclose(alone[1], [[-1, expected[0]]])
    ticks = [text.get_text() for text in axis.get_xticklabels()]
    assert ticks == ["un-\ntrained", "1", "2", "4", "6"]
    assert labels(axis) == ["m = 0.5", "m = 0.9"]


def test_models_stand_against_the_bound_on_the_images_they_learned() -> None:
    table = make_second_order(make_runs())
    axis = nonlinear.beyond_second_order(table, (None, None), "ratios").axes[0]
    for label, surrogate, images, value in (
        ("test images", "none", "test", "log_ratio_expected"),
        ("control: surrogate images", "gaussian", "surrogate", "log_ratio_expected"),
        ("test images, ridge as bound", "none", "test", "log_ratio_ridge"),
    ):
        rows = table[(table["surrogate"] == surrogate) & (table["images"] == images)]
        expected = rows.groupby("mask_ratio")[value].mean()
        np.testing.assert_allclose(line(axis, label), np.column_stack([expected.index, expected]))
    assert level(axis, "bound of second moments") == 0
    table = make_second_order(make_runs(), surrogate=False)
    alone = nonlinear.beyond_second_order(table, (None, None), "ratios").axes[0]
    assert labels(alone) == ["test images", "test images, ridge as bound", "bound of second moments"]


@pytest.mark.parametrize("bounds", [(-0.2, 0.02), (None, 0.3), (-0.3, None)])
def test_range_of_a_valid_control_is_a_band_that_ends_at_its_bounds_or_the_frame(
    bounds: tuple[float | None, float | None],
) -> None:
    axis = nonlinear.beyond_second_order(make_second_order(make_runs()), bounds, "ratios").axes[0]
    box = axis.patches[0].get_extents().transformed(axis.transData.inverted())
    expected = [end if bound is None else bound for end, bound in zip(axis.get_ylim(), bounds, strict=True)]
    np.testing.assert_allclose([box.y0, box.y1], expected)


def write_configuration(folder: Path, tests: dict[str, dict[str, str]]) -> Path:
    """A resolved configuration named smoke, and a ledger whose claim A11.1 has these tests."""
    claim = {
        **{"id": "A11.1", "section": "x", "statement": "x", "tier": "note", "type": "ordering"},
        **{"paper_value": "x", "design": "x", "planned": "x", "tests": tests},
        "rule": {"smallest_effect": 0.1},
        "estimand": {
            "table": "second_order",
            "value": "log_ratio",
            "arms": [{"mask_ratio": 0.75}],
            "control": {"where": {"images": "surrogate"}, "min": -0.2, "max": 0.02},
        },
    }
    ledger = write_claims(folder / "claims", [claim], designs={"x": "x"}, first_seed=200)
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text(encoding="utf-8"))
    config["claims"] = {"ledger": str(ledger)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "config.yaml"


def test_range_of_the_control_is_that_of_the_ledger_where_the_evaluation_tests_the_claim(tmp_path: Path) -> None:
    test = {"dataset": "surrogate", "fidelity": "scaled"}
    config = write_configuration(tmp_path, {"smoke": test})
    assert control_range(config, "A11.1", "surrogate") == (-0.2, 0.02)
    assert control_range(config, "A11.1", "ratios") == (None, None)
    assert control_range(config, "A11.2", "surrogate") == (None, None)
    config = write_configuration(tmp_path, {"cifar10": test})
    assert control_range(config, "A11.1", "surrogate") == (None, None)


@pytest.mark.parametrize(("n_images", "n_directions", "channels"), [(4, 4, 3), (2, 1, 1), (1, 0, 3)])
def test_pictures_of_the_basis_have_a_row_for_each_image_and_one_for_the_linear_predictor(
    n_images: int, n_directions: int, channels: int
) -> None:
    tensors = make_pictures(n_images, n_directions, channels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = nonlinear.basis_pictures((tensors, ABOUT), "ratios")
        figure.draw_without_rendering()
    tiles = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    columns = 2 + n_directions
    assert len(tiles) == (n_images + 1) * columns
    hidden = tensors["hidden"]
    for seen, influence in zip(tiles[::columns], tiles[1::columns], strict=True):
        assert (seen[hidden] == HIDDEN).all()
        assert (influence[hidden] == HIDDEN).all()
    image = np.broadcast_to(tensors["images"][0] / 255, (16, 16, 3))
    np.testing.assert_allclose(tiles[0][~hidden], image[~hidden])
    # The linear predictor looks at no image.
    assert len(np.unique(tiles[-columns][~hidden])) == 1
    if channels == 1:
        np.testing.assert_array_equal(tiles[2], tensors["inputs"][0, 0, ..., 0])
        np.testing.assert_array_equal(tiles[-1], tensors["linear/inputs"][-1, ..., 0])
    for text in [*figure.texts, *(t for axes in figure.axes for t in (*axes.texts, axes.title, axes.xaxis.label))]:
        box = text.get_window_extent()
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, text.get_text()
    note = figure._supxlabel.get_window_extent()
    assert all(axes.get_tightbbox().y0 >= note.y1 for axes in figure.axes if axes.axison)


def test_influence_is_on_one_scale_in_all_pictures() -> None:
    tensors = make_pictures(2)
    tensors["influence"][1] = tensors["influence"][0] / 10
    tensors["linear/influence"] = tensors["influence"][0]
    tiles = [axes.images[0].get_array() for axes in nonlinear.basis_pictures((tensors, ABOUT), "x").axes if axes.images]
    first, tenth, linear = tiles[1::6]
    np.testing.assert_array_equal(first, linear)
    shown = tensors["influence"][0] > tensors["influence"].max() / 50
    assert (tenth[shown].sum(axis=-1) < first[shown].sum(axis=-1)).all()


def test_an_evaluation_has_the_figures_of_its_analyses_and_no_others() -> None:
    config = load_config(ROOT / "config" / "smoke.yaml")
    whole = config.evaluations["ratios"].model_copy(update={"analyses": ["jacobian"]})
    part = whole.model_copy(update={"analyses": ["linear_probe"]})
    changed = config.model_copy(update={"evaluations": {"ratios": part, "late": whole}})
    assert subjects_with(changed, "linear_probe") == ["ratios"]
    assert subjects_with(changed, "jacobian_basis") == ["late"]
    of_probe = {figure.stem for figure in drawn_figures(changed, "nonlinear") if figure.subject == "ratios"}
    assert of_probe == {"model_probe_ratios", "proxy_ratios"}
    assert drawn_figures(config.model_copy(update={"evaluations": {}}), "nonlinear") == []


def test_an_evaluation_of_one_kind_of_model_has_no_figure_that_compares_kinds() -> None:
    config = load_config(ROOT / "config" / "smoke.yaml")
    stage = config.training["ratios"].model_copy(update={"grid": {"mask_ratio": [0.5]}})
    evaluation = config.evaluations["ratios"].model_copy(update={"analyses": ["linear_probe"], "models": ["ratios"]})
    changed = config.model_copy(update={"training": {"ratios": stage}, "evaluations": {"one": evaluation}})
    assert [figure.stem for figure in drawn_figures(changed, "nonlinear")] == ["model_probe_one"]


def test_cells_of_the_notebook_write_the_figures_of_the_tables_there_are(tmp_path: Path) -> None:
    runs = make_runs((0.5, 0.75), 2)
    tables = {
        "jacobian_reach": make_reach(runs),
        "jacobian_profile": make_profile(runs),
        "jacobian_basis": make_basis(runs),
        "jacobian_training": make_training(runs),
        "second_order": make_second_order(runs),
        "linear_probe": make_probe(runs),
        "linear_probe_neighbours": make_probe(runs),
    }
    tables["fine_tuning"], costs = split_costs(make_fine_tuning(runs, (0, None)))
    write_table(tmp_path / "tables" / "costs" / "fine_tuning_ratios.csv", costs)
    for name, table in tables.items():
        write_table(tmp_path / "tables" / name / "ratios.csv", table)
    write_table(tmp_path / "tables" / "second_order" / "surrogate.csv", tables["second_order"])
    write_tensors(Layout(tmp_path, tmp_path).pictures("jacobian", "ratios"), make_pictures(), ABOUT)
    write_configuration(tmp_path, {"smoke": {"dataset": "surrogate", "fidelity": "scaled"}})
    figures = [kind.name for kind in declared_figures().values() if kind.notebook == "nonlinear"]
    subjects = dict.fromkeys(figures, ("ratios",)) | {"beyond_second_order": ["ratios", "surrogate"]}
    del subjects["convergence"]  # along the patch size
    run_notebook_cells("nonlinear", tmp_path, subjects)
