"""Evidence on images: covariances of lags against loops and known fields, and the grid of settings."""

import numpy as np
import pytest

from spatialmae.analysis.second_order import ConditionalMean
from spatialmae.data.random_fields import field_covariance, random_fields
from spatialmae.geometry import patch_labels, pixel_coordinates
from spatialmae.masks import fixed_count_masks
from spatialmae.recommend.evidence import (
    N_MASKS,
    Correlations,
    Grid,
    LagCovariance,
    averaged_down,
    averaging_factor,
    default_grid,
    theory_cells,
)


def noise_images(n: int, side: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(n, side, side, channels), dtype=np.uint8)


def field_images(n: int = 2000, side: int = 16, seed: int = 0) -> np.ndarray:
    counts = {"n_train": n, "n_validation": 0, "n_test": 0}
    return random_fields(**counts, image_size=side, correlation_length=0.2, anisotropy=1.01, seed=seed).images


def exact_covariance(side: int, length: float) -> np.ndarray:
    at = pixel_coordinates((side, side))
    return field_covariance(at[:, None] - at, length, 1.01, 0)


def test_the_covariance_of_a_lag_is_that_of_a_loop_over_pairs():
    images = noise_images(30, 5, channels=2)
    found = LagCovariance.of(images, 1).by_lag()
    deviation = images / 255 - (images / 255).mean(axis=0)
    variance = np.square(deviation).mean(axis=(0, 1, 2))
    for down, right in ((0, 0), (2, -3), (-4, 4), (1, 0)):
        pairs = [
            (deviation[:, y, x] * deviation[:, y + down, x + right]).mean(axis=0) / variance
            for y in range(5)
            for x in range(5)
            if 0 <= y + down < 5 and 0 <= x + right < 5
        ]
        assert found[4 + down, 4 + right] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_leaving_a_group_out_is_having_the_others():
    images = field_images(200, 8)
    group = np.arange(200) % 4
    apart = LagCovariance.of(images, 1, group)
    np.testing.assert_allclose(apart.covariance(), LagCovariance.of(images, 1).covariance(), atol=1e-12)
    without = LagCovariance.of(images[group != 2], 1).covariance()
    np.testing.assert_allclose(apart.covariance(2), without, atol=1e-12)
    assert np.abs(without - apart.covariance()).max() > 1e-3


def test_the_covariance_of_a_field_is_the_one_it_was_drawn_with():
    covariance = LagCovariance.of(field_images(4000), 1).covariance()
    np.testing.assert_allclose(covariance, exact_covariance(16, 3.2), atol=0.03)


def test_a_few_hundred_images_say_the_same_of_reach_as_the_exact_covariance():
    grid = Grid(16, (2, 4), (0.25, 0.75))
    exact = theory_cells(exact_covariance(16, 3.2), grid)
    few = theory_cells(LagCovariance.of(field_images(300), 1).covariance(), grid)
    np.testing.assert_allclose(few["reach"], exact["reach"], rtol=0.2)
    np.testing.assert_allclose(few["unexplained"], exact["unexplained"], rtol=0.05)


def test_channels_count_alike_and_constant_ones_not_at_all():
    grey = field_images(300, 8)
    dim = (grey // 4).astype(np.uint8)
    constant = np.full_like(grey, 7)
    alone = LagCovariance.of(grey, 1).covariance()
    np.testing.assert_allclose(LagCovariance.of(np.concatenate([grey, constant], -1), 1).covariance(), alone, atol=1e-9)
    np.testing.assert_allclose(LagCovariance.of(np.concatenate([grey, dim], -1), 1).covariance(), alone, atol=0.01)
    with pytest.raises(ValueError, match="all the same"):
        LagCovariance.of(constant, 1).covariance()


def test_no_covariance_has_a_negative_eigenvalue():
    # A brighter left half is the same nowhere else: its covariance depends on more than the lag.
    images = noise_images(50, 8)
    images[:, :, :4] = np.random.default_rng(1).integers(0, 256, (50, 1, 1, 1), dtype=np.uint8)
    assert np.linalg.eigvalsh(LagCovariance.of(images, 1).covariance()).min() > 0


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
    [(16, 1, (2, 4)), (32, 1, (2, 4, 8)), (64, 2, (2, 4, 8, 16)), (224, 7, (7, 14, 28, 56))],
)
def test_images_are_averaged_down_by_whole_factors_and_patches_tile_both(size, factor, patches):
    assert averaging_factor(size) == factor and size // factor <= 32
    assert default_grid(size).patch_sizes == patches
    assert all(p % factor == 0 and size % p == 0 for p in patches)


def test_a_correlation_that_never_falls_has_the_length_of_the_image():
    flat = np.full((64, 64), 0.9) + 0.1 * np.eye(64)
    assert Correlations.of(flat, Grid(8, (2,), (0.5,))).length == 8
