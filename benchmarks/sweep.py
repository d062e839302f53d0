"""Sweep of the linear MAE over patch sizes × masking ratios × ranks: shared work against two ways of doing without.

    python benchmarks/sweep.py                                  # 32-px RGB images, d = 3072
    python benchmarks/sweep.py --image-size 16 24 32 --repeats 3   # and how cost grows with d

Compared in one run, on second moments of `leaves` images, each cell's loss and map checked against the others:

    cell    every cell (patch, ratio, rank) from scratch: solve, multiply, full eigendecomposition
    dense   one such solve for each (patch, ratio), serving all ranks: the honest one to beat
    sweep   spatialmae.linear.Sweep

Printed: seconds (median of n), ratios with n, the largest disagreement, and peak memory (each way in a process of its
own); a loss that differs by more than 1e-8 is an error. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from spatialmae.data.dead_leaves import dead_leaves
from spatialmae.geometry import patch_labels
from spatialmae.linear.moments import Moments
from spatialmae.linear.objective import Corruption
from spatialmae.linear.sweep import Sweep

RATIOS = [i / 10 for i in range(1, 10)]
FULL = -1
Result = tuple[int, float, NDArray[np.float64]]  # rank, loss, map


def covariance(image_size: int) -> NDArray[np.float64]:
    """Covariance of four times as many `leaves` images as there are features."""
    n = 4 * 3 * image_size**2
    data = dead_leaves(n_train=n, n_validation=1, n_test=1, image_size=image_size, seed=0)
    flat = data.images[:n].reshape(n, -1)
    return Moments.from_batches(flat[i : i + 2000] / 255.0 for i in range(0, n, 2000)).covariance


def grid(S: NDArray[np.float64], image_size: int) -> tuple[dict[int, NDArray[np.int64]], list[int]]:
    """Patch labels by patch size, and ranks (full rank as −1)."""
    shape = (image_size, image_size, 3)
    patches = {p: patch_labels(len(S), p, shape) for p in (2, 4, 8, 16) if image_size % p == 0 and p < image_size}
    return patches, [rank for rank in (16, 64, 256) if rank < len(S)] + [FULL]


def dense_solve(S: NDArray[np.float64], labels: NDArray[np.int64], m: float, ranks: list[int]) -> Iterator[Result]:
    """Theorem 1 as written: V, V⁻¹ S, S V⁻¹ S, its eigenvectors."""
    V = (1 - m) * S + m * S * (labels[:, None] == labels[None, :])
    solved = np.linalg.solve(V, S)
    M = S @ solved
    if ranks != [FULL]:
        values, vectors = np.linalg.eigh((M + M.T) / 2)
    for rank in ranks:
        if rank == FULL:
            yield rank, float(np.trace(S) - (1 - m) * np.trace(M)), solved
        else:
            U = vectors[:, -rank:]
            yield rank, float(np.trace(S) - (1 - m) * values[-rank:].sum()), (solved @ U) @ U.T


def shared_solve(sweep: Sweep, m: float, ranks: list[int]) -> Iterator[Result]:
    """The same from what a patch size's sweep shares."""
    corruption = Corruption.bernoulli(m)
    solution = sweep.solve(corruption, max(ranks))
    for rank in ranks:
        if rank == FULL:
            yield rank, sweep.full_rank_loss(corruption), sweep.full_rank_map(corruption)
        else:
            part = solution.truncate(rank)
            yield rank, part.loss, part.encoder @ part.decoder


def run_cell(S: NDArray[np.float64], image_size: int) -> Iterator[Result]:
    """Every cell from scratch."""
    patches, ranks = grid(S, image_size)
    for labels in patches.values():
        for m in RATIOS:
            for rank in ranks:
                yield from dense_solve(S, labels, m, [rank])


def run_dense(S: NDArray[np.float64], image_size: int) -> Iterator[Result]:
    """One dense solve for each patch size and ratio."""
    patches, ranks = grid(S, image_size)
    for labels in patches.values():
        for m in RATIOS:
            yield from dense_solve(S, labels, m, ranks)


