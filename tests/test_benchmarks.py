"""The benchmark of training: what it counts, and what it compares."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.model.patches import patchify
from spatialmae.model.transformer import Block
from spatialmae.train.settings import TrainConfig


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import training_peer

    yield training_peer


@pytest.fixture
def flops(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import training_flops

    yield training_flops


@pytest.mark.parametrize(
    "config",
    [
        MAEConfig(image_size=16, encoder_dim=32, encoder_depth=2, encoder_heads=2, decoder_dim=16, decoder_heads=2),
        MAEConfig(image_size=8, patch_size=2, channels=1, encoder_depth=1, decoder_depth=1, mask_ratio=0.5),
        MAEConfig(image_size=8, encoder_depth=1, mlp_ratio=2, mask_ratio=0, loss_on="all", bottleneck=12),
    ],
)
def test_operations_are_counted_as_torch_counts_them(flops: ModuleType, config: MAEConfig) -> None:
    model, images = MaskedAutoencoder(config), torch.randn(3, config.channels, *config.image_hw)
    with FlopCounterMode(display=False) as forward:
        loss = model(images).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert flops.forward_flops(config) == forward.get_total_flops() / 3
    assert flops.step_flops(config) == (forward.get_total_flops() + backward.get_total_flops()) / 3


def test_the_layers_lent_to_the_peer_equal_ours(peer: ModuleType) -> None:
    torch.manual_seed(0)
    theirs, ours = peer.Block(32, 4, 2.0, qkv_bias=True), Block(32, 4, 2.0, 1e-5)
    ours.load_state_dict({peer.our_name(f"blocks.0.{k}").split(".", 2)[2]: v for k, v in theirs.state_dict().items()})
    tokens = torch.randn(2, 5, 32)
    torch.testing.assert_close(theirs(tokens), ours(tokens)[0])

    embed, images = peer.PatchEmbed(8, 4, 3, 16), torch.randn(2, 3, 8, 8)
    weight = embed.proj.weight.permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(embed(images), patchify(images, 4) @ weight.t() + embed.proj.bias)


def test_the_peers_loop_takes_a_step_of_adamw_with_decay_of_matrices_alone(peer: ModuleType) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = torch.nn.Linear(4, 1)
            self.unused = torch.nn.Linear(2, 2)
            self.frozen = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)

        def forward(self, x: torch.Tensor, mask_ratio: float) -> tuple[torch.Tensor, None, None]:
            return self.used(x).square().mean() + 0 * sum(p.sum() for p in self.unused.parameters()), None, None

    model = Model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    loss = peer.PeerLoop(model, TrainConfig(weight_decay=0.5), 0.75, amp=False).step(torch.randn(8, 4), lr=0.1)
    after = dict(model.named_parameters())
    assert loss > 0
    torch.testing.assert_close((after["used.bias"] - before["used.bias"]).abs(), torch.tensor([0.1]))
    torch.testing.assert_close(after["unused.weight"], before["unused.weight"] * 0.95)
    torch.testing.assert_close(after["unused.bias"], before["unused.bias"])
    assert torch.equal(after["frozen"], before["frozen"])


def test_a_peer_that_is_no_checkout_is_refused(peer: ModuleType, tmp_path: Path) -> None:
    modules = dict(sys.modules)
    with pytest.raises(SystemExit, match=r"no models_mae\.py in it; give a checkout of facebookresearch/mae"):
        peer.import_peer(tmp_path)
    assert set(sys.modules) == set(modules)
