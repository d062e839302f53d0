"""Where weights lie within a patch."""

import numpy as np
import pytest

from spatialmae.analysis.ising import border_distance, edge_centre_ratio, interior_patches, patch_energy
from spatialmae.data.ising import chain_second_moment
from spatialmae.geometry import patch_labels
from spatialmae.linear.closed_form import solve
from spatialmae.linear.objective import Corruption


def test_interior_patches_have_neighbours_on_every_side():
    assert list(interior_patches((1, 4))) == [1, 2]
    assert list(interior_patches((3, 4))) == [5, 6]
    with pytest.raises(ValueError, match="no interior"):
        interior_patches((2, 5))


def test_border_distance():
    assert border_distance((1, 5)).tolist() == [[0, 1, 2, 1, 0]]
    assert border_distance((4, 4)).tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(("shape", "patch"), [((1, 32), 8), ((16, 16), 4)])
def test_even_weights_have_no_edge(shape, patch):
    energy = patch_energy(np.ones((shape[0] * shape[1], 3)), shape, patch)
    np.testing.assert_allclose(energy, 1)
    assert edge_centre_ratio(energy) == pytest.approx(1)


def test_planted_weights_are_found_and_border_patches_ignored():
    weights = np.zeros((32, 1))
    weights[8::8], weights[15::8], weights[11::8], weights[12::8] = 2.0, 2.0, 1.0, 1.0
    weights[:8] = 100.0
    energy = patch_energy(weights, (1, 32), 8)
    assert energy.shape == (1, 8)
    assert edge_centre_ratio(energy) == pytest.approx(4)
    assert energy.mean() == pytest.approx(1)


@pytest.mark.parametrize("patch_size", [4, 8])
@pytest.mark.parametrize("coupling", [0.5, 1.0, 1.5])
def test_exact_chain_gives_the_ratios_of_the_note(patch_size, coupling):
    """Derived for 64 spins, J .5–1.5, k 4–32: .86–1.02 at m = 0, 1.25–13.9 at .5, 1.8–44 at .9."""
    S, labels = chain_second_moment(64, coupling), patch_labels(64, patch_size)
    for mask_ratio, low, high in ((0.0, 0.86, 1.02), (0.5, 1.25, 13.9), (0.9, 1.8, 44)):
        for k in (4, 8, 16, 32):
            encoder = solve(S, labels, Corruption.bernoulli(mask_ratio), k).encoder
            ratio = edge_centre_ratio(patch_energy(encoder, (1, 64), patch_size))
            assert low * 0.9 <= ratio <= high * 1.1, (mask_ratio, k, ratio)
