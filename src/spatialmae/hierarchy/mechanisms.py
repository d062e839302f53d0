"""Data with known latents: a hierarchy in which every node is an invertible function of its parents and its own noise.

The model that paper B assumes, z_v = f_v(z_pa(v), ε_v) with f_v invertible, on small graphs whose sinks are the
observables. A node's value has as many coordinates as its parents' values and its noise together, so that it determines
all of its ancestors, and the observables on either side of a mask determine the latents that they share.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass

import networkx as nx
import numpy as np
from jaxtyping import Float64
from scipy.stats import ortho_group

LAYERS = 2  # rotations, each followed by a bend, of one mechanism
SLOPE = 0.25  # of the bend far below zero; it is 1 far above
SOFTNESS = 0.5  # width of the bend, in standard deviations of its input
TURN = 3.0  # angle by which one standard deviation of noise turns the parents' values of a turned node; radians

Array = Float64[np.ndarray, "n d"]
Values = Mapping[Hashable, Float64[np.ndarray, "n _"]]


def binary_tree() -> nx.DiGraph:
    """Three levels of latents z1 … z7 over observables x1 … x8, two to each of z4 … z7 (paper B's picture)."""
    latents = {f"z{i}": [f"z{2 * i}", f"z{2 * i + 1}"] for i in (1, 2, 3)}
    return nx.DiGraph(latents | {f"z{i}": [f"x{2 * i - 7}", f"x{2 * i - 6}"] for i in (4, 5, 6, 7)})


def uneven_tree() -> nx.DiGraph:
    """A chain z1 → z2 → z3 → z4 that sheds an observable at every latent: x1, x2, x3, and x4, x5 at its end."""
    return nx.DiGraph({"z1": ["z2", "x1"], "z2": ["z3", "x2"], "z3": ["z4", "x3"], "z4": ["x4", "x5"]})


def two_roots() -> nx.DiGraph:
    """Independent z1 and z2 with a common child z4 and a child each, z3 and z5; two observables to each child."""
    latents = {"z1": ["z3", "z4"], "z2": ["z4", "z5"]}
    return nx.DiGraph(latents | {f"z{i}": [f"x{2 * i - 5}", f"x{2 * i - 4}"] for i in (3, 4, 5)})


GRAPHS: dict[str, Callable[[], nx.DiGraph]] = {
    "binary_tree": binary_tree,
    "uneven_tree": uneven_tree,
    "two_roots": two_roots,
}


@dataclass(frozen=True)
class Mechanism:
    """One node's function: rotations and bends, which keep the mean near 0 and the variance near 1.

    The derivative of a bend lies between :data:`SLOPE` and 1 (times a constant that restores the variance), so, unless
    turned, the map and its inverse are Lipschitz, and the Jacobian's determinant is bounded away from zero.

    Attributes:
        rotations: orthogonal matrices.
        n_noise: the last coordinates of the input, the node's own noise.
        noise_scale: standard deviation of the noise within the input, where that of a parent's coordinate is about 1.
        turn: angle by which a unit of the first noise turns pairs of the parents' coordinates beforehand.
    """

    rotations: Float64[np.ndarray, "layers d d"]
    n_noise: int
    noise_scale: float
    turn: float = 0.0

    @property
    def _input_scale(self) -> Float64[np.ndarray, " d"]:
        """What parents and noise are multiplied by, for a mean variance of 1."""
        d = self.rotations.shape[1]
        scale = np.ones(d)
        scale[d - self.n_noise :] = self.noise_scale
        return scale / np.sqrt(np.mean(scale**2))

    def forward(self, inputs: Array) -> Array:
        """The values, from parents' values and standardised noise side by side."""
        values = self._turned(inputs, self.turn) * self._input_scale
        for rotation in self.rotations:
            values = (bend(values @ rotation) - BEND_MEAN) / BEND_STD
        return values

    def inverse(self, values: Array) -> Array:
        """Parents' values and noise, from the values."""
        for rotation in self.rotations[::-1]:
            values = unbend(values * BEND_STD + BEND_MEAN) @ rotation.T
        return self._turned(values / self._input_scale, -self.turn)

    def _turned(self, inputs: Array, turn: float) -> Array:
        """The input with coordinates 0 and 1, 2 and 3, … of the parents turned by ``turn`` times the first noise."""
        if not turn:
            return inputs
        n_parents = inputs.shape[1] - self.n_noise
        first, second = slice(0, n_parents - 1, 2), slice(1, n_parents, 2)
        angle = turn * inputs[:, [n_parents]]
        turned = inputs.copy()
        turned[:, first] = np.cos(angle) * inputs[:, first] - np.sin(angle) * inputs[:, second]
        turned[:, second] = np.sin(angle) * inputs[:, first] + np.cos(angle) * inputs[:, second]
        return turned


@dataclass(frozen=True)
class Sample:
    """Independent draws of all nodes.

    Attributes:
        values: for each node (n, its dimension).
        noises: for each node (n, noise_dim), independent and standard normal.
    """

    values: Values
    noises: Values


class HierarchicalModel:
    """Random mechanisms on a graph.

    Args:
        graph: acyclic; its sinks are the observables.
        noise_scale: standard deviation of a node's own noise in units of a coordinate of its parents. Of the node's
            variance, noise_scale² · noise_dim / (noise_scale² · noise_dim + dimension of the parents) is its own before
            bends, and roughly so after them. The value of a node without parents is noise alone.
        noise_dim: coordinates of each node's own noise.
        turned: nodes whose noise first turns the parents' values, by :data:`TURN` radians for a standard deviation.
            Such a node still determines its parents, but its mean given them hardly knows in which direction they lie:
            that of a turned pair is exp(−TURN² / 2), a hundredth, of the pair.
        seed: of the mechanisms.

    Attributes:
        graph: as given.
        dims: each node's number of coordinates.
        mechanisms: each node's function.

    Raises:
        ValueError: the graph has a cycle, a number is not positive, or a turned node is unknown or has no pair of
            parents' coordinates to turn.
    """

    def __init__(
        self,
        graph: nx.DiGraph,
        *,
        noise_scale: float,
        noise_dim: int = 1,
        turned: Collection[Hashable] = (),
        seed: int,
    ) -> None:
        if not nx.is_directed_acyclic_graph(graph):
            raise ValueError("graph: has a cycle; remove an edge of it")
        if not (noise_scale > 0 and noise_dim > 0):
            problem = f"noise_scale={noise_scale}, noise_dim={noise_dim}"
            raise ValueError(f"{problem}: must be positive, or mechanisms have no inverse")
        self.graph, self.noise_dim = graph, noise_dim
        self.order = list(nx.lexicographical_topological_sort(graph, key=str))
        self.dims: dict[Hashable, int] = {}
        self.mechanisms: dict[Hashable, Mechanism] = {}
        for node, rng in zip(self.order, _generators(seed, len(self.order)), strict=True):
            dim = self.dims[node] = noise_dim + sum(self.dims[parent] for parent in self.parents(node))
            rotations = np.stack([_rotation(dim, rng) for _ in range(LAYERS)])
            self.mechanisms[node] = Mechanism(rotations, noise_dim, noise_scale, TURN if node in turned else 0.0)
        for node in turned:
            if self.dims.get(node, 0) < noise_dim + 2:
                raise ValueError(f"turned: {node!r} is unknown or has no pair of parents' coordinates; leave it out")

    def parents(self, node: Hashable) -> list[Hashable]:
        """In the order in which their values enter the node's function."""
        return sorted(self.graph.predecessors(node), key=self.order.index)

    def sample(self, n: int, seed: int) -> Sample:
        """``n`` independent draws; the first n of a larger sample with the same seed."""
        rngs = _generators(seed, len(self.order))
        return self.propagate(
            {v: rng.standard_normal((n, self.noise_dim)) for v, rng in zip(self.order, rngs, strict=True)}
        )

    def propagate(self, noises: Values) -> Sample:
        """All values that follow from given noises."""
        values: dict[Hashable, Array] = {}
        for node in self.order:
            inputs = [*(values[parent] for parent in self.parents(node)), noises[node]]
            values[node] = self.mechanisms[node].forward(np.concatenate(inputs, axis=1))
        return Sample(values, dict(noises))

    def ancestors_of(self, node: Hashable, value: Array) -> Sample:
        """Values and noises of a node and all its ancestors, from its value alone."""
        values, noises = {node: value}, {}
        for current in reversed(self.order):
            if current in values:
                inputs = self.mechanisms[current].inverse(values[current])
                noises[current] = inputs[:, -self.noise_dim :]
                start = 0
                for parent in self.parents(current):
                    values[parent] = inputs[:, start : start + self.dims[parent]]
                    start += self.dims[parent]
        return Sample(values, noises)


def bend(x: Float64[np.ndarray, ...]) -> Float64[np.ndarray, ...]:
    """A smooth leaky ReLU, p x + q √(x² + δ²) with p = (1 + s) / 2, q = (1 − s) / 2: its derivative lies in (s, 1)."""
    return (1 + SLOPE) / 2 * x + (1 - SLOPE) / 2 * np.sqrt(x**2 + SOFTNESS**2)


def unbend(y: Float64[np.ndarray, ...]) -> Float64[np.ndarray, ...]:
    """The inverse of :func:`bend`: the smaller root of (y − p x)² = q² (x² + δ²)."""
    return ((1 + SLOPE) / 2 * y - (1 - SLOPE) / 2 * np.sqrt(y**2 + SLOPE * SOFTNESS**2)) / SLOPE


def _moments_of_bend() -> tuple[float, float]:
    """Mean and standard deviation of a bent standard normal number, by Gauss–Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    weights = weights / weights.sum()
    mean = float(weights @ bend(nodes))
    return mean, float(np.sqrt(weights @ (bend(nodes) - mean) ** 2))


BEND_MEAN, BEND_STD = _moments_of_bend()


def _rotation(dim: int, rng: np.random.Generator) -> Float64[np.ndarray, "dim dim"]:
    return ortho_group.rvs(dim, random_state=rng) if dim > 1 else np.ones((1, 1))


def _generators(seed: int, n: int) -> list[np.random.Generator]:
    """A stream for each node."""
    return [np.random.default_rng(sequence) for sequence in np.random.SeedSequence(seed).spawn(n)]