def run_sweep(S: NDArray[np.float64], image_size: int) -> Iterator[Result]:
    """Work shared by the ratios and ranks of a patch size."""
    patches, ranks = grid(S, image_size)
    for labels in patches.values():
        sweep = Sweep.of(S, labels)
        for m in RATIOS:
            yield from shared_solve(sweep, m, ranks)


WAYS = {"cell": run_cell, "dense": run_dense, "sweep": run_sweep}


def timed(way: str, S: NDArray[np.float64], image_size: int) -> float:
    """Seconds for the whole grid, every map made and dropped."""
    start = time.perf_counter()
    for _ in WAYS[way](S, image_size):
        pass
    return time.perf_counter() - start


def disagreement(S: NDArray[np.float64], image_size: int) -> tuple[float, float, int]:
    """Largest relative difference of losses; and of maps where the gap at k exceeds 1e-6 λ₁, with their number."""
    losses, maps = [0.0], []
    patches, ranks = grid(S, image_size)
    for labels in patches.values():
        sweep = Sweep.of(S, labels)
        for m in RATIOS:
            values = sweep.solve(Corruption.bernoulli(m), max(ranks) + 1).eigenvalues
            for ours, theirs in zip(shared_solve(sweep, m, ranks), dense_solve(S, labels, m, ranks), strict=True):
                (rank, loss, W), (_, other_loss, other_W) = ours, theirs
                losses.append(abs(loss - other_loss) / other_loss)
                if rank == FULL or values[rank - 1] - values[rank] > 1e-6 * values[0]:
                    maps.append(float(np.abs(W - other_W).max() / np.abs(other_W).max()))
    return max(losses), max(maps), len(maps)


def peak_memory(way: str, image_size: int) -> float:
    """Peak resident memory in MiB of a process that makes the moments and solves two ratios of a patch size one way."""
    command = [sys.executable, __file__, "--image-size", str(image_size), "--memory-of", way]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def compare(size: int, repeats: int) -> float:
    """Time, check and print one image size; seconds of the sweep."""
    S = covariance(size)
    patches, ranks = grid(S, size)
    print(
        f"d = {len(S)}: {len(patches)} patch sizes × {len(RATIOS)} ratios × {len(ranks)} ranks, n = {repeats}",
        flush=True,
    )
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            seconds[way].append(timed(way, S, size))
    for way, values in seconds.items():
        print(
            f"  {way:6} {statistics.median(values):8.2f} s   peak memory {peak_memory(way, size):6.0f} MiB", flush=True
        )
    for way in ("cell", "dense"):
        ratios = [a / b for a, b in zip(seconds[way], seconds["sweep"], strict=True)]
        print(f"  {way} / sweep = {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]", flush=True)
    loss, weight, n_maps = disagreement(S, size)
    print(
        f"  largest disagreement: loss {loss:.1e}; map {weight:.1e} of its largest entry ({n_maps} cells)", flush=True
    )
    if loss > 1e-8:
        raise SystemExit("losses disagree by more than 1e-8")
    return statistics.median(seconds["sweep"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, nargs="+", default=[32], help="sides in px; d = 3 × side²")
    parser.add_argument("--repeats", type=int, default=1, help="n, whole grids timed, the ways taken in turn")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = arguments.image_size
    if arguments.memory_of:
        S = covariance(sizes[0])
        results = WAYS[arguments.memory_of](S, sizes[0])
        for _ in range(2 * len(grid(S, sizes[0])[1])):
            next(results)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, numpy {np.__version__}")
    seconds = [compare(size, arguments.repeats) for size in sizes]
    if len(sizes) > 1:
        growth = np.polyfit(np.log([3 * size**2 for size in sizes]), np.log(seconds), 1)[0]
        print(f"seconds of the sweep grow as d^{growth:.2f}")


if __name__ == "__main__":
    main()
