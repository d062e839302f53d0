"""The one typed object that every data source returns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int64, UInt8

from spatialmae.artifacts import read_tensors, write_tensors
from spatialmae.errors import UserError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def consecutive_splits(train: int, validation: int, test: int) -> dict[Split, Int64[np.ndarray, " _"]]:
    """Splits of a generated data set: the first images to train on, the next to validate, the last to test.

    Raises:
        UserError: a count is negative, or there is no image to train on.
    """
    if min(train, validation, test) < 0 or train == 0:
        problem = f"train={train}, validation={validation}, test={test} are not counts of images"
        raise UserError("data", problem, "give at least one training image and no negative count")
    first_of_part = np.cumsum([train, validation])
    parts = np.split(np.arange(train + validation + test, dtype=np.int64), first_of_part)
    return dict(zip(SPLITS, parts, strict=True))


def stratified_splits(
    label: Int64[np.ndarray, " n"], *, validation: int | float, test: int | float, seed: int
) -> dict[Split, Int64[np.ndarray, " _"]]:
    """Random splits in which every class keeps its share.

    Args:
        label: the class of each image.
        validation: number of images (int), or their fraction (float); likewise ``test``. 0: none.
        test: see ``validation``.
        seed: of the draw.

    Raises:
        ValueError: a split is too small to hold every class, or leaves nothing to train on.
    """
    from sklearn.model_selection import train_test_split  # a second of imports, for the few jobs that draw splits

    n = len(label)
    sizes = [round(n * size) if isinstance(size, float) else size for size in (validation, test)]
    rest, parts = np.arange(n, dtype=np.int64), []
    for part, size in enumerate(sizes):
        chosen = np.empty(0, dtype=np.int64)
        if size:
            rest, chosen = train_test_split(rest, test_size=size, stratify=label[rest], random_state=seed + part)
        parts.append(np.sort(chosen))
    return {"train": np.sort(rest), "validation": parts[0], "test": parts[1]}


@dataclass(frozen=True)
class ImageData:
    """Images with targets and splits.

    Attributes:
        name: the data set's name.
        images: uint8 (n, h, w, c), 0–255.
        splits: for each of train, validation, test the indices of its images, disjoint.
        targets: arrays whose first axis is n: class labels are int64 (n,), maps are (n, h, w).
        class_names: for each label target the names of its classes, in label order.
        sources: int64 (n,), the independent unit an image was cut from (a photograph, a block of it);
            None where every image is a unit of its own. Intervals resample sources, never their patches.
        provenance: how the images came to be: JSON-able, enough to make them again.
    """

    name: str
    images: UInt8[np.ndarray, "n h w c"]
    splits: dict[Split, Int64[np.ndarray, " _"]]
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sources: Int64[np.ndarray, " n"] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(f"images are {self.images.dtype} {self.images.shape}, not uint8 (n, h, w, c)")
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"splits are {sorted(self.splits)}, not {sorted(SPLITS)}")
        members = np.concatenate(list(self.splits.values()))
        if len(np.unique(members)) != len(members):
            raise ValueError("an image is in two splits")
        if len(members) and not 0 <= members.min() <= members.max() < n:
            raise ValueError(f"a split names an image outside 0–{n - 1}")
        per_image = dict(self.targets) if self.sources is None else {**self.targets, "sources": self.sources}
        for name, array in per_image.items():
            if len(array) != n:
                raise ValueError(f"{name} has {len(array)} rows for {n} images")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def features(self, split: Split) -> Float[np.ndarray, "n d"]:
        """The split's images as float64 rows in [0, 1], flattened in C order of (h, w, c)."""
        chosen = self.images[self.splits[split]]
        return chosen.reshape(len(chosen), -1).astype(np.float64) / 255.0

    def target(self, name: str, split: Split) -> np.ndarray:
        """The rows of target ``name`` that belong to ``split``."""
        return self.targets[name][self.splits[split]]

    def leave_out(self, group: int, n_groups: int, *, rng_seed: int) -> ImageData:
        """The data without part ``group`` of ``n_groups`` disjoint parts: a replicate of the jackknife.

        Every split is divided. Without ``sources``, images are shuffled (``rng_seed``) and dealt out; with
        them whole sources are, so that no source is in two groups.

        Raises:
            ValueError: ``group`` is not in 0 … n_groups − 1, or there are fewer units than groups.
        """
        if not 0 <= group < n_groups:
            raise ValueError(f"group {group} is not one of 0–{n_groups - 1}")
        rng, sources = np.random.default_rng(rng_seed), self.sources
        units = None if sources is None else np.array_split(rng.permutation(np.unique(sources)), n_groups)
        splits: dict[Split, np.ndarray] = {}
        for name in SPLITS:
            rows = self.splits[name]
            if len(rows if units is None else units[-1]) < (n_groups if units is None else 1):
                raise ValueError(f"{name}: too few images or sources for {n_groups} groups")
            if units is None or sources is None:
                left_out = np.isin(rows, np.array_split(rng.permutation(rows), n_groups)[group])
            else:
                left_out = np.isin(sources[rows], units[group])
            splits[name] = rows[~left_out]
        return replace(self, splits=splits)

    def save(self, path: Path | str) -> None:
        """Write to one safetensors file, atomically."""
        tensors = {"images": self.images}
        tensors |= {f"splits/{name}": rows for name, rows in self.splits.items()}
        tensors |= {f"targets/{name}": array for name, array in self.targets.items()}
        if self.sources is not None:
            tensors["sources"] = self.sources
        names = {target: list(names) for target, names in self.class_names.items()}
        metadata = {"name": self.name, "class_names": names, "provenance": self.provenance}
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: Path | str) -> ImageData:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
        if not Path(path).is_file():
            raise UserError(path, "images not found", f"make them: spatialmae data {Path(path).stem} --config FILE")
        tensors, metadata = read_tensors(path)
        return cls(
            name=metadata["name"],
            images=tensors["images"],
            splits={name: tensors[f"splits/{name}"] for name in SPLITS},
            targets={k.removeprefix("targets/"): v for k, v in tensors.items() if k.startswith("targets/")},
            class_names={target: tuple(names) for target, names in metadata["class_names"].items()},
            sources=tensors.get("sources"),
            provenance=metadata["provenance"],
        )
