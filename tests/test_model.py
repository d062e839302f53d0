"""The masked autoencoder: geometry, masks, attention, objective, initialisation."""

import ast
import graphlib
import json
import math
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import jacrev, jvp, vmap

import spatialmae.model
from small_models import SMALL, small_batch, small_model, train
from spatialmae.masks import bernoulli_masks, fixed_count_masks, n_visible
from spatialmae.model import MAEConfig, MaskedAutoencoder, Masks
from spatialmae.model.patches import patchify, sincos_positions, unpatchify

BERNOULLI = {"masking": "bernoulli", "mask_ratio": 0.5}


# Geometry


@given(patch_size=st.integers(1, 3), rows=st.integers(1, 3), columns=st.integers(1, 3), channels=st.integers(1, 4))
def test_patches_are_cut_row_by_row_with_channels_last_and_go_back(patch_size, rows, columns, channels):
    p, (height, width) = patch_size, (rows * patch_size, columns * patch_size)
    images = torch.arange(2.0 * channels * height * width).reshape(2, channels, height, width)
    patches = patchify(images, p)
    assert patches.shape == (2, rows * columns, p * p * channels)
    for n in range(2):
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    patch = (y // p) * columns + x // p
                    place = ((y % p) * p + x % p) * channels + c
                    assert patches[n, patch, place] == images[n, c, y, x]
    assert torch.equal(unpatchify(patches, p, (height, width)), images)


def test_positions_are_sines_and_cosines_of_column_then_row():
    rows, columns, dim = 3, 5, 16
    positions = sincos_positions(dim, (rows, columns))
    assert positions.shape == (1 + rows * columns, dim)
    assert (positions[0] == 0).all()
    for row in range(rows):
        for column in range(columns):
            expected = [
                wave(place / 10000 ** (k / (dim // 4)))
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for k in range(dim // 4)
            ]
            assert positions[1 + row * columns + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_an_image_of_any_shape_and_channels_goes_through():
    model = small_model(image_size=(6, 15), patch_size=3, channels=5)
    images, noise = small_batch(model)
    out = model(images, noise)
    assert out.pred.shape == (3, 10, 45)
    assert out.mask.shape == (3, 10)
    assert model.reconstruct(images).shape == images.shape
    # Where a patch lies is told by its position embedding: mirrored images give other patches, not mirrored ones.
    assert not torch.allclose(model.reconstruct(images.flip(3)).flip(3), model.reconstruct(images))


def test_a_patch_is_seen_with_its_own_position():
    model = small_model(mask_ratio=0.75)
    images, noise = small_batch(model)
    kept = {}
    masks = Masks.from_noise(model.config, noise)
    model.encode(images, masks, kept)
    every = model.patch_embedding(patchify(images, 2)) + model.encoder_positions[1:]
    for n, ids in enumerate(masks.ids_keep):
        torch.testing.assert_close(kept["encoder/embedded"][n, 1:], every[n, ids])
    torch.testing.assert_close(kept["encoder/embedded"][:, 0], model.cls_token.expand(3, -1))


@pytest.mark.parametrize("shape", [(3, 2, 8, 6), (3, 1, 8, 8), (3, 2, 16, 16)])
@pytest.mark.parametrize("call", [MaskedAutoencoder.forward, MaskedAutoencoder.encode])
def test_images_of_another_shape_are_refused_by_both_shapes(shape, call):
    with pytest.raises(ValueError, match=rf"images have shape \({', '.join(map(str, shape))}\), not \(N, 2, 8, 8\)"):
        call(small_model(), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 15), (3, 4)])
def test_noise_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"noise has shape .*, not \(N, 16\): one number a mask unit"):
        small_model()(torch.zeros(3, 2, 8, 8, dtype=torch.float64), torch.rand(shape))


# Masks


@st.composite
def masked(draw):
    """A configuration with fixed-count masks, and noise for it, uniform or full of ties."""
    patch, per_unit = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    unit = patch * per_unit
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    ratio = draw(st.integers(0, 99)) / 100
    if math.floor(round(rows * columns * (1 - ratio), 9)) < 1:
        ratio = 0.0
    config = MAEConfig(
        **SMALL
        | {"image_size": (rows * unit, columns * unit), "patch_size": patch, "mask_unit": unit, "loss_on": "all"},
        mask_ratio=ratio,
    )
    noise = torch.rand(3, rows * columns, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31))))
    return config, (2 * noise).floor() / 2 if draw(st.booleans()) else noise


