from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from scipy import stats

from figure_checks import check_layout, run_notebook_cells
from figure_checks import line as check_line
from spatialmae.analysis.settings import setting_label
from spatialmae.artifacts import write_tensors
from spatialmae.figures import claims, features, ising, probes, reach, statistics, sweep, theme, theory, training
from spatialmae.figures.declaration import declared_figures
from spatialmae.figures.svg import compact
from spatialmae.tables import write_table

RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)
PATCHES = (2, 4, 8)
RANKS = (16, 64, 256)
SEEDS = 10


def grid(**keys: object) -> pd.DataFrame:
    """All combinations of the keys' values."""
    return pd.DataFrame(itertools.product(*keys.values()), columns=list(keys))


def jitter(table: pd.DataFrame, scale: float = 0.02) -> np.ndarray:
    """Multiplicative noise that differs between rows."""
    return 1 + scale * np.random.default_rng(0).standard_normal(len(table))


def methods(seeds: int = SEEDS, patches: tuple[int, ...] = PATCHES, ranks: tuple[int, ...] = RANKS) -> pd.DataFrame:
    """The common keys, AE and DAE repeated for every patch size."""
    kinds = pd.DataFrame(
        [("ae", 0.0, 0.0), ("dae", 0.2, 0.0), *(("mae", 0.0, m) for m in RATIOS)],
        columns=["method", "noise_std", "mask_ratio"],
    )
    return kinds.merge(grid(patch_size=patches, n_components=ranks, seed=range(seeds)), how="cross")


def breadth(table: pd.DataFrame) -> pd.Series:
    """A made-up reach: AE < DAE < MAE, rising with ratio and patch size."""
    lift = table["mask_ratio"] * 4 + np.log2(table["patch_size"]) * (table["method"] == "mae")
    return 3 + lift + (table["method"] == "dae")


def make_statistics(seeds: int = SEEDS) -> pd.DataFrame:
    correlation = grid(seed=range(seeds), statistic=["correlation"], position=np.arange(24.0))
    power = grid(seed=range(seeds), statistic=["power"], position=np.arange(1, 17) / 32)
    correlation["value"] = np.exp(-correlation["position"] / 6) * jitter(correlation)
    power["value"] = 1e-3 * power["position"] ** -2.2 * jitter(power)
    return pd.concat([correlation, power])


def make_summary(seeds: int = SEEDS) -> pd.DataFrame:
    table = grid(seed=range(seeds))
    return table.assign(correlation_length=6 * jitter(table), spectrum_exponent=2.2 * jitter(table), spectrum_r2=0.99)


def by_dataset(table: pd.DataFrame) -> pd.DataFrame:
    """The table for three data sets, with values that differ."""
    values = table.columns.difference(["seed", "statistic", "position"])
    parts = {
        name: table.assign(**table[values] * f) for name, f in (("leaves", 1.0), ("photos", 1.3), ("cifar10", 0.8))
    }
    return pd.concat(parts, names=["dataset"]).reset_index("dataset")


def make_sweep(seeds: int = SEEDS) -> pd.DataFrame:
    table = grid(seed=range(seeds), mask_ratio=RATIOS, patch_size=PATCHES, n_components=(-1, *RANKS))
    rank = table["n_components"].where(table["n_components"] > 0, 3072)
    fraction = 0.02 + 0.3 / np.log2(rank) + 0.3 * table["mask_ratio"] ** 2 * np.log2(table["patch_size"]) / 3
    return table.assign(loss_fraction=fraction * jitter(table))


def make_theory(seeds: int = SEEDS) -> pd.DataFrame:
    table = grid(seed=range(seeds), check=["gradient_descent", "monte_carlo", "pca"], role=["claim", "control"])
    table = table[(table["check"] != "pca") | (table["role"] == "claim")]
    size = np.where(table["role"] == "claim", 1e-9, 0.1) * np.where(table["check"] == "pca", 0.0, 1.0)
    return table.assign(relative_error=size * np.exp(50 * (jitter(table) - 1)))


def make_features(seeds: int = SEEDS) -> pd.DataFrame:
    table = methods(seeds, ranks=(16, 64))
    kept = 0.95 - 0.1 * table["mask_ratio"] ** 2 - 4 / table["n_components"]
    redundancy = 0.2 + 0.04 * breadth(table)
    return table.assign(variance_kept=kept * jitter(table, 0.002), redundancy=redundancy * jitter(table))


