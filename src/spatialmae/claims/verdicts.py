"""Verdicts by code, from the frozen ledger and the tables of a configuration.

A verdict is the first of these that applies:

1. ``NOT_TESTED(…)``: this configuration does not test the claim; in brackets those that do, ``planned`` if none does,
   or ``left out`` if it would but the run leaves out what the claim is read from.
2. ``INVALID``: a control left its bounds, or more than one seed in five failed (association: one run in five).
3. ``SUGGESTIVE(+)``, ``(-)`` or ``(0)``: fewer than five seeds (association: configurations), or only seeds of the
   exploring block.
4. ``NULL``: the interval lies inside ± the smallest effect of interest (directional claims only).
5. ``REPLICATED``: p after Holm below alpha and estimate at least the smallest effect (equivalence: the p of TOST
   alone; equality: every seed within the tolerance; association: the interval lies inside the margin).
6. ``CONTRADICTED``: the interval lies below zero and the estimate is at most − the smallest effect (equivalence
   and association: the interval lies outside the margin; equality: every seed outside the tolerance).
7. ``INCONCLUSIVE``.

The unit of replication is the seed; of an association, whose interval draws whole configurations, the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from spatialmae.claims import rules
from spatialmae.claims.ledger import Claim, Control, Ledger, Rule, TestPlan, load_ledger
from spatialmae.claims.measurements import Measurements, measure
from spatialmae.claims.rules import MINIMUM_UNITS, Evidence
from spatialmae.tables import write_table

CLAIMS_COLUMNS = [
    *("id", "paper", "statement", "type", "tier", "fidelity", "estimate", "ci_low", "ci_high", "n_seeds", "p"),
    *("paper_value", "verdict", "figure", "deviations"),
]
DETAIL_COLUMNS = [
    *("id", "dataset", "unit", "family", "smallest_effect", "p_raw", "p_holm", "p_sign_flip", "n_failed"),
    *("reversals", "rule", "reason"),
]
SEEDS_COLUMNS = ["id", "seed", "arm", "arm_label", "value", "against"]

Makes = Callable[[str, str], bool]  # whether a run makes a table of a data set, training or evaluation


@dataclass(frozen=True)
class Tested:
    """A claim as one configuration tested it.

    Attributes:
        plan: data, fidelity and what the configuration overrides.
        rule: the rule under this configuration.
        measurements: the numbers for each seed and arm.
        evidence: what they say; without p-values where the claim can get no verdict from them.
        failure: why the claim is INVALID, or empty.
        p_holm: p after Holm; NaN until it is adjusted for its family, and where there is no p-value.
    """

    plan: TestPlan
    rule: Rule
    measurements: Measurements
    evidence: Evidence
    failure: str
    p_holm: float = np.nan


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict with its reason in words; ``tested`` is None where the configuration does not test it."""

    claim: Claim
    verdict: str
    reason: str
    tested: Tested | None = None


def _everything(table: str, dataset: str) -> bool:
    return True


def judge(ledger: Ledger, tables_dir: Path | str, configuration: str, makes: Makes = _everything) -> list[Verdict]:
    """Verdicts on all claims of the ledger, in its order, from the tables that a configuration made.

    Args:
        ledger: the claims with their rules.
        tables_dir: the folder that holds ``<table>/<dataset>.csv``.
        configuration: its name; claims that it does not test read NOT_TESTED.
        makes: whether the run makes a table of a data set or evaluation; claims whose table it leaves out read
            NOT_TESTED too, and count in their family.

    Raises:
        UserError: a table, column or arm is missing that the configuration should have made.
    """
    plans = {claim.id: claim.tests[configuration] for claim in ledger.claims if configuration in claim.tests}
    tested = {
        claim.id: _test(claim, plans[claim.id], tables_dir, ledger.verdict_seeds_from)
        for claim in ledger.claims
        if claim.id in plans and makes(_table(claim), plans[claim.id].dataset)
    }
    tested = _adjust_families(tested, [claim for claim in ledger.claims if claim.id in plans])
    return [
        _verdict(claim, tested[claim.id]) if claim.id in tested else _not_tested(claim, plans.get(claim.id))
        for claim in ledger.claims
    ]


def judge_claims(
    ledger_path: Path | str,
    tables_dir: Path | str,
    configuration: str,
    out_csv: Path | str,
    makes: Makes = _everything,
) -> list[Verdict]:
    """Judge all claims and write ``out_csv``, ``claims_detail.csv`` and ``claims_seeds.csv``.

    The last two go into ``tables_dir``: how each verdict came about, and its numbers for each seed and arm.

    Raises:
        UserError: the ledger is faulty, or a table is missing or incomplete.
    """
    verdicts = judge(load_ledger(ledger_path), tables_dir, configuration, makes)
    write_table(out_csv, claims_table(verdicts))
    write_table(Path(tables_dir) / "claims_detail.csv", detail_table(verdicts))
    write_table(Path(tables_dir) / "claims_seeds.csv", seeds_table(verdicts))
    return verdicts


