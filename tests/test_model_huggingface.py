"""Hugging Face's ViTMAE is the oracle of our model, and their checkpoints are ours in another layout."""

import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEEmbeddings
from typer.testing import CliRunner

from small_models import randomise, small_model
from spatialmae.cli import app
from spatialmae.errors import UserError
from spatialmae.masks import n_visible
from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.model.checkpoint import read_config
from spatialmae.model.huggingface import our_mask_ratio, their_mask_ratio
from spatialmae.stages.huggingface import export_huggingface, import_huggingface

THEIRS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 4,
    "num_channels": 3,
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 32,
}
CASES = {
    "32 px": {},
    "normalised": {"norm_pix_loss": True},
    "p = 2, grey, 16 px": {"patch_size": 2, "num_channels": 1, "image_size": 16, "mask_ratio": 0.6},
    "p = 8, sizes as a pair": {"patch_size": 8, "image_size": [32, 32], "mask_ratio": 0.5},
    "wide decoder of odd depth": {
        "hidden_size": 12,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "decoder_hidden_size": 24,
        "decoder_intermediate_size": 40,
        "decoder_num_hidden_layers": 3,
    },
    "MLP ratio that rounds down": {
        "hidden_size": 36,
        "intermediate_size": 97,
        "decoder_hidden_size": 20,
        "decoder_intermediate_size": 54,
    },
    "MLP ratio whose quotient rounds down": {  # 28 * (61 / 28) < 61
        "hidden_size": 28,
        "intermediate_size": 61,
        "decoder_hidden_size": 56,
        "decoder_intermediate_size": 122,
    },
    "L = 100 at .9": {"image_size": 40, "mask_ratio": 0.9},
    "large epsilon": {"layer_norm_eps": 0.1},
}


def their_model(seed: int = 0, **settings) -> ViTMAEForPreTraining:
    return randomise(ViTMAEForPreTraining(ViTMAEConfig(**THEIRS | settings)), seed)


def batch(vit_mae: ViTMAEForPreTraining, n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    positions = vit_mae.vit.embeddings.position_embeddings
    side = vit_mae.vit.embeddings.patch_embeddings.image_size
    images = torch.randn((n, vit_mae.config.num_channels, *side), generator=torch.Generator().manual_seed(1))
    return images, torch.rand(n, positions.shape[1] - 1, generator=torch.Generator().manual_seed(2))


def assert_equal(ours: MaskedAutoencoder, theirs: ViTMAEForPreTraining) -> None:
    """The same loss, predictions, masks and encoding, to 1e-5, for predictions that differ by far more."""
    images, noise = batch(theirs)
    with torch.no_grad():
        out, expected = ours(images, noise), theirs(images, noise=noise)
        latent = theirs.vit(images, noise=noise).last_hidden_state
    assert expected.logits.std() > 0.1
    assert torch.equal(out.mask, expected.mask)
    assert torch.equal(out.masks.ids_restore, expected.ids_restore)
    for mine, other in ((out.loss, expected.loss), (out.pred, expected.logits), (out.latent, latent)):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_converted_both_ways_the_models_are_equal(settings):
    theirs = their_model(**settings)
    ours = MaskedAutoencoder.from_huggingface(theirs)
    assert_equal(ours, theirs)
    back = ours.to_huggingface()
    assert_equal(ours, back)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    same = {"hidden_size", "intermediate_size", "decoder_intermediate_size", "norm_pix_loss", "layer_norm_eps"}
    assert {name: getattr(back.config, name) for name in same} == {name: getattr(theirs.config, name) for name in same}


@pytest.mark.parametrize("settings", [{}, {"norm_pix_loss": True, "channels": 1, "mask_ratio": 0.5}])
def test_a_model_of_ours_equals_what_it_becomes(settings):
    ours = small_model(torch.float32, **settings)
    assert_equal(ours, ours.to_huggingface())
    double = small_model(torch.float64, **settings)
    theirs = double.to_huggingface()
    images, noise = (x.double() for x in batch(theirs))
    torch.testing.assert_close(double(images, noise).pred, theirs(images, noise=noise).logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"norm_pix_loss": True}])