def make_ising(seeds: int = SEEDS) -> pd.DataFrame:
    table = grid(
        seed=range(seeds),
        dimension=[1],
        coupling=(0.5, 1.0, 1.5),
        patch_size=(4, 8),
        mask_ratio=(0.0, *RATIOS),
        n_components=(8, 16),
        matrix=("encoder", "decoder"),
    )
    lift = 3 * table["mask_ratio"] * table["coupling"] * (table["matrix"] == "encoder")
    return table.assign(edge_centre_ratio=np.exp(lift) * jitter(table))


def make_profile(seeds: int = SEEDS) -> pd.DataFrame:
    table = make_ising(seeds).merge(pd.DataFrame({"position": range(8)}), how="cross")
    table = table[table["position"] < table["patch_size"]]
    depth = np.minimum(table["position"], table["patch_size"] - 1 - table["position"])
    return table.assign(energy=(1 + (depth == 0) * np.log(table["edge_centre_ratio"].clip(1))) * jitter(table))


def make_sampling(seeds: int = SEEDS) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = methods(seeds, ranks=(256,)).query("method == 'mae'").assign(n_images=15_000)
    lags = table.assign(rms_radius_squared=4 * jitter(table))
    return lags, table.assign(rms_radius_squared=breadth(table) * jitter(table))


def make_reach(seeds: int = SEEDS) -> pd.DataFrame:
    table = methods(seeds)
    broad = breadth(table) * jitter(table)
    outside = 1 - np.exp(-broad / table["patch_size"])
    return table.assign(
        decay_intercept=np.log(0.1),
        decay_rate=1 / broad,
        decay_r2=0.98,
        median_radius=broad,
        rms_radius_abs=broad + 3,
        rms_radius_squared=broad + 1,
        entropy=4 + broad / 6,
        entropy_outside=3.5 + broad / 6,
        share_outside_abs=outside,
        share_outside_squared=outside**2,
        median_radius_uniform=13.6,
        rms_radius_uniform=14.57,
        entropy_uniform=np.log(1024),
        entropy_outside_uniform=np.log(1024 - table["patch_size"] ** 2),
        share_outside_uniform=1 - table["patch_size"] ** 2 / 1024,
    )


def make_jacobian(seeds: int = SEEDS) -> pd.DataFrame:
    table = methods(seeds).merge(pd.DataFrame({"distance": np.arange(24.0)}), how="cross")
    return table.assign(mean_abs=0.1 * np.exp(-table["distance"] / breadth(table)) * jitter(table, 0.05))


def make_gabor(seeds: int = SEEDS) -> pd.DataFrame:
    table = methods(seeds, ranks=(16, 64)).merge(pd.DataFrame({"sigma": [1.0, 2.0, 4.0, 8.0]}), how="cross")
    return table.assign(r2=(1 - np.exp(-breadth(table) * table["sigma"] / 8)) * jitter(table))


def make_depth(seeds: int = SEEDS) -> pd.DataFrame:
    table = methods(seeds, ranks=(4, 16, 64))
    return table.assign(r2=0.04 * breadth(table) * np.log2(table["n_components"]) / 4 * jitter(table))


def make_class(seeds: int = SEEDS) -> pd.DataFrame:
    table = methods(seeds, ranks=(4, 16, 64)).merge(pd.DataFrame({"target": ["shape", "texture"]}), how="cross")
    accuracy = 0.2 + 0.01 * breadth(table) * np.log2(table["n_components"])
    return table.assign(accuracy=accuracy * jitter(table), chance=0.125)


def make_gallery(channels: int = 3) -> tuple[dict[str, np.ndarray], list[int]]:
    rng = np.random.default_rng(0)
    shape = [8, 8, channels]
    d, k = 64 * channels, 16
    names = ["ae", "dae", *(f"mae/p{p}/m{m:.2f}" for p in PATCHES for m in RATIOS)]
    tensors = {f"{name}/encoder": rng.standard_normal((d, k)).astype(np.float32) for name in names}
    tensors |= {f"{name}/decoder": rng.standard_normal((k, d)).astype(np.float32) for name in names}
    return tensors | {"mean": np.zeros(d)}, shape


