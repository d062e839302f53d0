"""Stage ``sampling``: how much of the linear MAE's reach is noise of the second moments it is computed from."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float64
from tqdm import tqdm

from spatialmae.analysis.jackknife import WHOLE
from spatialmae.analysis.lags import LagCovariance, sampled_covariance
from spatialmae.analysis.reach import Influence, ReachGeometry, rms_radius
from spatialmae.config import Config
from spatialmae.geometry import patch_labels
from spatialmae.layout import Layout
from spatialmae.linear.sweep import Sweep
from spatialmae.stages.linear import corruption_of
from spatialmae.stages.replicates import replicates, write_replicates
from spatialmae.tables import write_table

SETTING = ["patch_size", "mask_ratio"]
RADIUS = "rms_radius_squared"


def run(config: Config, dataset: str) -> None:
    """Write ``tables/sampling_lags/<dataset>.csv`` and ``tables/sampling_draws/<dataset>.csv``.

    ``sampling_lags`` has the reach that follows from covariances by lag, of the images in grey, for every replicate.
    ``sampling_draws`` takes that covariance, from all images, for the truth. It has a row for each simulation seed and
    setting: the reach that Gaussian images of it would give, with the data set's ratio of images to features
    (``n_images``), and ``lengthening``, by how much that exceeds the reach of the covariance itself, px.

    Raises:
        UserError: the images are missing or damaged, or too few for the groups.
    """
    exact = []
    for seed, data in replicates(config, dataset):
        images = data.images[data.splits["train"]]
        covariance = LagCovariance.of(images, 1).covariance()
        exact.append(reach_of(config, dataset, covariance).assign(seed=seed, n_train=len(images)))
        if seed == WHOLE:
            sampled = _simulations(config, dataset, covariance, len(images) // data.image_shape[2], exact[0])
    write_table(Layout.of(config).table("sampling_draws", dataset), sampled)
    write_replicates(config, "sampling_lags", dataset, pd.concat(exact), [RADIUS])


def reach_of(config: Config, dataset: str, covariance: Float64[np.ndarray, "d d"]) -> pd.DataFrame:
    """Rms radius of J² of the linear MAE at every setting of a data set, at its largest rank.

    Args:
        config: the configuration.
        dataset: whose patch sizes and ranks are taken.
        covariance: of grey pixels; ranks above their number are lowered to it.

    Returns:
        A row for each patch size and masking ratio: the keys of a linear autoencoder, ``rms_radius_squared`` px.
    """
    settings, rows = config.datasets[dataset], []
    side, rank = settings.source.shape[0], min(max(settings.n_components), len(covariance))
    for patch_size in settings.patch_sizes:
        labels = patch_labels(side**2, patch_size, (side, side))
        sweep, geometry = Sweep.of(covariance, labels), ReachGeometry.of((side, side), patch_size)
        for mask_ratio in config.linear.mask_ratios:
            solution = sweep.solve(corruption_of(config, mask_ratio, int(labels[-1]) + 1), rank)
            influence = Influence.of_linear(solution.encoder, solution.decoder, geometry)
            keys = {"method": "mae", "noise_std": 0.0, "mask_ratio": mask_ratio, "patch_size": patch_size}
            rows.append(keys | {"n_components": rank, RADIUS: rms_radius(influence.squared, geometry)})
    return pd.DataFrame(rows)


def _simulations(
    config: Config, dataset: str, covariance: Float64[np.ndarray, "d d"], n_images: int, exact: pd.DataFrame
) -> pd.DataFrame:
    tables = []
    for seed in tqdm(config.simulation_seeds, desc=f"{dataset}, sampled", unit="draw"):
        drawn = sampled_covariance(covariance, n_images, np.random.default_rng(seed))
        tables.append(reach_of(config, dataset, drawn).assign(seed=seed, n_images=n_images))
    table = pd.concat(tables).merge(exact[[*SETTING, RADIUS]], on=SETTING, suffixes=("", "_exact"))
    return table.assign(lengthening=table[RADIUS] - table[f"{RADIUS}_exact"])
