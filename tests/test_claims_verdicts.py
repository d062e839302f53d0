from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from claims_folder import write_claims
from spatialmae.claims.ledger import Claim, Difference, Ledger, TestPlan, load_ledger
from spatialmae.claims.verdicts import Verdict, judge, judge_claims
from spatialmae.errors import UserError

ROOT = Path(__file__).parents[1]
FROZEN = load_ledger(ROOT / "claims")
COLUMNS = (
    "id paper statement type tier fidelity estimate ci_low ci_high n_seeds p paper_value verdict figure deviations"
)
SEEDS = range(100, 106)


def claim(number: int = 1, **fields: object) -> Claim:
    record = {
        "id": f"A5.{number}",
        "paper": "A",
        "section": "main statement",
        "statement": f"Statement {number}.",
        "tier": "primary",
        "type": "ordering",
        "paper_value": "rises",
        "design": "folds",
        "estimand": {
            "table": "reach",
            "value": "radius",
            "arms": [{"method": "ae"}, {"method": "mae", "mask_ratio": 0.3}],
        },
        "rule": {"family": "A5", "smallest_effect": 0.5},
        "tests": {"quick": {"dataset": "leaves", "fidelity": "proxy"}},
    }
    return Claim.model_validate(record | fields)


def ledger(*claims: Claim) -> Ledger:
    return Ledger(verdict_seeds_from=100, designs={"folds": "disjoint folds"}, claims=list(claims))


def reach(seeds=SEEDS, effect: float = 2.0, noise: float = 0.1) -> pd.DataFrame:
    """A table with one AE and one MAE row for each seed; 0.1 + 0.2 differs from 0.3 in the last bit."""
    rng = np.random.default_rng(7)
    rows = []
    for seed in seeds:
        level = rng.normal()
        rows.append({"seed": seed, "method": "ae", "mask_ratio": 0.0, "radius": level})
        rows.append(
            {"seed": seed, "method": "mae", "mask_ratio": 0.1 + 0.2, "radius": level + effect + noise * rng.normal()}
        )
    return pd.DataFrame(rows)


def store(tables: Path, table: pd.DataFrame, name: str = "reach") -> Path:
    folder = tables / name
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "leaves.csv", index=False)
    return tables


def only(ledger_: Ledger, tables: Path) -> Verdict:
    (verdict,) = judge(ledger_, tables, "quick")
    return verdict


def test_a_clear_effect_is_replicated_with_the_numbers_of_a_paired_t_test(tmp_path):
    table = reach()
    verdict = only(ledger(claim()), store(tmp_path, table))
    differences = table.radius.to_numpy()[1::2] - table.radius.to_numpy()[::2]
    assert verdict.verdict == "REPLICATED"
    assert verdict.tested.evidence.estimate == pytest.approx(differences.mean())
    assert verdict.tested.p_holm == pytest.approx(stats.ttest_1samp(differences, 0, alternative="greater").pvalue)


@pytest.mark.parametrize(("effect", "expected"), [(-2.0, "CONTRADICTED"), (0.0, "NULL")])
def test_other_effects_get_other_verdicts(tmp_path, effect, expected):
    assert only(ledger(claim()), store(tmp_path, reach(effect=effect))).verdict == expected


def test_claims_not_tested_here_name_the_configurations_that_do(tmp_path):
    elsewhere = claim(
        1, tests={"paper": {"dataset": "c", "fidelity": "same"}, "cifar10": {"dataset": "c", "fidelity": "same"}}
    )
    planned = claim(2, tests={}, planned="the non-linear part")
    verdicts = judge(ledger(elsewhere, planned), tmp_path, "quick")
    assert [verdict.verdict for verdict in verdicts] == ["NOT_TESTED(cifar10, paper)", "NOT_TESTED(planned)"]


def test_claims_whose_table_a_run_leaves_out_are_not_tested_and_count_in_their_family(tmp_path):
    table = reach(effect=0.6, noise=0.9)  # p-values that Holm's correction moves
    elsewhere = claim(2, tests={"quick": {"dataset": "photos", "fidelity": "proxy"}})
    tables = store(tmp_path, table)
    exact = equality_claim().model_copy(update={"id": "A5.3", "statement": "Statement 3."})  # has no p-value to count
    made = ("reach", "leaves")
    tested, left_out, _ = judge(ledger(claim(1), elsewhere, exact), tables, "quick", lambda *table: table == made)
    assert left_out.verdict == "NOT_TESTED(left out)"
    assert left_out.reason == "this run leaves out the table reach of photos"
    assert tested.tested.p_holm == pytest.approx(2 * tested.tested.evidence.p)
    with pytest.raises(UserError, match="photos"):
        judge(ledger(claim(1), elsewhere), tables, "quick")