def make_claims() -> tuple[pd.DataFrame, pd.DataFrame]:
    verdicts = [
        *("REPLICATED", "REPLICATED", "NULL", "CONTRADICTED", "INCONCLUSIVE", "SUGGESTIVE(+)", "INVALID"),
        *("REPLICATED", "NOT_TESTED(cifar10)", "NOT_TESTED(planned)"),
    ]
    n = len(verdicts)
    estimate = np.array([3.0, 42.0, 0.2, -2.5, 1.2, 1.8, np.nan, 3e-14, np.nan, np.nan])
    half = np.array([0.6, 4.0, 0.4, 0.7, 1.6, 2.5, np.nan, 1e-14, np.nan, np.nan])
    ledger = pd.DataFrame(
        {
            "id": [f"A{i + 1}.1" for i in range(n)],
            "paper": "A",
            "statement": [
                "The influence of an input pixel on an output pixel decays more slowly with distance in the masked "
                f"autoencoder than in the denoising autoencoder, case {i}"[: 60 + 12 * i]
                for i in range(n)
            ],
            "fidelity": "proxy",
            "estimate": estimate,
            "ci_low": estimate - half,
            "ci_high": estimate + half,
            "n_seeds": [10.0] * 8 + [np.nan] * 2,
            "verdict": verdicts,
        }
    )
    detail = ledger[["id"]].assign(
        dataset=["leaves"] * 8 + [np.nan] * 2,
        unit=["px"] * 7 + ["relative error"] + [""] * 2,
        smallest_effect=[1.0] * 7 + [np.nan] * 3,
    )
    return ledger, detail


def make_runs(seeds: int = SEEDS, patches: tuple[int, ...] = (4,)) -> pd.DataFrame:
    table = grid(mask_ratio=RATIOS, patch_size=patches, seed=range(seeds))
    names = table.astype(str).agg("-".join, axis=1)
    fixed = {"stage": "ratios", "dataset": "leaves", "masking": "fixed", "bottleneck": np.nan, "epochs": 8}
    fixed |= {"norm_pix_loss": False, "mean_image_loss": 0.9}
    return table.assign(name=names, mask_unit=table["patch_size"], **fixed)


def make_curves(runs: pd.DataFrame, images: np.ndarray) -> pd.DataFrame:
    table = runs[["name", "seed", "mask_ratio"]].merge(pd.DataFrame({"images": images}), how="cross")
    loss = (0.4 + 0.3 * table.pop("mask_ratio")) * (1 + np.exp(-table["images"] / 1e4))
    return table.assign(loss=loss * jitter(table))


def make_losses(seeds: int, patches: tuple[int, ...] = (4,)) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    runs = make_runs(seeds, patches)
    return runs, make_curves(runs, np.arange(1, 41) * 1200), make_curves(runs, np.arange(1, 9) * 6000)


