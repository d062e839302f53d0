from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from spatialmae.artifacts import write_tensors
from spatialmae.config import load_config
from spatialmae.figures import nonlinear, theme
from spatialmae.figures.catalogue import datasets_with, drawn_figures
from spatialmae.figures.training import HIDDEN
from spatialmae.tables import write_table

ROOT = Path(__file__).parents[1]
RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9)
EVALUATED = (0.25, 0.5, 0.75)
SEEDS = 5
EPOCHS = (0, 1, 2, 4, 6)
FIXED = {"dataset": "leaves", "masking": "fixed", "bottleneck": np.nan, "noise_std": 0.0, "surrogate": "none"}


def grid(**keys: object) -> pd.DataFrame:
    """All combinations of the keys' values."""
    return pd.DataFrame(itertools.product(*keys.values()), columns=list(keys))


def jitter(table: pd.DataFrame, scale: float = 0.02) -> np.ndarray:
    """Multiplicative noise that differs between rows."""
    return 1 + scale * np.random.default_rng(0).standard_normal(len(table))


def make_runs(ratios: tuple[float, ...] = RATIOS, seeds: int = SEEDS, patches: tuple[int, ...] = (4,)) -> pd.DataFrame:
    table = grid(patch_size=patches, mask_ratio=ratios, seed=range(seeds))
    return table.assign(name=table.astype(str).agg("-".join, axis=1), mask_unit=table["patch_size"], **FIXED)


def evaluated(runs: pd.DataFrame, *, untrained: bool = True) -> pd.DataFrame:
    """Rows of trained, untrained and linear predictors under masks of every evaluation ratio."""
    ratios = pd.DataFrame({"evaluation_mask_ratio": EVALUATED})
    initial = runs.drop_duplicates(["patch_size", "seed"]) if untrained else runs[:0]
    parts = [runs.assign(predictor="trained"), initial.assign(predictor="untrained")]
    return pd.concat([*parts, runs[["seed"]].drop_duplicates().assign(predictor="linear")]).merge(ratios, how="cross")


def make_reach(runs: pd.DataFrame, *, untrained: bool = True) -> pd.DataFrame:
    table = evaluated(runs, untrained=untrained)
    radius = 5 + table["evaluation_mask_ratio"] + 3 * table["mask_ratio"].fillna(0) + table["patch_size"].fillna(0) / 4
    radius = radius * jitter(table)
    return table.assign(rms_radius_squared=radius, entropy=3 + radius / 10)


def make_profile(runs: pd.DataFrame, *, untrained: bool = True) -> pd.DataFrame:
    table = make_reach(runs, untrained=untrained).merge(pd.DataFrame({"distance": np.arange(20.0)}), how="cross")
    decayed = np.exp(-table["distance"] / table["rms_radius_squared"])
    return table.assign(mean_abs=np.where(table["distance"] > 0, decayed * 1e-2, 0.0))


def make_basis(runs: pd.DataFrame, *, untrained: bool = True, objects: bool = True) -> pd.DataFrame:
    table = evaluated(runs, untrained=untrained)
    linear = table["predictor"] == "linear"
    table["dispersion"] = np.where(linear, 0.0, 0.4 * jitter(table))
    table["object_log_ratio"] = np.where(linear, 0.05, 0.3) * jitter(table) if objects else np.nan
    table["expansion_error"] = np.where(linear, np.nan, 0.1 * jitter(table))
    control = table[~linear].assign(predictor=lambda t: t["predictor"] + ", reversed", expansion_error=1.4)
    return pd.concat([table, control.assign(dispersion=np.nan, object_log_ratio=np.nan)])


def make_training(runs: pd.DataFrame) -> pd.DataFrame:
    table = runs.merge(pd.DataFrame({"epoch": EPOCHS}), how="cross").assign(evaluation_mask_ratio=0.75)
    return table.assign(rms_radius_squared=(4 + table["mask_ratio"] * np.log2(1 + table["epoch"])) * jitter(table))


def make_second_order(runs: pd.DataFrame, *, surrogate: bool = True) -> pd.DataFrame:
    both = [runs, *([runs.assign(surrogate="gaussian", name=runs["name"] + "g")] if surrogate else [])]
    table = pd.concat(both).merge(pd.DataFrame({"images": ["test", "surrogate"]}), how="cross")
    log_ratio = np.where(table["surrogate"] == "none", 0.1, -0.01) * jitter(table)
    return table.assign(log_ratio=log_ratio, log_ratio_expected=log_ratio - 0.05)


