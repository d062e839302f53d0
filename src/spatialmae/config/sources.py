"""Where images come from: a class for each kind of source, which says all that is to be known of its images.

To add a kind, write a module of :mod:`spatialmae.data` with a function of that name, and a class here whose fields are
the function's arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from spatialmae.config.section import Count, Section


class _Source(Section):
    """What a source says of itself.

    Attributes:
        module: of :mod:`spatialmae.data`; its function named as the kind makes the images.
        has_labels: whether images have class labels, or may have.
        has_depth: whether they come with depth.
        takes_seed: whether that function takes a seed.
        downloads: whether it takes a folder for downloads.
    """

    module: ClassVar[str]
    has_labels: ClassVar[bool] = True
    has_depth: ClassVar[bool] = False
    takes_seed: ClassVar[bool] = True
    downloads: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        raise NotImplementedError

    @property
    def n_training_images(self) -> int | None:
        """How many images there are to train on; None: their number is not known before they are made."""
        return None

    def files(self) -> list[Path]:
        """The user's own files that the images are made from."""
        return []


class _Generated(_Source):
    n_train: Count = Field(description="training images")
    n_validation: Count = Field(description="validation images")
    n_test: Count = Field(description="test images")

    @property
    def n_training_images(self) -> int | None:
        """How many images there are to train on."""
        return self.n_train


class DeadLeaves(_Generated):
    """Procedural dead leaves with shape and texture labels, depth and segmentation."""

    module = "dead_leaves"
    has_depth = True

    kind: Literal["dead_leaves"]
    image_size: int = Field(32, ge=8, description="side in px")
    n_leaves: Count = Field(80, description="occluding background shapes per image")
    size_exponent: float = Field(3.0, gt=0, description="exponent of the power law of radii")
    min_radius: float = Field(1 / 16, gt=0, lt=1, description="smallest radius, as a fraction of the side")
    max_radius: float = Field(1.0, gt=0, le=4, description="largest radius, as a fraction of the side")
    cues: Literal["independent", "matched", "conflict"] = Field("independent", description="shape against texture")
    grayscale: bool = False

    @model_validator(mode="after")
    def _has_range_of_radii(self) -> DeadLeaves:
        if self.min_radius >= self.max_radius:
            raise ValueError(f"max_radius: {self.max_radius} is not above min_radius ({self.min_radius}); raise it")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (self.image_size, self.image_size, 1 if self.grayscale else 3)


class Digits(_Source):
    """scikit-learn's 1,797 real digits of 8×8 px."""

    module = "digits"

    kind: Literal["digits"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (8, 8, 1)


class _CutOut(_Source):
    module = "photos"
    has_labels = False
    takes_seed = False

    image_size: int = Field(16, ge=4, description="side of a cut-out image in px")
    stride: Count = Field(8, description="distance between cut-outs in px")
    downscale: Count = Field(1, description="factor by which the source is box-filtered first")
    grayscale: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (self.image_size, self.image_size, 1 if self.grayscale else 3)


class Photos(_CutOut):
    """Patches of the photographs that scikit-image and scikit-learn carry."""

    kind: Literal["photos"]


class Textures(_CutOut):
    """Patches of three photographed textures, gray, that scikit-image carries."""

    has_labels = True

    kind: Literal["textures"]

    @model_validator(mode="after")
    def _is_gray(self) -> Textures:
        if not self.grayscale:
            raise ValueError("grayscale: the textures carry no colour; set it to true")
        return self


class Depth(_CutOut):
    """Patches of one scene with measured depth, that scikit-image carries."""

    has_depth = True

    kind: Literal["depth"]


class Cifar10(_Source):
    """The official CIFAR-10 archive, from a mirror (SPATIALMAE_MIRRORS) or downloaded."""

    module = "cifar10"
    downloads = True

    kind: Literal["cifar10"]
    n_train: Count | None = Field(None, description="training images; null: all but those cut for validation")
    n_validation: Count = Field(5000, description="images cut from the 50,000 training images")
    n_test: Count | None = Field(None, description="test images; null: all 10,000")
    downscale: Literal[1, 2, 4] = Field(1, description="factor by which images are box-filtered first")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (32 // self.downscale, 32 // self.downscale, 3)

    @property
    def n_training_images(self) -> int | None:
        """How many images there are to train on."""
        return 50_000 - self.n_validation if self.n_train is None else self.n_train


class RandomFields(_Generated):
    """Gaussian random fields of known correlation, their orientation the label."""

    module = "random_fields"

    kind: Literal["random_fields"]
    image_size: int = Field(16, ge=8, description="side in px")
    correlation_length: float = Field(0.25, gt=0, le=0.5, description="as a fraction of the side")
    anisotropy: float = Field(2.0, gt=1, le=4, description="ratio of the lengths along and across")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (self.image_size, self.image_size, 1)


class Folder(_Source):
    """A user's own images."""

    module = "folder"

    kind: Literal["folder"]
    path: str = Field(min_length=1, description="folder of images, class subfolders optional")
    image_size: int = Field(32, ge=4, description="side in px after resizing")
    resize: Literal["crop", "stretch", "tiles"] = Field(
        "crop", description="crop the longer side, stretch it, or cut large images into up to 4 × 4 tiles as they are"
    )
    grayscale: bool = False
    channels: Count | None = Field(None, description="of arrays in npy files; null: 3, or 1 with grayscale")
    classes: bool = Field(True, description="whether subfolders are classes, where no image lies beside them")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the images to validate on")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of the images to test on")

    @model_validator(mode="after")
    def _one_number_of_channels(self) -> Folder:
        if self.grayscale and self.channels is not None:
            raise ValueError("channels: grayscale has one; remove either")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (self.image_size, self.image_size, self.channels or (1 if self.grayscale else 3))

    def files(self) -> list[Path]:
        """All files below the folder."""
        return sorted(path for path in Path(self.path).rglob("*") if path.is_file())


Source = Annotated[
    DeadLeaves | Digits | Photos | Textures | Depth | Cifar10 | RandomFields | Folder, Field(discriminator="kind")
]


def check_batch(field: str, batch_size: int, source: Source) -> None:
    """Refuse batches larger than the training images of a source, where their number is known.

    Raises:
        ValueError: they are.
    """
    n_train = source.n_training_images
    if n_train is not None and batch_size > n_train:
        raise ValueError(f"{field}: {batch_size} exceeds the {n_train} training images; lower it")
