"""Whether the encoder's attention keeps to the object, how far it reaches, and how spread out it is (claim B5).

Maps are averaged over heads. The column of [CLS] is left out and each row divided by its sum, so that a row says how a
token's attention is divided among the patches; how much went to [CLS] is reported beside. Nothing is masked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Integer, UInt8
from scipy.special import xlogy
from torch import Tensor

from spatialmae.geometry import pixel_distances
from spatialmae.model.mae import Intermediates
from spatialmae.model.trained import TrainedModel

# Whose attention is looked at: [CLS]; tokens on the object, each with the share of the object in it as its weight; all
# patch tokens alike.
QUERIES = ("cls", "object", "all")
MAX_BYTES = 2**27  # of attention maps alive at once


@dataclass(frozen=True)
class PatchAttention:
    """One block's attention on patches, for a batch of images. Tokens: [CLS] first, then the L patches row-major.

    Attributes:
        maps: from each token (row) to each patch; rows sum to 1.
        to_cls: share of each token's attention that went to [CLS], left out of ``maps``.
    """

    maps: Float64[np.ndarray, "n T L"]
    to_cls: Float64[np.ndarray, "n T"]

    @classmethod
    def of(cls, attention: Float[Tensor, "n heads T T"]) -> PatchAttention:
        """From a block's map, [CLS] first: averaged over heads first, then divided by its rows' sums."""
        mean = attention.double().mean(dim=1).cpu().numpy()
        to_patches = mean[:, :, 1:]
        return cls(to_patches / to_patches.sum(axis=2, keepdims=True), mean[:, :, 0])


def block_attention(
    run: TrainedModel, images: UInt8[np.ndarray, "n h w c"], max_bytes: int = MAX_BYTES
) -> Iterator[tuple[slice, list[PatchAttention]]]:
    """Attention of every block of the encoder on unmasked images, a batch of images at a time; in float32.

    Args:
        run: a trained model, whose attention is computed by the explicit kernel.
        images: 0–255, of the model's shape.
        max_bytes: bounds the maps alive at once, but for one image.

    Yields:
        The rows of a batch, and a map for each block.

    Raises:
        ValueError: the kernel keeps no maps, or images have another shape than the model's.
    """
    model, config = run.model, run.model.config
    device = model.cls_token.device
    # float32 of each head, and two float64 of their mean.
    of_image = config.encoder_depth * (4 * config.encoder_heads + 16) * (1 + config.n_patches) ** 2
    at_once = max(1, max_bytes // of_image)
    for start in range(0, len(images), at_once):
        rows = slice(start, min(start + at_once, len(images)))
        kept: Intermediates = {}
        # Set here, whatever the caller's.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            model.encode(run.normalise(torch.from_numpy(images[rows]).to(device)), kept=kept)
        names = [f"encoder/block{i}/attention" for i in range(config.encoder_depth)]
        if not set(names) <= set(kept):
            raise ValueError("a fused attention keeps no maps; call set_attention_kernel('explicit') on the model")
        yield rows, [PatchAttention.of(kept.pop(name)) for name in names]


def object_fractions(
    segmentation: Integer[np.ndarray, "n h w"], patch_size: int, label: int = 1
) -> Float64[np.ndarray, "n L"]:
    """Share of each patch's pixels that are the object's, row-major: a patch across its border is partly on it.

    Args:
        segmentation: label of each pixel.
        patch_size: side of a patch in px, which tiles the images.
        label: the object's; 1 in :func:`~spatialmae.data.dead_leaves.dead_leaves`.
    """
    n, height, width = segmentation.shape
    rows, columns = height // patch_size, width // patch_size
    on_object = (segmentation == label).reshape(n, rows, patch_size, columns, patch_size)
    return on_object.mean(axis=(2, 4)).reshape(n, rows * columns)


def query_weights(fractions: Float64[np.ndarray, "n L"]) -> Float64[np.ndarray, "n queries T"]:
    """Weight of each token, [CLS] first, in each of :data:`QUERIES`; they sum to 1.

    Args:
        fractions: of :func:`object_fractions`, of images that have an object.
    """
    n, n_patches = fractions.shape
    weights = np.zeros((n, len(QUERIES), 1 + n_patches))
    weights[:, 0, 0] = 1.0
    weights[:, 1, 1:] = fractions / fractions.sum(axis=1, keepdims=True)
    weights[:, 2, 1:] = 1 / n_patches
    return weights


@dataclass(frozen=True)
class Scene:
    """What the measures need to know of images: where the object is, and how far apart patches are.

    Attributes:
        fractions: of :func:`object_fractions`.
        weights: of :func:`query_weights`.
        distances: between the centres of a token's patch and each patch, px; 0 for [CLS], which has no place.
    """

    fractions: Float64[np.ndarray, "n L"]
    weights: Float64[np.ndarray, "n queries T"]
    distances: Float64[np.ndarray, "T L"]

    @classmethod
    def of(cls, segmentation: Integer[np.ndarray, "n h w"], patch_size: int, label: int = 1) -> Scene:
        """The scene of images that are cut into patches of ``patch_size`` px.

        Raises:
            ValueError: an image has no pixel of the object.
        """
        fractions = object_fractions(segmentation, patch_size, label)
        without = int((fractions.sum(axis=1) == 0).sum())
        if without:
            raise ValueError(f"segmentation: {without} images have no pixel of label {label}; leave them out")
        grid = (segmentation.shape[1] // patch_size, segmentation.shape[2] // patch_size)
        distances = patch_size * pixel_distances(grid)
        return cls(fractions, query_weights(fractions), np.vstack([np.zeros(len(distances)), distances]))

    def rows(self, chosen: slice) -> Scene:
        """The same for some of the images."""
        return Scene(self.fractions[chosen], self.weights[chosen], self.distances)

    def object_share(self, maps: Float64[np.ndarray, "m T L"]) -> Float64[np.ndarray, "n queries"]:
        """Share of attention on the object, over the object's share of the image; 1 if attention ignores it.

        Args:
            maps: one for each image, or a single one for all.
        """
        on_object = (maps @ self.fractions[:, :, None])[:, :, 0]
        return self._average(on_object) / self.fractions.mean(axis=1, keepdims=True)

    def measures(self, attention: PatchAttention) -> dict[str, Float64[np.ndarray, "n queries"]]:
        """Measures of each image and query.

        - ``object_attention``: see :meth:`object_share`; a share of 2 means twice what uniform attention gives.
        - ``attention_distance``: mean distance between a query's patch and the patches attended to, px (Dosovitskiy et
          al., 2021); NaN for [CLS].
        - ``attention_entropy``: −Σ a log a, nats.
        - ``cls_attention``: share of attention that went to [CLS], and is left out of the others.
        """
        maps = attention.maps
        return {
            "object_attention": self.object_share(maps),
            "attention_distance": self._of_places((maps * self.distances).sum(axis=2)),
            "attention_entropy": self._average(-xlogy(maps, maps).sum(axis=2)),
            "cls_attention": self._average(attention.to_cls),
        }

    def uniform_distance(self) -> Float64[np.ndarray, "n queries"]:
        """``attention_distance`` of uniform attention."""
        mean = self.distances.mean(axis=1)
        return self._of_places(np.broadcast_to(mean, (len(self.fractions), len(mean))))

    def _average(self, of_token: Float64[np.ndarray, "n T"]) -> Float64[np.ndarray, "n queries"]:
        return (self.weights @ of_token[:, :, None])[:, :, 0]

    def _of_places(self, of_token: Float64[np.ndarray, "n T"]) -> Float64[np.ndarray, "n queries"]:
        found = self._average(of_token)
        found[:, QUERIES.index("cls")] = np.nan
        return found


def attention_rows(
    run: TrainedModel,
    images: UInt8[np.ndarray, "n h w c"],
    segmentation: Integer[np.ndarray, "n h w"],
    label: int = 1,
    max_bytes: int = MAX_BYTES,
) -> list[dict[str, Any]]:
    """A row for each block and each of :data:`QUERIES`: means over images of :meth:`Scene.measures`.

    Objects stand near the middle, and a token's near neighbours are mostly on its own object, so that attention can
    favour the object without having seen it. ``object_attention_elsewhere`` says how much of it is that: it is
    ``object_attention`` with the mean map of the *other* images in place of the image's own, which knows positions
    alone. ``object_attention_relative`` is the first over the second.

    Args:
        run: a trained model, whose attention is computed by the explicit kernel.
        images: held out, 0–255, two or more.
        segmentation: label of each pixel.
        label: the object's; 1 in :func:`~spatialmae.data.dead_leaves.dead_leaves`.
        max_bytes: bounds the maps alive at once, but for one image.

    Returns:
        Besides the measures: ``block`` (1 is the first), ``last_block``, ``query``, ``object_share`` (the object's
        share of the image), ``attention_distance_uniform``, ``attention_entropy_uniform``, ``n_images``.

    Raises:
        ValueError: there are fewer than two images, one has no object, or :func:`block_attention` finds fault.
    """
    n, config = len(images), run.model.config
    if n < 2:
        raise ValueError(f"images: {n} given, and the comparison with other images needs two or more")
    scene = Scene.of(segmentation, config.patch_size, label)
    measured = [_BlockMeasures() for _ in range(config.encoder_depth)]
    for chosen, blocks in block_attention(run, images, max_bytes):
        for of_block, attention in zip(measured, blocks, strict=True):
            of_block.add(scene.rows(chosen), attention)
    uniform = {
        "attention_distance_uniform": scene.uniform_distance().mean(axis=0),
        "attention_entropy_uniform": np.full(len(QUERIES), np.log(config.n_patches)),
        "object_share": np.full(len(QUERIES), scene.fractions.mean()),
    }
    rows = []
    for block, of_block in enumerate(measured, start=1):
        means = of_block.means(scene) | uniform
        means["object_attention_relative"] = means["object_attention"] / means["object_attention_elsewhere"]
        for query, name in enumerate(QUERIES):
            keys = {"block": block, "last_block": block == config.encoder_depth, "query": name, "n_images": n}
            rows.append(keys | {measure: float(values[query]) for measure, values in means.items()})
    return rows


class _BlockMeasures:
    """What is gathered of one block over batches: measures of each image, and the sum of the maps."""

    def __init__(self) -> None:
        self.parts: list[dict[str, np.ndarray]] = []
        self.sum_of_maps: np.ndarray | float = 0.0

    def add(self, scene: Scene, attention: PatchAttention) -> None:
        self.parts.append(scene.measures(attention))
        self.sum_of_maps = self.sum_of_maps + attention.maps.sum(axis=0)

    def means(self, scene: Scene) -> dict[str, Float64[np.ndarray, " queries"]]:
        """Means over all images, whose scene this is."""
        of_images = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        # The share is linear in the map, so that the image's own can be taken out of the sum again.
        own, all_maps = of_images["object_attention"], scene.object_share(np.asarray(self.sum_of_maps)[None])
        of_images["object_attention_elsewhere"] = (all_maps - own) / (len(own) - 1)
        return {name: values.mean(axis=0) for name, values in of_images.items()}


def attention_pictures(
    run: TrainedModel, images: UInt8[np.ndarray, "n h w c"], segmentation: Integer[np.ndarray, "n h w"], label: int = 1
) -> Float32[np.ndarray, "n blocks queries rows columns"]:
    """Attention of [CLS] and of the object's tokens (the first two of :data:`QUERIES`) over the patches of few images.

    Each picture sums to 1.

    Raises:
        ValueError: an image has no object, or :func:`block_attention` finds fault.
    """
    config = run.model.config
    weights = Scene.of(segmentation, config.patch_size, label).weights[:, :2]
    pictures = np.empty((len(images), config.encoder_depth, 2, *config.grid), dtype=np.float32)
    for chosen, blocks in block_attention(run, images):
        for i, attention in enumerate(blocks):
            pictures[chosen, i] = (weights[chosen] @ attention.maps).reshape(-1, 2, *config.grid)
    return pictures