def make_reconstructions(runs: pd.DataFrame, channels: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tensors = {"images": rng.integers(0, 256, (6, 8, 8, channels), dtype=np.uint8)}
    for name in runs.loc[runs["seed"] == 0, "name"]:
        tensors[f"{name}/mask"] = np.repeat(np.repeat(rng.integers(0, 2, (6, 2, 2)), 4, 1), 4, 2).astype(np.uint8)
        tensors |= {f"{name}/{part}": rng.random((6, 8, 8, channels), dtype=np.float32) for part in ("seen", "pred")}
    return tensors


FIGURES: dict[str, Callable[[int], Figure]] = {
    "correlation": lambda n: statistics.correlation(by_dataset(make_statistics(n))),
    "power_spectrum": lambda n: statistics.power_spectrum(by_dataset(make_statistics(n)), by_dataset(make_summary(n))),
    "correlation_length": lambda n: statistics.correlation_length(by_dataset(make_summary(n))),
    "theory": lambda n: theory.theory(make_theory(n), "digits"),
    "sweep": lambda n: sweep.sweep(make_sweep(n), "leaves"),
    "redundancy": lambda n: features.redundancy(make_features(n), "leaves"),
    "ising_profile": lambda n: ising.energy_profile_1d(make_profile(n), "ising"),
    "ising_edge": lambda n: ising.edge_ratio_1d(make_ising(n), "ising"),
    "reach_decay": lambda n: reach.reach_decay(make_jacobian(n), make_reach(n), "leaves"),
    "reach_radii": lambda n: reach.reach_radii(make_reach(n), "leaves"),
    "reach_sampling": lambda n: reach.reach_sampling(*make_sampling(n), "leaves"),
    "reach_spread": lambda n: reach.reach_spread(make_reach(n), "leaves"),
    "reach_rank": lambda n: reach.reach_rank(make_reach(n), "leaves"),
    "probe_gabor": lambda n: probes.probe_gabor(make_gabor(n), "leaves"),
    "probe_depth": lambda n: probes.probe_depth(make_depth(n), "leaves"),
    "probe_class": lambda n: probes.probe_class(make_class(n), "leaves"),
    "loss_curves": lambda n: training.loss_curves(*make_losses(n), "ratios"),
    "loss_curves_by_patch": lambda n: training.loss_curves(*make_losses(n, PATCHES), "patches"),
}


@pytest.fixture(autouse=True, scope="module")
def themed() -> None:
    theme.use_theme()


@pytest.mark.parametrize("seeds", [SEEDS, 1])
@pytest.mark.parametrize("name", FIGURES)
def test_figure_draws_without_warnings_and_says_what_it_shows(name: str, seeds: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = FIGURES[name](seeds)
        figure.canvas.draw()
    grid_axes = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    assert all(axes.get_xlabel() for axes in grid_axes if axes.get_subplotspec().is_last_row())
    assert all(axes.get_ylabel() for axes in grid_axes if axes.get_subplotspec().is_first_col())
    assert all(axes.has_data() for axes in grid_axes)
    assert f"n = {seeds} " in figure.get_supxlabel()
    assert figure.legends or name == "correlation_length"
    if seeds == 1 and name != "theory":
        assert "no interval" in figure.get_supxlabel()


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_readable(name: str) -> None:
    figure = FIGURES[name](3)
    figure.canvas.draw()
    check_layout(figure)


def test_axis_labels_carry_units() -> None:
    for name, unit in {
        "correlation": "px",
        "power_spectrum": "cycles/px",
        "correlation_length": "px",
        "reach_decay": "px",
        "reach_spread": "px",
        "probe_gabor": "px",
    }.items():
        assert f"({unit})" in FIGURES[name](3).axes[0].figure.axes[-1].get_xlabel()
    assert FIGURES["reach_radii"](3).axes[0].get_ylabel() == "radius (px)"
    assert [axes.get_ylabel()[-6:] for axes in FIGURES["reach_spread"](3).axes[:2]] == ["(nats)"] * 2


def test_each_method_and_ratio_is_one_line_with_an_interval() -> None:
    axes = probes.probe_depth(make_depth(), "leaves").axes[0]
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["AE", "DAE σ = 0.2", "MAE m = 0.1", "MAE m = 0.3", "MAE m = 0.7", "MAE m = 0.9"]
    bars = [item for item in axes.collections if isinstance(item, LineCollection)]
    assert len(bars) == len(labels)
    assert all(len(bar.get_segments()) == 3 for bar in bars)
    single = probes.probe_depth(make_depth(1), "leaves").axes[0]
    assert not [item for item in single.collections if isinstance(item, LineCollection)]


def test_the_reach_of_samples_stands_beside_that_of_their_covariance() -> None:
    lags, sampled = make_sampling()
    for axes, patch_size in zip(reach.reach_sampling(lags, sampled, "leaves").axes, PATCHES, strict=True):
        assert axes.get_title() == f"patch {patch_size} px"
        for table, label in ((lags, "covariance by lag"), (sampled, "as many Gaussian images of it")):
            expected = table[table["patch_size"] == patch_size].groupby("mask_ratio")["rms_radius_squared"].mean()
            np.testing.assert_allclose(check_line(axes, label)[:, 1], expected)


def test_means_are_drawn_where_the_table_has_them() -> None:
    table = make_sweep()
    axes = sweep.sweep(table, "leaves").axes[-1]
    assert axes.get_title() == "full rank"
    expected = table[(table["n_components"] == -1) & (table["patch_size"] == 4)].groupby("mask_ratio")["loss_fraction"]
    line = next(line for line in axes.lines if line.get_label() == "4 px")
    np.testing.assert_allclose(line.get_ydata(), expected.mean())


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_summary_is_the_student_t_interval(values: list[float]) -> None:
    table = pd.DataFrame({"x": 1.0, "seed": range(len(values)), "value": values})
    row = theme.summarise(table, "x", "value").iloc[0]
    mean, sem = np.mean(values), stats.sem(values)
    assert row["n"] == len(values)
    np.testing.assert_allclose(row["mean"], mean, atol=1e-9)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, sem) if sem > 0 else (mean, mean)
    np.testing.assert_allclose([row["low"], row["high"]], [low, high], rtol=1e-6, atol=1e-6)


def test_summary_of_one_seed_has_no_interval_and_missing_values_do_not_count() -> None:
    table = pd.DataFrame({"x": [1, 1, 2], "seed": [0, 1, 0], "value": [3.0, np.nan, 4.0]})
    summary = theme.summarise(table, "x", "value")
    assert summary["n"].tolist() == [1, 1]
    assert summary[["low", "high"]].isna().all(axis=None)


def test_summary_refuses_repeats_of_a_seed() -> None:
    table = pd.DataFrame({"x": [1, 1], "seed": [0, 0], "value": [3.0, 4.0]})
    with pytest.raises(ValueError, match="several rows of one seed"):
        theme.summarise(table, "x", "value")


@given(st.sets(st.floats(0, 1), min_size=1), st.integers(2, 6))
def test_representative_values_keep_both_ends(values: set[float], count: int) -> None:
    shown = theme.representative(values, count)
    assert shown == sorted(shown)
    assert set(shown) <= values
    assert len(shown) == min(count, len(values))
    assert (shown[0], shown[-1]) == (min(values), max(values))


@pytest.mark.slow
def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (theme.save(FIGURES["sweep"](3), tmp_path / stem) for stem in ("a.0", "b"))
    assert first.name == "a.0.png"
    assert first.read_bytes() == second.read_bytes()
    svg = (tmp_path / "a.0.svg").read_bytes()
    assert svg == (tmp_path / "b.svg").read_bytes()
    assert b"<dc:date>" not in svg
    assert {path.name for path in tmp_path.iterdir()} == {"a.0.svg", "a.0.png", "b.svg", "b.png"}


def test_a_compact_figure_is_smaller_and_has_the_same_marks_in_the_same_places(tmp_path: Path) -> None:
    figure, axes = theme.panels(1, 2)
    for axis in axes.flat:
        axis.plot(range(12), np.sqrt(range(12)), "o-", label="a label")
    figure.savefig(tmp_path / "plain.svg")
    svg = (tmp_path / "plain.svg").read_text()
    small = compact(svg)
    assert len(small) < 0.75 * len(svg) and "metadata" not in small
    before, after = (ElementTree.fromstring(text) for text in (svg, small))
    marks = [[e for e in root.iter() if e.tag.endswith("use") and e.get("y")] for root in (before, after)]
    assert len(marks[0]) == len(marks[1]) > 24
    for one, other in zip(*marks, strict=True):
        assert [float(other.get(a)) for a in "xy"] == pytest.approx([float(one.get(a)) for a in "xy"], abs=0.005)
    ids = {element.get("id") for element in after.iter()} - {None}
    references = re.findall(r'href="#(\w+)"|url\(#(\w+)\)', small)
    assert ids >= {one or other for one, other in references}


def test_exponential_fit_is_drawn_from_intercept_and_rate() -> None:
    table = make_reach(1).assign(decay_rate=lambda t: np.where(t["method"] == "ae", 0.0, 0.25))
    axes = reach.reach_decay(make_jacobian(1), table, "leaves").axes[0]
    fits = [line for line in axes.lines if line.get_linestyle() == ":"]
    r = np.arange(18.0)  # three quarters of the distances, 0–23 px
    np.testing.assert_allclose(fits[0].get_ydata(), np.full(18, 0.1))
    np.testing.assert_allclose(fits[1].get_ydata(), 0.1 * np.exp(-r / 4))


def test_a_data_set_without_correlation_length_is_said_so() -> None:
    summary = by_dataset(make_summary())
    summary.loc[summary["dataset"] == "photos", "correlation_length"] = np.nan
    texts = [text.get_text() for text in statistics.correlation_length(summary).axes[0].texts]
    assert texts == [" stays above 1/e in the image"]


def test_energy_of_chain_and_lattice_is_drawn_against_the_right_quantity() -> None:
    table = make_profile(3)
    both = pd.concat([table, table.assign(dimension=2, energy=1.0)])
    chain, lattice = (draw(both, "ising").axes[-1] for draw in (ising.energy_profile_1d, ising.energy_profile_2d))
    assert chain.get_xlabel() == "position in the patch (px)"
    assert lattice.get_xlabel() == "distance from the patch's border (px)"
    cell = table[(table["coupling"] == 1) & (table["n_components"] == 16) & (table["matrix"] == "decoder")]
    cell = cell[(cell["patch_size"] == 8) & (cell["mask_ratio"] == 0.9)].groupby("position")["energy"].mean()
    np.testing.assert_allclose(chain.lines[5].get_xydata(), np.column_stack([cell.index, cell]))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_gallery_shows_encoder_and_decoder_symmetric_about_zero(channels: int) -> None:
    tensors, shape = make_gallery(channels)
    rows = features.gallery_rows(tensors, shape)
    assert list(rows)[:4] == ["AE", "DAE", "MAE p = 2 px, m = 0.1", "MAE p = 2 px, m = 0.5"]
    assert len(rows) == 2 + 3 * len(PATCHES)
    np.testing.assert_array_equal(rows["AE"][0][1].ravel(), tensors["ae/encoder"][:, 1])
    np.testing.assert_array_equal(rows["AE"][1][1].ravel(), tensors["ae/decoder"][1])
    figure = features.draw_gallery(rows, "leaves")
    tiles = [item for axes in figure.axes for item in axes.get_children() if isinstance(item, AxesImage)]
    assert len(tiles) == len(rows) * 2 * 8
    assert all(tile.get_clim()[0] == -tile.get_clim()[1] for tile in tiles)
    assert ("luminance" in figure.get_supxlabel()) == (channels == 3)


def test_losses_are_means_over_seeds_by_ratio_with_a_panel_for_each_patch_size() -> None:
    runs, curves, validation = make_losses(3, (4, 8))
    axes = training.loss_curves(runs, curves, validation, "ratios").axes
    assert [axis.get_title() for axis in axes] == ["patch 4 px", "patch 8 px"]
    handles, labels = axes[1].get_legend_handles_labels()
    assert labels == [f"m = {ratio:g}" for ratio in RATIOS]
    cell = runs[(runs["patch_size"] == 8) & (runs["mask_ratio"] == 0.7)]["name"]
    expected = curves[curves["name"].isin(cell)].groupby("images")["loss"].mean()
    color = handles[labels.index("m = 0.7")].get_color()
    drawn = [line for line in axes[1].lines if line.get_color() == color and len(line.get_xdata()) == 40]
    assert len(drawn) == 3 + 1
    assert [line.get_ydata()[0] for line in axes[1].lines if line.get_linestyle() == ":"] == [0.9]
    np.testing.assert_allclose(drawn[-1].get_xdata(), expected.index / 1000)
    np.testing.assert_allclose(drawn[-1].get_ydata(), expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"mask_ratio": [0.1, 0.9], "patch_size": [4, 8], "mask_unit": [4, 8]}, ["patch_size", "mask_ratio"]),
        ({"mask_unit": [4, 8]}, ["mask_unit"]),
        ({"bottleneck": [np.nan, 8.0]}, ["bottleneck"]),
        ({"bottleneck": [np.nan, np.nan]}, []),
    ],
)
def test_what_varies_in_a_stage_is_found(settings: dict[str, list], expected: list[str]) -> None:
    table = pd.DataFrame({"seed": [0, 1], "patch_size": 4, "mask_unit": 4})
    assert training.varied(table.assign(**settings)) == expected


