"""A dead-leaves world: occluding textured shapes with power-law sizes, and one object in front of them.

Leaves fall one on another, their radii drawn from a power law r^−size_exponent, so that images have an
approximately power-law spectrum *and* the edges and occlusions that no Gaussian model has (Lee, Mumford and
Huang, 2001, "Occlusion models for natural images"). The world is ours: what is tested on it alone is a
proxy. Lengths are fractions of the image side, so one world is seen at any resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from math import isfinite
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8
from scipy.ndimage import gaussian_filter
from skimage.measure import points_in_poly

from spatialmae.data.dataset import SPLITS, ImageData, consecutive_splits
from spatialmae.errors import UserError

Cues = Literal["independent", "matched", "conflict"]
SHAPES = ("disc", "square", "triangle", "star", "cross")
TEXTURES = ("plain", "stripes", "checks", "dots", "mottled")
# Options that say what is seen, whatever the size, the cues and the number of images.
WORLD = ("n_leaves", "size_exponent", "min_radius", "max_radius")

SUPERSAMPLING = 2
# Images are made in chunks of fixed size with a seed each, so none depends on how many are asked for.
CHUNK_SIZE = 32
SHAPE_TABLE_SIZE = 128
TEXTURE_TABLE_SIZE = 64
# Periods of a texture along a side of its table: enough that mottling does not visibly repeat on a leaf.
PERIODS_PER_TABLE = 4
# Nearer surfaces are brighter on average in natural scenes (Potetz and Lee, 2003).
BRIGHTNESS_LOST_AT_DEPTH_1 = 0.6
OBJECT_RADIUS = (0.20, 0.28)
OBJECT_TILT = np.pi / 12
OBJECT_SHIFT = 0.12


def dead_leaves(
    *,
    n_train: int,
    n_validation: int,
    n_test: int,
    image_size: int = 32,
    n_leaves: int = 80,
    size_exponent: float = 3.0,
    min_radius: float = 1 / 16,
    max_radius: float = 1.0,
    cues: Cues = "independent",
    grayscale: bool = False,
    seed: int,
) -> ImageData:
    """Dead-leaves images with a labelled foreground object, depth and segmentation.

    Targets: ``shape`` and ``texture`` of the object (int64, classes :data:`SHAPES`, :data:`TEXTURES`);
    ``depth`` float32 (n, h, w) in [0, 1], a leaf's rank from front to back (0 the object, 1 the background);
    ``segmentation`` uint8 (n, h, w), 1 on the object. Images are anti-aliased by 2×2 supersampling, maps
    take the upper left sample of each pixel. Image i of a split depends on ``seed`` and i, not on the counts.

    Args:
        n_train: images to train on; likewise ``n_validation`` and ``n_test``.
        n_validation: see ``n_train``.
        n_test: see ``n_train``.
        image_size: side in pixels, at least 8.
        n_leaves: leaves whose surroundings meet an image, before occlusion.
        size_exponent: radii have density ∝ r^−size_exponent; 3 is the scale-invariant case.
        min_radius: smallest radius (of the disc of equal area), as a fraction of the image side.
        max_radius: largest radius, likewise.
        cues: how the object's two labels go together: ``independent``; ``matched``, texture i on shape i;
            ``conflict``, any texture but that.
        grayscale: one channel (the mean of R, G and B) in place of three.
        seed: the world's seed, at least 0.

    Raises:
        UserError: an impossible value.
    """
    counts = {"train": n_train, "validation": n_validation, "test": n_test}
    world = World(image_size, n_leaves, size_exponent, min_radius, max_radius, cues, grayscale)
    world.check()
    splits = consecutive_splits(**counts)
    parts = [
        _render_images(world, counts[split], np.random.SeedSequence(seed, spawn_key=(index,)))
        for index, split in enumerate(SPLITS)
    ]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return ImageData(
        name="leaves",
        images=joined.pop("images"),
        splits=splits,
        targets=joined,
        class_names={"shape": SHAPES, "texture": TEXTURES},
        provenance={"kind": "dead_leaves", **counts, **asdict(world), "seed": seed},
    )


def world_options(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Options of :func:`leaves` that make more images of a known world.

    Args:
        provenance: of leaves; of other images, or empty: the usual world.
    """
    return {name: provenance[name] for name in WORLD if name in provenance}


