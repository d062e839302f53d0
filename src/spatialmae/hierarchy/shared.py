"""The latents that masked and visible observables share: Theorem 1 of Kong et al. (2023), as reconstructed here.

A graph holds latents and, as its sinks, the observables (pixels). Every node is an invertible function of its parents
and of noise of its own, so that a node determines all its ancestors. With An(x) the ancestors of x and An[x] those
and x itself, whatever the masked part x_m and the visible part x_v share lies in, and determines,
S = An(x_m) ∩ An(x_v). The smallest set that determines S is its sinks; Algorithms 1 and 2 of the paper, which are not
at hand, may mean them or the frontier (docs/deviations.md, D26).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import networkx as nx

Reading = Literal["minimal", "frontier"]

# What a node has among itself and its descendants, and then among its children; a set of bits for each node.
MASKED, VISIBLE = 1, 2
SHARED = MASKED | VISIBLE
SHARED_CHILD, MASKED_CHILD = 4, 8
TO_PARENTS = {MASKED: MASKED | MASKED_CHILD, VISIBLE: VISIBLE, SHARED: SHARED | SHARED_CHILD}


@dataclass(frozen=True)
class SharedLatents:
    """What a mask makes of a graph: x_m = g(c, s_m) and x_v = g'(c, s_v), s_m independent of (c, s_v).

    Attributes:
        c: the latents shared; empty where masked and visible part have no common ancestor.
        s_masked: the nodes, observables among them, whose own noise goes into the masked part alone; noise is s_m.
        s_visible: the same for the visible part.
    """

    c: frozenset[Hashable]
    s_masked: frozenset[Hashable]
    s_visible: frozenset[Hashable]


def shared_latents(graph: nx.DiGraph, masked: Iterable[Hashable], *, reading: Reading = "minimal") -> SharedLatents:
    """The latents c that masked and visible observables share (Theorem 1), in time linear in nodes and edges.

    Why the minimal c is unique: if An[c] lacks a node of S, that node has directed paths to x_m and to x_v which An[c]
    cannot block, so c must determine all of S, and every such c holds the sinks of S. Those suffice: a node outside S
    has masked or visible descendants, not both.

    Args:
        graph: acyclic; its sinks are the observables, also a node without any edge, and all others are latents.
        masked: observables that are hidden. If it is none or all of them, nothing is shared: c is empty.
        reading: of the paper's algorithms. ``"minimal"``: the sinks of S, those without a child in S. ``"frontier"``:
            the nodes of S with a child among the masked part's ancestors outside S (or in the masked part itself);
            it includes the sinks, and latents that those determine. It depends on which part is called masked; the
            minimal c does not.

    Raises:
        ValueError: the graph has a cycle; a masked node is unknown or no observable; ``reading`` is neither.
    """
    if reading not in get_args(Reading):
        raise ValueError(f"reading: {reading!r} is unknown; use minimal or frontier")
    marks = _marks(graph, set(masked))

    def nodes_of(sides: int) -> set[Hashable]:
        return {node for node, mark in marks.items() if mark & SHARED == sides}

    if reading == "minimal":
        c = {node for node in nodes_of(SHARED) if not marks[node] & SHARED_CHILD}
    else:
        c = {node for node in nodes_of(SHARED) if marks[node] & MASKED_CHILD}
    return SharedLatents(frozenset(c), frozenset(nodes_of(MASKED)), frozenset(nodes_of(VISIBLE)))


def _marks(graph: nx.DiGraph, masked: set[Hashable]) -> dict[Hashable, int]:
    """The bits of every node, in one pass from the observables up: a node's turn comes after its last child's.

    Raises:
        ValueError: as :func:`shared_latents`.
    """
    n_children = {node: len(children) for node, children in graph.adjacency()}
    ready = [node for node, n in n_children.items() if n == 0]
    marks = dict.fromkeys(graph, 0) | dict.fromkeys(ready, VISIBLE)
    for node in masked:
        if node not in graph:
            raise ValueError(f"masked: {node!r} is no node of the graph; mask observables of it")
        if marks[node] != VISIBLE:
            raise ValueError(f"masked: {node!r} is a latent, it has children; mask observables, the graph's sinks")
        marks[node] = MASKED
    n_done = 0
    while ready:
        node = ready.pop()
        n_done += 1
        to_parents = TO_PARENTS[marks[node] & SHARED]
        for parent in graph.predecessors(node):
            marks[parent] |= to_parents
            n_children[parent] -= 1
            if n_children[parent] == 0:
                ready.append(parent)
    if n_done < len(graph):
        raise ValueError(f"graph: has a cycle, {nx.find_cycle(graph)}; take an edge of it away")
    return marks
