"""Shared latents of a mask: worked examples, enumeration with d-separation, trees, and the checks of Theorem 1."""

from dataclasses import replace
from itertools import combinations
from math import comb

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialmae.hierarchy import SharedLatents, complete_tree, latents_by_height, levels, shared_latents, trees
from spatialmae.hierarchy.checks import minimal_sets, own_noise_is_independent, random_graph, theorem_rows
from spatialmae.hierarchy.trees import mean_and_max_height

# The binary tree of the paper: z1 → z2, z3; … z4 → x1, x2; … z7 → x7, x8.
BINARY = nx.DiGraph(
    [(f"z{i}", f"z{j}") for i in (1, 2, 3) for j in (2 * i, 2 * i + 1)]
    + [(f"z{i}", f"x{j}") for i in (4, 5, 6, 7) for j in (2 * i - 7, 2 * i - 6)]
)
OBSERVABLES = {f"x{i}" for i in range(1, 9)}


@st.composite
def graphs_and_masks(draw):
    """A graph of up to seven nodes, any of all there are, with shuffled names; any of its masks, also empty ones."""
    n = draw(st.integers(2, 7))
    names = draw(st.permutations(range(n)))
    edges = draw(st.integers(0, 2 ** (n * (n - 1) // 2) - 1))
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(pair for i, pair in enumerate(combinations(names, 2)) if edges >> i & 1)
    observables = [node for node in names if graph.out_degree(node) == 0]
    mask = draw(st.integers(0, 2 ** len(observables) - 1))
    return graph, {node for i, node in enumerate(observables) if mask >> i & 1}


def visible_of(graph, masked):
    return {node for node in graph if graph.out_degree(node) == 0} - masked


def parts(*sets):
    return SharedLatents(*map(frozenset, sets))


def derandomised(n):
    return settings(max_examples=n, derandomize=True, database=None)


@pytest.mark.parametrize(
    ("masked", "c"),
    [
        ("x1", "z4"),
        ("x1 x2 x3 x4", "z1"),
        ("x1 x2 x3 x4 x5 x6 x7", "z7"),
        ("x1 x2 x3", "z5"),
        ("x1 x4 x5", "z4 z5 z6"),
    ],
)
def test_worked_examples(masked, c):
    assert shared_latents(BINARY, masked.split()).c == set(c.split())
    assert minimal_sets(BINARY, masked.split()) == [set(c.split())]


def test_own_noise_is_that_of_every_node_of_one_side_alone():
    few = shared_latents(BINARY, ["x1", "x2", "x3"])
    assert few.s_masked == {"x1", "x2", "x3", "z4"}
    assert few.s_visible == OBSERVABLES - few.s_masked | {"z3", "z6", "z7"}


def test_the_frontier_adds_latents_that_the_minimal_set_determines():
    assert shared_latents(BINARY, ["x1", "x2", "x3"], reading="frontier").c == {"z2", "z5"}
    assert shared_latents(BINARY, OBSERVABLES - {"x1", "x2", "x3"}, reading="frontier").c == {"z1", "z5"}


@pytest.mark.slow
@derandomised(2000)
@given(graphs_and_masks())
def test_c_is_the_only_smallest_set_that_separates(graph_and_mask):
    graph, masked = graph_and_mask
    assert minimal_sets(graph, masked) == [shared_latents(graph, masked).c]


@derandomised(250)
@given(graphs_and_masks())
def test_own_noise_of_the_masked_side_is_independent_of_all_else(graph_and_mask):
    graph, masked = graph_and_mask
    latents = shared_latents(graph, masked)
    assert own_noise_is_independent(graph, latents)
    for node in latents.c:
        assert not own_noise_is_independent(graph, replace(latents, s_masked=latents.s_masked | {node}))


@derandomised(250)
@given(graphs_and_masks())
def test_masked_and_visible_are_interchangeable_and_every_node_has_one_place(graph_and_mask):
    graph, masked = graph_and_mask
    ours, swapped = shared_latents(graph, masked), shared_latents(graph, visible_of(graph, masked))
    assert (ours.c, ours.s_masked, ours.s_visible) == (swapped.c, swapped.s_visible, swapped.s_masked)
    shared = ours.c.union(*(nx.ancestors(graph, node) for node in ours.c))
    assert sorted([*shared, *ours.s_masked, *ours.s_visible]) == sorted(graph)


@derandomised(250)
@given(graphs_and_masks())
def test_the_frontier_holds_the_minimal_set_and_determines_no_more(graph_and_mask):
    graph, masked = graph_and_mask
    minimal, frontier = shared_latents(graph, masked), shared_latents(graph, masked, reading="frontier")
    assert minimal.c <= frontier.c <= minimal.c.union(*(nx.ancestors(graph, node) for node in minimal.c))
    assert (minimal.s_masked, minimal.s_visible) == (frontier.s_masked, frontier.s_visible)


@derandomised(200)
@given(graphs_and_masks(), st.sampled_from(["minimal", "frontier"]))
def test_names_and_order_of_nodes_do_not_matter(graph_and_mask, reading):
    graph, masked = graph_and_mask
    names = {node: ("renamed", -node) for node in graph}
    renamed = nx.DiGraph(reversed([(names[a], names[b]) for a, b in graph.edges]))
    renamed.add_nodes_from(names.values())
    ours = shared_latents(graph, masked, reading=reading)
    other = shared_latents(renamed, (names[node] for node in masked), reading=reading)
    for part in ("c", "s_masked", "s_visible"):
        assert {names[node] for node in getattr(ours, part)} == getattr(other, part)


def test_a_node_without_edges_is_an_observable_that_shares_nothing():
    graph = nx.DiGraph([("z", "a"), ("z", "b")])
    graph.add_node("alone")
    assert shared_latents(graph, ["a", "alone"]) == parts({"z"}, {"a", "alone"}, {"b"})
    assert shared_latents(graph, ["alone"]) == parts(set(), {"alone"}, {"z", "a", "b"})


def test_parallel_edges_count_once():
    graph = nx.MultiDiGraph([("z", "a"), ("z", "a"), ("z", "b")])
    assert shared_latents(graph, ["a"]) == parts({"z"}, {"a"}, {"b"})


def test_nothing_is_shared_where_one_side_is_empty():
    assert shared_latents(BINARY, []) == parts(set(), set(), set(BINARY))
    assert shared_latents(BINARY, OBSERVABLES) == parts(set(), set(BINARY), set())


@pytest.mark.parametrize(
    ("graph", "masked", "message"),
    [
        (nx.DiGraph([(1, 2), (2, 1), (2, 3)]), [3], r"graph: has a cycle, \[\(1, 2\), \(2, 1\)\]; take"),
        (nx.DiGraph([(1, 2), (1, 1)]), [2], "has a cycle"),
        (BINARY, ["x1", "x9"], "masked: 'x9' is no node of the graph; mask"),
        (BINARY, ["z4"], "masked: 'z4' is a latent, it has children; mask observables"),
    ],
)
def test_bad_input_is_named(graph, masked, message):
    with pytest.raises(ValueError, match=message):
        shared_latents(graph, masked)


def test_an_unknown_reading_is_named():
    with pytest.raises(ValueError, match="reading: 'sinks' is unknown; use minimal or frontier"):
        shared_latents.__wrapped__(BINARY, ["x1"], reading="sinks")


@pytest.mark.slow
def test_large_graphs_are_no_trouble():
    """At 10⁵ leaves anything quadratic would take hours; a chain 10⁵ deep allows no recursion."""
    first_leaf = 2**17 - 1
    graph = nx.DiGraph(((node - 1) // 2, node) for node in range(1, 2 * first_leaf + 1))
    hidden = np.random.default_rng(0).random(2**17) < 0.75
    c = shared_latents(graph, (int(i) + first_leaf for i in np.flatnonzero(hidden))).c
    counts = np.bincount([18 - (node + 1).bit_length() for node in c], minlength=18)
    np.testing.assert_array_equal(latents_by_height(hidden[None])[0], counts)

    chain = nx.path_graph(100_000, create_using=nx.DiGraph)
    chain.add_edges_from((i, ("x", i)) for i in range(99_999))
    half = shared_latents(chain, [("x", i) for i in range(50_000)])
    assert half.c == {49_999}
    frontier = shared_latents(chain, [("x", i) for i in range(50_000)], reading="frontier")
    assert frontier.c == set(range(50_000))


@derandomised(200)
@given(st.sampled_from([("binary", 1), ("binary", 4), ("quad", 1), ("quad", 2)]), st.data())
def test_trees_as_arrays_equal_trees_as_graphs(tree_and_depth, data):
    tree, depth = tree_and_depth
    graph, sides = complete_tree(tree, depth), (2**depth,) * trees.DIMENSIONS[tree]
    n_leaves = int(np.prod(sides))
    bits = data.draw(st.lists(st.booleans(), min_size=n_leaves, max_size=n_leaves))
    hidden = np.reshape(bits, sides)
    c = shared_latents(graph, [(0, *map(int, index)) for index in np.argwhere(hidden)]).c
    counts = np.bincount([height for height, *_ in c], minlength=depth + 1)
    both = latents_by_height(np.stack([hidden, ~hidden]))
    np.testing.assert_array_equal(both, [counts, counts])


def test_a_patch_is_a_leaf_of_a_higher_tree():
    patches = np.random.default_rng(0).random((5, 4, 4)) < 0.5
    pixels = patches.repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_array_equal(latents_by_height(pixels)[:, 2:], latents_by_height(patches))


def expected_counts(n_leaves: int, arity: int, n_hidden: int) -> np.ndarray:
    """Mean number of members of c at each height above the leaves over all masks: children pure, but not all alike."""
    depth = round(np.log(n_leaves) / np.log(arity))
    masks = comb(n_leaves, n_hidden)
    counts = [0.0]
    for height in range(1, depth + 1):
        below = arity ** (height - 1)
        ways = sum(
            comb(arity, hidden) * comb(n_leaves - arity * below, n_hidden - hidden * below)
            for hidden in range(1, arity)
            if hidden * below <= n_hidden
        )
        counts.append(n_leaves / (arity * below) * (ways / masks))
    return np.array(counts)


@pytest.mark.parametrize(("sides", "n_hidden"), [((16,), 2), ((16,), 6), ((4, 4), 4), ((4, 4), 12)])
def test_mean_counts_over_all_masks_are_exact(sides, n_hidden):
    chosen = np.array(list(combinations(range(16), n_hidden)))
    hidden = np.zeros((len(chosen), 16), bool)
    np.put_along_axis(hidden, chosen, True, axis=1)
    counts = latents_by_height(hidden.reshape(-1, *sides))
    np.testing.assert_allclose(counts.mean(axis=0), expected_counts(16, 2 ** len(sides), n_hidden), rtol=1e-12)


def test_levels_of_the_note():
    """Depth 10: 1.05/1.09/1.12/1.09/1.05 over masking ratios; ≈ 3.1 and 5.1 at patches of 4 and 16 leaves."""
    ratios, note = [0.1, 0.25, 0.5, 0.75, 0.9], [1.05, 1.09, 1.12, 1.09, 1.05]
    table = levels("binary", 10, patch_sizes=[1, 4, 16], mask_ratios=ratios, n_masks=400, seeds=[0])
    by_patch = table.set_index(["patch_size", "mask_ratio"])
    for ratio, value in zip(ratios, note, strict=True):
        row = by_patch.loc[1, ratio]
        counts = expected_counts(1024, 2, int(row["n_hidden"]))
        assert row["mean_height"] == pytest.approx(counts @ np.arange(11) / counts.sum(), abs=0.004)
        assert row["n_latents"] == pytest.approx(counts.sum(), rel=0.01)
        assert row["mean_height"] == pytest.approx(value, abs=0.01)
    assert by_patch.loc[4, 0.75]["mean_height"] == pytest.approx(3.1, abs=0.05)
    assert by_patch.loc[16, 0.75]["mean_height"] == pytest.approx(5.1, abs=0.05)
    largest = by_patch.loc[1]["max_height"]
    assert largest[0.5] - largest[0.1] == pytest.approx(0.6, abs=0.1)


def test_the_level_hardly_depends_on_the_ratio_in_a_quad_tree():
    """Four children are seldom all pure: ratios cannot move the level of image patches, their size does."""
    table = levels("quad", 6, patch_sizes=[1, 4], mask_ratios=[0.1, 0.5, 0.75], n_masks=50, seeds=[0])
    assert table["n_patches"].tolist() == [4096] * 3 + [256] * 3
    assert table["n_hidden"].tolist() == [410, 2048, 3072, 26, 128, 192]
    np.testing.assert_allclose(table["mean_height"], [1] * 3 + [3] * 3, atol=0.005)


def test_rows_depend_on_their_own_settings_alone(monkeypatch):
    settings = {"patch_sizes": [1, 2], "n_masks": 7}
    table = levels("quad", 3, mask_ratios=[0.25, 0.75], seeds=[3, 4], **settings)
    assert table.groupby("patch_size")["n_latents"].nunique().min() > 2
    monkeypatch.setattr(trees, "PATCHES_AT_ONCE", 100)
    one = levels("quad", 3, mask_ratios=[0.75], seeds=[4], **settings)
    same = table[(table["mask_ratio"] == 0.75) & (table["seed"] == 4)].reset_index(drop=True)
    assert one.equals(same)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depth": 0}, "depth: 0 leaves a tree without latents"),
        ({"n_masks": 0}, "n_masks: 0 is not at least 1"),
        ({"patch_sizes": [3]}, "patch_size: 3 is no power of two below 2\\^3"),
        ({"patch_sizes": [8]}, "patch_size: 8 is no power of two below"),
        ({"mask_ratios": [0]}, "mask_ratio: 0 hides none of 8 patches"),
        ({"mask_ratios": [0.9]}, "mask_ratio: 0.9 leaves none of 8 patches visible"),
    ],
)
def test_impossible_settings_of_levels_are_named(changed, message):
    settings = {"depth": 3, "patch_sizes": [1], "mask_ratios": [0.5], "n_masks": 2, "seeds": [0]} | changed
    with pytest.raises(ValueError, match=message):
        levels("binary", settings.pop("depth"), **settings)


def test_masks_without_a_level_and_leaves_without_a_tree_are_refused():
    with pytest.raises(ValueError, match="mask 1 hides nothing or everything"):
        mean_and_max_height(latents_by_height(np.array([[True, False], [True, True]])))
    for shape in ((1, 6), (1, 4, 2), (1, 2, 2, 2), (1, 0)):
        with pytest.raises(ValueError, match="are no complete tree"):
            latents_by_height(np.ones(shape, bool))


@pytest.mark.parametrize("kind", ["sparse", "dense", "tree", "layers"])
def test_random_graphs_are_acyclic_and_can_be_masked(kind):
    rng = np.random.default_rng(0)
    for n_nodes in (3, 8):
        graph = random_graph(kind, n_nodes, rng)
        assert list(graph) == list(range(n_nodes))
        assert all(parent < child for parent, child in graph.edges)
        assert len(visible_of(graph, set())) >= 2
    with pytest.raises(ValueError, match="n_nodes: 2 cannot be"):
        random_graph(kind, 2, rng)


@pytest.mark.slow
def test_the_theorem_holds_on_random_graphs_and_its_controls_fail():
    rows = theorem_rows(n_graphs=150, n_masks=2, seed=0)
    share = {(row["check"], row["role"]): row["relative_error"] for row in rows}
    assert share["minimal_set", "claim"] == share["independence", "claim"] == 0
    assert 0.2 < share["minimal_set", "control"] < 0.4  # the frontier is another set in about a third of graphs
    assert share["independence", "control"] > 0.5
    assert {(row["seed"], row["n_graphs"], row["n_masks"]) for row in rows} == {(0, 150, 2)}
    first, again, other = (theorem_rows(n_graphs=20, n_masks=2, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert [row["relative_error"] for row in first] != [row["relative_error"] for row in other]
