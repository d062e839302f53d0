"""Made-up tables of trained models, as the stages write them, for tests of figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

import numpy as np
import pandas as pd

from spatialmae.train.settings import TrainConfig

RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9)
EVALUATED = (0.25, 0.5, 0.75)
SEEDS = 5
EPOCHS = (0, 1, 2, 4, 6)
SETTINGS = {
    **{"dataset": "leaves", "patch_size": 4, "encoder_depth": 6, "decoder_depth": 2, "mask_ratio": 0.75},
    **{"masking": "fixed", "loss_on": "hidden", "loss_margin": 0, "loss_margin_control": False},
    **{"bottleneck": np.nan, "noise_std": 0.0, "base_lr": 0.008},
    **{"epochs": 6, "augmentation": "flip", "surrogate": "none"},
}
NETWORK = ["patch_size", "encoder_depth", "decoder_depth", "bottleneck"]

AUTOENCODER = {"mask_ratio": 0.0, "loss_on": "all", "bottleneck": 16.0}
OBJECTIVES = ({}, AUTOENCODER, AUTOENCODER | {"noise_std": 0.8})
CROSS = ({}, *({"encoder_depth": depth} for depth in (2, 4)), *({"decoder_depth": depth} for depth in (1, 4, 8)))
MARGINS = (
    {"mask_unit": 8},
    *(
        {"mask_unit": 8, "loss_margin": px, "loss_margin_control": control}
        for px in (1, 2)
        for control in (False, True)
    ),
)
CORRUPTIONS = {
    "shot_noise": "noise",
    "gaussian_blur": "blur",
    "fog": "weather",
    "contrast": "digital",
    "jpeg": "digital",
}


def grid(**keys: object) -> pd.DataFrame:
    """All combinations of the keys' values."""
    return pd.DataFrame(itertools.product(*keys.values()), columns=list(keys))


def jitter(table: pd.DataFrame, scale: float = 0.02) -> np.ndarray:
    """Multiplicative noise that differs between rows."""
    return 1 + scale * np.random.default_rng(0).standard_normal(len(table))


def make_models(configurations: Iterable[Mapping[str, object]], seeds: int = SEEDS) -> pd.DataFrame:
    """Runs of each configuration, which is given by what differs from ``SETTINGS``."""
    rows = [SETTINGS | dict(own) | {"seed": seed} for own in configurations for seed in range(seeds)]
    table = pd.DataFrame(rows)
    unit = table["mask_unit"] if "mask_unit" in table else pd.Series(np.nan, table.index)
    names = ["-".join(map(str, row)) for row in table.itertuples(index=False)]
    return table.assign(name=names, mask_unit=unit.fillna(table["patch_size"]))


def make_runs(ratios: Sequence[float] = RATIOS, seeds: int = SEEDS, patches: Sequence[int] = (4,)) -> pd.DataFrame:
    """Runs of every ratio and patch size."""
    return make_models(grid(patch_size=patches, mask_ratio=ratios).to_dict("records"), seeds)


def effect(table: pd.DataFrame) -> pd.Series:
    """Something that rises with every setting that varies; 0 for what is no model."""
    log = np.log2(table[["patch_size", "mask_unit", "encoder_depth", "decoder_depth"]]).sum(axis=1)
    return (table["mask_ratio"] + log / 10 + table["noise_std"] / 4).fillna(0)


def evaluated(runs: pd.DataFrame, *, untrained: bool = True) -> pd.DataFrame:
    """Rows of trained, untrained and linear predictors under masks of every evaluation ratio."""
    ratios = pd.DataFrame({"evaluation_mask_ratio": EVALUATED})
    initial = runs.drop_duplicates([*NETWORK, "seed"]) if untrained else runs[:0]
    parts = [runs.assign(predictor="trained"), initial.assign(predictor="untrained")]
    return pd.concat([*parts, runs[["seed"]].drop_duplicates().assign(predictor="linear")]).merge(ratios, how="cross")