@pytest.mark.parametrize(
    ("name", "value", "label"),
    [
        *(("mask_ratio", 0.75, "m = 0.75"), ("patch_size", 4, "patch 4 px"), ("encoder_dim", 64, "encoder dim 64")),
        *(("bottleneck", float("nan"), "no bottleneck"), ("bottleneck", 8.0, "bottleneck 8")),
        *(("masking", "fixed", "masking fixed"), ("norm_pix_loss", True, "norm pix loss True")),
    ],
)
def test_settings_are_named_in_legends(name: str, value: object, label: str) -> None:
    assert setting_label(name, value) == label


@pytest.mark.parametrize("values", [["none", "flip"], [np.nan, 8.0], [0.1, 0.2]])
def test_any_setting_can_colour_the_losses(values: list) -> None:
    name = "augmentation" if isinstance(values[0], str) else "bottleneck"
    runs, curves, validation = make_losses(2)
    chosen = runs[runs["mask_ratio"].isin(RATIOS[:2])]
    chosen = chosen.assign(mask_ratio=0.5, **{name: np.repeat(values, 2)})
    axis = training.loss_curves(chosen, curves, validation, "one").axes[0]
    handles, labels = axis.get_legend_handles_labels()
    assert labels == [setting_label(name, value) for value in values], "the order of the table"
    assert len({str(handle.get_color()) for handle in handles}) == 2


