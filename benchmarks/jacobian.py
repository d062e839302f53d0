"""Jacobians of a masked autoencoder: ours against a loop over outputs and against torch.func.jacrev.

    python benchmarks/jacobian.py
    python benchmarks/jacobian.py --models quick --ratios 0.75 --repeats 9 --threads 1

Models of config/config.yaml (`quick`, 16 px) and larger ones (`large`, 32 px) with random weights, whose
predictions of the central half of each side are differentiated by what is visible. Compared in one run, in float32:

    loop     torch.autograd.grad for each output, retain_graph, an image at a time, attention fused
    jacrev   torch.func.jacrev, an image at a time, unchunked
    ours     spatialmae.analysis.jacobian.reconstruction_jacobian, all images at once

Printed: seconds an image (median of n turns), ratios with n and their range, and the largest difference from a loop in
float64, in units of the Jacobian's largest entry; one above 1e-5 is an error. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from spatialmae.analysis.jacobian import reconstruction_jacobian
from spatialmae.analysis.reach import ReachGeometry
from spatialmae.model import MAEConfig, MaskedAutoencoder
from spatialmae.model.masking import Masks
from spatialmae.model.patches import unpatchify

SHAPES = {
    "quick": {
        "image_size": 16,
        "encoder_dim": 64,
        "encoder_depth": 2,
        "encoder_heads": 4,
        "decoder_dim": 64,
        "decoder_depth": 1,
        "decoder_heads": 4,
    },
    "large": {
        "image_size": 32,
        "encoder_dim": 128,
        "encoder_depth": 6,
        "encoder_heads": 4,
        "decoder_dim": 96,
        "decoder_depth": 2,
        "decoder_heads": 4,
    },
}


def random_model(shape: str, ratio: float) -> MaskedAutoencoder:
    """A model whose every weight matters: fresh biases are 0."""
    model = MaskedAutoencoder(MAEConfig(patch_size=4, mask_ratio=ratio, **SHAPES[shape]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def predictions(model: MaskedAutoencoder, image: Tensor, masks: Masks, outputs: Tensor) -> Tensor:
    """Of some pixels of one image (1, C, H, W), flat in C order of (pixel, channel)."""
    pred = model.decode(model.encode(image, masks), masks)
    pixels = unpatchify(pred, model.config.patch_size, model.config.image_hw)[0].flatten(1).t()
    return pixels[outputs].flatten()


def by_loop(model: MaskedAutoencoder, image: Tensor, masks: Masks, outputs: Tensor) -> Tensor:
    """A backward pass for each output, (d_in, d_out)."""
    model.set_attention_kernel("fused")
    image = image.clone().requires_grad_()
    columns = [
        torch.autograd.grad(output, image, retain_graph=True)[0][0].permute(1, 2, 0).flatten()
        for output in predictions(model, image, masks, outputs)
    ]
    return torch.stack(columns, dim=1)


def by_jacrev(model: MaskedAutoencoder, image: Tensor, masks: Masks, outputs: Tensor) -> Tensor:
    """torch.func's vectorised reverse mode, (d_in, d_out)."""
    model.set_attention_kernel("explicit")
    rows = torch.func.jacrev(lambda x: predictions(model, x, masks, outputs))(image)[:, 0]
    return rows.permute(2, 3, 1, 0).flatten(0, 2)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(shape: str, ratio: float, n_images: int, repeats: int) -> None:
    """Check, time and print one model at one masking ratio."""
    torch.manual_seed(0)
    model = random_model(shape, ratio)
    config = model.config
    images = torch.randn(n_images, config.channels, *config.image_hw)
    masks = Masks.from_noise(config, torch.rand(n_images, config.n_units))
    one = Masks(masks.ids_keep[:1], masks.ids_restore[:1], masks.mask[:1])
    outputs = torch.from_numpy(ReachGeometry.of((*config.image_hw, config.channels), config.patch_size).outputs)
    ways = {
        "loop": lambda: by_loop(model, images[:1], one, outputs),
        "jacrev": lambda: by_jacrev(model, images[:1], one, outputs),
        "ours": lambda: reconstruction_jacobian(model, images, masks, outputs),
    }
    print(
        f"{shape}, mask_ratio {ratio}: {config.n_visible * config.patch_dim} visible inputs, "
        f"{len(outputs) * config.channels} outputs, {n_images} images, n = {repeats}",
        flush=True,
    )
    exact = by_loop(model.double(), images[:1].double(), one, outputs)
    model.float()
    differences = {
        way: float((work().reshape(-1, *exact.shape)[0] - exact).abs().max() / exact.abs().max())
        for way, work in ways.items()
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, work in ways.items():
            taken[way].append(seconds(work) / (n_images if way == "ours" else 1))
    for way, values in taken.items():
        ratios = [value / ours for value, ours in zip(values, taken["ours"], strict=True)]
        print(
            f"  {way:6} {statistics.median(values) * 1e3:9.2f} ms an image   / ours = {statistics.median(ratios):6.1f} "
            f"[{min(ratios):.1f}, {max(ratios):.1f}]   difference {differences[way]:.1e}",
            flush=True,
        )
    if differences["ours"] > 1e-5:
        raise SystemExit("the Jacobians differ by more than 1e-5 of their largest entry")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES), help="which models")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.25, 0.75], help="masking ratios")
    parser.add_argument("--images", type=int, default=8, help="images given to ours at once")
    parser.add_argument("--repeats", type=int, default=5, help="n, the ways taken in turn")
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"{platform.machine()}, CPU, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for shape in arguments.models:
        for ratio in arguments.ratios:
            compare(shape, ratio, arguments.images, arguments.repeats)


if __name__ == "__main__":
    main()