def test_exploring_seeds_never_enter_a_verdict(tmp_path):
    mixed = pd.concat([reach(range(50), effect=-50.0), reach(SEEDS)])
    verdict = only(ledger(claim()), store(tmp_path, mixed))
    assert verdict.verdict == "REPLICATED"
    assert verdict.tested.evidence.n_seeds == len(SEEDS)


def test_exploring_seeds_alone_only_suggest_and_show_no_p(tmp_path):
    verdict = only(ledger(claim()), store(tmp_path, reach(range(20))))
    assert verdict.verdict == "SUGGESTIVE(+)"
    assert np.isnan([verdict.tested.p_holm, verdict.tested.evidence.p, verdict.tested.evidence.p_sign_flip]).all()


def test_several_rows_of_a_seed_and_arm_are_averaged_first(tmp_path):
    table = pd.concat([reach(effect=1.0, noise=0.0), reach(effect=3.0, noise=0.0)])
    verdict = only(ledger(claim()), store(tmp_path, table))
    assert verdict.tested.evidence.n_seeds == len(SEEDS)
    assert verdict.tested.evidence.estimate == pytest.approx(2.0)


def test_a_failed_row_fails_its_seed_and_a_missing_arm_counts_as_failed(tmp_path):
    table = reach(range(100, 110))
    table.loc[1, "radius"] = np.nan
    table = pd.concat([table.drop(index=3), table.iloc[[1]].assign(radius=5.0)])
    verdict = only(ledger(claim()), store(tmp_path, table))
    assert (verdict.tested.evidence.n_seeds, verdict.tested.evidence.n_failed) == (8, 2)
    assert verdict.verdict == "REPLICATED"


def test_too_many_failed_seeds_are_invalid_whatever_the_rest_says(tmp_path):
    table = reach(range(100, 110))
    table.loc[[1, 3, 5], "radius"] = np.nan
    verdict = only(ledger(claim()), store(tmp_path, table))
    assert (verdict.verdict, verdict.reason) == ("INVALID", "3 of 10 seeds failed")


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(-100.0, 200.0, "REPLICATED"), (100.0, 200.0, "INVALID"), (-100.0, -50.0, "INVALID")]
)
def test_a_control_out_of_bounds_is_invalid(tmp_path, low, high, expected):
    estimand = {
        "table": "reach",
        "value": "radius",
        "arms": [{"method": "ae"}, {"method": "mae"}],
        "control": {"where": {"method": "ae"}, "min": low, "max": high},
    }
    assert only(ledger(claim(estimand=estimand)), store(tmp_path, reach())).verdict == expected


def equality_claim() -> Claim:
    estimand = {
        "table": "theory",
        "value": "relative_error",
        "where": {"check": "pca"},
        "control": {"where": {"role": "control"}, "min": 1e-8},
    }
    plan = {"dataset": "leaves", "fidelity": "same", "where": {"role": "claim"}}
    return claim(type="equality", estimand=estimand, rule={"family": "A5", "tolerance": 1e-8}, tests={"quick": plan})


def theory(error: float, control: float) -> pd.DataFrame:
    rows = [
        {"seed": seed, "check": check, "role": role, "mask_ratio": ratio, "relative_error": value}
        for seed in SEEDS
        for check in ("pca", "other")
        for role, value in (("claim", error), ("control", control))
        for ratio in (0.1, 0.9)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("error", "control", "expected"),
    [(1e-12, 0.1, "REPLICATED"), (1e-3, 0.1, "CONTRADICTED"), (1e-12, 1e-12, "INVALID"), (1e-12, np.nan, "INVALID")],
)
def test_equality_needs_small_errors_and_a_control_that_fails(tmp_path, error, control, expected):
    assert only(ledger(equality_claim()), store(tmp_path, theory(error, control), "theory")).verdict == expected


def test_one_bad_row_of_an_equality_is_not_averaged_away(tmp_path):
    table = theory(1e-12, 0.1)
    table.loc[(table.role == "claim") & (table.mask_ratio == 0.9), "relative_error"] = 1.5e-8
    verdict = only(ledger(equality_claim()), store(tmp_path, table, "theory"))
    assert verdict.verdict == "CONTRADICTED"
    assert verdict.tested.evidence.estimate == 1.5e-8


def test_logarithm_makes_ratios_and_fails_seeds_without_one(tmp_path):
    table = reach(range(100, 110)).assign(radius=lambda rows: np.exp(rows.radius))
    table.loc[1, "radius"] = -1.0
    estimand = {"table": "reach", "value": "radius", "transform": "log", "arms": [{"method": "ae"}, {"method": "mae"}]}
    evidence = only(ledger(claim(estimand=estimand)), store(tmp_path, table)).tested.evidence
    assert evidence.estimate == pytest.approx(2.0, abs=0.2)
    assert evidence.n_failed == 1