def test_panels_and_rows_of_both_figures_come_in_the_order_of_the_table_with_a_setting_a_title_line() -> None:
    runs, curves, validation = make_losses(2, (8, 4))
    runs = runs[runs["mask_ratio"].isin([0.1, 0.9])].iloc[::-1].copy()
    runs["encoder_dim"] = runs["patch_size"] * 4
    runs["augmentation"] = runs["patch_size"].map({4: "crop", 8: "none"})
    axes = training.loss_curves(runs, curves, validation, "sizes").axes
    how = {4: "crop", 8: "none"}
    sizes = [f"patch {p} px,\nencoder dim {4 * p},\naugmentation {how[p]}" for p in how]
    assert [axis.get_title() for axis in axes] == sizes
    assert axes[0].get_legend_handles_labels()[1] == ["m = 0.9", "m = 0.1"]
    figure = training.reconstructions(runs, (make_reconstructions(runs), None), "sizes")
    labels = [text.get_text() for axes in figure.axes for text in axes.texts][1:]
    rows = [(p, m) for m in (0.9, 0.1) for p in (4, 8)]
    figure.canvas.draw()
    assert min(text.get_window_extent().x0 for axes in figure.axes for text in axes.texts) >= 0
    assert [(f"patch {p} px" in label, f"m = {m}" in label) for label, (p, m) in zip(labels, rows, strict=True)] == [
        (True, True)
    ] * 4