def make_probe(runs: pd.DataFrame, targets: tuple[str, ...] = ("shape", "texture")) -> pd.DataFrame:
    table = runs.merge(pd.DataFrame({"target": targets}), how="cross")
    return table.assign(accuracy=(0.3 + 0.1 * table["mask_ratio"]) * jitter(table), chance=0.125)


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
        "beyond_second_order": lambda: nonlinear.beyond_second_order(make_second_order(runs), "ratios"),
        "model_probe": lambda: nonlinear.model_probe(make_probe(runs), make_probe(runs), "ratios"),
    }


CASES = {
    "several ratios": (make_runs(), {}),
    "one ratio of one seed": (make_runs((0.75,), 1), {}),
    "a ratio that no mask evaluates": (make_runs((0.9,), 2), {}),
    "two patch sizes": (make_runs(RATIOS[2:4], 2, (2, 4)), {}),
    "no untrained networks": (make_runs(RATIOS[2:4], 2), {"untrained": False}),
}
NAMES = list(draw(make_runs()))


@pytest.fixture(autouse=True, scope="module")
def themed() -> None:
    theme.use_theme()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_figure_draws_without_warnings_and_its_text_is_readable_and_inside(name: str, case: str) -> None:
    runs, options = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(runs, **options)[name]()
        figure.canvas.draw()
    shown = [axes for axes in figure.axes if axes.axison]
    assert all(axes.get_xlabel() for axes in shown if axes.get_subplotspec().is_last_row())
    assert all(axes.get_ylabel() for axes in shown if axes.get_subplotspec().is_first_col())
    if case != "a ratio that no mask evaluates":
        assert f"n = {runs['seed'].nunique()} seed" in " ".join(figure.get_supxlabel().split())
    texts = [*(t for legend in figure.legends for t in legend.get_texts()), *figure.texts]
    texts += [t for axes in figure.axes for t in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    for text in filter(lambda text: text.get_text(), texts):
        box = text.get_window_extent()
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, text.get_text()
        assert text.get_fontsize() >= 7
    assert figure.get_figwidth() in (theme.COLUMN_WIDTH, theme.DOUBLE_WIDTH)


def line(axes: Axes, label: str) -> np.ndarray:
    """Points (x, y) of the one line with a label."""
    found = [item for item in axes.lines if item.get_label() == label]
    assert len(found) == 1, label
    return np.asarray(found[0].get_xydata())


def level(axes: Axes, label: str) -> float:
    """Height of the one horizontal line with a label."""
    heights = set(line(axes, label)[:, 1])
    assert len(heights) == 1
    return heights.pop()


def labels(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


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
    axis = nonlinear.beyond_second_order(table, "ratios").axes[0]
    for label, surrogate, images, value in (
        ("test images", "none", "test", "log_ratio_expected"),
        ("control: surrogate images", "gaussian", "surrogate", "log_ratio"),
    ):
        rows = table[(table["surrogate"] == surrogate) & (table["images"] == images)]
        expected = rows.groupby("mask_ratio")[value].mean()
        np.testing.assert_allclose(line(axis, label), np.column_stack([expected.index, expected]))
    assert level(axis, "bound of second moments") == 0
    alone = nonlinear.beyond_second_order(make_second_order(make_runs(), surrogate=False), "ratios").axes[0]
    assert labels(alone) == ["test images", "bound of second moments"]


@pytest.mark.parametrize("bounds", [(-0.2, 0.02), (None, 0.3), (-0.3, None)])
def test_range_of_a_valid_control_is_a_band_that_ends_at_its_bounds_or_the_frame(
    bounds: tuple[float | None, float | None],
) -> None:
    axis = nonlinear.beyond_second_order(make_second_order(make_runs()), "ratios", *bounds).axes[0]
    box = axis.patches[0].get_extents().transformed(axis.transData.inverted())
    expected = [end if bound is None else bound for end, bound in zip(axis.get_ylim(), bounds, strict=True)]
    np.testing.assert_allclose([box.y0, box.y1], expected)


def test_probes_have_a_row_for_each_target_and_chance() -> None:
    linear = make_probe(make_runs())
    neighbours = linear.assign(accuracy=linear["accuracy"] - 0.1, chance=0.2)
    axes = nonlinear.model_probe(linear, neighbours, "ratios").axes
    assert [axis.get_title() for axis in axes] == ["linear probe", "k nearest neighbours", "", ""]
    assert [axes[i].get_ylabel() for i in (0, 2)] == ["accuracy, shape\n(fraction)", "accuracy, texture\n(fraction)"]
    cells = itertools.product(("shape", "texture"), (linear, neighbours))
    for axis, (target, table) in zip(axes, cells, strict=True):
        rows = table[table["target"] == target]
        expected = rows.groupby("mask_ratio")["accuracy"].mean()
        np.testing.assert_allclose(line(axis, "trained MAE"), np.column_stack([expected.index, expected]))
        assert level(axis, "chance") == pytest.approx(rows["chance"].mean())


@pytest.mark.parametrize(("n_images", "n_directions", "channels"), [(4, 4, 3), (2, 1, 1), (1, 0, 3)])
def test_pictures_of_the_basis_have_a_row_for_each_image_and_one_for_the_linear_predictor(
    n_images: int, n_directions: int, channels: int
) -> None:
    tensors = make_pictures(n_images, n_directions, channels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = nonlinear.basis_pictures(tensors, ABOUT, "ratios")
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
    tiles = [axes.images[0].get_array() for axes in nonlinear.basis_pictures(tensors, ABOUT, "x").axes if axes.images]
    first, tenth, linear = tiles[1::6]
    np.testing.assert_array_equal(first, linear)
    shown = tensors["influence"][0] > tensors["influence"].max() / 50
    assert (tenth[shown].sum(axis=-1) < first[shown].sum(axis=-1)).all()


def test_models_that_differ_in_any_setting_are_told_apart_by_it() -> None:
    runs = make_runs((0.5, 0.75), 2)
    both = pd.concat([runs, runs.assign(masking="bernoulli", bottleneck=8.0, name=runs["name"] + "b")])
    axis = nonlinear.model_probe(make_probe(both), make_probe(both), "both").axes[0]
    assert labels(axis) == ["masking bernoulli, bottleneck 8", "masking fixed, no bottleneck", "chance"]


def test_an_evaluation_has_the_figures_of_its_analyses_and_no_others() -> None:
    config = load_config(ROOT / "config" / "smoke.yaml")
    part = config.evaluations["ratios"].model_copy(update={"analyses": ["probe"]})
    changed = config.model_copy(update={"evaluations": {"ratios": part, "late": config.evaluations["ratios"]}})
    assert datasets_with(changed, "linear_probe") == [
        name for name, evaluation in changed.evaluations.items() if "probe" in evaluation.analyses
    ]
    assert datasets_with(changed, "model_basis") == ["late"]
    assert {figure.stem for figure in drawn_figures(changed, "nonlinear") if figure.dataset == "ratios"} == {
        "model_probe_ratios"
    }
    assert drawn_figures(config.model_copy(update={"evaluations": {}}), "nonlinear") == []


def test_cells_of_the_notebook_write_the_figures_of_the_tables_there_are(tmp_path: Path) -> None:
    runs = make_runs((0.5, 0.75), 2)
    tables = {
        "model_reach": make_reach(runs),
        "model_profile": make_profile(runs),
        "model_basis": make_basis(runs),
        "reach_in_training": make_training(runs),
        "second_order": make_second_order(runs),
        "linear_probe": make_probe(runs),
        "nearest_neighbours": make_probe(runs),
    }
    for name, table in tables.items():
        write_table(tmp_path / "tables" / name / "ratios.csv", table)
    write_table(tmp_path / "tables" / "second_order" / "surrogate.csv", tables["second_order"])
    write_tensors(tmp_path / "evaluation" / "ratios.safetensors", make_pictures(), ABOUT)
    notebook = json.loads((ROOT / "notebooks" / "nonlinear.ipynb").read_text(encoding="utf-8"))
    first, *cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    scope: dict[str, object] = {}
    exec(first, scope)
    assert set(scope) - {"__builtins__"} == {"tables", "figures", "artifacts", "evaluations", "name"}
    scope |= {"tables": str(tmp_path / "tables"), "figures": str(tmp_path / "figures"), "artifacts": str(tmp_path)}
    scope |= {"evaluations": ["ratios", "surrogate", "missing"], "name": "test"}
    for cell in cells:
        exec(cell, scope)
    expected = {*(f"{name}_ratios" for name in (*NAMES, "basis_pictures")), "beyond_second_order_surrogate"}
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert written == {f"{stem}.{kind}" for stem in expected for kind in ("svg", "png")}