def test_an_arm_may_be_a_difference_of_two_cells(tmp_path):
    small, large = reach(effect=1.0, noise=0.0), reach(effect=4.0, noise=0.0)
    table = pd.concat([small.assign(sigma=1), large.assign(sigma=8)])
    arms = [{"plus": {"method": "mae", "sigma": sigma}, "minus": {"method": "ae", "sigma": sigma}} for sigma in (1, 8)]
    verdict = only(ledger(claim(estimand={"table": "reach", "value": "radius", "arms": arms})), store(tmp_path, table))
    assert verdict.tested.evidence.estimate == pytest.approx(3.0)
    assert verdict.tested.measurements.labels[1] == "(method=mae, sigma=8) - (method=ae, sigma=8)"


def test_a_trend_is_fitted_over_the_ledgers_x(tmp_path):
    rows = [{"seed": seed, "m": m, "radius": seed + 3 * m} for seed in SEEDS for m in (0.1, 0.5, 0.9)]
    estimand = {"table": "reach", "value": "radius", "arms": [{"m": 0.1}, {"m": 0.5}, {"m": 0.9}], "x": [0.1, 0.5, 0.9]}
    verdict = only(ledger(claim(type="trend", estimand=estimand)), store(tmp_path, pd.DataFrame(rows)))
    assert verdict.tested.evidence.estimate == pytest.approx(2.4)
    assert verdict.verdict == "REPLICATED"


@pytest.mark.parametrize(
    ("kind", "rule", "arms"),
    [
        ("inverted_u", {"smallest_effect": 0.5}, [{"method": "ae"}, {"method": "mae"}, {"method": "ae"}]),
        ("equivalence", {"margin": [1.0, 3.0]}, [{"method": "ae"}, {"method": "mae"}]),
    ],
)
def test_inverted_u_and_equivalence_reach_a_verdict(tmp_path, kind, rule, arms):
    estimand = {"table": "reach", "value": "radius", "arms": arms}
    one = claim(type=kind, estimand=estimand, rule=rule | {"family": "A5"})
    assert only(ledger(one), store(tmp_path, reach())).verdict == "REPLICATED"


def test_holm_runs_over_the_claims_of_a_family_that_the_configuration_registers(tmp_path):
    tables = store(tmp_path, reach(noise=3.0))
    same = [claim(number) for number in (1, 2, 3)]
    other = claim(4, rule={"family": "A6", "smallest_effect": 0.5})
    elsewhere = claim(5, tests={"cifar10": {"dataset": "cifar10", "fidelity": "scaled"}})
    verdicts = judge(ledger(*same, other, elsewhere), tables, "quick")
    raw = verdicts[3].tested.evidence.p
    assert 0 < raw < 0.3
    assert [verdict.tested.p_holm for verdict in verdicts[:4]] == pytest.approx([3 * raw, 3 * raw, 3 * raw, raw])


def test_an_invalid_claim_still_counts_in_its_family(tmp_path):
    control = {"where": {"method": "ae"}, "min": 100.0}
    estimand = {"table": "reach", "value": "radius", "arms": [{"method": "ae"}, {"method": "mae"}], "control": control}
    verdicts = judge(ledger(claim(1), claim(2, estimand=estimand)), store(tmp_path, reach(noise=3.0)), "quick")
    assert verdicts[1].verdict == "INVALID"
    assert verdicts[0].tested.p_holm == pytest.approx(2 * verdicts[0].tested.evidence.p)


def test_a_plan_overrides_filter_and_smallest_effect(tmp_path):
    table = pd.concat([reach(effect=2.0).assign(k=16), reach(effect=0.3).assign(k=64)])
    plan = {"dataset": "leaves", "fidelity": "proxy", "where": {"k": 64}, "smallest_effect": 0.1}
    verdict = only(ledger(claim(tests={"quick": plan})), store(tmp_path, table))
    assert verdict.tested.evidence.estimate == pytest.approx(0.3, abs=0.2)
    assert verdict.verdict == "REPLICATED"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "table not found"),
        (reach().drop(columns="radius"), "no column 'radius'"),
        (reach().drop(columns="seed"), "no column 'seed'"),
        (reach().drop(columns="mask_ratio"), "claim A5.1: the table has no column 'mask_ratio'"),
        (reach().query("method == 'ae'"), "no row has method=mae, mask_ratio=0.3"),
        (reach().assign(radius="far"), "not numbers"),
        (reach().head(0), "no row has"),
    ],
)
def test_what_the_configuration_should_have_made_but_did_not_is_named(tmp_path, table, message):
    if table is not None:
        store(tmp_path, table)
    with pytest.raises(UserError, match=message) as caught:
        judge(ledger(claim()), tmp_path, "quick")
    assert "\n" not in str(caught.value)


