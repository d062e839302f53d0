"""Ising spins against the exact solution of the chain and enumeration of a small lattice."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusals import refused
from spatialmae.data.ising import CHUNK_SIZE, chain_second_moment, ising_chain, ising_lattice


def spins(images: np.ndarray) -> np.ndarray:
    assert set(np.unique(images)) <= {0, 255}
    return np.where(images.reshape(len(images), -1) > 0, 1.0, -1.0)


def enumerated_second_moment(bonds: list[tuple[int, int]], n: int, coupling: float) -> np.ndarray:
    states = np.array(list(product([-1.0, 1.0], repeat=n)))
    weight = np.exp(coupling * sum(states[:, i] * states[:, j] for i, j in bonds))
    return (states * (weight / weight.sum())[:, None]).T @ states


def assert_close_to(sampled: np.ndarray, exact: np.ndarray) -> None:
    """Within 5 standard errors of a mean of ±1 variables with that expectation."""
    # Rounding takes some squares above 1, on which processors differ.
    error = np.sqrt(np.maximum(1 - exact**2, 0) / len(sampled)) + 1e-12
    assert (np.abs(sampled.T @ sampled / len(sampled) - exact) < 5 * error).all()
    assert (np.abs(sampled.mean(axis=0)) < 5 / np.sqrt(len(sampled))).all()


@given(length=st.integers(2, 8), coupling=st.floats(-2, 2))
@settings(max_examples=30)
def test_chain_second_moment_is_that_of_the_enumerated_chain(length, coupling):
    bonds = [(i, i + 1) for i in range(length - 1)]
    exact = enumerated_second_moment(bonds, length, coupling)
    np.testing.assert_allclose(chain_second_moment(length, coupling), exact, atol=1e-12)


@pytest.mark.parametrize("coupling", [-0.7, 0.0, 0.5, 1.5])
def test_chain_samples_have_the_exact_second_moment(coupling):
    data = ising_chain(length=20, coupling=coupling, n_train=20000, n_validation=0, n_test=0, seed=1)
    assert data.images.shape == (20000, 1, 20, 1)
    assert_close_to(spins(data.images), chain_second_moment(20, coupling))


@pytest.mark.parametrize("coupling", [-0.3, 0.4, 0.8])
def test_lattice_samples_against_enumeration(coupling):
    sites = np.arange(9).reshape(3, 3)
    bonds = [*zip(sites[:, :-1].flat, sites[:, 1:].flat, strict=True)]
    bonds += [*zip(sites[:-1].flat, sites[1:].flat, strict=True)]
    data = ising_lattice(size=3, coupling=coupling, n_train=8000, n_validation=0, n_test=0, n_sweeps=150, seed=0)
    assert_close_to(spins(data.images), enumerated_second_moment(bonds, 9, coupling))


def test_the_lattice_orders_as_the_coupling_grows():
    magnetisation = []
    for coupling in (0.2, 0.4, 0.6):
        data = ising_lattice(size=12, coupling=coupling, n_train=256, n_validation=0, n_test=0, n_sweeps=150, seed=0)
        magnetisation.append(np.abs(spins(data.images).mean(axis=1)).mean())
    assert magnetisation[0] < 0.3 and magnetisation == sorted(magnetisation) and magnetisation[2] > 0.6


@pytest.mark.parametrize(
    "make",
    [
        lambda **kw: ising_chain(length=16, coupling=0.5, **kw),
        lambda **kw: ising_lattice(size=4, coupling=0.3, n_sweeps=3, **kw),
    ],
)
def test_a_sample_depends_on_the_seed_and_its_place_in_the_split_only(make):
    small = make(n_train=5, n_validation=3, n_test=4, seed=7)
    large = make(n_train=CHUNK_SIZE + 50, n_validation=30, n_test=40, seed=7)
    for split in ("train", "validation", "test"):
        n = len(small.splits[split])
        np.testing.assert_array_equal(small.images[small.splits[split]], large.images[large.splits[split]][:n])
    assert not np.array_equal(large.images[:40], large.images[large.splits["test"]])
    assert not np.array_equal(make(n_train=5, n_validation=3, n_test=4, seed=8).images, small.images)


def test_impossible_values_are_refused():
    counts = {"n_train": 1, "n_validation": 0, "n_test": 0, "seed": 0}
    with refused("ising_chain.length", "at least 2"):
        ising_chain(length=1, coupling=1.0, **counts)
    with refused("ising_lattice.coupling", "use a number"):
        ising_lattice(size=4, coupling=float("inf"), **counts)
    with refused("ising_lattice.n_sweeps", "at least 1"):
        ising_lattice(size=4, coupling=0.1, n_sweeps=0, **counts)