def test_gradients_are_equal_too(settings):
    theirs = their_model(**settings)
    ours = MaskedAutoencoder.from_huggingface(theirs)
    images, noise = batch(theirs)
    images.requires_grad_()
    ours(images, noise).loss.backward()
    gradient, images.grad = images.grad, None
    theirs(images, noise=noise).loss.backward()
    torch.testing.assert_close(gradient, images.grad, rtol=1e-4, atol=1e-6)
    # Conversion is linear, so that their gradients convert to ours as weights do.
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    expected = dict(MaskedAutoencoder.from_huggingface(theirs).named_parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.grad.any(), name
        torch.testing.assert_close(parameter.grad, expected[name].detach(), rtol=1e-4, atol=1e-6, msg=name)


def test_our_positions_are_those_that_theirs_sets_out_with():
    embeddings = ViTMAEEmbeddings(ViTMAEConfig(**THEIRS))
    embeddings.initialize_weights()
    ours = MaskedAutoencoder(MAEConfig(encoder_dim=16, encoder_depth=1, encoder_heads=1))
    torch.testing.assert_close(ours.encoder_positions, embeddings.position_embeddings[0], rtol=0, atol=1e-6)
    assert ours.encoder_positions.std() > 0.1


def test_conversion_copies_keeps_type_and_mode_and_draws_no_random_numbers():
    theirs = their_model().to(torch.float64).eval()
    state = torch.get_rng_state()
    ours = MaskedAutoencoder.from_huggingface(theirs)
    back = ours.to_huggingface()
    assert torch.equal(torch.get_rng_state(), state)
    assert (ours.training, back.training) == (False, False)
    assert ours.cls_token.dtype == back.dtype == torch.float64
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with torch.no_grad():
        for parameter in (*theirs.parameters(), *back.parameters()):
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())
    assert all(parameter.requires_grad for parameter in ours.parameters())


@given(side=st.integers(2, 20), percent=st.integers(1, 99))
def test_both_hide_as_many_patches_at_every_ratio(side, percent):
    n_patches, ratio = side**2, percent / 100
    theirs = int(n_patches * (1 - ratio))
    if theirs >= 1:
        assert n_visible(n_patches, our_mask_ratio(ratio, n_patches)) == theirs
    if n_patches * (100 - percent) >= 100:
        ours = n_visible(n_patches, ratio)
        assert int(n_patches * (1 - their_mask_ratio(ratio, n_patches, ours))) == ours
        if ours == theirs:
            assert their_mask_ratio(ratio, n_patches, ours) == our_mask_ratio(ratio, n_patches) == ratio


def test_a_hundred_patches_at_nine_tenths_keep_their_count_either_way():
    ours = small_model(torch.float32, image_size=20, mask_ratio=0.9)
    theirs = ours.to_huggingface()
    assert_equal(ours, theirs)
    assert theirs(*batch(theirs)).mask.sum(1).tolist() == [90] * 4
    naive = their_model(image_size=40, mask_ratio=0.9)
    assert naive(*batch(naive)).mask.sum(1).tolist() == [91] * 4
    assert MaskedAutoencoder.from_huggingface(naive).config.n_visible == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act: 'relu' has no counterpart, only 'gelu'; "),
        ({"hidden_act": "gelu_new"}, "hidden_act"),
        ({"qkv_bias": False}, "qkv_bias: False has no counterpart, only True; "),
        ({"hidden_dropout_prob": 0.1}, "hidden_dropout_prob: 0.1 .*; set it to 0"),
        ({"attention_probs_dropout_prob": 0.1}, "attention_probs_dropout_prob: 0.1 .*; set it to 0"),
        ({"head_dim": 4}, "head_dim: 4"),
        ({"decoder_intermediate_size": 24}, "decoder_intermediate_size: 24 .*; use a model with one MLP ratio"),
        ({"hidden_size": 18, "intermediate_size": 72}, "encoder_dim: 18 is not a multiple of 4"),
        ({"image_size": 34}, "patch_size: 4 does not tile 34×34 px"),
        ({"mask_ratio": 0.0}, "mask_ratio: 0.0 leaves 64 of 64 patches visible; "),
        ({"mask_ratio": 0.99}, "mask_ratio: 0.99 leaves 0 of 64 patches visible; "),
    ],
)
def test_settings_of_theirs_without_counterpart_are_refused(settings, message):
    model = their_model()
    for name, value in settings.items():
        setattr(model.config, name, value)
    with pytest.raises(ValueError, match=f"^{message}"):
        MaskedAutoencoder.from_huggingface(model)


def test_an_oblong_image_is_refused_both_ways():
    model = their_model()
    model.config.image_size = [32, 16]
    with pytest.raises(ValueError, match=r"^image_size: transformers' own loss takes no \[32, 16\]; "):
        MaskedAutoencoder.from_huggingface(model)
    with pytest.raises(ValueError, match="^image_size: transformers' ViTMAE takes no 8×16 px; "):
        small_model(image_size=(8, 16)).to_huggingface()


