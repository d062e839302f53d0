"""`spatialmae recommend` from files to answer, and the evidence it gives in that time against pretraining for it.

    python benchmarks/recommend.py
    python benchmarks/recommend.py --images 1000 --repeats 5

A folder of dead leaves as PNG files is made once (64 px a side), and then in turn:

    answer    reading, covariance, closed form of every setting, five groups left out
    training  one step of a small ViT-MAE on a batch of images, for each setting

Printed: seconds (median of n turns), and the ratio of pretraining every setting once for --epochs, estimated from the
step, to the answer, with its range. Run it on an idle machine.
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
import torch
from PIL import Image

from spatialmae.data.dead_leaves import dead_leaves
from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.recommend.advice import MASK_RATIOS, Calibration, advise
from spatialmae.recommend.evidence import default_grid
from spatialmae.recommend.images import read_images

SIDE, BATCH = 64, 8


def make_folder(folder: Path, n: int) -> None:
    images = dead_leaves(n_train=n, n_validation=0, n_test=0, image_size=SIDE, seed=0).images
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:05}.png")


def answer(folder: Path) -> None:
    images = read_images(folder, max_images=10**6)
    advise(images, default_grid(images.image_size, MASK_RATIOS), Calibration.published())


def step(patch_size: int, mask_ratio: float) -> Callable[[], None]:
    """One forward and backward pass; the optimizer's own work is small beside them."""
    widths = {"encoder_dim": 128, "encoder_heads": 4, "decoder_dim": 96, "decoder_heads": 4}
    config = MAEConfig(image_size=SIDE, patch_size=patch_size, mask_ratio=mask_ratio, **widths)
    model, images = MaskedAutoencoder(config), torch.randn(BATCH, 3, SIDE, SIDE)

    def work() -> None:
        model.zero_grad()
        model(images).loss.backward()

    return work


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="files in the folder")
    parser.add_argument("--epochs", type=int, default=20, help="of the pretraining that is estimated")
    parser.add_argument("--repeats", type=int, default=3, help="n, the ways taken in turn")
    arguments = parser.parse_args()
    settings = default_grid(SIDE, MASK_RATIOS).settings
    steps = [step(*setting) for setting in settings]
    print(f"{platform.machine()}, CPU, numpy {np.__version__}, torch {torch.__version__}, {len(settings)} settings")
    answers, ratios = [], []
    with tempfile.TemporaryDirectory() as name:
        make_folder(Path(name), arguments.images)
        for _ in range(arguments.repeats):
            answers.append(seconds(lambda: answer(Path(name))))
            of_settings = sum(map(seconds, steps)) * arguments.images / BATCH * arguments.epochs
            ratios.append(of_settings / answers[-1])
    print(f"{arguments.images} images of {SIDE} px, n = {arguments.repeats}")
    print(f"  answer    {statistics.median(answers):9.1f} s")
    print(f"  training / answer = {statistics.median(ratios):.0f} [{min(ratios):.0f}, {max(ratios):.0f}], estimated")


if __name__ == "__main__":
    main()
