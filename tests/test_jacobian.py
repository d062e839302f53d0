"""The Jacobian of a masked autoencoder against autograd, finite differences, and matrices of known spectrum."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian as autograd_jacobian

from small_models import small_batch, small_model
from spatialmae.analysis.jacobian import reconstruction_jacobian, singular_spectrum
from spatialmae.analysis.reach import Influence, ReachGeometry
from spatialmae.model import MaskedAutoencoder
from spatialmae.model.masking import Masks
from spatialmae.model.patches import unpatchify


def drawn(n: int = 3, seed: int = 0, **settings) -> tuple[MaskedAutoencoder, torch.Tensor, Masks]:
    model = small_model(**settings)
    images, noise = small_batch(model, n, seed)
    return model, images, Masks.from_noise(model.config, noise)


def one_of(masks: Masks, i: int) -> Masks:
    padding = None if masks.keep_padding is None else masks.keep_padding[i : i + 1]
    return Masks(masks.ids_keep[i : i + 1], masks.ids_restore[i : i + 1], masks.mask[i : i + 1], padding)


def reconstruction(model: MaskedAutoencoder, image: torch.Tensor, masks: Masks) -> torch.Tensor:
    """Of one image, flat in C order of (h, w, c), from one in the same order."""
    c = model.config
    pred = model.decode(model.encode(image.reshape(1, *c.image_hw, c.channels).permute(0, 3, 1, 2), masks), masks)
    return unpatchify(pred, c.patch_size, c.image_hw)[0].permute(1, 2, 0).flatten()


def by_autograd(model: MaskedAutoencoder, images: torch.Tensor, masks: Masks) -> torch.Tensor:
    """torch's own loop over outputs, (N, d_in, d_out)."""
    flat = images.permute(0, 2, 3, 1).flatten(1)
    each = [
        autograd_jacobian(lambda x, i=i: reconstruction(model, x, one_of(masks, i)), image).t()
        for i, image in enumerate(flat)
    ]
    return torch.stack(each)