def weigh(claim: Claim, plan: TestPlan, measurements: Measurements) -> Evidence:
    """The evidence of the values for a claim, by its type; one column of errors for an equality."""
    values, rule = measurements.values, claim.rule_of(plan)
    match claim.type:
        case "ordering":
            return rules.ordering(values, rule.alpha)
        case "trend":
            x = claim.x_of(plan)
            assert x is not None
            return rules.trend(values, x, rule.alpha)
        case "inverted_u":
            return rules.inverted_u(values, rule.alpha)
        case "equivalence":
            assert rule.margin is not None
            return rules.equivalence(values, rule.margin, rule.alpha)
        case "equality":
            return rules.equality(values)
        case "association":
            assert claim.estimand is not None and measurements.against is not None and measurements.run is not None
            run, configurations = measurements.run, np.nonzero(measurements.run)[1]
            within = claim.estimand.within
            return rules.association(values[run], measurements.against[run], configurations, rule.alpha, within)


def _test(claim: Claim, plan: TestPlan, tables_dir: Path | str, verdict_seeds_from: int) -> Tested:
    measurements = measure(claim, plan, tables_dir, verdict_seeds_from)
    rule = claim.rule_of(plan)
    evidence = weigh(claim, plan, measurements)
    failure = _failure(claim.estimand.control if claim.estimand else None, measurements, evidence)
    if failure or measurements.exploring:
        evidence = replace(evidence, p=np.nan, p_sign_flip=np.nan)
    return Tested(plan, rule, measurements, evidence, failure)


def _adjust_families(tested: dict[str, Tested], registered: Sequence[Claim]) -> dict[str, Tested]:
    """Holm within each family over the claims that the configuration registers, whatever of them has been run.

    Equalities and associations have no p-value and take no part. Any other claim counts as p = 1 if it has none: it is
    left out, it is INVALID, or its seeds are too few or exploring.
    """
    families: dict[str, list[str]] = {}
    for claim in registered:
        assert claim.rule is not None  # of every claim with tests
        if claim.type not in ("equality", "association"):
            families.setdefault(claim.rule.family, []).append(claim.id)
    adjusted = dict(tested)
    for members in families.values():
        p_raw = [tested[name].evidence.p if name in tested else np.nan for name in members]
        for name, p in zip(members, rules.holm(np.array(p_raw, dtype=np.float64)), strict=True):
            if name in tested:
                adjusted[name] = replace(tested[name], p_holm=float(p))
    return adjusted


def _table(claim: Claim) -> str:
    assert claim.estimand is not None  # of every claim with tests
    return claim.estimand.table


def _not_tested(claim: Claim, plan: TestPlan | None) -> Verdict:
    if plan is not None:
        return Verdict(
            claim, "NOT_TESTED(left out)", f"this run leaves out the table {_table(claim)} of {plan.dataset}"
        )
    where = ", ".join(sorted(claim.tests)) or "planned"
    return Verdict(claim, f"NOT_TESTED({where})", claim.planned or f"tested by the configuration {where}")


def _verdict(claim: Claim, tested: Tested) -> Verdict:
    if tested.failure:
        return Verdict(claim, "INVALID", tested.failure, tested)
    verdict, reason = decide(tested.rule, tested.evidence, tested.p_holm, tested.measurements.exploring)
    return Verdict(claim, verdict, reason, tested)


def _failure(control: Control | None, measurements: Measurements, evidence: Evidence) -> str:
    """Why a claim is INVALID, or an empty string."""
    if evidence.too_many_failed:
        what = "seeds" if evidence.n_configurations is None else "runs"
        return f"{evidence.n_failed} of {evidence.n_failed + evidence.n_seeds} {what} failed"
    return _control_failure(control, measurements)


def _control_failure(control: Control | None, measurements: Measurements) -> str:
    """Why the control invalidates the claim, or an empty string; a value that is not finite fails."""
    if control is None or measurements.control is None:
        return ""
    low = -np.inf if control.min is None else control.min
    high = np.inf if control.max is None else control.max
    values = measurements.control
    if np.isfinite(values).all() and (values >= low).all() and (values <= high).all():
        return ""
    return f"the control spans [{values.min():.3g}, {values.max():.3g}], not within [{low:g}, {high:g}]"