def make_reach(runs: pd.DataFrame, *, untrained: bool = True) -> pd.DataFrame:
    table = evaluated(runs, untrained=untrained)
    # A network attends everywhere before it has learned anything.
    size = np.where(table["predictor"] == "untrained", 12, 5 + table["evaluation_mask_ratio"] + 3 * effect(table))
    radius = size * jitter(table)
    return table.assign(rms_radius_squared=radius, entropy=3 + radius / 10)


def make_profile(runs: pd.DataFrame, *, untrained: bool = True) -> pd.DataFrame:
    table = make_reach(runs, untrained=untrained).merge(pd.DataFrame({"distance": np.arange(20.0)}), how="cross")
    decayed = np.exp(-table["distance"] / table["rms_radius_squared"])
    return table.assign(mean_abs=np.where(table["distance"] > 0, decayed * 1e-2, 0.0))


def make_basis(runs: pd.DataFrame, *, untrained: bool = True, objects: bool = True) -> pd.DataFrame:
    table = evaluated(runs, untrained=untrained)
    linear = table["predictor"] == "linear"
    table["dispersion"] = np.where(linear, 0.0, 0.4 * jitter(table))
    table["object_log_ratio"] = np.where(linear, 0.05, 0.3) * jitter(table) if objects else np.nan
    table["expansion_error"] = np.where(linear, np.nan, 0.1 * jitter(table))
    control = table[~linear].assign(predictor=lambda t: t["predictor"] + ", reversed", expansion_error=1.4)
    return pd.concat([table, control.assign(dispersion=np.nan, object_log_ratio=np.nan)])


def make_training(runs: pd.DataFrame) -> pd.DataFrame:
    table = runs.merge(pd.DataFrame({"epoch": EPOCHS}), how="cross").assign(evaluation_mask_ratio=0.75)
    return table.assign(rms_radius_squared=(4 + effect(table) * np.log2(1 + table["epoch"])) * jitter(table))


def make_second_order(runs: pd.DataFrame, *, surrogate: bool = True) -> pd.DataFrame:
    """Models on images of both kinds; the control's were trained on surrogate images, without augmentation."""
    control = runs[runs["mask_ratio"] == runs["mask_ratio"].max()].assign(surrogate="gaussian", augmentation="none")
    parts = [runs, control.assign(name=control["name"] + "g")] if surrogate else [runs]
    table = pd.concat(parts).merge(pd.DataFrame({"images": ["test", "surrogate"]}), how="cross")
    log_ratio = np.where(table["surrogate"] == "none", 0.1, -0.01) * jitter(table)
    return table.assign(log_ratio_expected=log_ratio - 0.05, log_ratio_ridge=0.9 * log_ratio * jitter(table))


def make_probe(runs: pd.DataFrame, targets: Sequence[str] = ("shape", "texture")) -> pd.DataFrame:
    table = runs.assign(reconstruction_error=(1.2 - 0.2 * effect(runs)) * jitter(runs))
    table = table.merge(pd.DataFrame({"target": targets}), how="cross")
    accuracy = (0.3 + 0.1 * effect(table)) * jitter(table)
    epochs = (3 + 2 / table["patch_size"]) * jitter(table)
    return table.assign(
        accuracy=accuracy, chance=0.125, evaluation_mask_ratio=0.75, epochs_to_90=epochs, at_grid_edge=False
    )