VARIANTS = {
    "plain": {},
    "deep decoder": {"decoder_depth": 3},
    "one block each": {"encoder_depth": 1},
    "one channel": {"channels": 1},
    "not square": {"image_size": (4, 8)},
    "patches of one pixel": {"image_size": 4, "patch_size": 1},
    "low ratio": {"mask_ratio": 0.1},
    "larger mask unit": {"mask_unit": 4, "mask_ratio": 0.5},
    "bernoulli": {"masking": "bernoulli", "mask_ratio": 0.6},
    "bernoulli, deep decoder": {"masking": "bernoulli", "mask_ratio": 0.6, "decoder_depth": 2},
    "autoencoder": {"mask_ratio": 0.0, "loss_on": "all", "bottleneck": 3},
    "denoising": {"noise_std": 0.5, "mlp_ratio": 1.5, "layer_norm_eps": 0.1},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_jacobian_is_autograds(name):
    model, images, masks = drawn(**VARIANTS[name])
    torch.testing.assert_close(
        reconstruction_jacobian(model, images, masks), by_autograd(model, images, masks), rtol=1e-9, atol=1e-12
    )


def test_it_predicts_small_changes():
    model, images, masks = drawn(n=1, decoder_depth=2)
    change = torch.randn(images.numel(), dtype=images.dtype, generator=torch.Generator().manual_seed(1))
    flat, h = images[0].permute(1, 2, 0).flatten(), 1e-5
    measured = reconstruction(model, flat + h * change, masks) - reconstruction(model, flat - h * change, masks)
    torch.testing.assert_close(
        change @ reconstruction_jacobian(model, images, masks)[0], measured / (2 * h), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("masking", ["fixed", "bernoulli"])
def test_hidden_inputs_have_rows_of_zeros_and_visible_ones_have_not(masking):
    model, images, masks = drawn(masking=masking, mask_ratio=0.6)
    c = model.config
    hidden = unpatchify(masks.mask[..., None].expand(-1, -1, c.patch_dim), c.patch_size, c.image_hw)
    hidden = hidden.permute(0, 2, 3, 1).flatten(1) > 0
    used = (reconstruction_jacobian(model, images, masks) != 0).any(dim=2)
    assert hidden.any() and torch.equal(used, ~hidden)


@pytest.mark.parametrize("masking", ["fixed", "bernoulli"])
def test_images_do_not_know_of_each_other(masking):
    model, images, masks = drawn(masking=masking, mask_ratio=0.6)
    together = reconstruction_jacobian(model, images, masks)
    for i in range(3):
        alone = reconstruction_jacobian(model, images[i : i + 1], one_of(masks, i))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("max_bytes", [1, 300_000, 2**30])
def test_memory_changes_nothing(max_bytes):
    model, images, masks = drawn(n=5)
    outputs = torch.arange(7, 50)
    torch.testing.assert_close(
        reconstruction_jacobian(model, images, masks, outputs, max_bytes=max_bytes),
        reconstruction_jacobian(model, images, masks, outputs),
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("outputs", [[63], [0, 1, 2, 17], [40, 3, 12, 41, 3]])
def test_outputs_are_columns_of_the_whole_in_the_order_given(outputs):
    model, images, masks = drawn()
    whole = reconstruction_jacobian(model, images, masks).unflatten(2, (64, 2))
    expected = whole[:, :, outputs].flatten(2)
    for given in (torch.tensor(outputs), np.array(outputs)):
        torch.testing.assert_close(
            reconstruction_jacobian(model, images, masks, given), expected, rtol=1e-10, atol=1e-12
        )


def test_float32_is_close_enough():
    model, images, masks = drawn(decoder_depth=2)
    exact = reconstruction_jacobian(model, images, masks)
    single = reconstruction_jacobian(model.float(), images.float(), masks)
    assert single.dtype == torch.float32
    assert (single - exact).abs().max() < 1e-5 * exact.abs().max()


def test_the_model_stays_as_it_was():
    model, images, masks = drawn()
    model.set_attention_kernel("fused")
    model.train()
    model.mask_token.requires_grad_(False)
    model.cls_token.grad = torch.ones_like(model.cls_token)

    parameters = [p.clone() for p in model.parameters()]
    grads = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    modes = [(m.training, getattr(m, "kernel", None)) for m in model.modules()]
    jacobian = reconstruction_jacobian(model, images.requires_grad_(), masks)
    for p, before, (requires_grad, grad) in zip(model.parameters(), parameters, grads, strict=True):
        assert torch.equal(p, before) and p.requires_grad == requires_grad
        assert p.grad is None if grad is None else torch.equal(p.grad, grad)
    assert modes == [(m.training, getattr(m, "kernel", None)) for m in model.modules()]
    assert not jacobian.requires_grad and images.grad is None
    model.set_attention_kernel("explicit")
    torch.testing.assert_close(jacobian, reconstruction_jacobian(model, images, masks), rtol=1e-10, atol=1e-12)


def test_measures_of_reach_take_it():
    model, images, masks = drawn(n=1, mask_ratio=0.0, loss_on="all")
    geometry = ReachGeometry.of((8, 8, 2), 2)
    jacobian = reconstruction_jacobian(model, images, masks, geometry.outputs)[0].numpy()
    influence = Influence.of_jacobian(jacobian, geometry.channels)
    assert influence.absolute.shape == geometry.distances.shape
    flat = images[0].permute(1, 2, 0).flatten().requires_grad_()
    output = reconstruction(model, flat, masks).unflatten(0, (64, 2))[geometry.outputs[3]]
    pixel = sum(torch.autograd.grad(x, flat, retain_graph=True)[0].abs().unflatten(0, (64, 2)).sum(1) for x in output)
    np.testing.assert_allclose(influence.absolute[:, 3], pixel / 4, rtol=1e-9)


def test_what_does_not_fit_is_refused():
    model, images, masks = drawn()
    with pytest.raises(ValueError, match=r"outputs: not pixels of the image; give indices from 0 to 63"):
        reconstruction_jacobian(model, images, masks, torch.tensor([3, 64]))
    with pytest.raises(ValueError, match=r"outputs: not pixels"):
        reconstruction_jacobian(model, images, masks, torch.tensor([-1]))
    with pytest.raises(ValueError, match=r"outputs: not pixels"):
        reconstruction_jacobian(model, images, masks, torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match=r"masks have shape \(1, 16\), not \(3, 16\)"):
        reconstruction_jacobian(model, images, one_of(masks, 0))
    with pytest.raises(ValueError, match=r"images have shape"):
        reconstruction_jacobian(model, images[..., :4], masks)
    normalised = small_model(norm_pix_loss=True)
    with pytest.raises(ValueError, match=r"norm_pix_loss: .* no image"):
        reconstruction_jacobian(normalised, images, masks)


def test_the_spectrum_rebuilds_the_jacobian():
    model, images, masks = drawn(n=1)
    jacobian = reconstruction_jacobian(model, images, masks, torch.arange(16, 48))[0]
    spectrum = singular_spectrum(jacobian, 32)
    assert spectrum.values.shape == (32,) and (spectrum.values.diff() <= 0).all()
    inputs, outputs = spectrum.inputs, spectrum.outputs
    torch.testing.assert_close(inputs.t() * spectrum.values @ outputs, jacobian)
    torch.testing.assert_close(inputs @ inputs.t(), torch.eye(32, dtype=torch.float64))
    assert (outputs.max(dim=1).values >= -outputs.min(dim=1).values).all()
    few = singular_spectrum(jacobian, 3)
    torch.testing.assert_close(few.values, spectrum.values)
    torch.testing.assert_close(few.inputs, inputs[:3])
    torch.testing.assert_close(few.outputs, outputs[:3])
