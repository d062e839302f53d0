"""The one typed, strictly validated model behind every configuration file.

Unknown keys, wrong types and impossible values are refused with the field's name and a hint. What a field
means stands in its description, from which docs/configuration.md is generated.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from spatialmae.errors import UserError
from spatialmae.masks import n_visible
from spatialmae.measures import MEASURES
from spatialmae.model.config import MAEConfig
from spatialmae.probe.settings import FineTuneConfig
from spatialmae.train.plan import FROM_DATASET, RunSpec
from spatialmae.train.settings import TrainConfig
from spatialmae.yamlfile import read_yaml

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="letters, digits, - and _")]
Count = Annotated[int, Field(ge=1)]


def _unique(values: list[Any]) -> list[Any]:
    # Compared rather than hashed: a value of a training grid may be a list.
    if any(value in values[:i] for i, value in enumerate(values)):
        raise ValueError("a value occurs twice; remove one")
    return values


Unique = AfterValidator(_unique)

# Where the code of sources and probes lives, for the stages that call it and the workflow that tracks it.
SOURCE_MODULES = {"textures": "photos", "depth": "photos"}  # the others have their kind's name
PROBE_MODULES = {"gabor": "gabor", "depth": "depth", "class": "classification"}
WITHOUT_LABELS = ("photos", "depth")  # kinds of sources
MaskRatio = Annotated[float, Field(gt=0, lt=1)]
Analysis = Literal["statistics", "features", "reach", "sampling", "gabor", "depth", "class"]
# What each does; docs/configuration.md lists these and those of trained models.
DATASET_ANALYSES: dict[str, str] = {
    "statistics": "power spectrum and correlation length of the images",
    "features": "what linear AEs and MAEs keep: variance, redundancy across patches (A2)",
    "reach": "influence, reach and entropy of linear MAEs, DAEs and AEs (A4 to A6)",
    "sampling": "how much of the reach is noise of second moments (A5.8 to A5.11, A6.9)",
    "gabor": "prediction of Gabor responses from linear features (A7)",
    "depth": "prediction of depth from linear features (A8); leaves and depth images alone",
    "class": "prediction of class labels from linear features; images with labels",
}

# What a training stage may set: the rest of the model follows from its data set.
MODEL_FIELDS = tuple(f.name for f in fields(MAEConfig) if f.name not in FROM_DATASET)
TRAIN_FIELDS = tuple(f.name for f in fields(TrainConfig))
# What FineTuning takes beside its own keys.
FINE_TUNE_FIELDS = tuple(f.name for f in fields(FineTuneConfig) if f.name != "n_blocks")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Generated(_Strict):
    n_train: Count = Field(description="training images")
    n_validation: Count = Field(description="validation images")
    n_test: Count = Field(description="test images")


class DeadLeaves(_Generated):
    """Procedural dead leaves with shape and texture labels, depth and segmentation."""

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


class Digits(_Strict):
    """scikit-learn's 1,797 real digits of 8×8 px."""

    kind: Literal["digits"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (8, 8, 1)


class Photos(_Strict):
    """Patches of real images carried by scikit-image and scikit-learn: photographs, textures, or measured depth."""

    kind: Literal["photos", "textures", "depth"]
    image_size: int = Field(16, ge=4, description="side of a cut-out image in px")
    stride: Count = Field(8, description="distance between cut-outs in px")
    downscale: Count = Field(1, description="factor by which the source is box-filtered first")
    grayscale: bool = Field(False, description="textures are gray: true")

    @model_validator(mode="after")
    def _textures_are_gray(self) -> Photos:
        if self.kind == "textures" and not self.grayscale:
            raise ValueError("grayscale: the textures carry no colour; set it to true")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (self.image_size, self.image_size, 1 if self.grayscale else 3)


class Cifar10(_Strict):
    """The official CIFAR-10 archive, from a mirror (SPATIALMAE_MIRRORS) or downloaded."""

    kind: Literal["cifar10"]
    n_train: Count | None = Field(None, description="training images; null: all but those cut for validation")
    n_validation: Count = Field(5000, description="images cut from the 50,000 training images")
    n_test: Count | None = Field(None, description="test images; null: all 10,000")
    downscale: Literal[1, 2, 4] = Field(1, description="factor by which images are box-filtered first")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (32 // self.downscale, 32 // self.downscale, 3)


class RandomFields(_Generated):
    """Gaussian random fields of known correlation, their orientation the label."""

    kind: Literal["random_fields"]
    image_size: int = Field(16, ge=8, description="side in px")
    correlation_length: float = Field(0.25, gt=0, le=0.5, description="as a fraction of the side")
    anisotropy: float = Field(2.0, gt=1, le=4, description="ratio of the lengths along and across")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return (self.image_size, self.image_size, 1)


class Folder(_Strict):
    """A user's own images."""

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


Source = Annotated[DeadLeaves | Digits | Photos | Cifar10 | RandomFields | Folder, Field(discriminator="kind")]


class Dataset(_Strict):
    """A data set, and what is done with it."""

    source: Source = Field(description="where the images come from, of one of the kinds below")
    groups: int = Field(ge=2, le=100, description="disjoint groups of images, the unit: a seed leaves one out")
    patch_sizes: Annotated[list[Count], Unique] = Field(
        min_length=1, description="patch sides in px; each must tile the image"
    )
    n_components: Annotated[list[Count], Unique] = Field(min_length=1, description="ranks k of the linear autoencoders")
    analyses: Annotated[list[Analysis], Unique] = Field(description="what is done with it, see below")
    sigmas: Annotated[list[float], Unique] = Field(
        [1.0, 2.0], min_length=1, description="Gabor envelopes σ in px, .83 to a quarter side"
    )
    threads: Count = Field(1, description="threads for its solves")

    @model_validator(mode="after")
    def _fits(self) -> Dataset:
        height, width, channels = self.source.shape
        for patch_size in self.patch_sizes:
            if height % patch_size or width % patch_size:
                raise ValueError(f"patch_sizes: {patch_size} does not tile {height}×{width} px; use a divisor")
            if patch_size == height == width:
                raise ValueError(f"patch_sizes: {patch_size} is the whole image; use a smaller divisor")
        if max(self.n_components) > height * width * channels:
            raise ValueError(f"n_components: at most {height * width * channels} features exist; lower it")
        if "gabor" in self.analyses and not all(0.83 <= sigma <= min(height, width) / 4 for sigma in self.sigmas):
            raise ValueError(f"sigmas: a Gabor filter needs .83 ≤ σ ≤ {min(height, width) / 4} px here; change them")
        if "depth" in self.analyses and self.source.kind not in ("dead_leaves", "depth"):
            raise ValueError("analyses: only leaves and depth images come with depth; remove depth")
        if "class" in self.analyses and self.source.kind in WITHOUT_LABELS:
            raise ValueError("analyses: these images have no class labels; remove class")
        return self


class Seeds(_Strict):
    """The seeds that are run: below the ledger's verdict_seeds_from (200) they explore, from there on give verdicts."""

    first: int = Field(200, ge=0, multiple_of=100, description="first seed of the block of a hundred")
    count: int = Field(10, ge=1, le=100, description="seeds of simulations; data sets have a seed for each group")


MASK_RATIOS = [0.1, 0.25, 0.5, 0.75, 0.9]  # of theory and evaluations, unless given


class Linear(_Strict):
    """Grid of the linear theory."""

    mask_ratios: Annotated[list[MaskRatio], Unique] = Field(
        MASK_RATIOS, min_length=1, description="masking ratios of the MAE; AE and DAE are added"
    )
    masking: Literal["bernoulli", "fixed"] = Field(
        "bernoulli", description="independent masks, or a fixed count; checks and Ising always take independent ones"
    )
    noise_std: float = Field(0.2, gt=0, description="σ of the DAE, images in [0, 1]; 0.2 is the paper's")


class Checks(_Strict):
    """Closed form against independent answers (claim A1)."""

    dataset: Name = Field(description="data set whose replicates are used; small images, gradient descent is slow")
    mask_ratio: MaskRatio = 0.75
    patch_size: Count = 2
    wrong_patch_size: Count = Field(4, description="patch size of the negative control")
    n_components: Count = 8
    n_masks: Count = Field(500, description="random masks per sample of the Monte-Carlo check")


class Ising(_Strict):
    """Ising chains and lattices (claim A3)."""

    length: int = Field(64, ge=8, description="spins of the free chain")
    couplings: Annotated[list[float], Unique] = Field(min_length=1, description="couplings J of the chain")
    patch_sizes: Annotated[list[Count], Unique] = Field(min_length=1, description="patch lengths on the chain")
    n_components: Annotated[list[Count], Unique] = Field(min_length=1, description="ranks k")
    n_samples: Count = Field(description="chains (and lattices) sampled per seed")
    lattice_size: int = Field(16, ge=6, description="side of the free 2-D lattice")
    lattice_coupling: float = Field(0.4, gt=0, lt=0.44, description="J of the lattice, below the critical 0.4407")
    lattice_patch_size: Count = 4
    lattice_sweeps: Count = Field(200, description="heat-bath sweeps from a random start")

    @model_validator(mode="after")
    def _fits(self) -> Ising:
        for patch_size in self.patch_sizes:
            if self.length % patch_size or self.length // patch_size < 3:
                raise ValueError(
                    f"patch_sizes: {patch_size} does not cut length={self.length} into 3 patches or more; lower it"
                )
        most = min(self.length, self.lattice_size**2, self.n_samples)
        if max(self.n_components) > most:
            raise ValueError(f"n_components: spins and samples allow {most} at most; lower it")
        if self.lattice_size % self.lattice_patch_size or self.lattice_size // self.lattice_patch_size < 3:
            raise ValueError("lattice_patch_size: it does not cut lattice_size into 3 patches a side or more; lower it")
        return self


class Hierarchy(_Strict):
    """Latent hierarchies (paper B): Theorem 1 on random graphs, and the level of the shared latents on trees."""

    n_graphs: Count = Field(200, description="random graphs of each seed that Theorem 1 is checked on")
    masks_per_graph: Count = Field(4, description="masks of each of them")
    binary_depth: int = Field(10, ge=2, le=16, description="of the binary tree, over a line of 2^depth pixels")
    binary_patch_sizes: Annotated[list[Count], Unique] = Field(
        [1, 4, 16], min_length=1, description="powers of two, px"
    )
    quad_depth: int = Field(5, ge=2, le=8, description="of the quad-tree, over an image of side 2^depth px")
    quad_patch_sizes: Annotated[list[Count], Unique] = Field([1, 2, 4], min_length=1, description="powers of 2, px")
    mask_ratios: Annotated[list[MaskRatio], Unique] = Field(MASK_RATIOS, min_length=1, description="masking ratios")
    n_masks: Count = Field(500, description="masks of each seed")

    @model_validator(mode="after")
    def _fits(self) -> Hierarchy:
        for tree, dimensions in (("binary", 1), ("quad", 2)):
            depth = getattr(self, f"{tree}_depth")
            for size in getattr(self, f"{tree}_patch_sizes"):
                if size.bit_count() != 1 or size >= 2**depth:
                    raise ValueError(f"{tree}_patch_sizes: {size} is no power of two below 2^{depth}; change it")
                n_patches, most = (2**depth // size) ** dimensions, max(self.mask_ratios)
                try:
                    n_visible(n_patches, most)
                except ValueError:
                    problem = f"{most} leaves none of {n_patches} patches visible ({tree}, patch {size})"
                    raise ValueError(f"mask_ratios: {problem}; lower it or {tree}_patch_sizes") from None
        return self


class Identifiability(_Strict):
    """Masked prediction on data with known latents (paper B, Theorem 2)."""

    graphs: Annotated[list[Literal["binary_tree", "uneven_tree", "two_roots"]], Unique] = Field(
        ["binary_tree", "uneven_tree", "two_roots"], min_length=1, description="graphs of the latents"
    )
    noise_scales: Annotated[list[Annotated[float, Field(gt=0)]], Unique] = Field(
        [0.5], min_length=1, description="standard deviations of a node's own noise beside what its parents give"
    )
    counterexamples: bool = Field(
        False,
        description="also give the representation two coordinates more than c has, and mechanisms whose conditional "
        "mean hides c, at the first of noise_scales",
    )
    seeds: int = Field(5, ge=1, le=100, description="draws of mechanisms, data and weights, from seeds.first on")
    n_train: Count = Field(30_000, description="samples to train on")
    steps: Count = Field(800, description="steps of a predictor of one mask")
    random_mask_steps: Count = Field(2000, description="steps of a predictor of random masks")
    n_regression: int = Field(4000, ge=300, description="samples that the regressions are fitted on")
    n_validation: Count = Field(1000, description="samples that choose their width and penalty")
    n_test: Count = Field(2000, description="samples that they are scored on")


class Training(_Strict):
    """A stage of training: every model of a grid on one data set, each from several seeds."""

    dataset: Name = Field(description="data set that is trained and validated on")
    seeds: int = Field(ge=1, le=100, description="runs of each model; their seeds count up from seeds.first")
    minutes: int = Field(
        ge=1, le=60, description="time expected where the file is meant to run; over an hour, cut it in two"
    )
    model: dict[str, Any] = Field({}, description="architecture, masking and objective of all its models, see below")
    train: dict[str, Any] = Field({}, description="length, optimizer and augmentation of all its runs, see below")
    grid: dict[str, Annotated[list[Any], Field(min_length=1), Unique]] = Field(
        {}, description="settings of either kind that vary, each with its values; all combinations are trained"
    )

    def cells(self, shape: tuple[int, int, int]) -> list[tuple[MAEConfig, TrainConfig]]:
        """Model and training of each combination of the grid, for images of ``shape`` (h, w, c).

        Raises:
            ValueError: naming the first setting that is wrong as "<section>.<field>: problem; hint".
        """
        self._check_fields()
        height, width, channels = shape
        found: list[tuple[MAEConfig, TrainConfig]] = []
        for values in product(*self.grid.values()):
            cell = dict(zip(self.grid, values, strict=True))
            model = self.model | {name: value for name, value in cell.items() if name in MODEL_FIELDS}
            train = self.train | {name: value for name, value in cell.items() if name in TRAIN_FIELDS}
            try:
                built = MAEConfig.from_dict(model | {"image_size": (height, width), "channels": channels})
                found.append((built, TrainConfig.from_dict(train)))
            except ValueError as error:
                raise ValueError(f"{self._section(str(error).partition(': ')[0])}.{error}") from None
        # The values of each setting differ; only a mask_unit of null and one of the patch are the same model.
        if len(set(found)) < len(found):
            raise ValueError("grid.mask_unit: null and the patch size are the same model; remove one")
        return found

    def _section(self, field: str) -> str:
        """The section of the file that a setting belongs in."""
        if field in self.grid:
            return "grid"
        return "model" if field in (*MODEL_FIELDS, *FROM_DATASET) else "train"

    def _check_fields(self) -> None:
        known = {"grid": (*MODEL_FIELDS, *TRAIN_FIELDS), "model": MODEL_FIELDS, "train": TRAIN_FIELDS}
        for section, names in known.items():
            for name in getattr(self, section):
                if name in FROM_DATASET:
                    raise ValueError(f"{section}.{name}: the data set decides it; remove it")
                if name not in names:
                    hint = "remove it or correct its spelling (docs/configuration.md lists all)"
                    raise ValueError(f"{section}.{name}: unknown key; {hint}")
                if section == "grid" and name == "snapshots":
                    raise ValueError("grid.snapshots: they change no trained model; set them in train, for all runs")
                if section != "grid" and name in self.grid:
                    raise ValueError(f"{section}.{name}: it is in grid as well; remove one")


# Of trained models, each declared in a module of its own.
if TYPE_CHECKING:
    ModelAnalysis = str
else:
    ModelAnalysis = Literal[tuple(MEASURES)]


class FineTuning(_Strict):
    """What is fine-tuned of each model, and how: all that takes hours is set here."""

    model_config = ConfigDict(extra="allow")  # the fields of FineTuneConfig, which it checks itself

    n_blocks: Annotated[list[Annotated[int, Field(ge=0)] | None], Unique] = Field(
        [None],
        min_length=1,
        description="last encoder blocks that are trained, with the norm after them, in turn; 0: the head alone; "
        "null: the whole encoder, patch embedding and [CLS] too",
    )
    from_scratch: bool = Field(
        True, description="train all blocks from fresh weights as well, once for each seed and architecture"
    )

    def configs(self) -> list[FineTuneConfig]:
        """The settings for each of ``n_blocks``.

        Raises:
            ValueError: naming the first field that is wrong.
        """
        return [FineTuneConfig.from_dict({**(self.model_extra or {}), "n_blocks": n}) for n in self.n_blocks]


class Dense(_Strict):
    """Heads for segmentation and depth, on leaves rendered at the models' size."""

    n_train: int = Field(2000, ge=64, description="images that heads are trained on")
    n_validation: Count = Field(500, description="images that choose the learning rate")
    n_test: Count = Field(1000, description="images that they are scored on")
    epochs: int = Field(20, ge=2, description="passes over the images of a head on a frozen encoder")
    fine_tuning_epochs: int | None = Field(10, ge=2, description="of a head with its encoder; null: frozen ones alone")


class Evaluation(_Strict):
    """Trained models that are compared with each other, and how."""

    stages: Annotated[list[Name], Unique] = Field(
        min_length=1, description="training stages whose models are compared, all on one data set"
    )
    analyses: Annotated[list[ModelAnalysis], Unique] = Field(min_length=1, description="what is measured, see below")
    mask_ratios: Annotated[list[MaskRatio], Unique] = Field(
        MASK_RATIOS, min_length=1, description="of the masks that all models are evaluated under"
    )
    mask_unit: Count | None = Field(
        None, description="side in px of what these masks hide together; null: the patch size, if all models share it"
    )
    mask_ratio: MaskRatio = Field(
        0.75, description="of the masks where there is one: for models along training, and the error beside probes"
    )
    n_images: int = Field(8, ge=2, description="test images that Jacobians are taken of, for each seed")
    n_masks: Count = Field(4, description="masks that Jacobians are taken under, for each seed, each for all images")
    n_test: Count = Field(
        1000, description="test images that `reconstruction`, `embedding` and `corruptions` take, at most"
    )
    dense: Dense = Dense()
    fine_tuning: FineTuning | None = Field(
        None, description="what the analysis `fine_tuning` trains, see below; null: by its defaults"
    )


class Claims(_Strict):
    """The ledger and how it is read."""

    ledger: str = Field("claims", description="the folder of the records, relative to where the command runs")
    configuration: Name | None = Field(None, description="whose tests of the ledger to judge by; default: name")


class Config(_Strict):
    """A whole configuration."""

    name: Name = Field(description="names the folder of results")
    results: str = Field("results", min_length=1, description="folder that holds the folder of results")
    seeds: Seeds = Seeds()
    datasets: dict[Name, Dataset] = Field({}, description="data sets by name")
    linear: Linear = Linear()
    checks: Checks | None = Field(None, description="the closed form against other ways to it; null: none")
    ising: Ising | None = Field(None, description="linear autoencoders of Ising chains and lattices; null: none")
    hierarchy: Hierarchy | None = Field(None, description="paper B's theory; null: none")
    identifiability: Identifiability | None = Field(None, description="paper B's Theorem 2 by experiment; null: none")
    training: dict[Name, Training] = Field({}, description="stages of training by name, run one after the other")
    evaluations: dict[Name, Evaluation] = Field({}, description="comparisons of trained models by name")
    calibration: Annotated[list[Name], Unique] = Field(
        [],
        description="evaluations that tune and test the recommender, one for each data set; their models differ in "
        "patch size and masking ratio alone",
    )
    claims: Claims = Claims()
    runs_per_gpu: Count = Field(1, description="training runs that share a GPU, on a machine that has any")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.checks is not None:
            self._check_checks(self.checks)
        if self.linear.masking == "fixed":
            for name, dataset in self.datasets.items():
                self._check_visible(name, dataset)
        for stage, training in self.training.items():
            self._check_training(stage, training)
        for name, evaluation in self.evaluations.items():
            self._check_evaluation(f"evaluations.{name}", name, evaluation)
        self._check_calibration()
        return self

    def _check_calibration(self) -> None:
        varied = {"patch_size", "mask_ratio", "realised_mask_ratio", "mask_unit"}
        for name in self.calibration:
            if name not in self.evaluations:
                raise ValueError(f"calibration: {name!r} is not among evaluations; name one of them")
            if "probe" not in self.evaluations[name].analyses:
                raise ValueError(f"calibration: evaluations.{name}.analyses lacks probe; add it there")
            others = self.varying_settings(name) - varied
            if others:
                problem = f"models of {name} differ in {', '.join(sorted(others))}"
                raise ValueError(f"calibration: {problem}; let them differ in patch size and masking ratio alone")
        datasets = [self.evaluation_runs(name)[0].dataset for name in self.calibration]
        if len(set(datasets)) < len(datasets):
            raise ValueError("calibration: two evaluations are of one data set; remove one")

    def _check_checks(self, checks: Checks) -> None:
        if checks.dataset not in self.datasets:
            raise ValueError(f"checks.dataset: {checks.dataset!r} is not among datasets; name one of them")
        height, width, channels = self.datasets[checks.dataset].source.shape
        sizes = {"patch_size": checks.patch_size, "wrong_patch_size": checks.wrong_patch_size}
        for field, size in sizes.items():
            if height % size or width % size:
                raise ValueError(f"checks.{field}: {size} does not tile {height}×{width} px; use a divisor")
        if checks.patch_size == checks.wrong_patch_size:
            raise ValueError("checks.wrong_patch_size: it equals patch_size; the control needs another")
        if checks.n_components > height * width * channels:
            raise ValueError(f"checks.n_components: {height * width * channels} features exist; lower it")

    def _check_visible(self, name: str, dataset: Dataset) -> None:
        height, width, _ = dataset.source.shape
        for patch_size in dataset.patch_sizes:
            try:
                n_visible(height * width // patch_size**2, max(self.linear.mask_ratios))
            except ValueError as error:
                raise ValueError(f"datasets.{name}.patch_sizes: {error}") from None

    def _check_training(self, stage: str, training: Training) -> None:
        if training.dataset not in self.datasets:
            problem = f"{training.dataset!r} is not among datasets"
            raise ValueError(f"training.{stage}.dataset: {problem}; name one of them")
        source = self.datasets[training.dataset].source
        try:
            for _, train in training.cells(source.shape):
                _check_batch("train.batch_size", train.batch_size, source)
        except ValueError as error:
            raise ValueError(f"training.{stage}.{error}") from None

    def _check_evaluation(self, where: str, name: str, evaluation: Evaluation) -> None:
        unknown = [stage for stage in evaluation.stages if stage not in self.training]
        if unknown:
            raise ValueError(f"{where}.stages: {unknown[0]!r} is not among training; name one of its stages")
        datasets = {self.training[stage].dataset for stage in evaluation.stages}
        if len(datasets) > 1:
            raise ValueError(f"{where}.stages: they train on {' and '.join(sorted(datasets))}; compare on one data set")
        height, width, _ = self.datasets[datasets.pop()].source.shape
        patches = {run.model.patch_size for run in self.evaluation_runs(name)}
        unit = evaluation.mask_unit
        if unit is None and len(patches) > 1:
            raise ValueError(f"{where}.mask_unit: patch sizes differ; give a multiple of all")
        if unit is not None and (height % unit or width % unit or any(unit % size for size in patches)):
            raise ValueError(f"{where}.mask_unit: {unit} does not tile {height}×{width} px in whole patches; change it")
        self._check_measures(where, name, evaluation)
        if "fine_tuning" in evaluation.analyses:
            self._check_fine_tuning(where, name, evaluation.fine_tuning or FineTuning())
        elif evaluation.fine_tuning is not None:
            raise ValueError(f"{where}.fine_tuning: it is not among analyses; add it there, or remove this")

    def _check_measures(self, where: str, name: str, evaluation: Evaluation) -> None:
        """Refuse measures of what models or images do not have."""
        runs = self.evaluation_runs(name)
        unlabelled = self.datasets[runs[0].dataset].source.kind in WITHOUT_LABELS
        for measure in evaluation.analyses:
            declared = MEASURES[measure]
            if declared.of_pixels and any(run.model.norm_pix_loss for run in runs):
                problem = f"{measure} is of pixels, and with norm_pix_loss models predict normalised patches"
                raise ValueError(f"{where}.analyses: {problem}; remove it, or train without norm_pix_loss")
            if declared.of_hidden and any(run.model.mask_ratio == 0 for run in runs):
                problem = f"{measure} is of hidden pixels, and models of masking ratio 0 hide none"
                raise ValueError(f"{where}.analyses: {problem}; remove it, or the training of these models")
            if declared.needs_labels and unlabelled:
                raise ValueError(f"{where}.analyses: these images have no class labels; remove {measure}")

    def _check_fine_tuning(self, where: str, name: str, settings: FineTuning) -> None:
        runs = self.evaluation_runs(name)
        source, depth = self.datasets[runs[0].dataset].source, min(run.model.encoder_depth for run in runs)
        try:
            for config in settings.configs():
                if config.n_blocks is not None and config.n_blocks > depth:
                    raise ValueError(f"n_blocks: {config.n_blocks} exceeds the {depth} blocks of an encoder; lower it")
                _check_batch("batch_size", config.batch_size, source)
        except ValueError as error:
            raise ValueError(f"{where}.fine_tuning.{error}") from None

    def evaluation_runs(self, name: str) -> list[RunSpec]:
        """The runs of an evaluation, each once, though stages may share some."""
        runs = [run for stage in self.evaluations[name].stages for run in self.training_runs(stage)]
        return list(dict.fromkeys(runs))

    def varying_settings(self, evaluation: str) -> set[str]:
        """Settings other than the seed in which the models of an evaluation differ."""
        settings = [run.settings() for run in self.evaluation_runs(evaluation)]
        names = settings[0].keys() - {"name", "seed"}
        return {name for name in names if len({row[name] for row in settings}) > 1}

    def training_runs(self, stage: str) -> list[RunSpec]:
        """The runs of a training stage: its grid, and of each cell the seeds."""
        training = self.training[stage]
        cells = training.cells(self.datasets[training.dataset].source.shape)
        seeds = range(self.seeds.first, self.seeds.first + training.seeds)
        return [RunSpec(training.dataset, model, train, seed) for model, train in cells for seed in seeds]

    def all_runs(self) -> list[RunSpec]:
        """The runs of all trainings, each once, though trainings may share some."""
        return list(dict.fromkeys(run for training in self.training for run in self.training_runs(training)))

    def dataset_seeds(self, dataset: str) -> list[int]:
        """The seeds of a data set: one for each group of images left out."""
        return [self.seeds.first + group for group in range(self.datasets[dataset].groups)]

    @property
    def first_seed(self) -> int:
        """First seed of the block: all that groups and generated images depend on."""
        return self.seeds.first

    @property
    def simulation_seeds(self) -> list[int]:
        """Seeds of the Ising samples and of latent hierarchies."""
        return [self.seeds.first + i for i in range(self.seeds.count)]


def _check_batch(field: str, batch_size: int, source: Source) -> None:
    """Refuse batches larger than the training images of a source, where the configuration decides their number."""
    n_train = getattr(source, "n_train", None)
    if source.kind == "cifar10" and n_train is None:
        n_train = 50_000 - source.n_validation
    if n_train is not None and batch_size > n_train:
        raise ValueError(f"{field}: {batch_size} exceeds the {n_train} training images; lower it")


def parse_config(values: Any, where: object) -> Config:
    """Validate the contents of a configuration file.

    Raises:
        UserError: naming the first field that is wrong, and a hint.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # The discriminated union puts its tag after "source", which is no field of the file.
        before = (None, *first["loc"])
        field = ".".join(str(part) for i, part in enumerate(first["loc"]) if before[i] != "source")
        if not field and first["type"] != "value_error":  # those of the whole name their field themselves
            field = "configuration"
        problem, hint = _explain(first)
        raise UserError(where, f"{field}: {problem}" if field else problem, hint) from None


def _explain(error: Any) -> tuple[str, str]:
    if error["type"] == "extra_forbidden":
        return "unknown key", "remove it or correct its spelling (docs/configuration.md lists all)"
    if error["type"] == "missing":
        return "missing", "add it (docs/configuration.md says what it means)"
    if error["type"] == "value_error":
        problem, _, hint = str(error["ctx"]["error"]).partition("; ")
        return problem, hint
    if error["type"] == "union_tag_invalid":
        return f"unknown kind {error['ctx']['tag']!r}", f"use one of {error['ctx']['expected_tags']}"
    if error["type"] == "union_tag_not_found":
        return "lacks its kind", "add one (docs/configuration.md lists all)"
    if error["type"] == "string_pattern_mismatch":
        return f"{error['input']!r} is no name", "use letters, digits, - and _, the first no sign"
    if error["type"] == "model_type" and error["input"] is None:
        return "empty", "write it (docs/configuration.md lists its keys)"
    return f"{error['msg']}, got {error['input']!r}", "change it (docs/configuration.md gives type and range)"


def load_config(path: Path | str) -> Config:
    """Read and validate a YAML configuration file.

    Raises:
        UserError: the file is missing, not YAML, or not a valid configuration; or a key occurs twice.
    """
    missing = ("configuration not found", "give an existing file, e.g. config/config.yaml")
    return parse_config(read_yaml(path, missing), path)