def test_the_frozen_ledger_gives_every_claim_its_row_from_the_start(tmp_path):
    out = tmp_path / "claims.csv"
    verdicts = judge_claims(ROOT / "claims", tmp_path / "tables", "none_of_ours", out)
    table = pd.read_csv(out)
    assert list(table.columns) == COLUMNS.split()
    assert len(table) == len(verdicts)
    assert table.verdict.str.startswith("NOT_TESTED(").all()
    assert table.loc[table.id == "A5.1", "verdict"].item() == "NOT_TESTED(cifar10, quick, smoke)"


def test_files_hold_verdict_reason_and_the_numbers_of_every_seed(tmp_path):
    table = reach()
    table.loc[1, "radius"] = table.loc[0, "radius"] - 1
    record = claim(deviations=["D1", "D3"], unit="px").model_dump(exclude_none=True)
    path = write_claims(tmp_path / "claims", [record], designs={"folds": "disjoint folds"}, first_seed=100)
    judge_claims(path, store(tmp_path / "tables", table), "quick", tmp_path / "claims.csv")
    row = pd.read_csv(tmp_path / "claims.csv").iloc[0]
    detail = pd.read_csv(tmp_path / "tables" / "claims_detail.csv").iloc[0]
    seeds = pd.read_csv(tmp_path / "tables" / "claims_seeds.csv")
    assert (row.fidelity, row.n_seeds, row.deviations) == ("proxy", 6, "D1 D3")
    assert row.p == pytest.approx(detail.p_holm)
    assert detail.reversals == "method=ae to method=mae, mask_ratio=0.3: 1 of 6 seeds"
    assert "effect at least 0.5 px" in detail.rule
    assert "smallest effect 0.5" in detail.reason
    assert (detail.dataset, detail.unit, detail.family, detail.n_failed) == ("leaves", "px", "A5", 0)
    np.testing.assert_allclose(seeds.sort_values(["seed", "arm"]).value, table.radius)


def cells(one: Claim, plan: TestPlan) -> list[dict]:
    """The selectors of all cells that a claim reads under a plan, its control's included."""
    where, control = one.estimand.where | plan.where, one.estimand.control
    # Six configurations of an association; the only cell, all rows, of an equality.
    free = [column for column in one.estimand.cluster if column not in where]
    others = [dict.fromkeys(free, -i) for i in range(1, 7)] if free else [{}]
    arms = [side for arm in one.arms_of(plan) or others for side in sides(arm)]
    return [where | arm for arm in arms + ([control.where] if control else [])]


def sides(arm: dict | Difference) -> list[dict]:
    return [arm.plus, arm.minus] if isinstance(arm, Difference) else [arm]


def write_agreed_tables(tables: Path, configuration: str, frozen: Ledger) -> None:
    """Tables that hold exactly the cells the ledger reads under a configuration, every measure positive."""
    rng = np.random.default_rng(0)
    rows: dict[tuple[str, str], list[dict]] = {}
    measures: dict[str, set[str]] = {}
    clusters: dict[str, set[str]] = {}
    for one in frozen.claims:
        if plan := one.tests.get(configuration):
            rows.setdefault((one.estimand.table, plan.dataset), []).extend(cells(one, plan))
            columns = {one.estimand.value, one.estimand.against or one.estimand.value}
            measures.setdefault(one.estimand.table, set()).update(columns)
            clusters.setdefault(one.estimand.table, set()).update(one.estimand.cluster)
    for (table, dataset), selectors in rows.items():
        cells_of_table = pd.DataFrame(selectors).drop_duplicates(ignore_index=True)
        # Cells of other claims say nothing of these settings; a real table has each configuration once for a seed.
        for column in clusters[table]:
            known = cells_of_table.get(column, pd.Series(np.nan, cells_of_table.index))
            cells_of_table[column] = known.fillna(pd.Series(-100.0 - cells_of_table.index))
        frame = cells_of_table.merge(pd.DataFrame({"seed": SEEDS}), how="cross")
        frame = frame.assign(**{measure: rng.uniform(0.1, 1, len(frame)) for measure in measures[table]})
        (tables / table).mkdir(parents=True, exist_ok=True)
        frame.to_csv(tables / table / f"{dataset}.csv", index=False)


@pytest.mark.slow
@pytest.mark.parametrize("configuration", sorted({name for one in FROZEN.claims for name in one.tests}))
def test_the_frozen_ledger_judges_tables_of_the_agreed_layout(tmp_path, configuration):
    write_agreed_tables(tmp_path, configuration, FROZEN)
    verdicts = judge(FROZEN, tmp_path, configuration)
    tested = {verdict.claim.id for verdict in verdicts if not verdict.verdict.startswith("NOT_TESTED")}
    assert tested == {one.id for one in FROZEN.claims if configuration in one.tests}
