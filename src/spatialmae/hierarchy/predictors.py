"""Masked predictors on the observables of a hierarchy: of one mask, and of random masks (paper B, Theorem 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor, nn

from spatialmae.train.optimizer import adamw
from spatialmae.train.schedule import cosine


@dataclass(frozen=True)
class Training:
    """How predictors are trained: AdamW, warm-up over a twentieth of the steps, cosine to zero.

    Attributes:
        n_train: samples, drawn with replacement.
        steps: of a predictor of one mask.
        random_mask_steps: of a predictor of random masks.
        batch_size: samples a step.
        peak_lr: largest learning rate.
        weight_decay: AdamW's.
        width: of hidden layers.
        depth: hidden layers of the encoder, and as many of the decoder.
    """

    n_train: int = 30_000
    steps: int = 800
    random_mask_steps: int = 2000
    batch_size: int = 256
    peak_lr: float = 3e-3
    weight_decay: float = 1e-4
    width: int = 128
    depth: int = 2


class FixedMaskPredictor(nn.Module):
    """Visible observables → representation → masked observables, for one mask.

    Args:
        hidden: for each coordinate of the observables, whether it is masked.
        code_dim: coordinates of the representation.
        training: width and depth.
    """

    def __init__(self, hidden: Bool[Tensor, " D"], code_dim: int, training: Training) -> None:
        super().__init__()
        self.hidden = hidden
        n_hidden = int(hidden.sum())
        self.encoder = _mlp(len(hidden) - n_hidden, code_dim, training)
        self.decoder = _mlp(code_dim, n_hidden, training)

    def encode(self, x: Float32[Tensor, "N D"]) -> Float32[Tensor, "N code"]:
        """The representation; masked coordinates are not looked at."""
        return self.encoder(x[:, ~self.hidden])

    def forward(self, x: Float32[Tensor, "N D"]) -> Float32[Tensor, "N hidden"]:
        """The masked coordinates."""
        return self.decoder(self.encode(x))


class RandomMaskPredictor(nn.Module):
    """The same for every mask: tokens are observables, hidden ones are replaced by learned values.

    Encoder and decoder are told which observables are hidden; the decoder sees nothing else beside the representation.

    Args:
        owner: for each coordinate, the observable it belongs to.
        code_dim: coordinates of the representation.
        training: width and depth.
    """

    def __init__(self, owner: Int64[Tensor, " D"], code_dim: int, training: Training) -> None:
        super().__init__()
        self.owner, self.n_observables = owner, int(owner.max()) + 1
        self.mask_value = nn.Parameter(torch.zeros(len(owner)))
        self.encoder = _mlp(len(owner) + self.n_observables, code_dim, training)
        self.decoder = _mlp(code_dim + self.n_observables, len(owner), training)

    def encode(self, x: Float32[Tensor, "N D"], masked: Bool[Tensor, "N O"]) -> Float32[Tensor, "N code"]:
        """The representation under a mask for each sample; true = hidden."""
        seen = torch.where(masked[:, self.owner], self.mask_value, x)
        return self.encoder(torch.cat([seen, masked.to(x.dtype)], dim=1))

    def forward(self, x: Float32[Tensor, "N D"], masked: Bool[Tensor, "N O"]) -> Float32[Tensor, "N D"]:
        """All coordinates; those of visible observables are never trained."""
        return self.decoder(torch.cat([self.encode(x, masked), masked.to(x.dtype)], dim=1))


def train_fixed_mask(predictor: FixedMaskPredictor, x: Float32[Tensor, "n D"], training: Training, seed: int) -> None:
    """Least squares on the masked coordinates.

    Args:
        predictor: trained in place.
        x: standardised observables.
        training: the settings.
        seed: of the batches.
    """

    def loss(batch: Tensor, generator: torch.Generator) -> Tensor:
        return ((predictor(batch) - batch[:, predictor.hidden]) ** 2).mean()

    _optimise(predictor, loss, x, training.steps, training, seed)


def train_random_masks(
    predictor: RandomMaskPredictor, x: Float32[Tensor, "n D"], training: Training, seed: int
) -> None:
    """The same under a new mask for each sample of a batch, so that every mask has a chance.

    The number of masked observables is uniform between one and all but one, and so are the masks of a number.
    """

    def loss(batch: Tensor, generator: torch.Generator) -> Tensor:
        masked = random_masks(len(batch), predictor.n_observables, generator)
        hidden = masked[:, predictor.owner]
        return ((predictor(batch, masked) - batch) ** 2 * hidden).sum() / hidden.sum()

    _optimise(predictor, loss, x, training.random_mask_steps, training, seed)


def random_masks(n: int, n_observables: int, generator: torch.Generator) -> Bool[Tensor, "n O"]:
    """Masks of a uniform number of observables, 1 … n_observables − 1; true = hidden."""
    count = torch.randint(1, n_observables, (n, 1), generator=generator)
    return torch.rand(n, n_observables, generator=generator).argsort(dim=1) < count


def _optimise(
    predictor: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    x: Float32[Tensor, "n D"],
    steps: int,
    training: Training,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = adamw(predictor.parameters(), lr=0.0, weight_decay=training.weight_decay, fused=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = cosine(
            step, peak=training.peak_lr, final=0.0, warmup_steps=steps // 20, total_steps=steps
        )
        batch = x[torch.randint(len(x), (training.batch_size,), generator=generator)]
        optimizer.zero_grad()
        loss(batch, generator).backward()
        optimizer.step()


def _mlp(n_in: int, n_out: int, training: Training) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(training.depth):
        layers += [nn.Linear(n_in, training.width), nn.GELU()]
        n_in = training.width
    return nn.Sequential(*layers, nn.Linear(n_in, n_out))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights come from a seed, and the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