def make_fine_tuning(
    runs: pd.DataFrame,
    blocks: Sequence[int | None] = (None,),
    targets: Sequence[str] = ("label",),
    *,
    from_scratch: bool = True,
) -> pd.DataFrame:
    """Encoders of which each of ``blocks`` was trained (None: all), and fresh ones, which have no decoder."""
    kept = ["name", "seed", "dataset", "patch_size", "encoder_depth"]
    fresh = runs.drop_duplicates(["patch_size", "encoder_depth", "seed"])[kept]
    tuned = of_pretraining(runs).merge(
        pd.DataFrame({"blocks": [np.nan if n is None else float(n) for n in blocks]}), how="cross"
    )
    parts = [tuned.assign(from_scratch=False)]
    parts += [fresh.assign(from_scratch=True, name="scratch-" + fresh["name"])] if from_scratch else []
    table = pd.concat(parts).merge(pd.DataFrame({"target": targets}), how="cross")
    whole = table.pop("blocks").rename("n_blocks")
    n_blocks = whole.fillna(table["encoder_depth"])
    accuracy = 0.5 + np.where(table["from_scratch"], -0.1, effect(table) / 5) + n_blocks / 50
    return table.assign(
        n_blocks=n_blocks.astype(int),
        embedding_trained=whole.isna(),
        accuracy=accuracy * jitter(table),
        seconds_per_step=(0.1 + 0.02 * n_blocks) * jitter(table),
        memory_bytes=(100 + 50 * n_blocks) * 2**20,
        n_train=10_000,
        base_lr=np.where(np.arange(len(table)) % 2, 0.001, 0.004),  # chosen for each row
        at_grid_edge=True,
        epochs=10,
        augmentation="flip",
    )


