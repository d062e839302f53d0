"""What of a Jacobian changes with the image, against cases whose answer is known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spatialmae.analysis.basis import ObjectContrast, dispersion, linearisation_error
from spatialmae.analysis.reach import Influence, ReachGeometry
from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.model.masking import Masks


def test_dispersion_is_zero_for_a_fixed_basis_and_one_for_unrelated_ones():
    draw = torch.Generator().manual_seed(0)
    fixed = torch.randn(1, 30, 40, generator=draw)
    unrelated = torch.randn(8, 30, 40, generator=draw)
    assert dispersion(fixed.expand(8, -1, -1)) == pytest.approx(0, abs=1e-9)
    assert dispersion(unrelated) == pytest.approx(1, abs=0.02)
    assert dispersion(3 * unrelated) == pytest.approx(dispersion(unrelated))
    # Half of the squared size in common.
    assert dispersion(unrelated + fixed) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="two images or more"):
        dispersion(fixed)


GEOMETRY = ReachGeometry.of((12, 12), 4)
HALVES = np.repeat(np.arange(12) >= 5, 12).reshape(12, 12).astype(np.uint8)
EVERYWHERE = np.ones(144, dtype=bool)


def influence(absolute: np.ndarray) -> Influence:
    return Influence(absolute, absolute**2)


@given(st.floats(0.2, 3))
def test_influence_by_distance_alone_respects_no_object(length):
    contrast = ObjectContrast.of(influence(np.exp(-GEOMETRY.distances.round() / length)), GEOMETRY, HALVES, EVERYWHERE)
    assert contrast.log_ratio == pytest.approx(0, abs=1e-6)


@given(st.floats(0.1, 10), st.floats(0.5, 20), st.integers(0, 2**32))
def test_a_factor_across_borders_is_found_whatever_the_decay_and_the_mask(factor, length, seed):
    labels = HALVES.ravel()
    across = labels[:, None] != labels[None, GEOMETRY.outputs]
    weights = np.exp(-GEOMETRY.distances.round() / length) * np.where(across, factor, 1.0)
    visible = np.random.default_rng(seed).random(144) < 0.5
    weights[~visible] = 0
    contrast = ObjectContrast.of(influence(weights), GEOMETRY, HALVES, visible)
    assert contrast.log_ratio == pytest.approx(-np.log(factor), abs=1e-6)


def test_object_contrast_of_images_adds_up_and_is_unknown_without_a_border():
    one = ObjectContrast(2.0, 1.0)
    assert (one + ObjectContrast(1.0, 2.0)).log_ratio == pytest.approx(0)
    flat = ObjectContrast.of(influence(np.ones_like(GEOMETRY.distances)), GEOMETRY, 0 * HALVES, EVERYWHERE)
    assert np.isnan(flat.log_ratio)


def test_linearisation_error_is_none_with_the_true_jacobian_of_small_steps_and_all_without():
    config = MAEConfig(
        image_size=8, patch_size=2, channels=1,
        encoder_dim=16, encoder_depth=1, encoder_heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2,
    )  # fmt: skip
    model = MaskedAutoencoder(config, torch.Generator().manual_seed(0)).double()
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(3, 1, 8, 8, generator=draw).double()
    masks = Masks.from_noise(config, torch.rand(3, 16, generator=draw))
    outputs = torch.tensor([9, 20, 33])

    def predicted(x: torch.Tensor, i: int) -> torch.Tensor:
        one = Masks(masks.ids_keep[i : i + 1], masks.ids_restore[i : i + 1], masks.mask[i : i + 1])
        return model.reconstruct(x.reshape(1, 1, 8, 8), one).flatten()[outputs]

    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda x, i=i: predicted(x, i), images[i].flatten()).T for i in range(3)]
    )

    def error(step: float, jacobians: torch.Tensor) -> float:
        return linearisation_error(model, images, masks, jacobians, outputs, step, torch.Generator().manual_seed(2))

    assert error(1e-6, jacobians) < 1e-4
    assert error(1e-6, 0 * jacobians) == pytest.approx(1)
    assert error(1e-3, jacobians) < error(0.3, jacobians) < 1
