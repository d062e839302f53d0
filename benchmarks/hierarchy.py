"""Shared latents of a mask: ours against networkx's ancestors of every node, and against enumeration.

    python benchmarks/hierarchy.py
    python benchmarks/hierarchy.py --depths 10 14 --repeats 9 --large 20

On binary trees with 2^depth leaves and caterpillars (a chain of 2^depth latents, an observable on each; quadratic where
ancestors are listed for every node), three quarters of the observables hidden, and on random graphs of 10 nodes:

    ours         spatialmae.hierarchy.shared_latents
    ancestors    nx.ancestors of every observable, joined
    enumeration  all sets of common ancestors by d-separation, as in spatialmae.hierarchy.checks
    arrays       spatialmae.hierarchy.latents_by_height on 64 masks of the tree at once, without a graph

Printed: seconds a mask (median of n turns), ratios with n and their range. Answers that differ are an error. Last,
ours once on a tree with 2^large leaves (2^20: about 3 GB). Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Hashable

import networkx as nx
import numpy as np

from spatialmae.hierarchy import complete_tree, latents_by_height, shared_latents
from spatialmae.hierarchy.checks import minimal_sets, random_graph, random_observables

MASKS_AT_ONCE = 64
LONGEST_CHAIN = 11  # listing the ancestors of 2^11 nodes in a chain takes seconds


def by_ancestors(graph: nx.DiGraph, masked: set[Hashable]) -> frozenset[Hashable]:
    """The minimal c from the ancestors of every observable."""
    visible = {node for node in graph if graph.out_degree(node) == 0} - masked
    of_masked, of_visible = (set().union(*(nx.ancestors(graph, x) for x in side)) for side in (masked, visible))
    shared = of_masked & of_visible
    return frozenset(node for node in shared if shared.isdisjoint(graph.successors(node)))


def caterpillar(n: int) -> nx.DiGraph:
    """A chain of n latents, each with an observable."""
    graph = nx.path_graph(n, create_using=nx.DiGraph)
    graph.add_edges_from((i, ("x", i)) for i in range(n))
    return graph


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(title: str, ways: dict[str, Callable[[], object]], masks: dict[str, int], repeats: int) -> None:
    """Time ways in turn and print them; ``masks`` says how many masks a way takes at once, where not one."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, work in ways.items():
            taken[way].append(seconds(work) / masks.get(way, 1))
    print(f"{title}, n = {repeats}")
    for way, values in taken.items():
        ratios = [value / ours for value, ours in zip(values, taken["ours"], strict=True)]
        print(
            f"  {way:11} {statistics.median(values) * 1e3:10.3f} ms a mask   / ours = {statistics.median(ratios):9.4f} "
            f"[{min(ratios):.4f}, {max(ratios):.4f}]",
            flush=True,
        )


def check(equal: bool) -> None:
    if not equal:
        raise SystemExit("the ways disagree about c")


def tree(depth: int, repeats: int, rng: np.random.Generator) -> None:
    """A binary tree: graph, ancestors and arrays."""
    graph, hidden = complete_tree("binary", depth), rng.random((MASKS_AT_ONCE, 2**depth)) < 0.75
    masked = {(0, int(i)) for i in np.flatnonzero(hidden[0])}
    c = shared_latents(graph, masked).c
    check(c == by_ancestors(graph, masked))
    check(list(latents_by_height(hidden)[0]) == list(np.bincount([h for h, _ in c], minlength=depth + 1)))
    ways = {
        "ours": lambda: shared_latents(graph, masked),
        "ancestors": lambda: by_ancestors(graph, masked),
        "arrays": lambda: latents_by_height(hidden),
    }
    compare(f"binary tree, 2^{depth} leaves", ways, {"arrays": MASKS_AT_ONCE}, repeats)


def chain(depth: int, repeats: int, rng: np.random.Generator) -> None:
    """A caterpillar: graph and ancestors."""
    graph = caterpillar(2**depth)
    masked = {("x", int(i)) for i in np.flatnonzero(rng.random(2**depth) < 0.75)}
    check(shared_latents(graph, masked).c == by_ancestors(graph, masked))
    ways = {"ours": lambda: shared_latents(graph, masked), "ancestors": lambda: by_ancestors(graph, masked)}
    compare(f"caterpillar, 2^{depth} latents", ways, {}, repeats)


def random_graphs(n_graphs: int, repeats: int, rng: np.random.Generator) -> None:
    """Dense random graphs of ten nodes: graph, ancestors and enumeration."""
    graphs = [random_graph("dense", 10, rng) for _ in range(n_graphs)]
    cases = [(graph, random_observables(graph, rng)) for graph in graphs]
    check(all(minimal_sets(*case) == [shared_latents(*case).c] == [by_ancestors(*case)] for case in cases))
    ways = {
        "ours": lambda: [shared_latents(*case) for case in cases],
        "ancestors": lambda: [by_ancestors(*case) for case in cases],
        "enumeration": lambda: [minimal_sets(*case) for case in cases],
    }
    compare(f"{n_graphs} random graphs of 10 nodes", ways, dict.fromkeys(ways, n_graphs), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 11, 14], help="of trees and caterpillars")
    parser.add_argument("--graphs", type=int, default=200, help="random graphs for the enumeration")
    parser.add_argument("--repeats", type=int, default=5, help="n, the ways taken in turn")
    parser.add_argument("--large", type=int, default=20, help="log2 of the leaves of the large tree; 0: none")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{platform.machine()}, CPU, networkx {nx.__version__}, numpy {np.__version__}")
    random_graphs(arguments.graphs, arguments.repeats, rng)
    for depth in arguments.depths:
        tree(depth, arguments.repeats, rng)
        if depth <= LONGEST_CHAIN:
            chain(depth, arguments.repeats, rng)
    if arguments.large:
        graph = complete_tree("binary", arguments.large)
        masked = {(0, int(i)) for i in np.flatnonzero(rng.random(2**arguments.large) < 0.75)}
        taken = seconds(lambda: shared_latents(graph, masked))
        print(f"binary tree, 2^{arguments.large} leaves, n = 1\n  ours        {taken:10.3f} s")


if __name__ == "__main__":
    main()
