"""Generated hierarchies: inverses, Jacobians, shares of noise, and who depends on whom."""

import networkx as nx
import numpy as np
import pytest

from spatialmae.hierarchy.mechanisms import (
    BEND_STD,
    GRAPHS,
    LAYERS,
    SLOPE,
    TURN,
    HierarchicalModel,
    Mechanism,
    bend,
    binary_tree,
    unbend,
)
from spatialmae.hierarchy.shared import shared_latents

DIAMOND = nx.DiGraph({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": ["x", "y"]})


def observables(graph: nx.DiGraph) -> list[str]:
    return [node for node in graph if graph.out_degree(node) == 0]


@pytest.mark.parametrize("noise_scale", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("graph", [*(make() for make in GRAPHS.values()), DIAMOND], ids=[*GRAPHS, "diamond"])
def test_an_observable_determines_all_its_ancestors_to_1e_8(graph: nx.DiGraph, noise_scale: float):
    for noise_dim in (1, 2):
        model = HierarchicalModel(graph, noise_scale=noise_scale, noise_dim=noise_dim, seed=0)
        sample = model.sample(500, seed=1)
        for node in observables(graph):
            found = model.ancestors_of(node, sample.values[node])
            assert set(found.values) == set(found.noises) == nx.ancestors(graph, node) | {node}
            for name in found.values:
                np.testing.assert_allclose(found.values[name], sample.values[name], atol=1e-8)
                np.testing.assert_allclose(found.noises[name], sample.noises[name], atol=1e-8)


def test_a_turned_node_is_as_invertible_and_turns_nothing_but_its_own_value():
    plain, turned = (HierarchicalModel(binary_tree(), noise_scale=1.0, turned=t, seed=0) for t in ((), ("x1",)))
    a, b = plain.sample(500, seed=1), turned.sample(500, seed=1)
    found = turned.ancestors_of("x1", b.values["x1"])
    for node in ("x1", "z4", "z2", "z1"):
        np.testing.assert_allclose(found.noises[node], b.noises[node], atol=1e-8)
    changed = {node for node in a.values if not np.array_equal(a.values[node], b.values[node])}
    assert changed == {"x1"}


def test_the_mean_of_a_turned_pair_is_a_hundredth_of_it_as_for_a_gaussian_angle():
    # Without bends and rotations, to see the turn alone.
    mechanism = Mechanism(np.empty((0, 3, 3)), n_noise=1, noise_scale=1.0, turn=TURN)
    noise = np.random.default_rng(0).standard_normal((200_000, 1))
    pair = np.broadcast_to([2.0, 0.0], (len(noise), 2))
    values = mechanism.forward(np.concatenate([pair, noise], axis=1))
    np.testing.assert_allclose(values[:, :2].mean(axis=0), [2 * np.exp(-(TURN**2) / 2), 0.0], atol=0.02)
    np.testing.assert_allclose(np.linalg.norm(values[:, :2], axis=1), 2.0)


def test_bends_have_slopes_between_the_bound_and_one_and_closed_inverses():
    x = np.linspace(-30, 30, 6001)
    slope = np.gradient(bend(x), x)[1:-1]
    assert SLOPE < slope.min() < SLOPE + 0.01
    assert 0.99 < slope.max() < 1
    np.testing.assert_allclose(unbend(bend(x)), x, atol=1e-12)


def test_jacobian_determinants_of_mechanisms_stay_within_the_bound_and_change_with_the_input():
    model = HierarchicalModel(binary_tree(), noise_scale=0.5, seed=3)
    mechanism, d = model.mechanisms["x1"], model.dims["x1"]
    points, step = np.random.default_rng(0).standard_normal((50, d)), 1e-6
    shifts = step * np.eye(d)
    jacobians = np.stack(
        [(mechanism.forward(points + shift) - mechanism.forward(points - shift)) / (2 * step) for shift in shifts],
        axis=2,
    )
    # Relative to the constant scales, what is left are the slopes of LAYERS · d bends.
    scales = np.prod(mechanism._input_scale) / BEND_STD ** (LAYERS * d)
    relative = np.abs(np.linalg.det(jacobians)) / scales
    assert np.all((relative > SLOPE ** (LAYERS * d)) & (relative < 1))
    assert relative.max() > 3 * relative.min()  # a linear map has one determinant


def test_the_noise_scale_sets_the_share_of_a_nodes_variance_that_is_its_own():
    scales = np.array([0.5, 1.0, 2.0])
    shares = [np.mean([own_share("x1", scale, seed) for seed in range(8)]) for scale in scales]
    expected = scales**2 / (scales**2 + 3)  # x1 has three coordinates of z4
    assert np.all((expected / 1.6 < shares) & (shares < 1.6 * expected))
    assert np.all(np.diff(shares) > 0.1)


def own_share(node: str, noise_scale: float, seed: int) -> float:
    model = HierarchicalModel(binary_tree(), noise_scale=noise_scale, seed=seed)
    first = model.sample(2000, seed=0)
    # The same parents with another own noise: half the mean squared difference is the variance given the parents.
    second = model.propagate({**first.noises, node: model.sample(2000, seed=1).noises[node]})
    own = ((first.values[node] - second.values[node]) ** 2).mean(axis=0).sum() / 2
    return own / first.values[node].var(axis=0).sum()


def test_values_stay_near_mean_zero_and_variance_one_at_every_depth():
    for seed in range(4):
        sample = HierarchicalModel(binary_tree(), noise_scale=1.0, seed=seed).sample(4000, seed=0)
        for value in sample.values.values():
            assert np.abs(value.mean(axis=0)).max() < 1.0
            assert 0.5 < value.var(axis=0).mean() < 2.0


@pytest.mark.parametrize("name", GRAPHS)
def test_own_noises_of_one_side_leave_the_other_side_as_it_is(name: str):
    graph = GRAPHS[name]()
    model = HierarchicalModel(graph, noise_scale=1.0, seed=0)
    masked = observables(graph)[:2]
    shared = shared_latents(graph, masked)
    sample, other = model.sample(100, seed=0), model.sample(100, seed=1)
    for side, moves in ((shared.s_masked, True), (shared.s_visible, False)):
        changed = model.propagate({v: (other if v in side else sample).noises[v] for v in graph})
        for node in observables(graph):
            assert np.array_equal(changed.values[node], sample.values[node]) == ((node in masked) != moves)
        for node in shared.c:
            assert np.array_equal(changed.values[node], sample.values[node])


def test_a_sample_depends_on_its_seeds_alone_and_a_larger_one_begins_with_it():
    models = [HierarchicalModel(binary_tree(), noise_scale=1.0, seed=seed) for seed in (0, 0, 1)]
    same, again, other = (model.sample(20, seed=5) for model in models)
    longer, fresh = models[0].sample(50, seed=5), models[0].sample(20, seed=6)
    for node in ("z1", "z5", "x8"):
        assert np.array_equal(same.values[node], again.values[node])
        np.testing.assert_allclose(longer.values[node][:20], same.values[node], rtol=0, atol=1e-12)
        assert not np.allclose(same.values[node], fresh.values[node])
    assert not np.allclose(same.values["x8"], other.values["x8"])
    assert np.array_equal(same.noises["x8"], other.noises["x8"])


def test_dimensions_are_those_of_the_parents_and_the_noise_together():
    dims = HierarchicalModel(GRAPHS["two_roots"](), noise_scale=1.0, noise_dim=2, seed=0).dims
    assert [dims[node] for node in ("z1", "z2", "z3", "z4", "x1", "x3")] == [2, 2, 4, 6, 6, 8]


@pytest.mark.parametrize(
    ("graph", "settings", "named"),
    [
        (nx.DiGraph([(0, 1), (1, 0)]), {"noise_scale": 1.0}, "graph"),
        (binary_tree(), {"noise_scale": 0.0}, "noise_scale"),
        (binary_tree(), {"noise_scale": 1.0, "noise_dim": 0}, "noise_dim"),
        (binary_tree(), {"noise_scale": 1.0, "turned": ("x9",)}, "turned"),
        (binary_tree(), {"noise_scale": 1.0, "turned": ("z2",)}, "turned"),
    ],
)
def test_impossible_settings_are_refused_by_name(graph: nx.DiGraph, settings: dict, named: str):
    with pytest.raises(ValueError, match=named):
        HierarchicalModel(graph, **settings, seed=0)
