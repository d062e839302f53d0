"""Theorem 1 of paper B on random graphs, each check beside a control that must fail (claim B1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Literal, get_args

import networkx as nx
import numpy as np

from spatialmae.hierarchy.shared import SharedLatents, shared_latents

GraphKind = Literal["sparse", "dense", "tree", "layers"]
# Smaller graphs share too little to go wrong; enumeration doubles with every node shared.
N_NODES = (4, 12)
EDGE_PROBABILITY = {"sparse": 0.25, "dense": 0.5}
N_LAYERS = 3


def minimal_sets(graph: nx.DiGraph, masked: Iterable[Hashable]) -> list[frozenset[Hashable]]:
    """All smallest sets of shared latents that make masked and visible observables independent, by enumeration.

    Candidates are the sets c of common ancestors. One separates if it d-separates the two sides together with its
    ancestors, which it determines; it is smallest if no part of it separates. Time doubles with every common ancestor.
    """
    masked = set(masked)
    visible = {node for node in graph if graph.out_degree(node) == 0} - masked
    shared = _ancestors(graph, masked) & _ancestors(graph, visible)

    @cache
    def separates(given: frozenset[Hashable]) -> bool:
        return nx.is_d_separator(graph, masked, visible, set(given))

    found: list[frozenset[Hashable]] = []
    for size in range(len(shared) + 1):
        for c in map(frozenset, combinations(shared, size)):
            if not any(smaller <= c for smaller in found) and separates(c | _ancestors(graph, c)):
                found.append(c)
    return found


def own_noise_is_independent(graph: nx.DiGraph, latents: SharedLatents) -> bool:
    """Whether the masked part's own noise s_m is independent of (c, s_v), by d-separation.

    The graph is that of the model: every node has a noise of its own as one more parent.
    """
    model = nx.DiGraph([(("node", parent), ("node", child)) for parent, child in graph.edges])
    model.add_edges_from([(("noise", node), ("node", node)) for node in graph])
    s_masked, s_visible = ({("noise", node) for node in side} for side in (latents.s_masked, latents.s_visible))
    return nx.is_d_separator(model, s_masked, s_visible | {("node", node) for node in latents.c}, set())


def _ancestors(graph: nx.DiGraph, nodes: Iterable[Hashable]) -> set[Hashable]:
    """Ancestors of any of the nodes."""
    return set().union(*(nx.ancestors(graph, node) for node in nodes))


def random_graph(kind: GraphKind, n_nodes: int, rng: np.random.Generator) -> nx.DiGraph:
    """A random acyclic graph of nodes 0, 1 … with at least two observables; parents come before children.

    Args:
        kind: ``"sparse"`` and ``"dense"`` have every edge with a given probability, a ``"tree"`` one parent for each
            node but the first, ``"layers"`` one or two parents from the layer above.
        n_nodes: at least 3.
        rng: source of randomness.

    Raises:
        ValueError: fewer than three nodes.
    """
    if n_nodes < 3:
        raise ValueError(f"n_nodes: {n_nodes} cannot be a latent and two observables; use at least 3")
    while True:
        graph = nx.DiGraph()
        graph.add_nodes_from(range(n_nodes))
        graph.add_edges_from(_random_edges(kind, n_nodes, rng))
        if sum(degree == 0 for _, degree in graph.out_degree) >= 2:
            return graph


def _random_edges(kind: GraphKind, n_nodes: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    if kind in EDGE_PROBABILITY:
        drawn = rng.random((n_nodes, n_nodes)) < EDGE_PROBABILITY[kind]
        return [(int(parent), int(child)) for parent, child in np.argwhere(np.triu(drawn, k=1))]
    if kind == "tree":
        return [(int(rng.integers(child)), child) for child in range(1, n_nodes)]
    layer = np.sort(rng.integers(N_LAYERS, size=n_nodes))
    edges = []
    for child in np.flatnonzero(layer > layer[0]):
        above = np.flatnonzero(layer == layer[layer < layer[child]].max())
        parents = rng.choice(above, size=min(len(above), int(rng.integers(1, 3))), replace=False)
        edges += [(int(parent), int(child)) for parent in parents]
    return edges


def random_observables(graph: nx.DiGraph, rng: np.random.Generator) -> set[int]:
    """Observables to mask: at least one and not all, how many drawn uniformly."""
    observables = [node for node, degree in graph.out_degree if degree == 0]
    count = int(rng.integers(1, len(observables)))
    return {int(node) for node in rng.choice(observables, size=count, replace=False)}


def disagreements(graph: nx.DiGraph, masked: set[int]) -> dict[tuple[str, str], bool]:
    """Whether each check, and its control, disagrees with the theorem for one mask: (check, role) to true = it does.

    ``minimal_set`` compares c with the enumeration, whose only answer it must be; the control is the frontier reading,
    which is another set in a part of all graphs. ``independence`` asks whether s_m is independent of (c, s_v); the
    control gives the noise of one latent of c to s_m.
    """
    smallest = minimal_sets(graph, masked)
    minimal = shared_latents(graph, masked)
    wrong = replace(minimal, s_masked=minimal.s_masked.union(sorted(minimal.c)[:1]))  # type: ignore[type-var]
    return {
        ("minimal_set", "claim"): smallest != [minimal.c],
        ("minimal_set", "control"): smallest != [shared_latents(graph, masked, reading="frontier").c],
        ("independence", "claim"): not own_noise_is_independent(graph, minimal),
        ("independence", "control"): not own_noise_is_independent(graph, wrong),
    }


def theorem_rows(n_graphs: int, n_masks: int, seed: int) -> list[dict[str, str | int | float]]:
    """Shares of random graphs and masks that disagree with Theorem 1, in rows: check, role, seed, counts, share.

    Args:
        n_graphs: random graphs, of each kind in turn and of 4 to 12 nodes.
        n_masks: masks of each graph.
        seed: of graphs and masks.

    Returns:
        ``relative_error`` is the share of the n_graphs × n_masks masks that disagree. The controls' shares are below 1
        since c is empty in some graphs, and the frontier often minimal.
    """
    rng = np.random.default_rng(seed)
    kinds: tuple[GraphKind, ...] = get_args(GraphKind)
    wrong: Counter[tuple[str, str]] = Counter()
    for index in range(n_graphs):
        n_nodes = int(rng.integers(N_NODES[0], N_NODES[1] + 1))
        graph = random_graph(kinds[index % len(kinds)], n_nodes, rng)
        for _ in range(n_masks):
            wrong.update(disagreements(graph, random_observables(graph, rng)))
    total = n_graphs * n_masks
    return [
        {
            "check": check,
            "role": role,
            "seed": seed,
            "n_graphs": n_graphs,
            "n_masks": n_masks,
            "relative_error": count / total,
        }
        for (check, role), count in wrong.items()
    ]
