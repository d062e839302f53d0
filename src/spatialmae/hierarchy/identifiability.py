"""Whether masked prediction identifies the latents that both sides of a mask share (paper B, Theorem 2; claims B3).

On data with known latents (:mod:`spatialmae.hierarchy.mechanisms`) an encoder maps the visible observables to a
representation, and a decoder maps that to the masked ones, at least squared error. The theorem promises that the
representation is c up to an invertible map. Non-linear regressions on held-out samples tell how well c follows from the
representation, the representation from c, and what else is in it.

Squared error asks for no more than the conditional mean E[x_m | c]: the visible part determines c, and says nothing
else about the masked part. The best representation must therefore hold all of c only where this mean is injective in
c, and in finite training a direction of c that hardly moves it is learned late or never: the more noise the masked part
has of its own, the harder. Turned observables (``Cell.turned``) are the counterexample: invertible mechanisms, as the
theorem wants, and a mean that hides part of c.

The representation has as many coordinates as c has degrees of freedom: noise_dim for c and for each of its ancestors,
since c determines these, and their own noises make it up. Fewer could not hold c. With more (``Cell.extra_dims``)
nothing keeps other things out, as the decoder may ignore them. With just as many there is no room: if the code of one
value of c moved with the visible part's own noises, continuously, it would meet that of another. A predictor of random
masks needs room for all latents, which is more than any one mask asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from spatialmae.data.dataset import SPLITS
from spatialmae.hierarchy.mechanisms import GRAPHS, HierarchicalModel, Sample
from spatialmae.hierarchy.predictors import (
    FixedMaskPredictor,
    RandomMaskPredictor,
    Training,
    seeded,
    train_fixed_mask,
    train_random_masks,
)
from spatialmae.hierarchy.regression import KernelRegression, SplitArrays, r2_score, whitened
from spatialmae.hierarchy.shared import SharedLatents, shared_latents

MASKS: dict[str, tuple[tuple[str, ...], ...]] = {
    "binary_tree": (("x1",), ("x1", "x2", "x3", "x4"), ("x1", "x4", "x5")),  # c: z4; z1; z4 z5 z6
    "uneven_tree": (("x2",), ("x5",), ("x4", "x5")),  # c: z2; z4; z3
    "two_roots": (("x3",), ("x3", "x4"), ("x1", "x2")),  # c: z4, of two parents; z1 z2; z1
}

"""Masks worth asking about, with latents low and high, one and several."""


@dataclass(frozen=True)
class Cell:
    """One cell of the experiment: data, the masks asked about, training and regressions.

    Attributes:
        graph: a key of :data:`~spatialmae.hierarchy.mechanisms.GRAPHS`.
        noise_scale: of :class:`~spatialmae.hierarchy.mechanisms.HierarchicalModel`, as ``noise_dim``.
        masks: the observables hidden in each.
        noise_dim: see ``noise_scale``.
        extra_dims: coordinates of the representation of a fixed mask beyond those of c.
        turned: observables whose mechanism hides c from squared error.
        training: of every predictor.
        n_regression: samples that regressions are fitted on.
        n_validation: samples that choose their width and penalty.
        n_test: samples that they are scored on.
    """

    graph: str
    noise_scale: float
    masks: tuple[tuple[str, ...], ...]
    noise_dim: int = 1
    extra_dims: int = 0
    turned: tuple[str, ...] = ()
    training: Training = field(default_factory=Training)
    n_regression: int = 4000
    n_validation: int = 1000
    n_test: int = 2000


class Observables:
    """Observables of samples side by side, standardised by those of a training sample.

    Args:
        model: that samples are of.
        train: the training sample.

    Attributes:
        nodes: the observables, in the order of their coordinates.
        owner: for each coordinate, the index of its observable.
    """

    def __init__(self, model: HierarchicalModel, train: Sample) -> None:
        self.nodes = sorted((node for node in model.order if model.graph.out_degree(node) == 0), key=str)
        sizes = torch.tensor([model.dims[node] for node in self.nodes])
        self.owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        values = _joined(train.values, self.nodes)
        self._mean, self._std = values.mean(axis=0), values.std(axis=0)

    def of(self, sample: Sample) -> Float32[Tensor, "n D"]:
        """The standardised values."""
        return torch.from_numpy((_joined(sample.values, self.nodes) - self._mean) / self._std).float()

    def mask(self, masked: Collection[Hashable]) -> Bool[Tensor, " O"]:
        """For each observable, whether it is masked."""
        return torch.tensor([node in masked for node in self.nodes])


@dataclass(frozen=True)
class View:
    """What a predictor makes of samples under one mask.

    Attributes:
        code: its representation.
        prediction: of the masked coordinates.
    """

    code: Float64[np.ndarray, "n code"]
    prediction: Float64[np.ndarray, "n hidden"]

    @classmethod
    @torch.no_grad()
    def fixed(cls, predictor: FixedMaskPredictor, x: Float32[Tensor, "n D"]) -> View:
        """Of a predictor for this mask alone."""
        return cls(predictor.encode(x).double().numpy(), predictor(x).double().numpy())

    @classmethod
    @torch.no_grad()
    def random(cls, predictor: RandomMaskPredictor, x: Float32[Tensor, "n D"], mask: Bool[Tensor, " O"]) -> View:
        """Of a predictor for all masks."""
        masks = mask.expand(len(x), -1)
        prediction = predictor(x, masks)[:, mask[predictor.owner]]
        return cls(predictor.encode(x, masks).double().numpy(), prediction.double().numpy())


def identifiability_rows(cell: Cell, seed: int) -> list[dict[str, Any]]:
    """What predictors trained on one draw of mechanisms and data identify.

    A row says how well ``predicted`` follows from what ``predictor`` names: R² on test samples, its mean over
    coordinates (``r2``), the least and the largest. From the representations of a predictor of this ``fixed mask``, of
    one of ``random masks``, of the former before training (``untrained``), and from the ``visible observables``
    themselves, regressions predict

    - ``c``: the values of the shared latents;
    - ``c_noises``: own noises of c and its ancestors, independent, of unit variance; they and c determine each other;
    - ``s_masked``, ``s_visible``: the noises of one side alone.

    The other way round, ``representation`` is a predictor's representation, whitened, regressed on ``c_noises``. And
    ``x_masked`` are the masked observables, as the predictor itself gives them, or as a regression on ``c_noises`` does
    (predictor ``c``), about the most that any can.

    Args:
        cell: the settings.
        seed: of mechanisms, samples, weights and batches, in independent streams.

    Returns:
        Rows of a tidy table. ``code_dim``: coordinates of the representation, or of what stands for it;
        ``n_coordinates``: of what is predicted.

    Raises:
        ValueError: a graph or observable is unknown, or the two sides of a mask share no latent.
    """
    if cell.graph not in GRAPHS:
        raise ValueError(f"graph: {cell.graph!r} is unknown; use one of {', '.join(GRAPHS)}")
    graph = GRAPHS[cell.graph]()
    shared = [_shared(graph, masked) for masked in cell.masks]
    streams = Streams.of(seed)
    model = HierarchicalModel(
        graph, noise_scale=cell.noise_scale, noise_dim=cell.noise_dim, turned=cell.turned, seed=streams.mechanisms
    )
    train = model.sample(cell.training.n_train, streams.train)
    held_out = model.sample(cell.n_regression + cell.n_validation + cell.n_test, streams.held_out)
    observables = Observables(model, train)
    x_train, x = observables.of(train), observables.of(held_out)

    n_latents = len(graph) - len(observables.nodes)
    with seeded(streams.weights):
        random_predictor = RandomMaskPredictor(observables.owner, cell.noise_dim * n_latents, cell.training)
    train_random_masks(random_predictor, x_train, cell.training, streams.batches)

    rows = []
    for masked, latents in zip(cell.masks, shared, strict=True):
        mask = observables.mask(masked)
        hidden = mask[observables.owner]
        known = _known(graph, latents, held_out)
        with seeded(streams.weights):
            fixed = FixedMaskPredictor(hidden, known["c_noises"].shape[1] + cell.extra_dims, cell.training)
        views = {"untrained": View.fixed(fixed, x)}
        train_fixed_mask(fixed, x_train, cell.training, streams.batches)
        views |= {"fixed mask": View.fixed(fixed, x), "random masks": View.random(random_predictor, x, mask)}
        scores = _scores(cell, known, x[:, ~hidden], x[:, hidden], views, streams.landmarks)
        of_mask = {"masked": _names(masked), "c": _names(latents.c)}
        rows += [{**_settings(cell), **of_mask, **score, "seed": seed} for score in scores]
    return rows


class Streams(NamedTuple):
    """Independent seeds of the parts of one cell."""

    mechanisms: int
    train: int
    held_out: int
    weights: int
    batches: int
    landmarks: int

    @classmethod
    def of(cls, seed: int) -> Streams:
        """The streams of a seed."""
        return cls(*(int(state) for state in np.random.SeedSequence(seed).generate_state(len(cls._fields))))


def _scores(
    cell: Cell,
    known: Mapping[str, Float64[np.ndarray, "n _"]],
    visible: Float32[Tensor, "n visible"],
    x_masked: Float32[Tensor, "n hidden"],
    views: Mapping[str, View],
    seed: int,
) -> list[dict[str, Any]]:
    """All regressions of one mask."""

    def split(values: Float64[np.ndarray, "n _"]) -> SplitArrays:
        ends = np.cumsum([cell.n_regression, cell.n_validation])
        return dict(zip(SPLITS, np.split(values, ends), strict=True))

    def score(predictor: str, predicted: str, code_dim: int, r2: Float64[np.ndarray, " t"]) -> dict[str, Any]:
        row = {"predictor": predictor, "predicted": predicted, "code_dim": code_dim, "n_coordinates": len(r2)}
        return row | {"r2": float(r2.mean()), "r2_lowest": float(r2.min()), "r2_highest": float(r2.max())}

    codes = {predictor: whitened(split(view.code)) for predictor, view in views.items()}
    inputs = {**codes, "visible observables": split(visible.double().numpy())}
    target, n_c = split(x_masked.double().numpy()), known["c_noises"].shape[1]
    from_c = KernelRegression(split(known["c_noises"]), seed)
    rows = [score("c", "x_masked", n_c, from_c.r2(target))]
    for predictor, values in inputs.items():
        regression, dim = KernelRegression(values, seed), values["train"].shape[1]
        rows += [score(predictor, name, dim, regression.r2(split(truth))) for name, truth in known.items()]
    for predictor, view in views.items():
        dim = view.code.shape[1]
        rows.append(score(predictor, "representation", dim, from_c.r2(codes[predictor])))
        rows.append(score(predictor, "x_masked", dim, r2_score(target["test"], split(view.prediction)["test"])))
    return rows


def _known(graph: nx.DiGraph, latents: SharedLatents, sample: Sample) -> dict[str, Float64[np.ndarray, "n _"]]:
    """What is known of a sample under a mask."""
    return {
        "c": _joined(sample.values, latents.c),
        "c_noises": _joined(sample.noises, latents.c.union(*(nx.ancestors(graph, node) for node in latents.c))),
        "s_masked": _joined(sample.noises, latents.s_masked),
        "s_visible": _joined(sample.noises, latents.s_visible),
    }


def _shared(graph: nx.DiGraph, masked: Collection[Hashable]) -> SharedLatents:
    latents = shared_latents(graph, masked)
    if not latents.c:
        raise ValueError(
            f"masks: under {_names(masked)!r} the two sides share no latent; hide fewer or other observables"
        )
    return latents


def _settings(cell: Cell) -> dict[str, Any]:
    names = ("graph", "noise_scale", "noise_dim", "extra_dims", "n_regression", "n_test")
    training = {name: getattr(cell.training, name) for name in ("n_train", "steps", "random_mask_steps")}
    return {name: getattr(cell, name) for name in names} | training | {"turned": _names(cell.turned)}


def _joined(
    values: Mapping[Hashable, Float64[np.ndarray, "n _"]], nodes: Iterable[Hashable]
) -> Float64[np.ndarray, "n _"]:
    return np.concatenate([values[node] for node in sorted(nodes, key=str)], axis=1)


def _names(nodes: Iterable[Hashable]) -> str:
    return " ".join(sorted(str(node) for node in nodes))