@given(masked())
def test_fixed_count_masks_hide_whole_units_of_highest_noise(case):
    config, noise = case
    masks = Masks.from_noise(config, noise)
    side = config.mask_unit_px // config.patch_size
    visible = n_visible(config.n_units, config.mask_ratio)
    assert masks.keep_padding is None
    assert masks.ids_keep.shape == (3, visible * side**2) == (3, config.n_visible)
    assert masks.mask.sum(1).tolist() == [config.n_patches - visible * side**2] * 3
    assert config.realised_mask_ratio == pytest.approx(masks.mask.mean().item())
    for n in range(3):
        assert sorted(torch.nonzero(masks.mask[n] == 0).flatten().tolist()) == sorted(masks.ids_keep[n].tolist())
        order = torch.empty(config.n_patches, dtype=torch.int64)
        order[masks.ids_restore[n]] = torch.arange(config.n_patches)
        assert torch.equal(order[: config.n_visible], masks.ids_keep[n])
        rows, columns = config.unit_grid
        hidden = masks.mask[n].reshape(rows, side, columns, side).permute(0, 2, 1, 3).reshape(-1, side**2)
        assert ((hidden == 0).all(1) | (hidden == 1).all(1)).all()
        # Units are kept one after the other in the order of the noise, each with its patches in row-major order.
        units = torch.arange(config.n_patches).reshape(rows, side, columns, side).permute(0, 2, 1, 3)
        units = units.reshape(-1, side**2)[noise[n].argsort(stable=True)]
        assert torch.equal(order, units.flatten())
        assert noise[n][hidden[:, 0] == 0].max() <= noise[n][hidden[:, 0] == 1].min() if hidden.any() else True


@pytest.mark.parametrize(("masking", "draw"), [("fixed", fixed_count_masks), ("bernoulli", bernoulli_masks)])
@given(ratio=st.integers(0, 93), seed=st.integers(0, 2**31))
def test_masks_of_theory_and_training_agree_given_the_same_noise(masking, draw, ratio, seed):
    config = MAEConfig(**SMALL, masking=masking, mask_ratio=ratio / 100, loss_on="all")
    noise = torch.from_numpy(np.random.default_rng(seed).random((4, 16)))
    theory = draw(4, 16, ratio / 100, np.random.default_rng(seed))
    assert np.array_equal(Masks.from_noise(config, noise).mask.numpy(), theory)


def test_a_hundred_patches_at_nine_tenths_leave_ten():
    config = MAEConfig(**SMALL | {"image_size": 20}, mask_ratio=0.9)
    assert Masks.from_noise(config, torch.rand(2, 100)).ids_keep.shape == (2, 10)


