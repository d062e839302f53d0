from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spatialmae.analysis.rank_correlation import RankCorrelation, rank_correlation, spearman
from spatialmae.claims.ledger import Claim, Ledger, Rule
from spatialmae.claims.rules import Evidence, association
from spatialmae.claims.verdicts import Verdict, claims_table, decide, detail_table, judge, seeds_table
from spatialmae.errors import UserError
from spatialmae.figures import claims as claims_figure
from spatialmae.tables import read_table, write_table

ALPHA = 0.05
REPEATS = 400


def copula(
    n_clusters: int, n_runs: int, between: float, within: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian pairs: a cluster's level and a run's deviation, of equal variance, with a correlation each."""
    levels = rng.multivariate_normal([0, 0], [[1, between], [between, 1]], n_clusters)
    deviations = rng.multivariate_normal([0, 0], [[1, within], [within, 1]], (n_clusters, n_runs))
    x, y = np.moveaxis(levels[:, None] + deviations, -1, 0)
    return np.exp(x.ravel()), y.ravel() ** 3, np.repeat(np.arange(n_clusters), n_runs)  # ranks are those of x and y


def spearman_of_normal(r: float) -> float:
    return 6 / np.pi * np.arcsin(r / 2)


def test_resamples_have_the_rho_that_scipy_gives_their_repeated_rows():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (2, 20)).astype(float)  # many ties
    counts = rng.integers(0, 4, (50, 20))
    expected = [stats.spearmanr(np.repeat(x, times), np.repeat(y, times)).statistic for times in counts]
    np.testing.assert_allclose(spearman(x, y, counts.astype(float)), expected, rtol=1e-12)


def test_interval_is_that_of_a_bootstrap_written_as_a_loop_over_whole_clusters():
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(8), [1, 2, 3, 4, 5, 2, 3, 4])
    x = rng.normal(size=8)[cluster] + rng.normal(size=len(cluster))
    y = -x + rng.normal(size=len(cluster))
    drawn = []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(cluster == name) for name in rng.integers(0, 8, 8)])
        drawn.append(stats.spearmanr(x[rows], y[rows]).statistic)
    found = rank_correlation(x, y, cluster, ALPHA)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (found.ci_low, found.ci_high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.04)
    assert found.n_clusters == 8


def test_many_clusters_give_the_rho_of_a_gaussian_copula():
    # Levels and deviations have equal variance, so that pooled runs correlate by the mean of the two.
    columns = copula(400, 2, 0.8, 0.2, np.random.default_rng(2))
    found = rank_correlation(*columns, ALPHA, n_resamples=2000)
    assert found.ci_low < spearman_of_normal(0.5) < found.ci_high
    assert found.ci_high - found.ci_low < 0.2


def test_interval_covers_rho_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    found = [rank_correlation(*copula(40, 3, 0.6, 0.2, rng), ALPHA, n_resamples=600) for _ in range(REPEATS)]
    misses = sum(not item.ci_low <= spearman_of_normal(0.4) <= item.ci_high for item in found)
    # Percentile intervals of 40 clusters are somewhat short; those that took runs as independent would miss in 20 %.
    assert stats.binom.ppf(1e-4, REPEATS, ALPHA / 2) <= misses <= stats.binom.ppf(1 - 1e-4, REPEATS, 1.5 * ALPHA)


def test_seeds_that_say_the_same_again_do_not_narrow_the_interval():
    rng = np.random.default_rng(4)
    x, y = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 20).T
    once = rank_correlation(x, y, np.arange(20), ALPHA)
    again = [np.repeat(column, 5) for column in (x, y, np.arange(20))]
    assert rank_correlation(*again, ALPHA) == RankCorrelation(once.rho, once.ci_low, once.ci_high, 20)
    naive = rank_correlation(again[0], again[1], np.arange(100), ALPHA)
    assert naive.ci_high - naive.ci_low < 0.6 * (once.ci_high - once.ci_low)


def test_within_and_pooled_correlation_can_have_opposite_signs():
    x, y, cluster = copula(30, 5, 0.0, -0.9, np.random.default_rng(5))
    x, y = np.log(x) + 10.0 * cluster, np.cbrt(y) + 10.0 * cluster
    pooled, within = (rank_correlation(x, y, cluster, ALPHA, within=choice) for choice in (False, True))
    assert pooled.ci_low > 0.9
    assert within.ci_high < -0.7


def test_within_is_the_rho_of_residuals_and_leaves_out_clusters_of_one_run():
    rng = np.random.default_rng(6)
    cluster = np.array([*np.repeat(list("abcdef"), 4), "x", "y"])
    table = pd.DataFrame({"x": rng.normal(size=26), "y": rng.normal(size=26)})
    residuals = (table - table.groupby(cluster).transform("mean"))[:24]
    found = rank_correlation(table.x.to_numpy(), table.y.to_numpy(), cluster, ALPHA, within=True)
    assert found.rho == pytest.approx(stats.spearmanr(residuals.x, residuals.y).statistic)
    assert found.n_clusters == 6


def test_equal_residuals_tie_in_spite_of_rounding():
    level = np.repeat([0.1, 0.7, 0.3, 1e3, 0.9], 3)
    step = np.tile([-0.1, 0.0, 0.1], 5)
    found = rank_correlation(level + step, step, np.repeat(np.arange(5), 3), ALPHA, within=True)
    assert (found.rho, found.ci_low, found.ci_high) == (1.0, 1.0, 1.0)


def test_order_of_runs_and_names_of_clusters_do_not_matter():
    rng = np.random.default_rng(7)
    x, y, cluster = copula(9, 3, 0.5, 0.5, rng)
    order = rng.permutation(len(x))
    named = np.array([f"configuration {name}" for name in cluster])
    assert rank_correlation(x, y, cluster) == rank_correlation(x[order], y[order], named[order])


def test_a_failed_run_is_left_out_and_counted():
    x, y, cluster = copula(9, 3, 0.5, 0.5, np.random.default_rng(8))
    expected = association(x, y, cluster, ALPHA)
    columns = np.append(x, [np.nan, 1.0]), np.append(y, [2.0, np.inf]), np.append(cluster, [0, 99])
    found = association(*columns, ALPHA)
    assert (found.n_seeds, found.n_failed, found.n_configurations) == (27, 2, 9)
    assert (found.estimate, found.ci_low, found.ci_high) == (expected.estimate, expected.ci_low, expected.ci_high)
    assert np.isnan(found.p)


@pytest.mark.parametrize("within", [False, True])
def test_fewer_than_five_configurations_give_no_interval(within):
    x, y, cluster = copula(5, 3, 0.5, 0.5, np.random.default_rng(9))
    four = cluster < 4
    assert np.isfinite(rank_correlation(x, y, cluster, within=within).ci_low)
    found = rank_correlation(x[four], y[four], cluster[four], within=within)
    assert np.isfinite(found.rho)
    assert np.isnan([found.ci_low, found.ci_high]).all()


@pytest.mark.parametrize(("n_apart", "has_interval"), [(1, False), (4, True)])
def test_resamples_with_a_constant_column_are_dropped_until_too_many_are(n_apart, has_interval):
    # Of 12 clusters, n differ from the others: a resample without any has a constant column, with chance (1 − n/12)^12,
    # i.e. .35 for one and .008 for four.
    x = np.where(np.arange(12) < n_apart, 1.0, 0.0)
    found = rank_correlation(x, np.arange(12.0), np.arange(12))
    assert np.isfinite(found.rho)
    assert np.isfinite(found.ci_low) == has_interval


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("n", [0, 1, 10])
def test_without_runs_or_variation_there_is_no_rho(n, within):
    found = rank_correlation(np.ones(n), np.arange(float(n)), np.arange(n) // 2, within=within)
    assert np.isnan([found.rho, found.ci_low]).all()
    assert association(np.full(3, np.nan), np.ones(3), np.arange(3), ALPHA).too_many_failed


RULE = Rule(family="A15", margin=[-0.3, 0.3])


@pytest.mark.parametrize(
    ("estimate", "low", "high", "verdict"),
    [
        (0.0, -0.29, 0.29, "REPLICATED"),
        (0.1, -0.1, 0.31, "INCONCLUSIVE"),
        (0.0, -0.4, 0.4, "INCONCLUSIVE"),
        (0.6, 0.31, 0.8, "CONTRADICTED"),
        (-0.6, -0.8, -0.31, "CONTRADICTED"),
        (0.1, np.nan, np.nan, "INCONCLUSIVE"),
        (np.nan, np.nan, np.nan, "INCONCLUSIVE"),
    ],
)
def test_the_interval_against_the_margin_decides(estimate, low, high, verdict):
    evidence = Evidence(estimate, low, high, 30, 0, np.nan, np.nan, n_configurations=10)
    found, reason = decide(RULE, evidence, np.nan)
    assert found == verdict
    assert ("no interval" in reason) == bool(np.isnan(low))
    assert "30 complete runs, 10 configurations" in reason


@pytest.mark.parametrize(("estimate", "sign"), [(0.1, "+"), (-0.5, "-"), (np.nan, "0")])
def test_few_configurations_only_suggest_however_many_runs(estimate, sign):
    evidence = Evidence(estimate, np.nan, np.nan, 40, 0, np.nan, np.nan, n_configurations=4)
    verdict, reason = decide(RULE, evidence, np.nan)
    assert (verdict, reason) == (f"SUGGESTIVE({sign})", "4 configurations, fewer than 5, and so no interval")


SETTINGS = {
    "mask_ratio": [0.25, 0.75, 0.1 + 0.2, 0.25, 0.75, 0.5],
    "patch_size": [4, 4, 4, 8, 8, 8],
    "bottleneck": [np.nan, np.nan, np.nan, np.nan, np.nan, 16.0],
    "masking": ["fixed"] * 6,
}
SEEDS = range(200, 205)


def claim(number: int = 1, **fields: object) -> Claim:
    estimand = {
        "table": "linear_probe",
        "value": "accuracy",
        "against": "reconstruction_error",
        "cluster": list(SETTINGS),
        "where": {"target": "class"},
    }
    record = {
        "id": f"A15.{number}",
        "paper": "A",
        "section": "ablations",
        "statement": f"Statement {number}.",
        "tier": "note",
        "type": "association",
        "paper_value": "poor proxy",
        "design": "training_seeds",
        "estimand": estimand | fields,
        "rule": {"family": "A15", "margin": [-0.3, 0.3]},
        "tests": {"quick": {"dataset": "ratios", "fidelity": "proxy"}},
    }
    return Claim.model_validate(record)


def probe(slope: float = 1.0, noise: float = 0.01, seeds: range = SEEDS) -> pd.DataFrame:
    """A row for every configuration, seed and target, the accuracy rising with the error by ``slope``."""
    rng = np.random.default_rng(11)
    table = (
        pd.DataFrame(SETTINGS).assign(level=rng.permutation(6) / 6).merge(pd.DataFrame({"seed": seeds}), how="cross")
    )
    error = table["level"] + 0.1 * rng.normal(size=len(table))
    accuracy = slope * error + noise * rng.normal(size=len(table))
    table = table.assign(target="class", accuracy=accuracy, reconstruction_error=error).drop(columns="level")
    return pd.concat([table, table.assign(target="other", accuracy=7.0)]).sample(frac=1, random_state=0)


def judged(tables: Path, table: pd.DataFrame, *claims: Claim) -> list[Verdict]:
    write_table(tables / "linear_probe" / "ratios.csv", table)
    ledger = Ledger(verdict_seeds_from=200, designs={"training_seeds": "seeds"}, claims=list(claims or [claim()]))
    return judge(ledger, tables, "quick")


@pytest.mark.parametrize("within", [False, True])
def test_a_table_gets_its_verdict_and_what_recomputes_it(tmp_path, within):
    verdicts = judged(tmp_path, probe(), claim(within=within))
    evidence = verdicts[0].tested.evidence
    assert verdicts[0].verdict == "CONTRADICTED"
    assert (evidence.n_seeds, evidence.n_failed, evidence.n_units) == (30, 0, 6)
    write_table(tmp_path / "claims_seeds.csv", seeds_table(verdicts))
    rows = pd.read_csv(tmp_path / "claims_seeds.csv")
    columns = (rows[name].to_numpy() for name in ("value", "against", "arm"))
    again = rank_correlation(*columns, ALPHA, within=within)
    assert (again.rho, again.ci_low, again.ci_high) == (evidence.estimate, evidence.ci_low, evidence.ci_high)


def test_configurations_are_ascending_and_labelled_by_what_varies(tmp_path):
    labels = judged(tmp_path, probe())[0].tested.measurements.labels
    assert labels == (
        "mask_ratio=0.25, patch_size=4, bottleneck=none",
        "mask_ratio=0.25, patch_size=8, bottleneck=none",
        "mask_ratio=0.3, patch_size=4, bottleneck=none",
        "mask_ratio=0.5, patch_size=8, bottleneck=16",
        "mask_ratio=0.75, patch_size=4, bottleneck=none",
        "mask_ratio=0.75, patch_size=8, bottleneck=none",
    )


def test_values_are_those_of_their_seed_and_configuration(tmp_path):
    table = probe()
    measured = judged(tmp_path, table)[0].tested.measurements
    row = table.query("target == 'class' and seed == 203 and mask_ratio == 0.5").iloc[0]
    found = [array[3, 3] for array in (measured.values, measured.against)]
    assert found == pytest.approx([row.accuracy, row.reconstruction_error], rel=1e-9)
    assert measured.seeds.tolist() == list(SEEDS)


def test_only_verdict_seeds_count_where_there_are_any(tmp_path):
    mixed = pd.concat([probe(), probe(slope=-1.0, seeds=range(10))])
    evidence = judged(tmp_path, mixed)[0].tested.evidence
    assert evidence.n_seeds == 30
    assert evidence.estimate > 0.9
    assert judged(tmp_path, probe(seeds=range(10)))[0].verdict == "SUGGESTIVE(-)"


def test_configurations_may_have_seeds_of_their_own_but_failed_runs_count(tmp_path):
    table = probe()
    absent = (table["mask_ratio"] == 0.75) & (table["seed"] > 201)
    verdict = judged(tmp_path, table[~absent])[0]
    assert (verdict.tested.evidence.n_seeds, verdict.tested.evidence.n_failed) == (24, 0)
    assert len(seeds_table([verdict])) == 24
    failed = table.assign(accuracy=table["accuracy"].where(table["seed"] > 201))
    verdict = judged(tmp_path, failed)[0]
    assert (verdict.verdict, verdict.reason) == ("INVALID", "12 of 30 runs failed")


def test_one_configuration_alone_suggests_and_says_why(tmp_path):
    verdict = judged(tmp_path, probe().query("mask_ratio == 0.5"))[0]
    assert verdict.verdict.startswith("SUGGESTIVE")
    assert verdict.reason == "1 configurations, fewer than 5, and so no interval"
    assert verdict.tested.measurements.labels == ("",)
    tables = {"claims": claims_table([verdict]), "detail": detail_table([verdict])}
    for name, table in tables.items():
        write_table(tmp_path / f"{name}.csv", table)
    figure = claims_figure.claims(*(read_table(tmp_path / f"{name}.csv") for name in tables))
    assert any("no interval" in text.get_text() for text in figure.axes[0].texts)


def test_associations_take_no_part_in_holm(tmp_path):
    ordering = claim(2).model_dump(exclude={"estimand", "rule"}, exclude_none=True) | {
        "type": "ordering",
        "estimand": {
            "table": "linear_probe",
            "value": "accuracy",
            "where": {"target": "class", "patch_size": 4},
            "arms": [{"mask_ratio": 0.25}, {"mask_ratio": 0.75}],
        },
        "rule": {"family": "A15", "smallest_effect": 0.01},
    }
    verdicts = judged(tmp_path, probe(), claim(1), Claim.model_validate(ordering))
    assert np.isnan(verdicts[0].tested.p_holm)
    assert verdicts[1].tested.p_holm == verdicts[1].tested.evidence.p > 0


def test_the_rule_is_told_in_words(tmp_path):
    pooled, within = detail_table(judged(tmp_path, probe(), claim(1), claim(2, within=True)))["rule"]
    assert "Spearman's rho of accuracy with reconstruction_error, by a bootstrap" in pooled
    assert "within [-0.3, 0.3]" in pooled
    assert "less their configuration's mean" in within


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (probe().drop(columns="reconstruction_error"), "no column 'reconstruction_error'"),
        (probe().drop(columns="bottleneck"), "claim A15.1: the table has no column 'bottleneck'"),
        (probe().assign(reconstruction_error="low"), "column reconstruction_error: holds values that are not numbers"),
        (probe().query("target == 'other'"), "no row has target=class"),
        (pd.concat([probe(), probe()]), "several rows have seed=20., mask_ratio.*estimand.cluster"),
        (pd.concat([probe().query("mask_ratio == 0.5")] * 2), "several rows have seed=20.; add"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(tmp_path, table, message):
    with pytest.raises(UserError, match=message) as caught:
        judged(tmp_path, table)
    assert "\n" not in str(caught.value)
