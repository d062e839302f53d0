"""Checkpoints come back bit by bit, and what is wrong with one is said in a line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from small_models import SMALL, small_batch, small_model, train
from spatialmae.artifacts import write_tensors
from spatialmae.errors import UserError
from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.model.checkpoint import read_config


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image_size": (8, 12), "channels": 3},
        {"mask_ratio": 0, "loss_on": "all", "bottleneck": 3, "noise_std": 0.1},
    ],
)
def test_models_come_back(tmp_path, settings):
    model = small_model(torch.float32, **settings)
    model.save_pretrained(tmp_path, {"epoch": 3})
    back = MaskedAutoencoder.from_pretrained(tmp_path)
    assert back.config == model.config
    assert {**back.state_dict()}.keys() == {**model.state_dict()}.keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in back.state_dict().items())
    images, noise = small_batch(model)
    seen = torch.randn_like(images)
    assert torch.equal(back(images, noise, seen=seen).pred, model(images, noise, seen=seen).pred)
    assert read_config(tmp_path) == {"model": model.config.to_dict(), "epoch": 3}


@pytest.mark.parametrize(
    ("stored", "read"),
    [(torch.float64, torch.float64), (torch.float16, torch.float16), (torch.bfloat16, torch.float32)],
)
def test_types_are_kept_but_bfloat16_which_is_widened(tmp_path, stored, read):
    model = small_model(stored)
    model.save_pretrained(tmp_path)
    back = MaskedAutoencoder.from_pretrained(tmp_path)
    for name, tensor in back.state_dict().items():
        assert tensor.dtype == read
        assert torch.equal(tensor, model.state_dict()[name].to(read))


def test_the_safetensors_package_reads_our_weights(tmp_path):
    model = small_model(torch.float32)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == dict(model.state_dict()).keys()
    assert all(np.array_equal(tensors[name], tensor.numpy()) for name, tensor in model.state_dict().items())


def test_loading_draws_no_random_numbers_and_leaves_a_model_to_train(tmp_path):
    small_model(torch.float32).save_pretrained(tmp_path)
    state = torch.get_rng_state()
    model = MaskedAutoencoder.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    assert not model.encoder_positions.requires_grad
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    images, noise = small_batch(model)
    losses = train(model, optimizer, images, noise, steps=10)
    assert losses[-1] < losses[0]
    # The file is not mapped into the model: training does not change it.
    assert not torch.equal(MaskedAutoencoder.from_pretrained(tmp_path).cls_token, model.cls_token)


def test_a_model_saved_again_replaces_the_old_and_a_failure_leaves_no_scraps(tmp_path):
    small_model(seed=1).save_pretrained(tmp_path, {"epoch": 1})
    small_model(seed=2).save_pretrained(tmp_path, {"epoch": 2})
    assert torch.equal(MaskedAutoencoder.from_pretrained(tmp_path).cls_token, small_model(seed=2).cls_token)
    with pytest.raises(TypeError):
        small_model(seed=2).save_pretrained(tmp_path, {"epoch": object()})
    assert read_config(tmp_path)["epoch"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_the_configuration_is_written_last(tmp_path):
    with pytest.raises(TypeError):
        small_model().save_pretrained(tmp_path, {"epoch": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    with pytest.raises(UserError, match=r"config.json: configuration not found; "):
        MaskedAutoencoder.from_pretrained(tmp_path)


def test_the_model_key_is_the_models_own(tmp_path):
    with pytest.raises(ValueError, match="'model' is the model's own"):
        small_model().save_pretrained(tmp_path, {"model": {}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patchsize": 2}, r"config.json: model.patchsize: unknown key; remove it or correct its spelling"),
        ({"patch_size": 3}, r"config.json: model.patch_size: 3 does not tile 8×8 px; use a divisor"),
        ({"mask_ratio": 2.0}, r"config.json: model.mask_ratio: 2.0 is not in \[0, 1\), .*; change it"),
        ({"encoder_depth": 0}, r"config.json: model.encoder_depth: 0"),
        ({"encoder_depth": 3}, r"model.safetensors: not the weights of the model in config.json \(encoder.2.*missing"),
        ({"encoder_depth": 1}, r"model.safetensors: not the weights of the model in config.json \(encoder.1.*unknown"),
        (
            {"decoder_dim": 16},
            r"model.safetensors: .*\(mask_token: has shape \(8,\), not \(16,\)\); copy",
        ),
        ({"bottleneck": 4}, r"model.safetensors: .*\(bottleneck.weight: missing\)"),
    ],
)
def test_a_configuration_that_is_wrong_or_of_other_weights_is_refused(tmp_path, change, message):
    small_model().save_pretrained(tmp_path)
    values = read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(values | {"model": values["model"] | change}))
    with pytest.raises(UserError, match=message) as caught:
        MaskedAutoencoder.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"model": ', "not valid JSON"),
        ("[]", "model: missing, or no mapping"),
        ('{"model": 3}', "model: missing, or no mapping"),
        ('{"model_type": "vit_mae"}', "model: missing.*spatialmae import-huggingface"),
    ],
)
def test_a_damaged_configuration_is_refused(tmp_path, text, message):
    small_model().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=f"config.json: {message}"):
        MaskedAutoencoder.from_pretrained(tmp_path)


def test_what_is_missing_is_said_so(tmp_path):
    with pytest.raises(UserError, match="absent: checkpoint not found; give a folder with model.safetensors"):
        MaskedAutoencoder.from_pretrained(tmp_path / "absent")
    small_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model.safetensors: weights not found; copy the checkpoint again"):
        MaskedAutoencoder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:-1], lambda data: data[:100], lambda data: b"\xff" * len(data)],
    ids=["empty", "a byte short", "cut in the header", "overwritten"],
)
def test_damaged_weights_are_refused(tmp_path, damage):
    small_model().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"model.safetensors: not a readable artifact .*; copy the checkpoint again"):
        MaskedAutoencoder.from_pretrained(tmp_path)


def test_weights_of_another_program_or_type_are_refused(tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    write_tensors(path, tensors | {"cls_token": np.zeros(16, dtype=np.int64)})
    with pytest.raises(UserError, match=r"\(cls_token: is torch.int64, not of a floating type\)"):
        MaskedAutoencoder.from_pretrained(tmp_path)
    save_file(tensors, path)
    with pytest.raises(UserError, match="not a readable artifact"):
        MaskedAutoencoder.from_pretrained(tmp_path)


@pytest.mark.slow
def test_models_are_saved_and_read_where_torch_and_numpy_are_all_there_is(tmp_path):
    absent = [
        "jaxtyping",
        "pandas",
        "pydantic",
        "safetensors",
        "scipy",
        "sklearn",
        "tqdm",
        "transformers",
        "typer",
        "yaml",
    ]
    script = f"""
import sys
sys.modules |= dict.fromkeys({absent})
from spatialmae.model import MAEConfig, MaskedAutoencoder
MaskedAutoencoder(MAEConfig(**{SMALL})).save_pretrained(sys.argv[1])
print(MaskedAutoencoder.from_pretrained(sys.argv[1]).config.encoder_dim)
"""
    result = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("16\n", "")
    assert MaskedAutoencoder.from_pretrained(tmp_path).config == MAEConfig(**SMALL)