def split_costs(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``fine_tuning``, and its ``costs``, which are of the first target and of no model from scratch."""
    timed = table[~table["from_scratch"] & (table["target"] == table["target"].iloc[0])]
    return table.drop(columns="seconds_per_step"), timed[["name", "n_blocks", "embedding_trained", "seconds_per_step"]]


def make_quality(runs: pd.DataFrame) -> pd.DataFrame:
    """SSIM that turns back above a ratio of .75, and a squared error that rises throughout."""
    table = runs.assign(ssim=(0.6 - (runs["mask_ratio"] - 0.75).abs() / 2) * jitter(runs), n_images=1000)
    mse = 0.01 * (1 + effect(table)) * jitter(table)
    table = table.assign(mse=mse, psnr=-10 * np.log10(mse), fsim=(table["ssim"] + 1) / 2, clipped=0.01 * jitter(table))
    return table.assign(ssim_window="Gaussian, σ 1.5 px, 11 px")


def make_attention(runs: pd.DataFrame) -> pd.DataFrame:
    table = runs.merge(grid(block=range(1, 7), query=("cls", "object", "all")), how="cross")
    table = table[table["block"] <= table["encoder_depth"]].reset_index(drop=True)
    n_patches = (32 / table["patch_size"]) ** 2
    return table.assign(
        last_block=table["block"] == table["encoder_depth"],
        object_attention_relative=np.exp(effect(table) * table["block"] / 20) * jitter(table),
        attention_distance=np.where(table["query"] == "cls", np.nan, 11 * jitter(table)),
        attention_distance_uniform=np.where(table["query"] == "cls", np.nan, 13.5),
        attention_entropy=(np.log(n_patches) - 0.5) * jitter(table),
        attention_entropy_uniform=np.log(n_patches),
        n_images=256,
    )


def make_attention_distance(runs: pd.DataFrame) -> pd.DataFrame:
    table = runs.merge(grid(block=range(1, 7), head=(1, 2, 3)), how="cross")
    table = table[table["block"] <= table["encoder_depth"]].reset_index(drop=True)
    distance = (6 + 2 * table["head"]) * jitter(table)
    return table.assign(attention_distance=distance, attention_distance_uniform=16.7, n_images=128)


def make_separability(runs: pd.DataFrame, targets: Sequence[str] = ("shape", "texture")) -> pd.DataFrame:
    table = runs.merge(pd.DataFrame({"target": targets}), how="cross")
    accuracy, silhouette = (0.3 + 0.1 * effect(table)) * jitter(table), (0.02 * effect(table) - 0.05) * jitter(table)
    return table.assign(
        knn_accuracy=accuracy,
        silhouette=silhouette,
        chance=0.125 + table["seed"] / 1000,
        n_neighbours=20,
        n_images=1000,
    )


def make_tsne(runs: pd.DataFrame, targets: Sequence[str] = ("shape", "texture"), n: int = 60) -> pd.DataFrame:
    """Points of the first seed's models, ten classes in a circle."""
    table = runs[runs["seed"] == runs["seed"].min()].merge(pd.DataFrame({"point": range(n)}), how="cross")
    classes, noise = table.pop("point") % 10, np.random.default_rng(0).normal(size=(len(table), 2))
    table = table.assign(x=10 * np.cos(classes) + noise[:, 0], y=10 * np.sin(classes) + noise[:, 1])
    return table.assign(**{target: [f"{target} {(c + i) % 10}" for c in classes] for i, target in enumerate(targets)})


def make_corruptions(runs: pd.DataFrame, targets: Sequence[str] = ("label",)) -> pd.DataFrame:
    table = runs.merge(grid(target=targets, corruption=list(CORRUPTIONS), severity=range(1, 6)), how="cross")
    clean = 0.4 + 0.1 * effect(table)
    return table.assign(
        group=table["corruption"].map(CORRUPTIONS),
        accuracy=(clean - 0.03 * table["severity"] - 0.05 * (table["corruption"] == "fog")) * jitter(table),
        clean_accuracy=clean,
        n_test=1000,
    )


def make_shape_bias(runs: pd.DataFrame, stimuli: Sequence[str] = ("leaves", "cue_conflict")) -> pd.DataFrame:
    """Probes of two kinds of stimuli, the first of which has no images whose cues agree."""
    table = runs.merge(pd.DataFrame({"stimuli": stimuli}), how="cross")
    bias, first = (0.3 + 0.1 * effect(table)) * jitter(table), table["stimuli"] == stimuli[0]
    return table.assign(
        **{"shape_bias": bias, "low": bias - 0.04, "high": bias + 0.05, "n": np.where(first, 2000, 210)},
        **{"n_classes": np.where(first, 5, 7), "probe_accuracy": 0.6 * jitter(table), "probe_chance": 0.2},
        same_cue_accuracy=np.where(first, np.nan, 0.7 * jitter(table)),
    )


def of_pretraining(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs as in tables of models that are trained further: settings of their own training with a prefix."""
    return runs.rename(columns={field.name: f"pretraining_{field.name}" for field in fields(TrainConfig)})


def make_dense(runs: pd.DataFrame, encoders: Sequence[str] = ("frozen", "fine-tuned")) -> pd.DataFrame:
    """Heads for two targets, with learning rates of their own."""
    table = of_pretraining(runs).merge(grid(encoder=encoders, target=("segmentation", "depth")), how="cross")
    is_depth, is_tuned = table["target"] == "depth", table["encoder"] == "fine-tuned"
    better = 0.05 * effect(table) + 0.1 * is_tuned
    return table.assign(
        metric=np.where(is_depth, "rmse", "miou"),
        score=np.where(is_depth, 0.3 - better, 0.6 + better) * jitter(table),
        # Of each seed's own images.
        baseline=np.where(is_depth, 0.32, 0.45) + table["seed"] / 1000,
        n_train=2000,
        base_lr=np.where(np.arange(len(table)) % 2, 0.064, 0.256),
        at_grid_edge=table["encoder"] == "fine-tuned",
        epochs=20,
    )


def make_levels(seeds: int = SEEDS) -> pd.DataFrame:
    """Mean heights on two trees for patches of one leaf and of more, highest at a ratio of .5."""
    table = grid(tree=("binary", "quad"), patch_size=(1, 4), mask_ratio=RATIOS, seed=range(seeds))
    height = 1 + np.log2(table["patch_size"]) + 0.3 * table["mask_ratio"] * (1 - table["mask_ratio"])
    return table.assign(depth=10, mean_height=height * jitter(table, 0.001))


def make_agreement_tables(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What reach and level of trained models are measured by, SSIM turning back."""
    return {
        "jacobian_reach": make_reach(runs),
        "linear_probe": make_probe(runs, ("label",)),
        "image_quality": make_quality(runs),
        "attention": make_attention(runs),
        "shape_bias": make_shape_bias(runs, ("leaves",)),
    }
