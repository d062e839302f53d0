"""The report: complete, self-contained, contradictions first; what is computed for it."""

import re
import shlex

import numpy as np
import pytest

from model_tables import RATIOS, make_agreement_tables, make_runs
from report_page import (
    COSTS,
    FIGURES,
    LAYOUT,
    LEDGER,
    PART,
    PROVENANCE,
    RUNS,
    draw_figures,
    make_claims,
    make_page,
    make_tables,
)
from spatialmae.errors import UserError
from spatialmae.layout import Part
from spatialmae.report.agreement import compare_papers
from spatialmae.report.claims import claim_rows, claims_by_figure, counts, number
from spatialmae.report.costs import stage_costs
from spatialmae.report.page import deviation_rows, page_figures, render, table_library
from spatialmae.report.provenance import (
    git_state,
    job_seconds,
    machine,
    package_versions,
    trained_runs,
    training_seconds,
)


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    draw_figures(folder)
    return folder


@pytest.fixture(scope="module")
def page(figures):
    return make_page(figures)


def text_of(page: str) -> str:
    """What the page says, without scripts, styles, tags and line breaks."""
    without_code = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^<>]*>", "", re.sub(r'="data:[^"]*"', "", without_code)).split())


def test_contradictions_and_nulls_come_first_and_the_untested_are_there():
    claims = make_claims()
    assert [claim.id for claim in claims] == ["A5.1", "A2.2", "A3.1", "A10.1", "A2.1", "A15.1", "B1.1", "B2.1"]
    assert counts(claims) == {
        **{"CONTRADICTED": 1, "NULL": 1, "INVALID": 1, "INCONCLUSIVE": 1, "REPLICATED": 1, "SUGGESTIVE": 1},
        "NOT_TESTED": 2,
    }
    assert [claim.id for claim in sorted(claims, key=lambda claim: claim.order)] == [one.id for one in LEDGER.claims]


def test_what_neither_paper_claims_is_named_and_not_counted(page):
    verdicts = text_of(page.split('id="verdicts"')[1].split("</section>")[0])
    counted, named = verdicts.split("Not counted")
    assert "1 contradicted" in counted and "replicated" not in counted
    assert named.endswith("neither paper claims them: A2.1 replicated: Statement &lt;A2.1&gt; &amp; more.")


def test_each_numbered_claim_has_its_title_its_leaves_and_how_many_of_them_came_out_how(page):
    table = page.split('id="numbers"')[1].split("</table>")[0]
    rows = re.findall(r"<tr .*?</tr>", table, flags=re.DOTALL)[1:]
    assert [text_of(row) for row in rows] == [
        *("A2 What A2 says 1 null", "A3 What A3 says 1 invalid", "A5 What A5 says 1 contradicted"),
        *("A10 What A10 says 1 inconclusive", "A15 What A15 says 1 suggestive"),
        *("B1 What B1 says –", "B2 What B2 says –"),
    ]
    own, papers = re.findall(r"<a class=.*?>", rows[0])
    assert 'class="mark REPLICATED ours" href="#claim-A2.1"' in own and 'aria-label="A2.1 replicated"' in own
    assert 'class="mark NULL" href="#claim-A2.2"' in papers


def test_a_claim_has_the_figure_of_what_it_was_tested_on():
    shown = {claim.id: claim.figure for claim in make_claims()}
    assert shown == {
        **dict.fromkeys(("A2.1", "A5.1", "A10.1"), "reach_radii_leaves"),
        **{"A2.2": "", "A3.1": "edge_ratio_1d_ising", "A15.1": "proxy_ratios", "B1.1": "", "B2.1": ""},
    }
    assert [claim.id for claim in claims_by_figure(make_claims())["reach_radii_leaves"]] == ["A2.1", "A5.1", "A10.1"]


def test_the_command_forces_the_claims_table_the_verdicts_and_the_page():
    commands = {claim.id: claim.command for claim in make_claims()}
    assert shlex.split(commands["A15.1"]) == [
        *("snakemake", "--cores", "all", "--configfile", "results/toy/config.yaml", "--force"),
        *("results/toy/tables/linear_probe/ratios.csv", "results/toy/claims.csv", "results/toy/report.html"),
    ]
    assert commands["B2.1"] == ""


def test_numbers_of_each_seed_stand_by_arm_and_those_of_an_association_by_run():
    seeds = {claim.id: claim.seeds for claim in make_claims()}
    ordering = seeds["A2.1"]
    assert ordering.header == ["seed", "mask_ratio=0.1", "mask_ratio=0.9"]
    assert ordering.rows == [["200", "200", "200.1"], ["201", "201", "201.1"]]
    assert ordering.means == ["mean", "200.5", "200.6"]
    association = seeds["A15.1"]
    assert association.header == ["configuration", "seed", "value", "against"]
    assert association.rows[0] == ["mask_ratio=0.1", "200", "200", "0.25"]
    assert len(association.rows) == 4
    assert association.means == []


def test_a_failed_seed_keeps_its_place():
    tables = make_tables()
    failed = (tables["claims_seeds"]["seed"] == 201) & (tables["claims_seeds"]["id"] == "A2.1")
    tables["claims_seeds"].loc[failed, "value"] = np.nan
    claims = {claim.id: claim for claim in claim_rows(LEDGER, "toy", tables, FIGURES, LAYOUT)}
    assert claims["A2.1"].seeds.rows[1] == ["201", "–", "–"]


def test_verdicts_of_another_ledger_are_refused():
    tables = make_tables()
    for wrong in (tables["claims"].replace("A2.1", "A2.9"), tables["claims"].replace("NOT_TESTED(quick)", "NULL")):
        with pytest.raises(UserError) as caught:
            claim_rows(LEDGER, "toy", tables | {"claims": wrong}, FIGURES, LAYOUT)
        assert caught.value.where == str(LAYOUT.claims) and "spatialmae claims" in caught.value.hint


def test_captions_hold_published_against_replicated_numbers(page):
    caption = text_of(page[page.index('<figure id="figure-reach_radii_leaves"') :].split("</figure>")[0])
    assert "A5.1 the paper: value of A5.1; here: 1.5 [1, 2] px contradicted" in caption
    assert "A10.1 the paper: value of A10.1; here: 2.5 [2, 3] inconclusive" in caption
    assert "A3.1" not in caption


def test_agreement_says_where_level_goes_with_reach_and_where_against_it():
    runs = make_runs()
    tables = make_agreement_tables(runs)
    by_ratio = {0.1: 0.1, 0.25: 0.2, 0.5: 0.3, 0.75: 0.4, 0.9: 0.35}
    away = 0.001 * tables["linear_probe"]["seed"] * tables["linear_probe"]["mask_ratio"]
    tables["linear_probe"]["accuracy"] = tables["linear_probe"]["mask_ratio"].map(by_ratio) + away
    tables["shape_bias"]["shape_bias"] = 0.5
    agreement = compare_papers("ratios", tables)
    below, above = agreement.comparisons
    assert (below.low, below.high, above.high) == (RATIOS[0], RATIOS[-2], RATIOS[-1])
    assert (below.reach, above.reach) == ("rises", "rises")
    assert "linear probe, label" in below.along
    assert "linear probe, label" in above.against
    assert "[CLS] on the object" in above.along
    assert "shape bias, leaves" in below.undecided and "shape bias, leaves" in above.undecided
    assert (below.papers, above.papers) == ("agree", "in part")
    words = {(one.paper, one.measure): one.turn.word for one in agreement.trends}
    assert (words["A", "reach"], words["B", "linear probe, label"]) == ("goes on", "turns back")


def test_a_reach_that_untrained_networks_have_too_settles_nothing():
    tables = make_agreement_tables(make_runs())
    reach = tables["jacobian_reach"]
    before = reach[reach["predictor"] == "untrained"].set_index(["seed", "evaluation_mask_ratio"])["rms_radius_squared"]
    learned_nothing = (reach["predictor"] == "trained") & (reach["mask_ratio"] == RATIOS[-1])
    same_masks = [before[key] for key in zip(reach["seed"], reach["evaluation_mask_ratio"], strict=True)]
    alike = same_masks + 0.01 * np.where(reach["seed"] % 2, 1, -1)
    reach["rms_radius_squared"] = reach["rms_radius_squared"].where(~learned_nothing, alike)
    below, above = compare_papers("ratios", tables).comparisons
    assert (below.as_untrained, above.as_untrained) == ([], [RATIOS[-1]])
    assert (below.papers, above.papers) == ("agree", "undecided")


def test_models_of_one_ratio_settle_nothing():
    assert compare_papers("x", make_agreement_tables(make_runs(RATIOS, 1))).comparisons[-1].papers == "undecided"


def test_a_configuration_without_both_measures_says_so(figures):
    claims = make_claims()
    page = render(LEDGER, claims, page_figures(FIGURES, figures, claims), [], PROVENANCE, "")
    assert "This configuration does not test it: no evaluation measures both reach" in text_of(page)


def test_costs_are_shares_of_all_with_training_on_its_own_machines():
    costs = stage_costs(PROVENANCE)
    assert [(cost.stage, cost.count, cost.minutes, cost.share) for cost in costs] == [
        ("reach", 2, 1.5, 0.5), ("training: ratios", 2, 1.5, 0.5), ("claims", 1, 0.0, 0.0),
    ]  # fmt: skip
    assert [cost.device for cost in costs[:2]] == ["CPU, 2 cores", "GPU Y, cpu (X)"]


def test_page_needs_no_other_file_and_escapes_text(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r'\son\w+="', page), "handlers stand in the script"
    assert "Statement &lt;A2.1&gt; &amp; more." in page


def test_page_says_what_it_was_made_from(page):
    text = text_of(page)
    assert "commit abc with uncommitted changes" in text
    assert "d1; 3 used, 1 files left out: a.png (damaged)" in text
    assert "2 runs on leaves, 1.5 minutes of training on GPU Y, cpu (X), bf16, torch 2.0; 1 made by other code" in text
    assert "leaves 200–201, training ratios 300–301" in text
    assert f"numpy {np.__version__}" in text
    assert "DataTables" in table_library().licences and "jQuery" in table_library().licences
    assert table_library().licences.split("\n")[0] in page


def test_the_parts_stand_in_their_order(page):
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", page)
    assert titles == [
        *("The question", "The two papers", "Verdicts", "By numbered claim", "Claims", "All verdicts"),
        *("Linear MAE, and the images", "Non-linear MAE: training", "Non-linear MAE: analyses"),
        *(
            "Latent hierarchies: experiments",
            "Agreement of A and B",
            "Cost",
            "Provenance",
            "Deviations from the papers",
        ),
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(float("nan"), "–"), (None, "–"), (-0.12345, "−0.123"), (12, "12"), (3e-9, "3e−09")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_deviation_rows_keep_bars():
    assert deviation_rows("| D1 | mean \\|J\\| | why | so |\n| x | y |\n") == [["D1", "mean |J|", "why", "so"]]


def test_the_time_of_jobs_is_that_of_the_part_or_of_the_page(tmp_path):
    for job in ("linear/leaves", "linear/other", "train/leaves", "checks", "report", "notebooks/leaves"):
        path = tmp_path / f"{job}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("s\th:m:s\n1.25\t0:00:01\n")
    assert job_seconds(tmp_path, {"leaves", "checks"}) == {"checks": 1.25, "linear/leaves": 1.25}
    assert job_seconds(tmp_path) == {"notebooks/leaves": 1.25, "report": 1.25}


def test_provenance_is_of_this_machine_without_its_name():
    assert set(git_state()) == {"sha", "modified"}
    assert package_versions()["numpy"][0].isdigit()
    assert set(machine()) == {"system", "architecture", "cpus", "blas"}


def test_training_costs_the_time_of_its_runs_and_one_that_trainings_share_is_counted_once():
    other = COSTS.assign(name=["b", "c"], seconds=[30.0, 5.0])
    assert training_seconds({"ratios": COSTS, "other": other}) == {"train/ratios": 90.0, "train/other": 5.0}


def test_what_parts_share_is_counted_once_and_each_part_says_what_it_was_made_from():
    other = PART | {"seconds": {"reach/leaves": 60.0, "linear/mine": 60.0}, "training": {}, "date": "2026-02-01"}
    both = PROVENANCE | {"parts": {"one": PART, "two": other}}
    minutes = {cost.stage: cost.minutes for cost in stage_costs(both)}
    assert minutes == {"reach": 1.5, "training: ratios": 1.5, "linear": 1.0, "claims": 0.0}
    claims = make_claims()
    page = render(LEDGER, claims, {}, [], both, "", {"three": "snakemake three --cores all"})
    assert "one: Code" in page and "two: Code" in page and "2026-02-01" in page
    assert "Not run yet" in page and "snakemake three --cores all" in page


def test_a_claim_of_a_part_that_was_not_run_names_the_command_that_runs_it():
    record = next(claim for claim in LEDGER.claims if claim.id == "A5.1")
    tables = make_tables()
    tables["claims"].loc[tables["claims"]["id"] == "A5.1", "verdict"] = "NOT_TESTED(left out)"
    left = Part("rest", (), ((record.estimand.table, record.tests["toy"].dataset),), ())
    commands = {row.id: row.command for row in claim_rows(LEDGER, "toy", tables, FIGURES, LAYOUT, [left])}
    assert commands["A5.1"] == f"snakemake rest --cores all --configfile {LAYOUT.config}"
    assert commands["B1.1"] == ""


def test_a_training_names_runs_of_other_code_and_the_weights_of_all():
    made = trained_runs(RUNS, COSTS)
    assert made["made_by_other_code"] == ["b"]
    assert made["weights_sha256"] == {"a": "1f", "b": "2e"}