def decide(rule: Rule, evidence: Evidence, p_holm: float, exploring: bool = False) -> tuple[str, str]:
    """Verdict and reason, in the order of this module's docstring, of a claim that is tested and not INVALID.

    The type shows in the rule's threshold: tolerance (equality), margin (equivalence, or association where the evidence
    counts configurations) or smallest effect.
    """
    if evidence.n_units < MINIMUM_UNITS or exploring:
        why = "seeds of the exploring block" if exploring else _too_few(evidence)
        return f"SUGGESTIVE({_sign(rule, evidence)})", why
    if rule.tolerance is not None:
        return _decide_equality(rule.tolerance, evidence)
    if evidence.n_configurations is not None:
        return _decide_association(rule, evidence)
    if rule.margin is not None:
        return _decide_equivalence(rule, evidence, p_holm)
    return _decide_direction(rule, evidence, p_holm)


def _too_few(evidence: Evidence) -> str:
    if evidence.n_configurations is None:
        return f"{evidence.n_seeds} seeds, fewer than {MINIMUM_UNITS}"
    return f"{evidence.n_configurations} configurations, fewer than {MINIMUM_UNITS}, and so no interval"


def _decide_equality(tolerance: float, evidence: Evidence) -> tuple[str, str]:
    """Every seed within the tolerance, every seed outside it, or neither."""
    spread = f"relative errors {evidence.ci_low:.3g} to {evidence.ci_high:.3g}, tolerance {tolerance:g}"
    if evidence.ci_high <= tolerance:
        return "REPLICATED", spread
    return ("CONTRADICTED" if evidence.ci_low > tolerance else "INCONCLUSIVE"), spread


def _decide_equivalence(rule: Rule, evidence: Evidence, p_holm: float) -> tuple[str, str]:
    """TOST inside the margin, interval outside the margin, or neither; NULL has no meaning here."""
    assert rule.margin is not None
    low, high = rule.margin
    reason = f"{_interval(evidence)} against the margin [{low:g}, {high:g}], Holm p {p_holm:.3g}"
    if p_holm < rule.alpha:
        return "REPLICATED", reason
    outside = evidence.ci_low > high or evidence.ci_high < low
    return ("CONTRADICTED" if outside else "INCONCLUSIVE"), reason


def _decide_association(rule: Rule, evidence: Evidence) -> tuple[str, str]:
    """The whole interval inside the margin, all of it outside on one side, or neither."""
    assert rule.margin is not None
    low, high = rule.margin
    about = f"{evidence.n_seeds} complete runs, {evidence.n_configurations} configurations resampled"
    if np.isnan(evidence.ci_low):
        return "INCONCLUSIVE", f"no interval, since a column is constant in too many resamples; {about}"
    reason = f"{_interval(evidence)} against the margin [{low:g}, {high:g}]; {about}"
    if low < evidence.ci_low and evidence.ci_high < high:
        return "REPLICATED", reason
    outside = evidence.ci_low > high or evidence.ci_high < low
    return ("CONTRADICTED" if outside else "INCONCLUSIVE"), reason


def _decide_direction(rule: Rule, evidence: Evidence, p_holm: float) -> tuple[str, str]:
    """NULL, REPLICATED, CONTRADICTED or INCONCLUSIVE for orderings, trends and inverted Us."""
    smallest = rule.smallest_effect
    assert smallest is not None
    reason = f"{_interval(evidence)}, smallest effect {smallest:.3g}, Holm p {p_holm:.3g}"
    if -smallest < evidence.ci_low and evidence.ci_high < smallest:
        return "NULL", reason
    if p_holm < rule.alpha and evidence.estimate >= smallest:
        return "REPLICATED", reason
    if evidence.ci_high < 0 and evidence.estimate <= -smallest:
        return "CONTRADICTED", reason
    return "INCONCLUSIVE", reason


def _sign(rule: Rule, evidence: Evidence) -> str:
    """Which way few seeds point: + for the claim, - against it, 0 for neither (within ± the smallest effect)."""
    if rule.tolerance is not None:
        return {"REPLICATED": "+", "CONTRADICTED": "-"}.get(_decide_equality(rule.tolerance, evidence)[0], "0")
    if np.isnan(evidence.estimate):  # of an association with a constant column
        return "0"
    if rule.margin is not None:
        return "+" if rule.margin[0] < evidence.estimate < rule.margin[1] else "-"
    assert rule.smallest_effect is not None
    if abs(evidence.estimate) < rule.smallest_effect:
        return "0"
    return "+" if evidence.estimate > 0 else "-"


def _interval(evidence: Evidence) -> str:
    return f"estimate {evidence.estimate:.3g} [{evidence.ci_low:.3g}, {evidence.ci_high:.3g}]"


def rule_in_words(claim: Claim, rule: Rule) -> str:
    """The claim's test, thresholds and control as a phrase, for the report."""
    words = _test_in_words(claim, rule)
    control = claim.estimand.control if claim.estimand else None
    return words if control is None else f"{words}; {_control_in_words(control)}"