@dataclass(frozen=True)
class World:
    """The options of :func:`leaves` that shape an image."""

    image_size: int
    n_leaves: int
    size_exponent: float
    min_radius: float
    max_radius: float
    cues: str
    grayscale: bool

    def check(self) -> None:
        """Raise UserError at the first impossible value."""
        if self.image_size < 8:
            raise UserError("leaves.image_size", f"{self.image_size} pixels show no shape", "use at least 8")
        if self.n_leaves < 0:
            raise UserError("leaves.n_leaves", f"{self.n_leaves} is negative", "use 0 or more")
        if not isfinite(self.size_exponent):
            raise UserError("leaves.size_exponent", f"{self.size_exponent} is not finite", "use about 3")
        if not 0 < self.min_radius < self.max_radius <= 4:
            problem = f"{self.min_radius} and {self.max_radius} are no range of radii"
            hint = "use 0 < min_radius < max_radius ≤ 4 (fractions of the image side)"
            raise UserError("leaves.min_radius, leaves.max_radius", problem, hint)
        if self.cues not in get_args(Cues):
            raise UserError("leaves.cues", f"{self.cues!r} is unknown", f"use one of {', '.join(get_args(Cues))}")

    @property
    def samples_per_side(self) -> int:
        """Side of the supersampled image."""
        return SUPERSAMPLING * self.image_size

    @property
    def n_layers(self) -> int:
        """Leaves of an image from back to front: the background, ``n_leaves``, the object."""
        return self.n_leaves + 2


@dataclass(frozen=True)
class Leaves:
    """The leaves of a chunk of images, arrays (image, layer) flattened; lengths in samples, angles in radians."""

    x: Float64[np.ndarray, " leaves"]
    y: Float64[np.ndarray, " leaves"]
    radius: Float64[np.ndarray, " leaves"]
    angle: Float64[np.ndarray, " leaves"]
    shape: Int64[np.ndarray, " leaves"]
    texture: Int64[np.ndarray, " leaves"]
    texture_angle: Float64[np.ndarray, " leaves"]
    texture_period: Float64[np.ndarray, " leaves"]
    texture_phase: Float64[np.ndarray, "2 leaves"]
    colour: Float64[np.ndarray, "3 leaves"]
    contrast: Float64[np.ndarray, "3 leaves"]


def _render_images(world: World, n: int, seed: np.random.SeedSequence) -> dict[str, np.ndarray]:
    """The first ``n`` images of the stream that ``seed`` starts, with their targets."""
    size = world.image_size
    result: dict[str, np.ndarray] = {
        "images": np.empty((n, size, size, 1 if world.grayscale else 3), np.uint8),
        "shape": np.empty(n, np.int64),
        "texture": np.empty(n, np.int64),
        "depth": np.empty((n, size, size), np.float32),
        "segmentation": np.empty((n, size, size), np.uint8),
    }
    for chunk, start in enumerate(range(0, n, CHUNK_SIZE)):
        key = (*seed.spawn_key, chunk)
        rng = np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=key))
        rendered = _render_chunk(world, _draw_leaves(world, rng))
        stop = min(start + CHUNK_SIZE, n)
        for name, array in result.items():
            array[start:stop] = rendered[name][: stop - start]
    return result


def _draw_leaves(world: World, rng: np.random.Generator) -> Leaves:
    """Random leaves for one chunk; layer 0 is the background, the last layer the object."""
    grid, scale = (CHUNK_SIZE, world.n_layers), world.samples_per_side
    radius, x, y, angle = _draw_positions(world, rng)
    shape, texture = (rng.integers(len(names), size=grid) for names in (SHAPES, TEXTURES))
    texture[:, -1] = _object_textures(shape[:, -1], world.cues, rng)
    period = rng.uniform(0.5, 0.8, grid) * radius
    colour, contrast = _draw_colours(world, period, rng)
    return Leaves(
        x=(scale * x).ravel(),
        y=(scale * y).ravel(),
        radius=(scale * radius).ravel(),
        angle=angle.ravel(),
        shape=shape.ravel(),
        texture=texture.ravel(),
        texture_angle=rng.uniform(0, 2 * np.pi, grid).ravel(),
        texture_period=(scale * period).ravel(),
        texture_phase=rng.uniform(0, TEXTURE_TABLE_SIZE, (2, *grid)).reshape(2, -1),
        colour=colour.reshape(3, -1),
        contrast=contrast.reshape(3, -1),
    )