def test_masks_are_fresh_on_every_call_and_repeat_with_their_generator():
    model = small_model()
    images, _ = small_batch(model)
    assert not torch.equal(model(images).mask, model(images).mask)
    first, second = (model(images, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.mask, second.mask)
    assert torch.equal(first.loss, second.loss)
    assert len({tuple(row.tolist()) for row in first.mask}) == 3


def test_independent_masks_hide_each_patch_by_its_own_chance():
    config = MAEConfig(**SMALL, masking="bernoulli", mask_ratio=0.3)
    n = 20_000
    mask = Masks.from_noise(config, torch.rand(n, 16, generator=torch.Generator().manual_seed(1))).mask
    error = math.sqrt(0.3 * 0.7 / n)
    assert (mask.mean(0) - 0.3).abs().max() < 5 * error
    correlation = torch.corrcoef(mask.T) - torch.eye(16)
    assert correlation.abs().max() < 5 / math.sqrt(n)
    assert mask.sum(1).var().item() == pytest.approx(16 * 0.3 * 0.7, rel=0.06)


def test_independent_masks_take_whole_units_too():
    config = MAEConfig(**SMALL, masking="bernoulli", mask_ratio=0.5, mask_unit=4)
    mask = Masks.from_noise(config, torch.rand(50, 4)).mask.reshape(50, 2, 2, 2, 2).permute(0, 1, 3, 2, 4)
    sums = mask.reshape(-1, 4).sum(1)
    assert set(sums.tolist()) == {0, 4}


@given(st.lists(st.sampled_from([0.0, 0.5]), min_size=4, max_size=4), st.sampled_from(["fixed", "bernoulli"]))
def test_a_tie_between_units_splits_neither(noise, masking):
    config = MAEConfig(**SMALL, masking=masking, mask_ratio=0.5, mask_unit=4)
    masks = Masks.from_noise(config, torch.tensor([noise, noise[::-1]]))
    sums = masks.mask.reshape(2, 2, 2, 2, 2).sum((2, 4)).flatten(1)
    hidden = sums.sum(1) / 4
    assert set(sums.flatten().tolist()) <= {0, 4}
    assert hidden.tolist() == [2, 2] if masking == "fixed" else [noise.count(0.5)] * 2
    assert torch.equal(masks.ids_keep[0, :4].diff(), torch.tensor([1, 3, 1])) if masks.ids_keep.numel() else True


def test_independent_masks_have_an_expected_ratio_and_no_count():
    # A fixed count would leave nothing of these 16 patches visible.
    config = MAEConfig(**SMALL, masking="bernoulli", mask_ratio=0.95)
    assert config.realised_mask_ratio == 0.95
    with pytest.raises(ValueError, match="^masking: bernoulli leaves no fixed number of patches visible; "):
        _ = config.n_visible


# Independence of samples and of what is hidden


@pytest.mark.parametrize("settings", [{}, BERNOULLI, {"mask_unit": 4, "mask_ratio": 0.5}])
def test_a_sample_never_depends_on_another(settings):
    model = small_model(**settings)
    images, noise = small_batch(model, 5)
    before = model(images, noise)
    for j in range(1, 5):
        images[j], noise[j] = torch.randn_like(images[j]), torch.rand_like(noise[j])
    after, alone = model(images, noise), model(images[:1], noise[:1])
    assert not torch.allclose(before.pred[1:], after.pred[1:])
    for other in (after, alone):
        torch.testing.assert_close(other.pred[0], before.pred[0], rtol=0, atol=1e-12)
        assert torch.equal(other.mask[0], before.mask[0])


@pytest.mark.parametrize("settings", [{}, BERNOULLI])
def test_what_is_hidden_has_no_influence_at_all_and_what_is_visible_has(settings):
    model = small_model(**settings)
    images, noise = small_batch(model, 2)
    masks = Masks.from_noise(model.config, noise)
    jacobian = jacrev(lambda x: model.decode(model.encode(x, masks), masks))(images)
    jacobian = jacobian.flatten(0, 2).abs().sum(0)  # (N, C, H, W)
    reach = patchify(jacobian, 2).sum(-1)
    assert (reach[masks.mask == 1] == 0).all()
    assert (reach[masks.mask == 0] > 0).all()


# Objective


def normalised(patches: np.ndarray) -> np.ndarray:
    return (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
@pytest.mark.parametrize("loss_on", ["hidden", "all"])
def test_the_loss_is_the_mean_square_over_the_patches_that_count(loss_on, norm_pix_loss):
    model = small_model(loss_on=loss_on, norm_pix_loss=norm_pix_loss)
    images, noise = small_batch(model)
    out = model(images, noise)
    targets = patchify(images, 2).numpy()
    targets = normalised(targets) if norm_pix_loss else targets
    counts = out.mask.numpy() == 1 if loss_on == "hidden" else np.ones((3, 16), dtype=bool)
    error = out.pred.detach().numpy() - targets
    assert out.loss.item() == pytest.approx((error[counts] ** 2).mean(), rel=1e-12)
    (gradient,) = torch.autograd.grad(out.loss, out.pred)
    expected = np.where(counts[..., None], 2 * error / (counts.sum() * model.config.patch_dim), 0)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-9)
    assert (gradient.numpy()[~counts] == 0).all()


def test_a_batch_that_hides_nothing_or_everything_has_a_finite_loss():
    model = small_model(**BERNOULLI)
    images, noise = small_batch(model)
    nothing, everything = model(images, torch.zeros_like(noise)), model(images, torch.ones_like(noise))
    assert nothing.loss == 0
    assert everything.masks.ids_keep.shape == (3, 0)
    assert everything.loss > 0
    # With nothing seen, all predictions are the same.
    torch.testing.assert_close(everything.pred[0], everything.pred[1])


def test_an_autoencoder_sees_everything_through_its_bottleneck():
    model = small_model(mask_ratio=0, loss_on="all", bottleneck=3)
    images, _ = small_batch(model)
    out = model(images, intermediates=True)
    assert (out.mask == 0).all()
    assert out.latent.shape == (3, 17, 16)
    assert out.intermediates["bottleneck"].shape == (3, 17, 3)
    # All that the decoder learns of an image has passed the bottleneck: 3 numbers a token.
    jacobian = jacrev(model.decoder_embedding)(out.intermediates["bottleneck"][0, 0])
    assert torch.linalg.matrix_rank(jacobian @ model.bottleneck.weight) == 3
    torch.testing.assert_close(out.loss, (out.pred - patchify(images, 2)).square().mean())
    torch.testing.assert_close(model.reconstruct(images), unpatchify(out.pred, 2, (8, 8)))


def test_a_denoising_autoencoder_adds_noise_to_its_input_alone():
    model = small_model(mask_ratio=0, loss_on="all", bottleneck=3, noise_std=0.5)
    images, _ = small_batch(model, 200)
    first, second = (model(images, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    again = model(images, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first.pred, again.pred)
    assert not torch.allclose(first.pred, second.pred)
    torch.testing.assert_close(first.loss, (first.pred - patchify(images, 2)).square().mean())
    added = model.corrupt(images) - images
    assert added.std().item() == pytest.approx(0.5, rel=0.03)
    assert abs(added.mean().item()) < 0.02
    torch.testing.assert_close(model.encode(images), model.encode(images), rtol=0, atol=0)


def test_the_encoder_can_be_shown_other_images_than_those_to_predict():
    model = small_model()
    images, noise = small_batch(model)
    seen = torch.randn_like(images)
    out, of_seen = model(images, noise, seen=seen), model(seen, noise)
    assert torch.equal(out.pred, of_seen.pred)
    torch.testing.assert_close(out.loss, model.loss(images, of_seen.pred, of_seen.mask))


def test_predictions_of_normalised_patches_are_no_image():
    with pytest.raises(ValueError, match="norm_pix_loss"):
        small_model(norm_pix_loss=True).reconstruct(torch.zeros(1, 2, 8, 8, dtype=torch.float64))


# Attention


@pytest.mark.parametrize("settings", [{}, BERNOULLI, {"mask_ratio": 0, "loss_on": "all"}])
def test_explicit_and_fused_attention_are_equal(settings):
    model = small_model(torch.float32, **settings)
    images, noise = small_batch(model, 6)
    results = {}
    for kernel in ("explicit", "fused"):
        model.set_attention_kernel(kernel)
        model.zero_grad()
        out = model(images, noise, intermediates=True)
        out.loss.backward()
        results[kernel] = [out.loss, out.pred, *(p.grad for p in model.parameters() if p.grad is not None)]
        assert ("encoder/block0/attention" in out.intermediates) == (kernel == "explicit")
    assert (Masks.from_noise(model.config, noise).keep_padding is not None) == (settings == BERNOULLI)
    for explicit, fused in zip(*results.values(), strict=True):
        torch.testing.assert_close(fused, explicit, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, BERNOULLI])
def test_forward_mode_derivatives_agree_with_differences(settings):
    model = small_model(**settings)
    images, noise = small_batch(model)
    masks = Masks.from_noise(model.config, noise)
    direction = torch.randn_like(images)

    def predict(x):
        return model.decode(model.encode(x, masks), masks)

    _, tangent = jvp(predict, (images,), (direction,))
    difference = (predict(images + 1e-6 * direction) - predict(images - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close(tangent, difference, rtol=1e-6, atol=1e-7)


def test_jacobians_of_a_batch_by_vmap_are_those_of_each_image():
    model = small_model()
    images, noise = small_batch(model)
    masks = Masks.from_noise(model.config, noise)

    def predict(image, ids_keep, ids_restore, mask):
        one = Masks(ids_keep[None], ids_restore[None], mask[None])
        return model.decode(model.encode(image[None], one), one)[0]

    batch = vmap(jacrev(predict))(images, masks.ids_keep, masks.ids_restore, masks.mask)
    assert batch.shape == (3, 16, 8, 2, 8, 8)
    for n in range(3):
        arguments = (masks.ids_keep[n], masks.ids_restore[n], masks.mask[n])
        alone = torch.autograd.functional.jacobian(lambda x, a=arguments: predict(x, *a), images[n])
        torch.testing.assert_close(batch[n], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_forward_pass_compiles_as_one_graph():
    # In a process of its own, without the tests' type checker, which torch.compile cannot trace.
    script = """
import torch
from small_models import small_batch, small_model
for settings in ({}, {"mask_unit": 4, "mask_ratio": 0.5}):
    model = small_model(**settings)
    images, noise = small_batch(model)
    compiled = torch.compile(model, backend="eager", fullgraph=True)(images, noise)
    eager = model(images, noise)
    for name in ("loss", "pred", "mask", "latent"):
        torch.testing.assert_close(getattr(compiled, name), getattr(eager, name), rtol=0, atol=0)
    assert torch.equal(compiled.masks.ids_keep, eager.masks.ids_keep)
print("equal")
"""
    tests = Path(__file__).parent
    result = subprocess.run([sys.executable, "-c", script], cwd=tests, capture_output=True, text=True, check=False)
    assert result.stdout == "equal\n", result.stderr


# Intermediates and encoding


@pytest.mark.parametrize("settings", [{}, BERNOULLI])
def test_intermediates_have_their_names_shapes_and_attention_that_sums_to_one(settings):
    model = small_model(**settings)
    images, noise = small_batch(model)
    out = model(images, noise, intermediates=True)
    k = out.masks.ids_keep.shape[1]
    tokens, mixed = (3, 1 + k, 16), (3, 17, 8)
    assert {name: tuple(value.shape) for name, value in out.intermediates.items()} == {
        "encoder/embedded": tokens,
        "encoder/block0": tokens,
        "encoder/block0/attention": (3, 2, 1 + k, 1 + k),
        "encoder/block1": tokens,
        "encoder/block1/attention": (3, 2, 1 + k, 1 + k),
        "encoder/norm": tokens,
        "bottleneck": tokens,
        "decoder/embedded": mixed,
        "decoder/block0": mixed,
        "decoder/block0/attention": (3, 4, 17, 17),
        "decoder/norm": mixed,
    }
    assert torch.equal(out.intermediates["encoder/norm"], out.latent)
    for name, value in out.intermediates.items():
        if name.endswith("attention"):
            torch.testing.assert_close(value.sum(-1), torch.ones_like(value.sum(-1)))
    if out.masks.keep_padding is not None:
        attention = out.intermediates["encoder/block1/attention"][..., 1:].sum((1, 2))
        assert out.masks.keep_padding.any()
        assert (attention[out.masks.keep_padding] == 0).all()
        assert (attention[~out.masks.keep_padding] > 0).all()
    assert model(images, noise).intermediates == {}


def test_encoding_sees_all_patches_and_is_not_random():
    model = small_model(noise_std=0.5)
    images, _ = small_batch(model)
    state = torch.get_rng_state()
    latent = model.encode(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert latent.shape == (3, 17, 16)
    assert torch.equal(latent, model.encode(images))
    shuffled = torch.stack([torch.randperm(16) for _ in range(3)])
    masks = Masks(shuffled, shuffled.argsort(1), torch.zeros(3, 16))
    in_order = model.encode(images, masks)[:, 1:].gather(1, masks.ids_restore[..., None].expand(-1, -1, 16))
    torch.testing.assert_close(in_order, latent[:, 1:])


# Initialisation


def test_every_weight_starts_as_in_the_original():
    settings = {"encoder_dim": 64, "decoder_dim": 48, "bottleneck": 32, "patch_size": 4, "channels": 3}
    model = MaskedAutoencoder(MAEConfig(**SMALL | settings), torch.Generator().manual_seed(0))
    seen = set()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            fan_out, fan_in = module.weight.shape
            std, n = math.sqrt(2 / (fan_in + fan_out)), module.weight.numel()
            # The standard error of a uniform distribution's deviation is σ √(.2/n).
            assert abs(module.weight.std().item() / std - 1) < 5 * math.sqrt(0.2 / n), name
            assert abs(module.weight.mean().item()) < 5 * std / math.sqrt(n), name
            assert 0.99 * math.sqrt(3) * std < module.weight.abs().max() <= math.sqrt(3) * std * (1 + 1e-6), name
            assert (module.bias == 0).all(), name
        elif isinstance(module, torch.nn.LayerNorm):
            assert (module.weight == 1).all(), name
            assert (module.bias == 0).all(), name
        else:
            continue
        seen |= {f"{name}.weight", f"{name}.bias"}
    drawn = {"cls_token": [], "mask_token": []}
    for seed in range(40):
        model.initialise(torch.Generator().manual_seed(seed))
        for name, tokens in drawn.items():
            tokens.append(getattr(model, name).detach().clone())
    for name, tokens in drawn.items():
        token = torch.cat(tokens)
        assert abs(token.std().item() / 0.02 - 1) < 5 / math.sqrt(2 * token.numel()), name
        assert abs(token.mean().item()) < 5 * 0.02 / math.sqrt(token.numel()), name
    assert {name for name, _ in model.named_parameters()} == seen | {"cls_token", "mask_token"}


def test_weights_repeat_with_their_generator_and_differ_between_layers_and_seeds():
    config = MAEConfig(**SMALL)
    first, again, other = (MaskedAutoencoder(config, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(first.patch_embedding.weight, other.patch_embedding.weight)
    assert not torch.equal(first.encoder[0].mlp[0].weight, first.encoder[1].mlp[0].weight)
    assert not torch.equal(first.mask_token, other.mask_token)


def test_position_embeddings_are_not_trained():
    model = small_model()
    names = {name for name, _ in model.named_parameters()}
    assert not {"encoder_positions", "decoder_positions"} & names
    assert {"encoder_positions", "decoder_positions"} <= set(model.state_dict())


def test_training_lowers_the_loss_and_reaches_every_weight():
    torch.manual_seed(0)
    model = MaskedAutoencoder(MAEConfig(**SMALL, mask_ratio=0.5))
    images, noise = small_batch(model, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = train(model, optimizer, images, noise, steps=60)
    assert losses[-1] < 0.6 * losses[0]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


# Configuration


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "image_size: 0 is not an integer"),
        ({"image_size": (8,)}, r"image_size: \(8,\) is neither"),
        ({"image_size": (8, 8, 2)}, "image_size"),
        ({"image_size": (8, True)}, "image_size"),
        ({"patch_size": 3}, "patch_size: 3 does not tile 8×8 px"),
        ({"image_size": (8, 9)}, "patch_size: 2 does not tile 8×9 px"),
        ({"patch_size": 2.0}, "patch_size: 2.0"),
        ({"channels": 0}, "channels"),
        ({"encoder_dim": 18}, "encoder_dim: 18 is not a multiple of 4"),
        ({"encoder_heads": 3}, "encoder_dim: 16 is not a multiple of 4 and of encoder_heads=3"),
        ({"encoder_depth": 0}, "encoder_depth"),
        ({"encoder_heads": True}, "encoder_heads"),
        ({"decoder_dim": 10}, "decoder_dim: 10"),
        ({"decoder_depth": -1}, "decoder_depth"),
        ({"decoder_heads": 3}, "decoder_dim: 8 is not a multiple of 4 and of decoder_heads=3"),
        ({"mlp_ratio": 0}, "mlp_ratio: 0 is not a positive number"),
        ({"mlp_ratio": 0.1}, "mlp_ratio: 0.1 leaves nothing of decoder_dim=8"),
        ({"mask_ratio": 1}, r"mask_ratio: 1.0 is not in \[0, 1\)"),
        ({"mask_ratio": -0.1}, "mask_ratio: -0.1"),
        ({"mask_ratio": "high"}, "mask_ratio: 'high'"),
        ({"mask_ratio": float("nan")}, "mask_ratio: nan"),
        ({"mask_ratio": 0.95}, "mask_ratio: 0.95 leaves none of 16 patches visible; lower it or patch_size"),
        (
            {"mask_ratio": 0.8, "mask_unit": 4},
            "mask_ratio: 0.8 leaves none of 4 mask units visible; lower it or mask_unit",
        ),
        ({"mask_ratio": 0}, "loss_on: mask_ratio=0.0 hides none of 16 units"),
        ({"mask_ratio": 0, "masking": "bernoulli"}, "loss_on: mask_ratio=0"),
        ({"mask_unit": 3}, "mask_unit: 3 px must be a multiple of patch_size=2"),
        ({"mask_unit": 6}, "mask_unit: 6 px"),
        ({"mask_unit": 0}, "mask_unit: 0"),
        ({"masking": "block"}, "masking: 'block' is unknown"),
        ({"loss_on": "visible"}, "loss_on: 'visible'"),
        ({"norm_pix_loss": "yes"}, "norm_pix_loss"),
        ({"norm_pix_loss": True, "patch_size": 1, "channels": 1}, "norm_pix_loss: a patch of one number"),
        ({"noise_std": -1}, "noise_std: -1 is not a non-negative number"),
        ({"noise_std": float("inf")}, "noise_std"),
        ({"bottleneck": 0}, "bottleneck: 0"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
    ],
)
def test_impossible_configurations_are_refused_by_field_and_mend(settings, message):
    # Without __init__, where the tests' type checker would refuse wrong types before the checks that users meet.
    config = object.__new__(MAEConfig)
    for name, value in (MAEConfig().to_dict() | SMALL | settings).items():
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError, match=f"^{message}") as error:
        config.__post_init__()
    assert str(error.value).count("; ") == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"mlp_ratio": 2}, {"mlp_ratio": 2.0}),
        ({"image_size": (8, 8)}, {"image_size": 8}),
        ({"mask_unit": 2}, {"mask_unit": None}),
    ],
)
def test_settings_that_mean_the_same_are_one_configuration(one, other):
    first, second = (MAEConfig(**SMALL | settings) for settings in (one, other))
    assert (first, hash(first), repr(first)) == (second, hash(second), repr(second))
    assert json.dumps(first.to_dict()) == json.dumps(second.to_dict())
    assert set(first.to_dict()) == set(asdict(first)) == {f.name for f in fields(MAEConfig)}


def test_configurations_come_back_from_json_values():
    config = MAEConfig(**SMALL | {"image_size": (8, 12)}, mask_unit=4, bottleneck=3)
    assert config.to_dict()["image_size"] == [8, 12]
    assert MAEConfig.from_dict(config.to_dict()) == config
    assert MAEConfig.from_dict(replace(config, image_size=8).to_dict()).image_hw == (8, 8)
    with pytest.raises(ValueError, match="^patchsize: unknown key; "):
        MAEConfig.from_dict({"patchsize": 4})


def test_modules_of_the_model_depend_one_way():
    """Imports inside functions count."""
    folder = Path(spatialmae.model.__file__).parent
    names = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    imports = {}
    for name in names:
        nodes = ast.walk(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8")))
        found = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        imports[name] = {module.removeprefix("spatialmae.model.") for module in found} & names
    assert imports["mae"] >= {"checkpoint", "huggingface", "config"}
    list(graphlib.TopologicalSorter(imports).static_order())  # raises at a circle