def _test_in_words(claim: Claim, rule: Rule) -> str:
    level = f"alpha {rule.alpha:g} after Holm within {rule.family}"
    if claim.type == "equality":
        return f"relative error of every seed at most {rule.tolerance:g}"
    if rule.margin is not None:
        margin = f"within [{rule.margin[0]:g}, {rule.margin[1]:g}]"
        if claim.type == "equivalence":
            return f"TOST: difference {margin}, {level}"
        return f"{_correlation_in_words(claim)} {margin}, no p-value and no part in Holm"
    test = {
        "ordering": "one-sided paired t test for every adjacent pair, all needed",
        "trend": "one-sided t test on the seeds' slopes",
        "inverted_u": "one-sided paired t tests of the peak, fixed beforehand, against both ends, both needed",
    }[claim.type]
    return f"{test}, {level}; effect at least {rule.smallest_effect:.3g} {claim.unit}".rstrip()


def _control_in_words(control: Control) -> str:
    rows = ", ".join(f"{column} {value}" for column, value in control.where.items())
    bounds = {"at least": control.min, "at most": control.max}
    within = " and ".join(f"{word} {end:g}" for word, end in bounds.items() if end is not None)
    return f"control ({rows}): every value {within}"


def _correlation_in_words(claim: Claim) -> str:
    estimand = claim.estimand
    assert estimand is not None
    what = f"{estimand.value} with {estimand.against}"
    if estimand.within:
        what += ", both less their configuration's mean"
    return f"two-sided interval of Spearman's rho of {what}, by a bootstrap that draws whole configurations,"


def claims_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The table ``claims.csv``: a row for every claim, with the columns of CLAIMS_COLUMNS.

    ``p`` is after Holm; ``n_seeds`` counts an association's configurations, and ``n_failed`` of the detail its runs.
    """
    return pd.DataFrame([_claim_row(verdict) for verdict in verdicts], columns=CLAIMS_COLUMNS)


def _claim_row(verdict: Verdict) -> dict[str, object]:
    claim, tested = verdict.claim, verdict.tested
    row: dict[str, object] = {
        **claim.model_dump(include={"id", "paper", "statement", "type", "tier", "paper_value", "figure"}),
        "verdict": verdict.verdict,
        "deviations": " ".join(claim.deviations),
        "n_seeds": 0,
    }
    if tested is not None:
        evidence = tested.evidence
        row |= {"fidelity": tested.plan.fidelity, "n_seeds": evidence.n_units, "p": tested.p_holm}
        row |= {"estimate": evidence.estimate, "ci_low": evidence.ci_low, "ci_high": evidence.ci_high}
    return row


def detail_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """How each verdict came about: thresholds, p-values, failed seeds, reversals, rule and reason in words."""
    return pd.DataFrame([_detail_row(verdict) for verdict in verdicts], columns=DETAIL_COLUMNS)


def _detail_row(verdict: Verdict) -> dict[str, object]:
    claim, tested = verdict.claim, verdict.tested
    row: dict[str, object] = {"id": claim.id, "unit": claim.unit, "reason": verdict.reason}
    if tested is None:
        return row
    evidence, rule = tested.evidence, tested.rule
    return row | {
        "dataset": tested.plan.dataset,
        "family": rule.family,
        "smallest_effect": rule.smallest_effect,
        "p_raw": evidence.p,
        "p_holm": tested.p_holm,
        "p_sign_flip": evidence.p_sign_flip,
        "n_failed": evidence.n_failed,
        "reversals": _reversals(tested),
        "rule": rule_in_words(claim, rule),
    }


def _reversals(tested: Tested) -> str:
    """The steps between adjacent arms that go against the claim in some seed, each with how many seeds."""
    labels, n = tested.measurements.labels, tested.evidence.n_seeds
    steps = enumerate(tested.evidence.reversals)
    return "; ".join(f"{labels[i]} to {labels[i + 1]}: {falls} of {n} seeds" for i, falls in steps if falls)


def seeds_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The numbers behind each tested claim: a row for every seed and arm (index from 0), transformed values.

    The arms of an association are its configurations; its rows are the runs, and ``against`` their other column.
    """
    tables = [_seed_rows(verdict.claim.id, verdict.tested.measurements) for verdict in verdicts if verdict.tested]
    return pd.DataFrame([row for table in tables for row in table], columns=SEEDS_COLUMNS)


def _seed_rows(name: str, measured: Measurements) -> list[tuple]:
    run = np.ones(measured.values.shape, dtype=bool) if measured.run is None else measured.run
    against = np.full(measured.values.shape, np.nan) if measured.against is None else measured.against
    return [
        (name, int(measured.seeds[i]), int(arm), measured.labels[arm], measured.values[i, arm], against[i, arm])
        for i, arm in np.argwhere(run)
    ]