def _draw_positions(world: World, rng: np.random.Generator) -> tuple[Float64[np.ndarray, "images layers"], ...]:
    """Radius, x, y (in image sides) and angle of every leaf; the object stands nearly upright in the middle."""
    grid = (CHUNK_SIZE, world.n_layers)
    radius = _draw_radii(world, rng, grid)
    reach = _shape_polygons()[1] * radius
    x, y = rng.uniform(-reach, 1 + reach, (2, *grid))
    angle = rng.uniform(0, 2 * np.pi, grid)
    radius[:, 0] = world.max_radius
    radius[:, -1] = rng.uniform(*OBJECT_RADIUS, CHUNK_SIZE)
    x[:, -1], y[:, -1] = rng.uniform(0.5 - OBJECT_SHIFT, 0.5 + OBJECT_SHIFT, (2, CHUNK_SIZE))
    angle[:, -1] = rng.uniform(-OBJECT_TILT, OBJECT_TILT, CHUNK_SIZE)
    return radius, x, y, angle


def _draw_colours(
    world: World, period: Float64[np.ndarray, "images layers"], rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "3 images layers"], Float64[np.ndarray, "3 images layers"]]:
    """Mean colour of every leaf, and the contrast of its texture, whose period is in image sides."""
    grid = period.shape
    luminance = rng.uniform(0.15, 0.85, grid)
    # The object stands in the light, which is what makes its outline visible to a linear readout at all.
    luminance[:, -1] = rng.uniform(0.6, 0.95, CHUNK_SIZE)
    chroma = rng.normal(0, 0.08, (3, *grid))
    strength = rng.uniform(0.15, 0.3, grid) * rng.choice([-1.0, 1.0], grid)
    tint = rng.uniform(0.6, 1.4, (3, *grid))
    # A texture finer than the pixels fades into its mean, as it does in a camera.
    visible = np.clip((period * world.image_size - 1.0) / 1.5, 0, 1)
    shade = 1 - BRIGHTNESS_LOST_AT_DEPTH_1 * _layer_depths(world)
    return (luminance + chroma) * shade, strength * visible * shade * tint


def _draw_radii(world: World, rng: np.random.Generator, grid: tuple[int, int]) -> Float64[np.ndarray, "images layers"]:
    """Radii of the leaves that meet an image.

    Leaves fall on the whole plane with density r^−size_exponent; one of reach R meets the unit square if its
    centre lies in a square of side 1 + 2R, so those that do have density r^−size_exponent (1 + 2R)².
    """
    radii = np.geomspace(world.min_radius, world.max_radius, 1000)
    density = radii**-world.size_exponent * (1 + 2 * _shape_polygons()[1] * radii) ** 2
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) * np.diff(radii))])
    return np.interp(rng.random(grid), cumulative / cumulative[-1], radii)


def _object_textures(
    shape: Int64[np.ndarray, " images"], cues: str, rng: np.random.Generator
) -> Int64[np.ndarray, " images"]:
    """The texture of each object, given its shape."""
    if cues == "matched":
        return shape.copy()
    if cues == "conflict":
        return (shape + rng.integers(1, len(TEXTURES), size=shape.shape)) % len(TEXTURES)
    return rng.integers(len(TEXTURES), size=shape.shape)


def _layer_depths(world: World) -> Float64[np.ndarray, " layers"]:
    """Depth of each layer, from the background at 1 to the object at 0."""
    return np.linspace(1.0, 0.0, world.n_layers)


def _render_chunk(world: World, chunk: Leaves) -> dict[str, np.ndarray]:
    """Images and targets of one chunk."""
    front = _front_leaf(world, chunk)
    layer = front[:, ::SUPERSAMPLING, ::SUPERSAMPLING] % world.n_layers
    objects = slice(world.n_layers - 1, None, world.n_layers)
    return {
        "images": _shade(world, chunk, front),
        "shape": chunk.shape[objects],
        "texture": chunk.texture[objects],
        "depth": _layer_depths(world).astype(np.float32)[layer],
        "segmentation": (layer == world.n_layers - 1).astype(np.uint8),
    }


