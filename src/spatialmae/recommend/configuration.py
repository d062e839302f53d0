"""A configuration that runs the pipeline on a practitioner's images at the setting that was recommended."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from spatialmae.config import parse_config
from spatialmae.errors import UserError
from spatialmae.recommend.advice import Advice
from spatialmae.recommend.evidence import averaging_factor
from spatialmae.recommend.images import FolderImages

IMAGES_SEEN = 200_000  # by each model: minutes on a CPU at 32 px
MAX_EPOCHS = 100
NOT_A_PATH = re.compile(r"[{}]|<[a-z][a-z0-9_]*>")  # Snakemake's wildcards and path variables, which it cannot escape
N_SEEDS = 3
LEAST_LABELLED = 20  # images of each class: fewer leave splits without some


def check_paths(folder: Path) -> None:
    """Raise UserError at the first file below a folder whose path Snakemake cannot take for the input of a rule."""
    for path in [folder.resolve(), *sorted(path for path in folder.resolve().rglob("*") if path.is_file())]:
        name = str(path)
        if NOT_A_PATH.search(name):
            problem = (
                "Snakemake takes what is in { } or < > in a path for a wildcard, so that no configuration can be run"
            )
            raise UserError(path, problem, "rename it, or leave out --write-config")
        if not name.isascii() and name != name.encode(errors="replace").decode():
            raise UserError(path, "its name is not UTF-8, so that no configuration can name it", "rename it")


def pipeline_config(advice: Advice, images: FolderImages) -> dict[str, Any]:
    """Settings as in a configuration file: pretraining, Jacobians, and probes if subfolders are classes.

    Images above 32 px are averaged down by the same factor as for the evidence, the patches with them, so that a CPU
    trains in minutes; on a GPU, raise ``image_size``, ``patch_size`` and the model. Beside the setting to follow stands
    MAE's own, if it is another. Names start with ``images-``, so that no folder's name is that of a configuration or a
    data set of ours. Where a class has too few images to be probed for, subfolders are no classes.

    Raises:
        UserError: the settings cannot be, which a test excludes.
    """
    name = "-".join(filter(None, ["images", re.sub(r"[^A-Za-z0-9_-]+", "-", images.path.resolve().name).strip("-_")]))
    factor = averaging_factor(images.image_size)
    side = images.image_size // factor
    settings = {"followed": advice.setting, "default": advice.default_setting}
    if settings["default"] == settings["followed"]:
        del settings["default"]
    patch_sizes = {training: size // factor for training, (size, _) in settings.items()}
    values = {
        "name": name,
        "datasets": {name: _dataset(images, side, sorted(set(patch_sizes.values())))},
        "training": {
            training: _training(name, images, patch_size, settings[training][1])
            for training, patch_size in patch_sizes.items()
        },
        "evaluations": _evaluations(images, side, patch_sizes),
    }
    parse_config(values, "the configuration written for these images")
    return values


def _dataset(images: FolderImages, side: int, patch_sizes: list[int]) -> dict[str, Any]:
    source: dict[str, Any] = {"kind": "folder", "path": str(images.path.resolve()), "image_size": side}
    # Tiles are cut at the size that they are trained at, so that they show less than those of the evidence.
    source |= {"resize": images.resize, "grayscale": images.channels == 1}
    if images.channels not in (1, 3):
        source["channels"] = images.channels
    if images.class_sizes and not has_classes(images):
        source["classes"] = False
    analyses = ["statistics", "reach", *(["probe_class"] if has_classes(images) else [])]
    n_features = side**2 * images.channels
    return {
        "source": source,
        "groups": 5,
        "patch_sizes": patch_sizes,
        "n_components": [k for k in (8, 16, 64) if k < n_features],
        "analyses": analyses,
        "threads": 2,
    }


def has_classes(images: FolderImages) -> bool:
    """Whether subfolders are classes with enough images each to be probed for, among all files of the folder."""
    return min(images.class_sizes.values(), default=0) >= LEAST_LABELLED


def _training(dataset: str, images: FolderImages, patch_size: int, mask_ratio: float) -> dict[str, Any]:
    n_train = max(1, int(0.8 * images.n_in_folder))
    epochs = max(2, min(MAX_EPOCHS, round(IMAGES_SEEN / n_train)))
    return {
        "dataset": dataset,
        "seeds": N_SEEDS,
        "model": {
            "patch_size": patch_size,
            "mask_ratio": mask_ratio,
            "encoder_dim": 128,
            "encoder_depth": 4,
            "encoder_heads": 4,
            "decoder_dim": 96,
            "decoder_depth": 2,
            "decoder_heads": 4,
        },
        "train": {
            "epochs": epochs,
            "batch_size": min(128, n_train),
            "base_lr": 0.008,
            "warmup_epochs": 0.5,
            "snapshots": sorted({0, 1, epochs // 2} - {epochs}),
        },
    }


def _evaluations(images: FolderImages, side: int, patch_sizes: dict[str, int]) -> dict[str, Any]:
    """One for all models, on masks of a unit that is whole patches of each; apart where that is the whole image."""
    unit = math.lcm(*patch_sizes.values())
    if 2 * unit <= side:
        return {"models": _evaluation(images, list(patch_sizes), unit)}
    return {name: _evaluation(images, [name], patch_size) for name, patch_size in patch_sizes.items()}


def _evaluation(images: FolderImages, trainings: list[str], mask_unit: int) -> dict[str, Any]:
    return {
        "models": trainings,
        "analyses": ["jacobian", *(["linear_probe"] if has_classes(images) else [])],
        "mask_ratios": [0.25, 0.5, 0.75],  # an image has two units a side or more
        "mask_ratio": 0.75,
        "mask_unit": mask_unit,
        "n_images": 4,
    }
