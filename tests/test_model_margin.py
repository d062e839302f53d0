"""The loss that leaves out the mask's boundary, and its control."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_models import small_batch, small_model
from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.model.margin import counted_pixels
from spatialmae.model.masking import Masks
from spatialmae.model.patches import patchify, unpatchify

UNITS = {"image_size": 16, "mask_unit": 4, "mask_ratio": 0.5}


def masks_of(config: MAEConfig, n: int, seed: int) -> torch.Tensor:
    noise = torch.rand(n, config.n_units, generator=torch.Generator().manual_seed(seed))
    return Masks.from_noise(config, noise).mask


def pixels_of(config: MAEConfig, counted: torch.Tensor) -> np.ndarray:
    return unpatchify(counted, config.patch_size, config.image_hw)[:, 0].numpy()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3), st.integers(0, 10_000), st.sampled_from([4, 8]), st.sampled_from(["fixed", "bernoulli"]))
def test_counted_pixels_are_the_hidden_ones_far_from_every_visible_one(width, seed, unit, masking):
    width = min(width, (unit - 1) // 2)
    config = small_model(**UNITS | {"mask_unit": unit, "masking": masking}, loss_margin=width).config
    mask = masks_of(config, 2, seed)
    found = pixels_of(config, counted_pixels(config, mask))
    hidden = pixels_of(config, mask[..., None].expand(-1, -1, 4)) > 0
    for image, expected in zip(found, hidden, strict=True):
        visible = np.argwhere(~expected)
        for row, column in np.ndindex(16, 16):
            far = all(max(abs(row - r), abs(column - c)) > width for r, c in visible)
            assert image[row, column] == (expected[row, column] and far)


def test_the_control_leaves_out_as_many_hidden_pixels_of_each_image_at_random():
    config = small_model(**UNITS, loss_margin=1).config
    mask = masks_of(config, 200, 0)
    noise = torch.rand(200, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    boundary, control = (pixels_of(config, counted_pixels(config, mask, chosen)) for chosen in (None, noise))
    hidden = pixels_of(config, mask[..., None].expand(-1, -1, 4))
    assert set(np.unique(control)) == {0, 1}
    assert ((control == 1) <= (hidden == 1)).all()
    np.testing.assert_array_equal(control.sum((1, 2)), boundary.sum((1, 2)))
    # Wherever in a hidden unit a pixel lies, it is counted as often.
    share = control.sum() / hidden.sum()
    for row, column in np.ndindex(4, 4):
        place = np.s_[:, row::4, column::4]
        assert control[place].sum() / hidden[place].sum() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("control", [False, True])
def test_the_loss_is_the_mean_over_counted_pixels_by_hand(control):
    model = small_model(**UNITS, loss_margin=1, loss_margin_control=control)
    images, noise = small_batch(model)
    draw = torch.Generator().manual_seed(5)
    out = model(images, noise, draw)
    again = torch.Generator().manual_seed(5)
    left_out = torch.rand((3, 1, 16, 16), generator=again) if control else None
    counted = counted_pixels(model.config, out.mask, left_out)
    squared = (out.pred - patchify(images, 2)).square().reshape(3, 64, 4, 2)
    expected = squared[counted.bool()].mean()
    torch.testing.assert_close(out.loss, expected)
    assert not torch.isclose(out.loss, squared[out.mask.bool()].mean())


def test_predictions_of_left_out_pixels_get_no_gradient():
    model = small_model(**UNITS, loss_margin=1)
    images, noise = small_batch(model)
    mask = Masks.from_noise(model.config, noise).mask
    pred = torch.randn(3, 64, 8, dtype=torch.float64, requires_grad=True)
    model.loss(images, pred, mask).backward()
    counted = counted_pixels(model.config, mask).bool()
    assert torch.equal(pred.grad.reshape(3, 64, 4, 2).abs().sum(-1) > 0, counted)


def test_without_a_margin_nothing_is_drawn_and_the_loss_is_as_ever():
    model = small_model(**UNITS)
    images, noise = small_batch(model)
    draw = torch.Generator().manual_seed(5)
    before = draw.get_state()
    out = model(images, noise, draw)
    assert torch.equal(draw.get_state(), before)
    squared = (out.pred - patchify(images, 2)).square()
    torch.testing.assert_close(out.loss, squared[out.mask.bool()].mean())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_margin": 2}, "loss_margin: 2 leaves nothing of a hidden unit of 4 px; lower it"),
        ({"loss_margin": -1}, "loss_margin: -1 is not an integer of 0 or more"),
        ({"loss_margin": 1, "loss_on": "all"}, "loss_margin: the loss on all patches has no boundary"),
        ({"loss_margin_control": True}, "loss_margin_control: there is no loss_margin to control; give one"),
    ],
)
def test_impossible_margins_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small_model(**UNITS | settings)


def test_a_margin_is_kept_by_a_checkpoint(tmp_path):
    model = small_model(**UNITS, loss_margin=1, loss_margin_control=True)
    model.save_pretrained(tmp_path)
    assert MaskedAutoencoder.from_pretrained(tmp_path).config == model.config