def _front_leaf(world: World, chunk: Leaves) -> Int64[np.ndarray, "images s s"]:
    """Index of the leaf seen at every sample.

    All (leaf, sample) pairs are listed from back to front, so that plain assignment, where the last
    of repeated indices wins, leaves the leaf in front.
    """
    side = world.samples_per_side
    background = np.arange(CHUNK_SIZE) * world.n_layers
    front = np.repeat(background, side * side)
    samples, leaf = _covered_samples(world, chunk)
    front[samples] = leaf
    return front.reshape(CHUNK_SIZE, side, side)


def _covered_samples(world: World, chunk: Leaves) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"]]:
    """The flat samples that each leaf covers, and that leaf, in order of the leaves; backgrounds left out."""
    side, table = world.samples_per_side, SHAPE_TABLE_SIZE
    is_leaf = np.arange(len(chunk.x)) % world.n_layers > 0
    # Shrunk a little, so that rounding never points outside the shape's table.
    reach = 0.999 * _shape_polygons()[1] * chunk.radius
    leaf, row = _integers_between(chunk.y - reach, np.where(is_leaf, chunk.y + reach, -1.0), side)
    dy = row + 0.5 - chunk.y[leaf]
    half_chord = np.sqrt(np.maximum(reach[leaf] ** 2 - dy**2, 0))
    x = chunk.x[leaf]
    span, column = _integers_between(x - half_chord, x + half_chord, side)

    # Coordinates in a leaf's own frame, in cells of its table, are linear in the column.
    scale = 0.5 * table * 0.999 / reach[leaf]
    cosine, sine = np.cos(chunk.angle)[leaf] * scale, np.sin(chunk.angle)[leaf] * scale
    u0 = (0.5 - x) * cosine + dy * sine + 0.5 * table
    v0 = (x - 0.5) * sine + dy * cosine + 0.5 * table
    position = column.astype(np.float32)
    u = position * cosine.astype(np.float32)[span] + u0.astype(np.float32)[span]
    v = v0.astype(np.float32)[span] - position * sine.astype(np.float32)[span]
    cell = v.astype(np.int64) * table + u.astype(np.int64) + (chunk.shape[leaf] * table * table)[span]
    covered = np.flatnonzero(_shape_table().ravel()[cell])
    span = span[covered]
    first_sample = leaf // world.n_layers * side * side + row * side
    return first_sample[span] + column[covered], leaf[span]


