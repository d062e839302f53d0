"""Stage ``checks``: the closed form against gradient descent, PCA and random masks, for every replicate."""

from __future__ import annotations

import pandas as pd

from spatialmae.config import Config
from spatialmae.errors import UserError
from spatialmae.layout import Layout
from spatialmae.linear.checks import check_gradient_descent, check_monte_carlo, check_pca
from spatialmae.stages.replicates import moments_of, replicates
from spatialmae.tables import write_table


def run(config: Config) -> None:
    """Write ``tables/checks/<dataset>.csv`` for the data set of the section ``checks``.

    Raises:
        UserError: the configuration has no such section.
    """
    if config.checks is None:
        raise UserError("checks", "the configuration has none", "add checks: {dataset: <one of datasets>} to it")
    settings = config.checks
    m, p, wrong, k = settings.mask_ratio, settings.patch_size, settings.wrong_patch_size, settings.n_components
    rows = []
    for seed, data in replicates(config, settings.dataset, whole=False):
        X, S, shape = data.features("train"), moments_of(data).covariance, data.image_shape
        checks = {
            "gradient_descent": check_gradient_descent(S, shape, m, p, wrong, k, seed),
            "pca": check_pca(X, shape, m, p, k),
            "monte_carlo": check_monte_carlo(X, shape, m, p, wrong, k, settings.n_masks, seed),
        }
        keys = {"seed": seed, "mask_ratio": m, "patch_size": p, "n_components": k}
        rows += [
            {**keys, "check": check, "role": role, "relative_error": error}
            for check, errors in checks.items()
            for role, error in errors.items()
        ]
    write_table(Layout.of(config).table("checks", settings.dataset), pd.DataFrame(rows))
