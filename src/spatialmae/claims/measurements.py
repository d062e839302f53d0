"""From tidy tables to one number for each seed and arm of a claim."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from spatialmae.claims.ledger import Claim, Difference, Estimand, Selector, TestPlan
from spatialmae.errors import UserError
from spatialmae.tables import read_table

FLOAT_TOLERANCE = 1e-9
FLOAT_DECIMALS = 9


@dataclass(frozen=True)
class Measurements:
    """The numbers behind a claim.

    Attributes:
        seeds: the units of replication, ascending.
        values: (seeds, arms), transformed; NaN where a seed has no finite value in an arm.
        labels: one for each arm.
        control: the control's values, one for each row of the table; None for a claim without control.
        exploring: the seeds belong to the exploring block, which carries no verdict.
        against: the other column of an association, whose arms are its configurations; None for the other types.
        run: whether the table has a row for the seed and configuration of an association. Configurations may have seeds
            of their own, so that no row means no run, and NaN a failed one.
    """

    seeds: Int64[np.ndarray, " seeds"]
    values: Float64[np.ndarray, "seeds arms"]
    labels: tuple[str, ...]
    control: Float64[np.ndarray, " rows"] | None
    exploring: bool
    against: Float64[np.ndarray, "seeds arms"] | None = None
    run: Bool[np.ndarray, "seeds arms"] | None = None


def measure(claim: Claim, plan: TestPlan, tables_dir: Path | str, verdict_seeds_from: int) -> Measurements:
    """Read what a configuration measured for a claim.

    Several rows of one seed and arm are averaged first (e.g. probe seeds on one encoder); for an equality the
    largest error counts instead, and an association refuses them. Where the table holds seeds from
    ``verdict_seeds_from`` on, only these are used: exploring seeds never enter a verdict. The logarithm of a value that
    is not positive is NaN: a failed seed.

    Raises:
        UserError: the table, one of its columns, or every row of an arm is missing, or the settings that should make a
            configuration leave several rows to a seed.
    """
    assert claim.estimand is not None
    path = Path(tables_dir) / claim.estimand.table / f"{plan.dataset}.csv"
    table = _with_value(read_table(path), claim.estimand, path)
    exploring = not (table["seed"] >= verdict_seeds_from).any()
    if not exploring:
        table = table[table["seed"] >= verdict_seeds_from]
    where = {**claim.estimand.where, **plan.where}
    control = _control(table, where, claim.estimand, f"{path}, control of claim {claim.id}")
    if claim.type == "association":
        return _by_configuration(table, where, claim.estimand, control, exploring, f"{path}, claim {claim.id}")
    arms = claim.arms_of(plan) or [Selector()]
    how = "max" if claim.type == "equality" else "mean"
    columns = [_arm(table, where, arm, how, f"{path}, claim {claim.id}") for arm in arms]
    # A seed that the table knows but an arm lacks is a failed run, so all seeds of the table stay.
    values = pd.concat(columns, axis=1).reindex(sorted(set(table["seed"])))
    return Measurements(
        seeds=values.index.to_numpy(dtype=np.int64),
        values=values.to_numpy(dtype=np.float64),
        labels=tuple(_label(arm) for arm in arms),
        control=control,
        exploring=exploring,
    )


def _with_value(table: pd.DataFrame, estimand: Estimand, path: Path) -> pd.DataFrame:
    """The table with the transformed value in the column ``_value``."""
    _require_column(table, "seed", str(path))
    return table.assign(_value=_transform(_numbers(table, estimand.value, str(path)), estimand.transform))


def _numbers(table: pd.DataFrame, column: str, context: str) -> Float64[np.ndarray, " rows"]:
    _require_column(table, column, context)
    try:
        return table[column].to_numpy(dtype=np.float64)
    except ValueError:
        hint = "delete the table and run its stage again"
        raise UserError(f"{context}, column {column}", "holds values that are not numbers", hint) from None


def _transform(value: Float64[np.ndarray, " rows"], transform: str) -> Float64[np.ndarray, " rows"]:
    if transform == "log":
        return np.log(value, out=np.full_like(value, np.nan), where=value > 0)
    return value


def _arm(table: pd.DataFrame, where: Selector, arm: Selector | Difference, how: str, context: str) -> pd.Series:
    """One value for each seed of an arm."""
    if isinstance(arm, Difference):
        plus, minus = (_arm(table, where, side, how, context) for side in (arm.plus, arm.minus))
        return plus - minus
    rows = _select(table, {**where, **arm}, context)
    # An aggregate that skipped NaN would hide a failed probe or cell behind the others.
    return rows.groupby("seed")["_value"].agg(lambda values: getattr(np, how)(values.to_numpy()))


def _by_configuration(
    table: pd.DataFrame,
    where: Selector,
    estimand: Estimand,
    control: Float64[np.ndarray, " n"] | None,
    exploring: bool,
    context: str,
) -> Measurements:
    """The two columns of an association, with the configurations, ascending, as arms."""
    assert estimand.against is not None
    rows = _select(table, where, context)
    for column in estimand.cluster:
        _require_column(rows, column, context)
    settings = rows[estimand.cluster].round(FLOAT_DECIMALS)
    # A setting that is missing (no bottleneck) is one of its values.
    arm = settings.groupby(estimand.cluster, dropna=False).ngroup().to_numpy(dtype=np.int64)
    seeds, seed = np.unique(rows["seed"].to_numpy(dtype=np.int64), return_inverse=True)
    labels = _setting_labels(settings.assign(_arm=arm).drop_duplicates("_arm").set_index("_arm").sort_index())
    _refuse_repeated_runs(seeds[seed], arm, labels, context)
    values, against = np.full((2, len(seeds), len(labels)), np.nan)
    values[seed, arm] = rows["_value"]
    against[seed, arm] = _numbers(rows, estimand.against, context)
    run = np.zeros(values.shape, dtype=bool)
    run[seed, arm] = True
    return Measurements(seeds, values, labels, control, exploring, against, run)


def _setting_labels(settings: pd.DataFrame) -> tuple[str, ...]:
    """Each row as ``column=value``, of the columns that vary."""
    varied = [column for column in settings if len(settings[column].drop_duplicates()) > 1]
    return tuple(_label({column: _text(row[column]) for column in varied}) for row in settings.to_dict("records"))


def _text(setting: Any) -> str:
    if isinstance(setting, float):
        return "none" if np.isnan(setting) else f"{setting:.10g}"
    return str(setting)


def _refuse_repeated_runs(
    seeds: Int64[np.ndarray, " rows"], arm: Int64[np.ndarray, " rows"], labels: tuple[str, ...], context: str
) -> None:
    repeated = pd.DataFrame({"seed": seeds, "arm": arm}).duplicated().to_numpy()
    if repeated.any():
        first = int(np.argmax(repeated))
        which = ", ".join(filter(None, [f"seed={seeds[first]}", labels[arm[first]]]))
        hint = "add what they differ in to estimand.cluster, or choose one by estimand.where"
        raise UserError(context, f"several rows have {which}", hint)


def _control(
    table: pd.DataFrame, where: Selector, estimand: Estimand, context: str
) -> Float64[np.ndarray, " n"] | None:
    if estimand.control is None:
        return None
    return _select(table, {**where, **estimand.control.where}, context)["_value"].to_numpy(dtype=np.float64)


def _select(table: pd.DataFrame, selector: Selector, context: str) -> pd.DataFrame:
    """The rows that match every column of the selector; at least one."""
    keep = np.ones(len(table), dtype=bool)
    for column, wanted in selector.items():
        _require_column(table, column, context)
        keep &= _matches(table[column], wanted)
    if not keep.any():
        hint = "run the stage with these settings, or correct the selector in the ledger"
        raise UserError(context, f"no row has {_label(selector) or 'any value'}", hint)
    return table[keep]


def _matches(column: pd.Series, wanted: int | float | str) -> Bool[np.ndarray, " rows"]:
    if isinstance(wanted, str):
        return (column.astype(str) == wanted).to_numpy(dtype=bool)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    return np.isclose(numbers, wanted, rtol=0, atol=FLOAT_TOLERANCE)


def _require_column(table: pd.DataFrame, column: str, context: str) -> None:
    if column not in table.columns:
        hint = "run the table's stage again, or correct the column's name in the ledger"
        raise UserError(context, f"the table has no column {column!r}", hint)


def _label(arm: Selector | Difference) -> str:
    if isinstance(arm, Difference):
        return f"({_label(arm.plus)}) - ({_label(arm.minus)})"
    return ", ".join(f"{column}={value}" for column, value in arm.items())