def _integers_between(
    low: Float64[np.ndarray, " n"], high: Float64[np.ndarray, " n"], stop: int
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """For every interval the samples 0 … stop − 1 whose centres (i + ½) it holds, as (interval, sample) pairs."""
    first = np.maximum(np.ceil(low - 0.5), 0).astype(np.int64)
    last = np.minimum(np.floor(high - 0.5), stop - 1).astype(np.int64)
    counts = np.maximum(last - first + 1, 0)
    before = np.cumsum(counts) - counts
    interval = np.repeat(np.arange(len(low)), counts)
    return interval, np.arange(len(interval)) + (first - before)[interval]


def _shade(world: World, chunk: Leaves, front: Int64[np.ndarray, "images s s"]) -> UInt8[np.ndarray, "images h w c"]:
    """Colours of the leaves in front, averaged over the samples of a pixel."""
    pattern = _texture_values(world, chunk, front)
    size = world.image_size
    channels = np.empty((3, CHUNK_SIZE, size, size), np.float32)
    for channel, colour, contrast in zip(channels, chunk.colour, chunk.contrast, strict=True):
        value = colour.astype(np.float32)[front] + contrast.astype(np.float32)[front] * pattern
        np.clip(value, 0, 1, out=value)
        channel[...] = _mean_over_pixels(value)
    if world.grayscale:
        channels = channels.mean(axis=0, keepdims=True)
    return np.ascontiguousarray(np.moveaxis((255 * channels + 0.5).astype(np.uint8), 0, -1))


def _mean_over_pixels(value: Float32[np.ndarray, "images s s"]) -> Float32[np.ndarray, "images h w"]:
    """Mean over the samples of each pixel."""
    step = SUPERSAMPLING
    total = sum(value[:, i::step, j::step] for i in range(step) for j in range(step))
    return np.asarray(total) / np.float32(step**2)


def _texture_values(
    world: World, chunk: Leaves, front: Int64[np.ndarray, "images s s"]
) -> Float32[np.ndarray, "images s s"]:
    """The texture of the leaf in front at every sample, mean 0 for every texture."""
    table, side = TEXTURE_TABLE_SIZE, world.samples_per_side
    cells = table / (PERIODS_PER_TABLE * chunk.texture_period)
    cosine, sine = cells * np.cos(chunk.texture_angle), cells * np.sin(chunk.texture_angle)
    centre = np.arange(side, dtype=np.float32) + np.float32(0.5)
    # Whole tables added to the phase keep coordinates positive, so that truncation is a floor.
    shift = table * np.ceil((np.abs(cosine) + np.abs(sine)) * side / table)
    index = (chunk.texture * table * table)[front]
    for along_x, along_y, phase, stride in (
        (cosine, sine, chunk.texture_phase[0], 1),
        (-sine, cosine, chunk.texture_phase[1], table),
    ):
        coordinate = along_x.astype(np.float32)[front] * centre
        coordinate += along_y.astype(np.float32)[front] * centre[:, None]
        coordinate += (phase + shift).astype(np.float32)[front]
        index += (coordinate.astype(np.int64) & (table - 1)) * stride
    return _texture_table().ravel()[index]


@cache
def _shape_polygons() -> tuple[tuple[Float64[np.ndarray, "vertices 2"], ...], float]:
    """The outlines of :data:`SHAPES` about the origin, each of area π, and the largest distance of a vertex."""

    def polar(radii: list[float], first: float = -np.pi / 2) -> Float64[np.ndarray, "vertices 2"]:
        angle = first + 2 * np.pi * np.arange(len(radii)) / len(radii)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.array(radii)[:, None]

    cross = [(1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3), (-1, -3), (-1, -1), (-3, -1), (-3, 1), (-1, 1), (-1, 3)]
    outlines = (
        polar([1.0] * 60),
        polar([1.0] * 4, first=np.pi / 4),
        polar([1.0] * 3),
        polar([1.0, 0.45] * 5),
        np.array(cross, dtype=np.float64),
    )
    scaled = tuple(outline * np.sqrt(np.pi / _polygon_area(outline)) for outline in outlines)
    return scaled, float(max(np.linalg.norm(outline, axis=1).max() for outline in scaled))


def _polygon_area(vertices: Float64[np.ndarray, "vertices 2"]) -> float:
    """Area inside a simple polygon (shoelace formula)."""
    x, y = vertices.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


@cache
def _shape_table() -> Bool[np.ndarray, "shapes t t"]:
    """Whether a cell of [−reach, reach]² lies in a shape of radius 1."""
    polygons, reach = _shape_polygons()
    centres = ((np.arange(SHAPE_TABLE_SIZE) + 0.5) / SHAPE_TABLE_SIZE * 2 - 1) * reach
    y, x = np.meshgrid(centres, centres, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.stack([points_in_poly(points, polygon).reshape(x.shape) for polygon in polygons])


@cache
def _texture_table() -> Float32[np.ndarray, "textures t t"]:
    """One tile of each of :data:`TEXTURES`; all but plain have mean 0, mean square ¼."""
    size = TEXTURE_TABLE_SIZE
    phase = np.arange(size) * (PERIODS_PER_TABLE / size)
    x, y = np.meshgrid(phase, phase)
    sine_x, sine_y = np.sin(2 * np.pi * x), np.sin(2 * np.pi * y)
    dots = np.hypot((x % 1) - 0.5, (y % 1) - 0.5) < 0.36
    noise = np.random.default_rng(0).normal(size=(size, size))
    width = size / PERIODS_PER_TABLE / 8
    mottled = gaussian_filter(noise, width, mode="wrap") - gaussian_filter(noise, 3 * width, mode="wrap")
    tiles = [np.sign(sine_x), np.sign(sine_x * sine_y), dots.astype(np.float64), mottled]
    return np.stack([np.zeros_like(x), *map(_standardise, tiles)]).astype(np.float32)


def _standardise(tile: Float[np.ndarray, "t t"]) -> Float[np.ndarray, "t t"]:
    """Shift and scale to mean 0 and mean square ¼."""
    return 0.5 * (tile - tile.mean()) / tile.std()
