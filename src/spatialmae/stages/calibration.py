"""Stage ``calibration``: what the recommender's rules are worth where the probe's accuracy was measured over a grid."""

from __future__ import annotations

import pandas as pd
from tqdm import tqdm

from spatialmae.analysis.lags import LagCovariance
from spatialmae.config import Config
from spatialmae.data.dataset import ImageData
from spatialmae.errors import UserError
from spatialmae.layout import Layout
from spatialmae.recommend.evidence import Grid, theory_cells
from spatialmae.recommend.rules import BASELINES, compare, leave_one_out
from spatialmae.tables import read_table, write_table

SETTING = ["patch_size", "n_visible"]


def run(config: Config) -> None:
    """Write the tables of ``calibration``: ``cells``, ``held_out`` and ``comparison``.

    ``cells`` has a row for each data set and setting: the closed form's evidence from training images, and the linear
    probe's accuracy, a mean over training seeds and class labels. The others are made from it by
    :mod:`spatialmae.recommend.rules`.

    Raises:
        UserError: the configuration names no evaluations, a table or images are missing, or the data sets' grids
            have no setting in common.
    """
    if not config.calibration:
        raise UserError("calibration", "names no evaluations", "use a configuration that does: config/calibration.yaml")
    layout = Layout.of(config)
    cells = pd.concat([_cells(config, name) for name in tqdm(config.calibration, desc="calibration", unit="data set")])
    write_table(layout.table("calibration", "cells"), cells)
    try:
        held_out = leave_one_out(cells)
    except ValueError as error:
        raise UserError.of(layout.table("calibration", "cells"), error) from None
    write_table(layout.table("calibration", "held_out"), held_out)
    comparison = pd.DataFrame([vars(compare(held_out, baseline)) for baseline in BASELINES])
    write_table(layout.table("calibration", "comparison"), comparison)


def _cells(config: Config, evaluation: str) -> pd.DataFrame:
    layout, runs = Layout.of(config), config.evaluation_runs(evaluation)
    data = ImageData.load(layout.data(runs[0].dataset))
    image_size = data.image_shape[0]
    grid = Grid(
        image_size,
        tuple(sorted({run.model.patch_size for run in runs})),
        tuple(sorted({run.model.mask_ratio for run in runs})),
    )
    covariance = LagCovariance.of(data.images[data.splits["train"]], grid.factor).covariance()
    measured = _accuracies(read_table(layout.table("linear_probe", evaluation)), image_size)
    evidence = theory_cells(covariance, grid)
    # Where patches are few, several ratios hide the same number: the row is called by the one that was trained.
    cells = evidence.drop(columns="mask_ratio").merge(measured, on=SETTING, how="inner", validate="one_to_one")
    return cells.assign(dataset=runs[0].dataset)


def _accuracies(probe: pd.DataFrame, image_size: int) -> pd.DataFrame:
    """Mean accuracies of each setting, first over the class labels of a run, then over seeds."""
    n_patches = (image_size // probe["patch_size"]) ** 2
    visible = (n_patches * (1 - probe["realised_mask_ratio"])).round().astype(int)
    values = ["mask_ratio", "accuracy", "validation_accuracy"]
    of_runs = probe.assign(n_visible=visible).groupby([*SETTING, "seed"])[values].mean()
    of_settings = of_runs.groupby(SETTING)
    means = of_settings.mean()
    means["accuracy_std"], means["n_seeds"] = of_settings["accuracy"].std(), of_settings.size()
    return means.reset_index()
