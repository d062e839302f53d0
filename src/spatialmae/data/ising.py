"""Ising spins with free boundaries, as black and white images: a chain (exact) and a square lattice."""

from __future__ import annotations

from math import isfinite

import numpy as np
from jaxtyping import Float64, Int8, UInt8

from spatialmae.data.dataset import SPLITS, ImageData, consecutive_splits
from spatialmae.errors import UserError

# Lattices are simulated in chunks of fixed size with a seed each, so none depends on how many are asked for.
CHUNK_SIZE = 256


def ising_chain(*, length: int, coupling: float, n_train: int, n_validation: int, n_test: int, seed: int) -> ImageData:
    """Independent exact samples of the free chain, P(s) ∝ exp(J Σ s_i s_{i+1}), as in paper A, claim A3.

    The first spin is a fair coin and neighbours are equal with probability (1 + tanh J) / 2, independently,
    so ⟨s_i s_j⟩ = tanh(J)^|i−j| exactly. Images are uint8 (n, 1, length, 1), spin −1 as 0 and +1 as 255.

    Args:
        length: number of spins.
        coupling: J, in units of the temperature.
        n_train: samples to train on; likewise ``n_validation`` and ``n_test``.
        n_validation: see ``n_train``.
        n_test: see ``n_train``.
        seed: at least 0; sample i of a split depends on ``seed`` and i, not on the counts.

    Raises:
        UserError: an impossible value.
    """
    _check("ising_chain", "length", length, coupling)
    counts = {"train": n_train, "validation": n_validation, "test": n_test}
    splits = consecutive_splits(**counts)
    p_equal = (1 + np.tanh(coupling)) / 2
    parts = []
    for index, split in enumerate(SPLITS):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        steps = np.where(rng.random((counts[split], length)) < [0.5] + [p_equal] * (length - 1), 1, -1)
        parts.append(np.cumprod(steps.astype(np.int8), axis=1, dtype=np.int8))
    spins = np.concatenate(parts)
    provenance = {"kind": "ising_chain", "length": length, "coupling": coupling, **counts, "seed": seed}
    return ImageData("ising_chain", _as_images(spins[:, None, :]), splits, provenance=provenance)


def chain_second_moment(length: int, coupling: float) -> Float64[np.ndarray, "length length"]:
    """⟨s_i s_j⟩ = tanh(J)^|i−j| of the ±1 spins of the free chain."""
    site = np.arange(length)
    return np.tanh(coupling) ** np.abs(site[:, None] - site[None, :]).astype(np.float64)


def ising_lattice(
    *,
    size: int,
    coupling: float,
    n_train: int,
    n_validation: int,
    n_test: int,
    n_sweeps: int = 500,
    seed: int,
) -> ImageData:
    """Samples of the free square lattice, P(s) ∝ exp(J Σ s_i s_j) over nearest neighbours.

    Every sample is a simulation of its own: ``n_sweeps`` checkerboard heat-bath sweeps from random spins.
    Relaxation slows down towards the critical coupling 0.4407 (about size^2.2 sweeps there) and in the
    ordered phase beyond it, so that samples are equilibrium ones only if ``n_sweeps`` is well above that.
    Images are uint8 (n, size, size, 1), spin −1 as 0 and +1 as 255.

    Args:
        size: side of the lattice.
        coupling: J, in units of the temperature.
        n_train: samples to train on; likewise ``n_validation`` and ``n_test``.
        n_validation: see ``n_train``.
        n_test: see ``n_train``.
        n_sweeps: updates of every spin, at least 1.
        seed: at least 0; sample i of a split depends on ``seed`` and i, not on the counts.

    Raises:
        UserError: an impossible value.
    """
    _check("ising_lattice", "size", size, coupling)
    if n_sweeps < 1:
        raise UserError("ising_lattice.n_sweeps", f"{n_sweeps} updates nothing", "use at least 1, better 500")
    counts = {"train": n_train, "validation": n_validation, "test": n_test}
    splits = consecutive_splits(**counts)
    chunks = []
    for index, split in enumerate(SPLITS):
        for chunk, start in enumerate(range(0, counts[split], CHUNK_SIZE)):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, chunk)))
            chunks.append(_heat_bath(size, coupling, n_sweeps, rng)[: counts[split] - start])
    options = {"size": size, "coupling": coupling, "n_sweeps": n_sweeps}
    provenance = {"kind": "ising_lattice", **options, **counts, "seed": seed}
    return ImageData("ising_lattice", _as_images(np.concatenate(chunks)), splits, provenance=provenance)


def _heat_bath(size: int, coupling: float, n_sweeps: int, rng: np.random.Generator) -> Int8[np.ndarray, "n size size"]:
    """One chunk of lattices after ``n_sweeps`` sweeps; the border of zeros makes the boundary free."""
    padded = np.zeros((CHUNK_SIZE, size + 2, size + 2), np.int8)
    spins = padded[:, 1:-1, 1:-1]
    spins[...] = rng.choice(np.array([-1, 1], np.int8), spins.shape)
    # P(up) for the sum −4 … 4 of the neighbours.
    p_up = (1 / (1 + np.exp(-2 * coupling * np.arange(-4, 5)))).astype(np.float32)
    colour = np.indices((size, size)).sum(axis=0) % 2
    for _ in range(n_sweeps):
        noise = rng.random(spins.shape, dtype=np.float32)
        for parity in (0, 1):
            field = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
            proposal = np.where(noise < p_up[field + 4], np.int8(1), np.int8(-1))
            np.copyto(spins, proposal, where=colour == parity)
    return spins.copy()


def _as_images(spins: Int8[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n h w 1"]:
    """−1 as 0, +1 as 255."""
    return np.where(spins > 0, np.uint8(255), np.uint8(0))[..., None]


def _check(source: str, extent_name: str, extent: int, coupling: float) -> None:
    """Raise UserError for an empty system or a coupling that is not a number."""
    if extent < 2:
        raise UserError(f"{source}.{extent_name}", f"{extent} spins have no neighbours", "use at least 2")
    if not isfinite(coupling):
        raise UserError(f"{source}.coupling", f"{coupling} is not finite", "use a number such as 1.0")
