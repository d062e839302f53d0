"""Made-up tables of trained models, as the stages write them, for tests of figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9)
EVALUATED = (0.25, 0.5, 0.75)
SEEDS = 5
EPOCHS = (0, 1, 2, 4, 6)
SETTINGS = {
    **{"dataset": "leaves", "patch_size": 4, "encoder_depth": 6, "decoder_depth": 2, "mask_ratio": 0.75},
    **{"masking": "fixed", "loss_on": "hidden", "bottleneck": np.nan, "noise_std": 0.0, "base_lr": 0.008},
    **{"epochs": 6, "augmentation": "flip", "surrogate": "none"},
}
NETWORK = ["patch_size", "encoder_depth", "decoder_depth", "bottleneck"]

AUTOENCODER = {"mask_ratio": 0.0, "loss_on": "all", "bottleneck": 16.0}
OBJECTIVES = ({}, AUTOENCODER, AUTOENCODER | {"noise_std": 0.8})
CROSS = ({}, *({"encoder_depth": depth} for depth in (2, 4)), *({"decoder_depth": depth} for depth in (1, 4, 8)))


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
    radius = (5 + table["evaluation_mask_ratio"] + 3 * effect(table)) * jitter(table)
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
    return table.assign(accuracy=(0.3 + 0.1 * effect(table)) * jitter(table), chance=0.125)


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
    runs = runs.rename(
        columns={name: f"pretraining_{name}" for name in ("base_lr", "epochs", "augmentation", "surrogate")}
    )
    tuned = runs.merge(pd.DataFrame({"blocks": [np.nan if n is None else float(n) for n in blocks]}), how="cross")
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
        epochs=10,
        augmentation="flip",
    )
