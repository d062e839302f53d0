from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from model_tables import AUTOENCODER, CROSS, OBJECTIVES, RATIOS, make_models, make_runs
from spatialmae.figures import theme
from spatialmae.figures.design import ALONG, compare, compare_at_once, configurations, state_centre, state_seeds

CROSS_WITH_RATIOS = [*({"mask_ratio": m} for m in RATIOS), {"patch_size": 2}, {"patch_size": 8}, *CROSS[1:]]


def along(runs: pd.DataFrame) -> list[tuple[str | None, list[list[float]]]]:
    """Of each comparison its setting, and the places of each line's models."""
    return [
        (one.setting, [sorted(line.rows[ALONG].unique().tolist()) for line in one.lines(runs)]) for one in compare(runs)
    ]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (make_runs(), [("mask_ratio", [list(RATIOS)])]),
        (make_runs((0.75,)), [("mask_ratio", [[0.75]])]),
        (make_runs((0.75,), 2, (2, 4, 8)), [("patch_size", [[2, 4, 8]])]),
        (make_models([{"mask_unit": unit} for unit in (4, 8, 16)]), [("mask_unit", [[4, 8, 16]])]),
        (make_models(CROSS), [("encoder_depth", [[2, 4, 6]]), ("decoder_depth", [[1, 2, 4, 8]])]),
        (
            make_models(CROSS_WITH_RATIOS),
            [
                ("patch_size", [[2, 4, 8]]),
                ("encoder_depth", [[2, 4, 6]]),
                ("decoder_depth", [[1, 2, 4, 8]]),
                ("mask_ratio", [list(RATIOS)]),
            ],
        ),
        (make_runs((0.25, 0.5, 0.75), 2, (2, 4)), [("mask_ratio", [[0.25, 0.5, 0.75]] * 2)]),
        (
            make_models([{"patch_size": p, "encoder_depth": d} for p in (2, 4, 8) for d in (2, 6)]),
            [("patch_size", [[2, 4, 8]] * 2)],
        ),
        (make_models([*({"mask_ratio": m} for m in RATIOS), AUTOENCODER]), [("mask_ratio", [[0.0], list(RATIOS)])]),
        (make_models(OBJECTIVES), [(None, [[0, 1, 2]])]),
        (make_models([{}, {"masking": "bernoulli"}]), [(None, [[0, 1]])]),
        (make_models([{"bottleneck": n} for n in (8.0, 16.0, np.nan)]), [(None, [[0, 1, 2]])]),
        (make_models([{"patch_size": 2, "base_lr": 0.001}, {}]), [(None, [[0, 1]])]),
    ],
    ids=[
        *("ratios", "one ratio", "patch sizes", "mask units", "cross", "cross with ratios", "grid with ratios", "grid"),
        *("ratios and an autoencoder", "objectives", "no number", "a missing number", "together"),
    ],
)
def test_models_are_drawn_along_what_they_differ_in(
    runs: pd.DataFrame, expected: list[tuple[str | None, list[list[float]]]]
) -> None:
    shuffled = runs.sample(frac=1, random_state=0)
    assert along(shuffled) == expected


def test_every_model_of_a_comparison_differs_from_the_centre_in_its_setting_alone() -> None:
    runs = make_models(CROSS)
    encoders, decoders = compare(runs)
    assert set(encoders.lines(runs)[0].rows["decoder_depth"]) == {2}
    assert set(decoders.lines(runs)[0].rows["encoder_depth"]) == {6}
    assert state_centre([encoders, decoders]) == [
        "baseline: encoder depth 6, decoder depth 2; others change one setting of it"
    ]
    assert state_centre([encoders]) == []


@pytest.mark.parametrize(
    ("own", "names"),
    [
        (OBJECTIVES, ["AE", "DAE", "MAE"]),
        ([{"mask_ratio": 0.5}, *OBJECTIVES], ["AE", "DAE", "MAE, m = 0.5", "MAE, m = 0.75"]),
        ([{"noise_std": 0.2, "base_lr": 0.1}, {}], ["MAE", "MAE with noise"]),
        (
            [{}, {"masking": "bernoulli", "bottleneck": 8.0}],
            ["masking bernoulli, bottleneck 8", "masking fixed, no bottleneck"],
        ),
    ],
)
def test_models_side_by_side_have_names_that_are_short_and_differ(own: list[dict], names: list[str]) -> None:
    runs = make_models(own, 2)
    found = configurations(runs)
    assert [one.label for one in found] == names
    for one in found:
        assert one.rows["seed"].tolist() == [0, 1]
    assert len({(one.style.color, one.style.marker) for one in found}) == len(names)


def test_configurations_of_a_cross_are_named_by_what_they_change() -> None:
    runs = make_models(CROSS_WITH_RATIOS, 2)
    found = configurations(runs.sample(frac=1, random_state=0))
    assert [one.label for one in found] == [
        *("baseline", "patch 2 px", "patch 8 px", "encoder depth 2", "encoder depth 4"),
        *("decoder depth 1", "decoder depth 4", "decoder depth 8", "m = 0.1", "m = 0.25", "m = 0.5", "m = 0.9"),
    ]
    assert sum(len(one.rows) for one in found) == len(runs)
    assert set(found[1].rows["patch_size"]) == {2}
    assert len({(tuple(one.style.color), one.style.marker) for one in found}) == len(found)
    assert compare_at_once(runs).label == "model"


def test_axis_has_ticks_at_the_values_of_the_setting_and_room_beside_them() -> None:
    ticks = {}
    for name, values in {"patch_size": (2, 4, 8), "noise_std": (0.0, 0.2, 0.4)}.items():
        (comparison,) = compare(make_models([{name: value} for value in values]))
        axes = Figure().subplots()
        comparison.set_axis(axes)
        low, high = axes.get_xlim()
        assert low < values[0] and values[-1] < high
        assert axes.get_xscale() == ("log" if values[0] else "linear")
        ticks[comparison.label] = axes.get_xticks().tolist()
    assert ticks == {"patch size (px)": [2, 4, 8], "noise σ (channel deviations)": [0.0, 0.2, 0.4]}


def test_a_missing_setting_counts_among_the_seeds_as_a_value() -> None:
    runs = make_models([{}, {"bottleneck": 8.0}], 3).assign(value=1.0, kind="x")
    runs = runs[(runs["seed"] < 2) | runs["bottleneck"].notna()]
    assert state_seeds(runs, "kind", "value").startswith("n = 2–3 seeds")


def test_ratios_have_the_colours_of_all_figures() -> None:
    (comparison,) = compare(make_runs((0.5, 0.75)))
    assert [comparison.styles[m].color for m in (0.5, 0.75)] == [theme.RATIO_COLORMAP(m) for m in (0.5, 0.75)]