@pytest.mark.parametrize(
    "settings",
    [
        {"bottleneck": 3},
        {"mask_unit": 4, "mask_ratio": 0.5},
        {"masking": "bernoulli"},
        {"loss_on": "all"},
        {"noise_std": 0.1},
    ],
)
def test_settings_of_ours_without_counterpart_are_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"^{name}: {value!r} has no counterpart in transformers' ViTMAE; "):
        small_model(**settings).to_huggingface()


def test_a_mask_unit_that_is_the_patch_converts():
    assert small_model(mask_unit=2).to_huggingface().config.mask_ratio == 0.75


def test_models_of_another_kind_or_with_more_weights_are_refused():
    with pytest.raises(ValueError, match="^ViTMAEModel is no ViTMAEForPreTraining; "):
        MaskedAutoencoder.from_huggingface(ViTMAEModel(ViTMAEConfig(**THEIRS)))
    model = their_model()
    model.decoder.extra = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match=r"^decoder.extra has no counterpart; "):
        MaskedAutoencoder.from_huggingface(model)
    model = their_model()
    del model.decoder.mask_token
    with pytest.raises(ValueError, match=r"lacks decoder.mask_token; use another version"):
        MaskedAutoencoder.from_huggingface(model)


# Checkpoints on disk


def published(folder, *, drop: str = "no such name") -> None:
    """A checkpoint with random weights, in the layout of facebook/vit-mae-base."""
    p, c = THEIRS["patch_size"], THEIRS["num_channels"]
    n_positions = (THEIRS["image_size"] // p) ** 2 + 1
    d, e = THEIRS["hidden_size"], THEIRS["decoder_hidden_size"]
    shapes = {
        "vit.embeddings.cls_token": (1, 1, d),
        "vit.embeddings.position_embeddings": (1, n_positions, d),
        "vit.embeddings.patch_embeddings.projection.weight": (d, c, p, p),
        "vit.embeddings.patch_embeddings.projection.bias": (d,),
        "vit.layernorm.weight": (d,),
        "vit.layernorm.bias": (d,),
        "decoder.mask_token": (1, 1, e),
        "decoder.decoder_pos_embed": (1, n_positions, e),
        "decoder.decoder_embed.weight": (e, d),
        "decoder.decoder_embed.bias": (e,),
        "decoder.decoder_norm.weight": (e,),
        "decoder.decoder_norm.bias": (e,),
        "decoder.decoder_pred.weight": (p * p * c, e),
        "decoder.decoder_pred.bias": (p * p * c,),
    }
    for layers, depth, width in (("vit.encoder.layer", 2, d), ("decoder.decoder_layers", 1, e)):
        for i in range(depth):
            matrices = {f"attention.attention.{x}": (width, width) for x in ("query", "key", "value")}
            matrices |= {"attention.output.dense": (width, width)}
            matrices |= {"intermediate.dense": (4 * width, width), "output.dense": (width, 4 * width)}
            for name, shape in matrices.items():
                shapes |= {f"{layers}.{i}.{name}.weight": shape, f"{layers}.{i}.{name}.bias": shape[:1]}
            for name in ("layernorm_before", "layernorm_after"):
                shapes |= {f"{layers}.{i}.{name}.weight": (width,), f"{layers}.{i}.{name}.bias": (width,)}
    generator = torch.Generator().manual_seed(3)
    tensors = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    folder.mkdir()
    save_file({k: v for k, v in tensors.items() if drop not in k}, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["ViTMAEForPreTraining"],
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "mask_ratio": 0.75,
        "model_type": "vit_mae",
        "norm_pix_loss": False,
        "qkv_bias": True,
        "torch_dtype": "float32",
        "transformers_version": "4.16.0.dev0",
    }
    (folder / "config.json").write_text(json.dumps(config | THEIRS))


def read_theirs(folder) -> ViTMAEForPreTraining:
    model, report = ViTMAEForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


def test_a_checkpoint_in_the_published_layout_is_imported(tmp_path):
    published(tmp_path / "published")
    result = CliRunner().invoke(app, ["import-huggingface", str(tmp_path / "published"), str(tmp_path / "ours")])
    assert (result.exit_code, result.output) == (0, "")
    ours = MaskedAutoencoder.from_pretrained(tmp_path / "ours")
    assert_equal(ours, read_theirs(tmp_path / "published"))
    assert ours.config.layer_norm_eps == 1e-12
    assert read_config(tmp_path / "ours")["source"] == str(tmp_path / "published")


def test_a_checkpoint_that_transformers_saves_is_imported_in_single_precision(tmp_path):
    theirs = their_model(norm_pix_loss=True, image_size=40, mask_ratio=0.9).half()
    theirs.save_pretrained(tmp_path / "theirs")
    import_huggingface(str(tmp_path / "theirs"), tmp_path / "ours")
    ours = MaskedAutoencoder.from_pretrained(tmp_path / "ours")
    assert ours.cls_token.dtype == torch.float32
    assert_equal(ours, theirs.float())


def test_an_exported_checkpoint_loads_in_transformers_and_comes_back(tmp_path):
    ours = small_model(torch.float32, norm_pix_loss=True)
    ours.save_pretrained(tmp_path / "ours")
    result = CliRunner().invoke(app, ["export-huggingface", str(tmp_path / "ours"), str(tmp_path / "theirs")])
    assert (result.exit_code, result.output) == (0, "")
    assert_equal(ours, read_theirs(tmp_path / "theirs"))
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == ["config.json", "model.safetensors"]
    import_huggingface(str(tmp_path / "theirs"), tmp_path / "again")
    again = MaskedAutoencoder.from_pretrained(tmp_path / "again")
    assert again.config == ours.config
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_an_exported_checkpoint_has_the_published_names(tmp_path):
    """By which every version of transformers reads it; those of 5.23's own save_pretrained not all do."""
    from safetensors import safe_open

    published(tmp_path / "published")
    import_huggingface(str(tmp_path / "published"), tmp_path / "ours")
    export_huggingface(tmp_path / "ours", tmp_path / "theirs")
    with (
        safe_open(tmp_path / "published" / "model.safetensors", "pt") as before,
        safe_open(tmp_path / "theirs" / "model.safetensors", "pt") as after,
    ):
        assert sorted(before.keys()) == sorted(after.keys())
        assert all(torch.equal(before.get_tensor(name), after.get_tensor(name)) for name in before.keys())  # noqa: SIM118


def test_checkpoints_that_cannot_be_imported_are_said_so_and_leave_nothing(tmp_path):
    (tmp_path / "void").mkdir()
    published(tmp_path / "headless", drop="decoder.")
    published(tmp_path / "truncated")
    weights = tmp_path / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    published(tmp_path / "pickled")
    # Whole and readable, but by unpickling.
    torch.save(load_file(tmp_path / "pickled" / "model.safetensors"), tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    published(tmp_path / "sparse")
    config = tmp_path / "sparse" / "config.json"
    config.write_text(config.read_text().replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    published(tmp_path / "unreadable")
    (tmp_path / "unreadable" / "config.json").write_text("{")
    vit = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16)
    ViTForImageClassification(vit).save_pretrained(tmp_path / "vit")
    small_model(torch.float32).save_pretrained(tmp_path / "ours")
    for name, message in {
        "absent": "transformers cannot read it",
        "void": "transformers cannot read it",
        "headless": r"lacks 24 weights, such as decoder\.decoder_embed\.bias; ",
        "truncated": "transformers cannot read it",
        "pickled": r"transformers cannot read it \(.*safetensors.*\)",
        "sparse": "hidden_act: 'relu' has no counterpart, only 'gelu'; ",
        "unreadable": "transformers cannot read it",
        "vit": "holds a model of type 'vit'; ",
        "ours": "transformers cannot read it",
    }.items():
        with pytest.raises(UserError, match=f"{name}: {message}") as caught:
            import_huggingface(str(tmp_path / name), tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_checkpoints_that_cannot_be_exported_are_said_so_and_leave_nothing(tmp_path):
    small_model(torch.float32, bottleneck=3).save_pretrained(tmp_path / "narrow")
    for name, message in {
        "absent": "checkpoint not found; ",
        "narrow": "model.bottleneck: 3 has no counterpart",
    }.items():
        with pytest.raises(UserError, match=f"{name}: {message}"):
            export_huggingface(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_a_network_a_name_on_the_hub_ends_in_one_line(tmp_path):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "spatialmae", "import-huggingface", "facebook/vit-mae-base", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: facebook/vit-mae-base: transformers cannot read it (")
    assert result.stderr.count("\n") == 1


def test_without_transformers_conversion_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for call in (small_model().to_huggingface, lambda: import_huggingface("x", tmp_path / "out")):
        with pytest.raises(UserError, match="transformers: not installed; pip install transformers"):
            call()


def test_both_models_have_as_many_weights_to_train():
    theirs = sum(p.numel() for p in small_model().to_huggingface().parameters() if p.requires_grad)
    assert sum(p.numel() for p in small_model().parameters()) == theirs