@pytest.mark.parametrize(
    "limits", [(0.88, 0.99), (0.5, 0.9), (0.9001, 0.9004), (0.21, 0.49), (0.08, 1.3), (1e-4, 2.0), (1.01, 1.99)]
)
def test_the_loss_axis_has_three_ticks_inside_its_limits_whatever_they_are(limits: tuple[float, float]) -> None:
    runs, curves, validation = make_losses(1)
    curves["loss"] = np.geomspace(*limits, len(curves))
    drawn = training.loss_curves(runs.assign(mean_image_loss=np.nan), curves, validation.assign(loss=np.nan), "one")
    drawn.canvas.draw()
    axis = drawn.axes[0]
    low, high = axis.get_ylim()
    assert low <= limits[0] < limits[1] <= high
    labels = [tick.label1.get_text() for tick in axis.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert 3 <= len(set(labels)) <= 8
    assert [float(label) for label in labels] == pytest.approx(training.loss_ticks(low, high), rel=1e-6)
    assert not axis.yaxis.get_offset_text().get_text()


def test_marks_are_told_only_where_they_are_drawn() -> None:
    runs, curves, validation = make_losses(2)
    told = {
        "all": training.loss_curves(*make_losses(10), "one"),
        "cut": training.loss_curves(runs, curves, validation, "one"),  # intervals of two seeds are wide
        "unvalidated": training.loss_curves(
            runs.assign(mean_image_loss=np.nan), curves, validation.assign(loss=np.nan), "one"
        ),
    }
    notes = {name: " ".join(figure.get_supxlabel().split()) for name, figure in told.items()}
    assert notes["all"].endswith("points: validation; bars: 95 % t interval; dotted: the mean image.")
    assert "bars: 95 % t interval, cut at the frame" in notes["cut"]
    assert notes["unvalidated"].endswith("n = 2 seeds; lines: training, thin ones: seeds.")
    markers = {name: {h.get_marker() for h in figure.legends[0].legend_handles} for name, figure in told.items()}
    assert markers["unvalidated"] == {""}
    assert "" not in markers["all"]
    assert not any(line.get_linestyle() == ":" for line in told["unvalidated"].axes[0].lines)


@pytest.mark.parametrize(
    ("by_patch", "label", "told"),
    [
        ([False], "loss (channel variance = 1)", False),
        ([True], "loss (patch's own variance = 1)", False),
        ([False, True], "loss", True),
    ],
)
def test_the_loss_is_labelled_with_its_unit(by_patch: list[bool], label: str, told: bool) -> None:
    runs, curves, validation = make_losses(1)
    runs["norm_pix_loss"] = np.resize(by_patch, len(runs))
    figure = training.loss_curves(runs, curves, validation, "one")
    assert figure.axes[0].get_ylabel() == label
    assert ("with norm pix loss a patch's own" in " ".join(figure.get_supxlabel().split())) == told


@pytest.mark.parametrize("channels", [1, 3])
def test_reconstructions_stand_beside_what_the_model_sees_and_below_the_original(channels: int) -> None:
    runs = make_runs(2)
    tensors = make_reconstructions(runs, channels)
    figure = training.reconstructions(runs, (tensors, None), "ratios")
    figure.canvas.draw()
    tiles = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(tiles) == 6 + len(RATIOS) * 2 * 6
    np.testing.assert_allclose(tiles[0], np.broadcast_to(tensors["images"][0] / 255, (8, 8, 3)))
    first = runs["name"].iloc[0]
    hidden = tensors[f"{first}/mask"][0] > 0
    left = tiles[6]
    np.testing.assert_allclose(left[~hidden], np.broadcast_to(tensors[f"{first}/seen"][0], (8, 8, 3))[~hidden])
    assert hidden.any()
    assert len(np.unique(left[hidden], axis=0)) == 1
    np.testing.assert_allclose(tiles[7], np.broadcast_to(tensors[f"{first}/pred"][0], (8, 8, 3)))
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert labels == ["original", *(f"m = {ratio:g}" for ratio in RATIOS)]


def test_forest_plot_shows_tested_claims_and_lists_the_others() -> None:
    figure = claims.claims(*make_claims())
    axes = figure.axes[0]
    points = [line for line in axes.lines if line.get_marker() != "None"]
    assert [line.get_xdata()[0] for line in points] == [3.0, 42.0, 0.2, -2.5, 1.2, 1.8]
    assert len({(line.get_marker(), str(line.get_color())) for line in points}) == 5
    texts = [text.get_text() for text in axes.texts]
    assert {"A1.1", "NULL", "SUGGESTIVE(+)", "INVALID", "no estimate"} <= set(texts)
    assert "Not tested here (2): A9.1, A10.1." in figure.texts[0].get_text()
    assert axes.get_xscale() == "symlog"


def test_forest_plot_without_any_tested_claim_draws() -> None:
    ledger, detail = make_claims()
    figure = claims.claims(ledger.assign(verdict="NOT_TESTED(planned)"), detail)
    figure.canvas.draw()
    assert "Not tested here (10)" in figure.texts[0].get_text()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tables and artifacts that the notebooks read, small."""
    root = tmp_path_factory.mktemp("results")
    for table, make in {
        "statistics": make_statistics,
        "statistics_summary": make_summary,
        "checks": make_theory,
        "linear_sweep": make_sweep,
        "features": make_features,
        "reach_profile": make_jacobian,
        "reach": make_reach,
        "probe_gabor": make_gabor,
        "probe_depth": make_depth,
        "probe_class": make_class,
    }.items():
        write_table(root / "tables" / table / "leaves.csv", make(2))
    for table, rows in zip(("sampling_lags", "sampling_draws"), make_sampling(2), strict=True):
        write_table(root / "tables" / table / "leaves.csv", rows)
    for table, rows in {"ising": make_ising(2), "ising_profile": make_profile(2)}.items():
        both = pd.concat([rows, rows.assign(dimension=2)])
        write_table(root / "tables" / table / "ising.csv", both)
    for table, rows in {"statistics": make_statistics(2), "statistics_summary": make_summary(2)}.items():
        write_table(root / "tables" / table / "digits.csv", rows)
    ledger, detail = make_claims()
    write_table(root / "claims.csv", ledger)
    write_table(root / "tables" / "claims_detail.csv", detail)
    tensors, shape = make_gallery()
    write_tensors(root / "linear" / "leaves" / "all.safetensors", tensors, {"image_shape": shape})
    for table, rows in zip(("training_runs", "training", "training_validation"), make_losses(2), strict=True):
        write_table(root / "tables" / table / "ratios.csv", rows)
    write_tensors(root / "training" / "ratios.safetensors", make_reconstructions(make_runs(2)))
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("notebook", "subjects"),
    [
        ("statistics", ["leaves", "digits"]),
        *((name, ["leaves"]) for name in ("sweep", "features", "reach", "probes")),
        ("ising", ["ising"]),
        ("training", ["ratios"]),
        ("claims", []),
    ],
)
def test_cells_of_each_notebook_draw_its_figures(notebook: str, subjects: list[str], results: Path) -> None:
    figures = [kind.name for kind in declared_figures().values() if kind.notebook == notebook]
    run_notebook_cells(notebook, results, dict.fromkeys(figures, subjects))


def test_a_settled_figure_is_laid_out_alike_in_every_file(tmp_path):
    figure, axes = theme.panels(2, 5, height=1.6, sharex="col", sharey="row")
    for axis in axes.flat:
        axis.plot([0, 1], [2.4, 15.2])
    theme.label_outer(axes, "x", ["a long label of y (px)", "y"])
    theme.save(figure, tmp_path / "figure")
    places = [axis.get_position().bounds for axis in axes.flat]
    for dpi in (72, 200):
        figure.set_dpi(dpi)
        figure.draw_without_rendering()
        assert [axis.get_position().bounds for axis in axes.flat] == places
        assert axes[0, 0].yaxis.label.get_window_extent().x0 >= 0
