"""Jackknife over groups of images: what a group contributes to an estimate (docs/theory.md, section 7).

A closed form needs many more images than features, so it cannot be estimated anew from a small part of the data: from
a tenth of CIFAR-10 noise alone moves the reach at patch 2 from 10 px to the ceiling of 15 px. Leaving a tenth *out*
changes little, and Tukey's pseudo-values turn those changes into values that can be treated as independent estimates,
free of the estimate's bias of order 1/n.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

WHOLE = -1  # the seed of the replicate that leaves nothing out


def pseudo_values(table: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Replace the estimates of leave-one-out replicates by pseudo-values, θ̃_g = h θ − (h − 1) θ_(−g) (17), h = n / n_g.

    Args:
        table: rows of every replicate: `seed` (the group left out, :data:`WHOLE` for none), `n_train` (its training
            images), keys, values and any further columns, which are kept as they are.
        keys: columns that, with `seed`, identify a row.
        values: columns of estimates.

    Returns:
        The rows of the leave-one-out replicates. An estimate that is not finite in either replicate gives NaN.

    Raises:
        ValueError: a row has no counterpart in the whole, or a key occurs twice.
    """
    keys, values = list(keys), list(values)
    parts = table[table["seed"] != WHOLE].reset_index(drop=True)
    whole = table.loc[table["seed"] == WHOLE, [*keys, *values, "n_train"]]
    if parts.duplicated(["seed", *keys]).any() or whole.duplicated(keys).any():
        raise ValueError(f"rows are not identified by seed and {keys}")
    n_left = parts["n_train"].to_numpy(float)
    matched = parts[keys].merge(whole, on=keys, how="left", validate="many_to_one", indicator=True)
    if (matched["_merge"] != "both").any():
        raise ValueError("a replicate has rows that the whole has not")
    n_all = matched["n_train"].to_numpy(float)
    h = (n_all / (n_all - n_left))[:, None]
    with np.errstate(invalid="ignore"):
        estimates = h * matched[values].to_numpy(float) - (h - 1) * parts[values].to_numpy(float)
    parts[values] = np.where(np.isfinite(estimates), estimates, np.nan)
    return parts
