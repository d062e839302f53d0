"""Speed of MAE training against facebookresearch/mae, with the same loss curve, and against the machine's own roof.

    python benchmarks/training.py --peer CHECKOUT                     # ViT-Tiny, 32-px images, patches of 4 and 2 px
    python benchmarks/training.py --peer CHECKOUT --patch-size 4 --batch-size 256 --json results.json

The peer is a checkout of https://github.com/facebookresearch/mae: its model, in its loop written anew (autocast, AdamW,
the norm of the gradient, the loss read at every step), on batches already in memory as normalised floats. Ours is
``spatialmae.train.trainer.Trainer.step``, from uint8 images, augmentation included. Architecture, mask ratio and batch
are the same. Contenders take turns, n times; "a × b" are a processes of b threads each, each training a model of its
own, and images/s are of all together.

"products" is the roof: the bare matrix products of an MLP at the step's shapes, their rate as images/s of a model that
did nothing but its products. No program that does all of these in that precision is faster.

Loss curves: from the same weights, on the same batches of `leaves` images under the same masks, ours in fp32 and in
bf16 must follow the peer's in fp32, or the benchmark fails. Run it on an idle machine: threads wait for one another.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spatialmae.data.dead_leaves import dead_leaves
from spatialmae.model import MAEConfig
from spatialmae.train.batches import TrainingImages, channel_statistics
from spatialmae.train.hardware import COMPILE_FROM_STEPS, DeviceChoice, Hardware, n_cores, prepare_cpu
from spatialmae.train.plan import RunSpec
from spatialmae.train.settings import Precision, TrainConfig
from spatialmae.train.trainer import Trainer
from training_flops import step_flops
from training_peer import PeerLoop, build_peer, import_peer, our_weights
from training_workers import Contender, Crew

CURVE_STEPS, CURVE_BATCH = 50, 16
# Largest relative difference of two loss curves: rounding alone, which AdamW's division amplifies in the first steps.
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
TINY = MAEConfig(
    image_size=16, encoder_dim=64, encoder_depth=3, encoder_heads=2, decoder_dim=64, decoder_depth=1, decoder_heads=2
)
SEEDS = 5
Row = dict[str, Any]


class Recorded(Trainer):
    """Our trainer, keeping what a peer needs to take the same steps."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.batches: list[tuple[Tensor, Tensor, float]] = []  # images, random state before the masks, learning rate
        self.losses: list[Tensor] = []

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The loss, recorded."""
        self.batches.append((images, generator.get_state(), self.optimizer.param_groups[0]["lr"]))
        loss = super().loss(images, generator)
        self.losses.append(loss.detach())
        return loss


def curve_images(config: MAEConfig, device: torch.device) -> TrainingImages:
    """Real images for the loss curves."""
    n, size = CURVE_BATCH * CURVE_STEPS // 2, config.image_hw[0]
    images = dead_leaves(n_train=n, n_validation=1, n_test=1, image_size=size, seed=0).images[:n]
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return TrainingImages(pixels, pixels[:0], *channel_statistics(images), "").to(device)


def loss_curves(config: MAEConfig, peer: Path, device: DeviceChoice) -> dict[str, list[float]]:
    """Losses of the first steps, ours and the peer's in either precision, all from the peer's initial weights."""
    images = curve_images(config, torch.device(device))
    train = TrainConfig(epochs=2, warmup_epochs=0.4, batch_size=CURVE_BATCH, base_lr=0.016, augmentation="none")
    torch.manual_seed(0)
    model = build_peer(import_peer(peer), config).to(device)
    initial = our_weights(model)
    curves = {}
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        hardware = Hardware.choose(precision, COMPILE_FROM_STEPS, device=device)
        trainer = Recorded(RunSpec("leaves", config, train, seed=0), images, hardware)
        trainer.model.load_state_dict(initial)
        for _ in range(CURVE_STEPS):
            trainer.step()
        curves[f"ours {precision}"] = [loss.item() for loss in trainer.losses]
    set_state = torch.cuda.set_rng_state if device == "cuda" else torch.set_rng_state
    for precision in precisions:
        loop = PeerLoop(copy.deepcopy(model), train, config.mask_ratio, amp=precision == "bf16")
        curves[f"peer {precision}"] = []
        for batch, state, lr in trainer.batches:
            set_state(state)
            curves[f"peer {precision}"].append(loop.step(batch, lr))
    return curves


def compare_curves(config: MAEConfig, peer: Path, device: DeviceChoice) -> Row:
    """Print and judge the loss curves."""
    curves = loss_curves(config, peer, device)
    base = np.array(curves.pop("peer fp32"))
    print(f"loss curves, {CURVE_STEPS} steps of {CURVE_BATCH} leaves: peer fp32 {base[0]:.4f} → {base[-1]:.4f}")
    row: Row = {"peer fp32": base.tolist(), "others": curves, "largest_relative_difference": {}, "same": True}
    for name, losses in curves.items():
        difference = float(np.max(np.abs(np.array(losses) / base - 1)))
        row["largest_relative_difference"][name] = difference
        line = f"  {name}: within {difference:.1e} of it"
        if name.startswith("ours"):
            tolerance = TOLERANCE[name.removeprefix("ours ")]
            same = difference <= tolerance  # false for NaN
            row["same"] &= same
            line += f"; {'same' if same else 'NOT the same'} at {tolerance:g}"
        print(line, flush=True)
    return row


def race(contenders: Sequence[Contender], repeats: int, seconds: float, steps: int | None) -> list[list[float]]:
    """Images/s of each contender in each of ``repeats`` rounds, the contenders taken in turn."""
    processes = max(contender.processes for contender in contenders)
    peer, ours = Crew(processes), Crew(processes)
    turns = []
    for contender in contenders:
        crew = peer if contender.kind == "peer" else ours
        turns.append((crew, contender, steps or crew.steps_to_fill(contender, seconds)))
    rounds = [[crew.turn(contender, n) for crew, contender, n in turns] for _ in range(repeats)]
    return [list(rates) for rates in zip(*rounds, strict=True)]


def summary(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def report(
    contenders: Sequence[Contender], rates: list[list[float]], bases: Sequence[Contender], peak: float | None
) -> list[Row]:
    """Print a table and return its rows; ratios are paired by round."""
    roofs = {c.precision: statistics.median(v) for c, v in zip(contenders, rates, strict=True) if c.kind == "products"}
    head = "".join(f"{'/ (' + base.label + ')':>24}" for base in bases)
    print(
        f"  {'processes × threads':36} {'images/s':>24}{head}  GFLOP/s"
        + "  of roof" * bool(roofs)
        + "    MFU" * bool(peak)
    )
    rows = []
    for contender, values in zip(contenders, rates, strict=True):
        median = statistics.median(values)
        flops = median * step_flops(contender.model)
        ratios = {b.label: [x / y for x, y in zip(values, rates[contenders.index(b)], strict=True)] for b in bases}
        row: Row = {
            "contender": contender.label,
            "images_per_second": values,
            "flops_per_second": flops,
            "ratios": ratios,
        }
        line = f"  {contender.label:36} {summary(values, 1 if median < 1000 else 0):>24}"
        line += "".join(f"{summary(ratio, 2):>24}" for ratio in ratios.values()) + f"{flops / 1e9:9.0f}"
        if roofs:
            row["share_of_roof"] = median / roofs[contender.precision]
            line += f"{row['share_of_roof']:9.0%}"
        if peak:
            row["mfu"] = flops / peak
            line += f"{row['mfu']:7.1%}"
        print(line, flush=True)
        rows.append(row)
    return rows


def layouts(processes: int) -> list[tuple[int, int]]:
    """Processes and threads of each: one process with all cores; several, which share them."""
    return list(dict.fromkeys([(1, n_cores()), (processes, max(1, n_cores() // processes))]))


def against_peer(config: MAEConfig, arguments: argparse.Namespace) -> Row:
    """One patch size: loss curves, then speed."""
    flops, device = step_flops(config), arguments.device
    print(
        f"\npatch size {config.patch_size}, batch {arguments.batch_size}: {flops / 1e9:.2f} GFLOP an image and step, "
        f"n = {arguments.repeats}",
        flush=True,
    )
    curves = compare_curves(config, arguments.peer, device)
    one, *several = layouts(arguments.processes)
    best = [one, *several][-1]
    ways: list[tuple[Any, Any, tuple[int, int]]] = [
        *(("peer", "fp32", one), ("peer", "bf16", one), *(("peer", "bf16", many) for many in several)),
        *(("ours", "fp32", one), ("ours", "bf16", one), *(("ours", "bf16", many) for many in several)),
        *(("products", "fp32", best), ("products", "bf16", best)),
    ]
    contenders = [
        Contender(kind, precision, *layout, config, arguments.batch_size, device, arguments.peer)
        for kind, precision, layout in ways
    ]
    rates = race(contenders, arguments.repeats, arguments.seconds, arguments.steps)
    peak = arguments.peak_tflops * 1e12 if device == "cuda" else None
    rows = report(contenders, rates, contenders[:2], peak)
    return {"config": config.to_dict(), "step_flops": flops, "curves": curves, "speed": rows}


def stacked_seeds(arguments: argparse.Namespace) -> list[Row]:
    """A small model: one seed, or several stacked into one model, in one process or several."""
    print(f"\nstacked seeds: 16-px images, dim 64, depth 3/1, batch 128, n = {arguments.repeats}", flush=True)
    kinds: list[tuple[Any, int]] = [("ours", 1), ("stacked", SEEDS)]
    precisions: list[Any] = ["fp32", "bf16"]
    contenders = [
        Contender(kind, precision, *layout, TINY, 128, arguments.device, arguments.peer, seeds)
        for precision in precisions
        for layout in layouts(arguments.processes)
        for kind, seeds in kinds
    ]
    rates = race(contenders, arguments.repeats, arguments.seconds / 2, arguments.steps)
    return report(contenders, rates, contenders[:1], None)


def machine(device: DeviceChoice) -> Row:
    """What it ran on."""
    name = Hardware.choose("auto", 0, device=device).name
    return {"device": name, "threads": n_cores(), "torch": torch.__version__, "cpus": os.cpu_count()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="checkout of facebookresearch/mae")
    parser.add_argument("--patch-size", type=int, nargs="+", default=[4, 2], help="sides of a patch in px")
    parser.add_argument("--batch-size", type=int, default=128, help="images a step")
    parser.add_argument("--repeats", type=int, default=5, help="n, turns of each contender")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn, in whole steps")
    parser.add_argument("--steps", type=int, help="steps of a turn, in place of --seconds")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--processes", type=int, help="processes side by side; default: the cores, or 4 on a GPU")
    parser.add_argument("--peak-tflops", type=float, default=989, help="a GPU's dense bf16 peak, for MFU (Hopper's)")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    arguments = parser.parse_args()
    arguments.device = Hardware.choose("auto", 0, device=arguments.device).device.type
    arguments.processes = arguments.processes or (4 if arguments.device == "cuda" else n_cores())
    prepare_cpu(n_cores())
    results: Row = {"machine": machine(arguments.device), "repeats": arguments.repeats}
    print(", ".join(f"{key} {value}" for key, value in results["machine"].items()), flush=True)
    results["peer"] = [against_peer(MAEConfig(patch_size=p), arguments) for p in arguments.patch_size]
    results["stacked_seeds"] = stacked_seeds(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if not all(result["curves"]["same"] for result in results["peer"]):
        raise SystemExit("loss curves differ by more than the tolerance")


if __name__ == "__main__":
    main()
