"""`spatialmae recommend` end to end, and its covariance of lags against the plain way.

    python benchmarks/recommend.py
    python benchmarks/recommend.py --images 1000 --repeats 5

A folder of dead leaves as PNG files is made once (64 px a side), and then in turn:

    ours      reading, covariance of lags by Fourier transform, closed form of every setting, five groups left out
    pairs     the covariance alone: of every pair of pixels, averaged over pairs of one lag
    lags      the covariance alone, ours

Printed: seconds (median of n turns), the ratio pairs / lags with its range. Covariances that differ by more than 1e-8
of the variance are an error. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from spatialmae.data.leaves import leaves
from spatialmae.recommend.advice import MASK_RATIOS, Calibration, advise
from spatialmae.recommend.evidence import LagCovariance, averaged_down, averaging_factor, default_grid
from spatialmae.recommend.images import read_images

SIDE = 64


def make_folder(folder: Path, n: int) -> None:
    images = leaves(n_train=n, n_validation=0, n_test=0, image_size=SIDE, seed=0).images
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:05}.png")


def answer(folder: Path) -> None:
    images = read_images(folder, max_images=10**6)
    advise(images, default_grid(images.image_size, MASK_RATIOS), Calibration.published())


def lag_sums_of_pairs(images: np.ndarray, factor: int) -> np.ndarray:
    """The sums of LagCovariance from the products of every pair of pixels."""
    small = averaged_down(images, factor)
    side = small.shape[1]
    rows, columns = np.divmod(np.arange(side**2), side)
    lag = (rows[:, None] - rows + side - 1) * (2 * side - 1) + columns[:, None] - columns + side - 1
    sums = []
    for channel in range(small.shape[-1]):
        x = small[..., channel].reshape(len(small), -1)
        x = x - x.mean(axis=0)
        sums.append(np.bincount(lag.ravel(), weights=(x.T @ x).ravel()).reshape(2 * side - 1, 2 * side - 1))
    return np.stack(sums)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="files in the folder")
    parser.add_argument("--repeats", type=int, default=3, help="n, the ways taken in turn")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, CPU, numpy {np.__version__}, {arguments.images} images of {SIDE} px")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_folder(folder, arguments.images)
        images, factor = read_images(folder, max_images=10**6).images, averaging_factor(SIDE)
        lags, pairs = LagCovariance.of(images, factor).sums[0], lag_sums_of_pairs(images, factor)
        if np.abs(lags - pairs).max() > 1e-8 * pairs.max():
            raise SystemExit("the ways disagree about the covariance")
        ways = {
            "ours": lambda: answer(folder),
            "lags": lambda: LagCovariance.of(images, factor),
            "pairs": lambda: lag_sums_of_pairs(images, factor),
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(arguments.repeats):
            for way, work in ways.items():
                taken[way].append(seconds(work))
    ratios = [pairs / lags for pairs, lags in zip(taken["pairs"], taken["lags"], strict=True)]
    for way, values in taken.items():
        print(f"  {way:6} {statistics.median(values):8.2f} s   n = {len(values)}")
    print(f"  pairs / lags = {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
