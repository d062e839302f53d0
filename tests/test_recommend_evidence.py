"""Evidence on images: reach and unexplained share against simulation, and the grid of settings."""

import numpy as np
import pytest

from spatialmae.analysis.lags import LagCovariance, averaged_down
from spatialmae.analysis.second_order import ConditionalMean
from spatialmae.geometry import patch_labels
from spatialmae.masks import fixed_count_masks
from spatialmae.recommend.evidence import (
    N_MASKS,
    Correlations,
    Grid,
    averaging_factor,
    default_grid,
    theory_cells,
)
from test_lags import exact_covariance, field_images


def test_a_few_hundred_images_say_the_same_of_reach_as_the_exact_covariance():
    grid = Grid(16, (2, 4), (0.25, 0.75))
    exact = theory_cells(exact_covariance(16, 3.2), grid)
    few = theory_cells(LagCovariance.of(field_images(300), 1).covariance(), grid)
    np.testing.assert_allclose(few["reach"], exact["reach"], rtol=0.2)
    np.testing.assert_allclose(few["unexplained"], exact["unexplained"], rtol=0.05)


@pytest.mark.slow
def test_enlarged_images_have_the_same_evidence_with_lengths_in_their_own_pixels():
    small = field_images(200, 32)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(averaged_down(large, 2), small / 255)
    of_small = theory_cells(LagCovariance.of(small, 1).covariance(), Grid(32, (4, 8), (0.5,)))
    of_large = theory_cells(LagCovariance.of(large, 2).covariance(), Grid(64, (8, 16), (0.5,)))
    for column, factor in (("reach", 2), ("correlation_length", 2), ("unexplained", 1), ("n_visible", 1)):
        np.testing.assert_allclose(of_large[column], factor * of_small[column])


def test_the_unexplained_share_is_the_conditional_means_error_by_simulation():
    covariance, grid = exact_covariance(8, 2.0), Grid(8, (2,), (0.5,))
    share = theory_cells(covariance, grid)["unexplained"][0]
    images = np.random.default_rng(1).multivariate_normal(np.zeros(64), covariance, size=4000).astype(np.float32)
    hidden = fixed_count_masks(N_MASKS, 16, 0.5, np.random.default_rng(0))[:, patch_labels(64, 2, (8, 8))]
    errors = [ConditionalMean(np.zeros(64), covariance).predictor(row).error(images) for row in hidden]
    assert share == pytest.approx(np.mean(errors), rel=0.05)


def test_unexplained_rises_with_ratio_and_patch_size():
    cells = theory_cells(exact_covariance(16, 3.2), Grid(16, (2, 4, 8), (0.25, 0.5, 0.75)))
    table = cells.pivot_table(index="patch_size", columns="mask_ratio", values="unexplained").to_numpy()
    assert (np.diff(table, axis=0) > 0).all() and (np.diff(table, axis=1) > 0).all()


def test_settings_that_leave_nothing_visible_or_say_the_same_are_left_out():
    settings = Grid(16, (4, 8), (0.1, 0.25, 0.5, 0.75, 0.9)).settings
    assert settings == [(4, 0.1), (4, 0.25), (4, 0.5), (4, 0.75), (4, 0.9), (8, 0.1), (8, 0.5), (8, 0.75)]


@pytest.mark.parametrize(
    ("size", "factor", "patches"),
    [(16, 1, (2, 4)), (32, 1, (2, 4, 8)), (64, 2, (2, 4, 8, 16)), (96, 3, (3, 6, 12, 24)), (224, 8, (8, 16, 32, 56))],
)
def test_images_are_averaged_down_by_whole_factors_and_patches_tile_both(size, factor, patches):
    assert averaging_factor(size) == factor and size // factor <= 32
    assert default_grid(size).patch_sizes == patches
    assert all(p % factor == 0 and size % p == 0 for p in patches)


@pytest.mark.parametrize("size", [148, 164, 172, 244, 37])
def test_sides_that_averaging_would_leave_a_few_pixels_of_are_refused(size):
    with pytest.raises(ValueError, match=f"{size} px cannot be averaged down by a whole factor to 16 to 32 px; use"):
        averaging_factor(size)


def test_every_side_that_is_chosen_by_itself_can_be_averaged_down_as_before():
    assert [averaging_factor(size) for size in range(8, 65, 4)] == [1] * 7 + [2] * 8


def test_a_correlation_that_never_falls_has_no_length_but_the_side_as_a_lower_bound():
    flat = np.full((64, 64), 0.9) + 0.1 * np.eye(64)
    found = Correlations.of(flat, Grid(8, (2,), (0.5,)))
    assert np.isnan(found.length) and found.least_length == 8
    assert (theory_cells(flat, Grid(8, (2,), (0.5,)))["correlation_length"] == 8).all()
