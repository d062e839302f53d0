from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml

from claims_folder import write_claims
from spatialmae.claims.ledger import Ledger, load_ledger
from spatialmae.errors import UserError

ROOT = Path(__file__).parents[1]

CLAIM = {
    "id": "A5.1",
    "section": "main statement",
    "statement": "Reach rises.",
    "tier": "primary",
    "type": "ordering",
    "paper_value": "rises",
    "design": "folds",
    "estimand": {
        "table": "reach",
        "value": "radius",
        "arms": [{"method": "ae"}, {"method": "mae", "mask_ratio": 0.75}],
    },
    "rule": {"smallest_effect": 0.5},
    "tests": {"quick": {"dataset": "leaves", "fidelity": "proxy"}},
}


def write(folder: Path, *claims: dict) -> Path:
    return write_claims(folder, claims, designs={"folds": "disjoint folds"}, first_seed=100)


def changed(**fields: object) -> dict:
    return copy.deepcopy(CLAIM) | fields


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return load_ledger(ROOT / "claims")


def test_every_numbered_claim_of_both_papers_has_a_record(ledger):
    expected = {f"A{i}" for i in range(1, 16)} | {f"B{i}" for i in range(1, 12)}
    assert {claim.parent for claim in ledger.claims} == expected


def test_leaves_are_numbered_without_gap_and_in_order(ledger):
    leaves: dict[str, list[int]] = {}
    for claim in ledger.claims:
        leaves.setdefault(claim.parent, []).append(int(claim.id.split(".")[1]))
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in leaves.values())


def test_linear_claims_are_tested_in_every_configuration(ledger):
    tested = {claim.parent for claim in ledger.claims if set(claim.tests) == {"smoke", "quick", "cifar10"}}
    assert tested >= {f"A{i}" for i in range(1, 9)}


def test_leaves_never_carry_more_than_proxy_fidelity(ledger):
    plans = [plan for claim in ledger.claims for plan in claim.tests.values() if plan.dataset == "leaves"]
    assert plans
    assert {plan.fidelity for plan in plans} == {"proxy"}


def test_what_leaf_claims_share_is_what_two_of_them_have_at_least():
    for path in (ROOT / "claims" / "A.yaml", ROOT / "claims" / "B.yaml"):
        for number, numbered in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            for field, value in numbered.get("shared", {}).items():
                fields = value if field in ("estimand", "rule") else {None: value}
                for name in fields:
                    own = [claim.get(field, {}) if name else claim for claim in numbered["claims"].values()]
                    taken = [claim for claim in own if (name or field) not in claim]
                    assert len(taken) >= 2, (number, field, name)


def test_families_are_the_numbered_claims(ledger):
    assert all(claim.rule.family == claim.parent for claim in ledger.claims if claim.rule is not None)


def test_deviations_named_in_ledger_and_document_are_the_same(ledger):
    document = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (D\d+) \|", document, flags=re.MULTILINE)
    assert listed == [f"D{i + 1}" for i in range(len(listed))]
    assert set(listed) == {deviation for claim in ledger.claims for deviation in claim.deviations}


RULE = {"smallest_effect": 0.5}
ESTIMAND = CLAIM["estimand"]


def test_a_configuration_may_override_arms_and_smallest_effect(tmp_path):
    plan = {"dataset": "leaves", "fidelity": "proxy", "arms": [{"method": "mae"}], "smallest_effect": 0.25}
    claim = load_ledger(write(tmp_path, changed(tests={"quick": plan}))).claims[0]
    assert claim.arms_of(claim.tests["quick"]) == [{"method": "mae"}]
    assert claim.rule_of(claim.tests["quick"]).smallest_effect == 0.25


def test_a_configuration_may_have_an_axis_of_its_own_for_a_trend(tmp_path):
    arms = [{"m": i} for i in range(4)]
    own = {"dataset": "leaves", "fidelity": "proxy", "arms": arms[:3], "x": [0.0, 1.0, 1.5]}
    trend = {"type": "trend", "estimand": ESTIMAND | {"arms": arms, "x": [0.0, 1.0, 2.0, 3.0]}}
    plans = {"quick": own, "cifar10": {"dataset": "cifar10", "fidelity": "scaled"}}
    claim = load_ledger(write(tmp_path, changed(**trend, tests=plans))).claims[0]
    assert claim.x_of(claim.tests["quick"]) == [0.0, 1.0, 1.5]
    assert claim.x_of(claim.tests["cifar10"]) == [0.0, 1.0, 2.0, 3.0]
    plans["quick"] = {**own, "x": [0.0, 1.0]}
    with pytest.raises(UserError, match="3 increasing numbers"):
        load_ledger(write(tmp_path, changed(**trend, tests=plans)))


def association(**fields: object) -> dict:
    """A correct record of an association, but for the fields of its estimand that are given; None leaves one out."""
    estimand = {"table": "linear_probe", "value": "accuracy", "against": "error", "cluster": ["patch_size"]} | fields
    kept = {name: value for name, value in estimand.items() if value is not None}
    return changed(type="association", estimand=kept, rule={"margin": [-0.3, 0.3]})


MISTAKES = {
    "unknown key": (changed(colour="red"), "field colour"),
    "wrong type": (changed(rule=RULE | {"alpha": "1e-3"}), "field rule.alpha.*write 1.0e-6"),
    "unknown literal": (changed(type="quadratic"), "field type.*ordering"),
    "missing field": ({key: value for key, value in CLAIM.items() if key != "tier"}, "field tier.*add the field"),
    "boolean selector": (changed(estimand=ESTIMAND | {"where": {"method": True}}), "field estimand.where.method"),
    "half a difference": (
        changed(estimand=ESTIMAND | {"arms": [{"plus": {"method": "ae"}}]}),
        "field estimand.arms.0.difference.minus",
    ),
    "tests without estimand": (
        {key: value for key, value in CLAIM.items() if key != "estimand"},
        "tests: a claim with tests needs an estimand",
    ),
    "neither tests nor plan": (changed(tests={}), "planned: a claim without tests"),
    "paper against id": (changed(paper="B"), "paper: 'B' does not fit"),
    "trend without x": (
        changed(type="trend", estimand=ESTIMAND | {"arms": [{"m": i} for i in range(3)]}),
        "estimand.x",
    ),
    "x not increasing": (
        changed(type="trend", estimand=ESTIMAND | {"arms": [{"m": i} for i in range(3)], "x": [0.0, 2.0, 1.0]}),
        "3 increasing numbers",
    ),
    "x of an ordering": (changed(estimand=ESTIMAND | {"x": [0.0, 1.0]}), "only a trend has it"),
    "inverted U of two": (changed(type="inverted_u"), "exactly 3, not 2"),
    "ordering of none": (changed(estimand=ESTIMAND | {"arms": []}), "at least 1, not 0"),
    "no smallest effect": (changed(rule={}), "needs rule.smallest_effect"),
    "margin of an ordering": (changed(rule=RULE | {"margin": [-1.0, 1.0]}), "rule.margin"),
    "margin reversed": (changed(type="equivalence", rule={"margin": [1.0, -1.0]}), "low < high"),
    "equality without control": (
        changed(type="equality", estimand=ESTIMAND | {"arms": []}, rule={"tolerance": 0.1}),
        "negative control",
    ),
    "weak negative control": (
        changed(
            type="equality",
            estimand=ESTIMAND | {"arms": [], "control": {"where": {"role": "control"}, "min": 0.01}},
            rule={"tolerance": 0.1},
        ),
        "min ≥ the tolerance",
    ),
    "association without the other column": (association(against=None), "estimand.against: an association needs"),
    "association with itself": (association(against="accuracy"), "estimand.against: 'accuracy' is the value itself"),
    "association without configurations": (association(cluster=[]), "estimand.cluster: an association needs"),
    "configurations by seed": (association(cluster=["patch_size", "seed"]), "estimand.cluster: 'seed' differs within"),
    "a setting named twice": (association(cluster=["a", "a"]), "estimand.cluster: 'a' occurs twice"),
    "association of logarithms": (association(transform="log"), "estimand.transform: ranks do not change"),
    "association with arms": (association(arms=[{"method": "ae"}]), "estimand.arms: type association has exactly 0"),
    "association without margin": (
        association() | {"rule": {"smallest_effect": 0.3}},
        "type association needs rule.margin",
    ),
    "margin that holds every correlation": (
        association() | {"rule": {"margin": [-1.0, 1.0]}},
        "rule.margin: every correlation lies in it",
    ),
    "other column of an ordering": (
        changed(estimand=ESTIMAND | {"against": "loss"}),
        "estimand.against: only an association has it; remove it",
    ),
    "configurations of an ordering": (
        changed(estimand=ESTIMAND | {"cluster": ["patch_size"]}),
        "estimand.cluster: only an association has it",
    ),
    "within of an ordering": (changed(estimand=ESTIMAND | {"within": True}), "estimand.within: only an association"),
    "control without bound": (changed(estimand=ESTIMAND | {"control": {"where": {}}}), "give min, max or both"),
}


@pytest.mark.parametrize(("claim", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_a_record_is_one_line_that_names_file_record_and_field(tmp_path, claim, message):
    with pytest.raises(UserError, match=message) as caught:
        load_ledger(write(tmp_path, claim))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'A.yaml'}, record A5.1")
    assert "\n" not in text


@pytest.mark.parametrize("claim", [CLAIM, association(), association(within=True)])
def test_a_correct_record_is_accepted(tmp_path, claim):
    assert load_ledger(write(tmp_path, claim)).claims[0].id == "A5.1"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (changed(id="B1.1"), "statement 'Reach rises.' occurs twice"),
        (changed(id="A5.2", statement="Other.", design="chains"), "'chains' of A5.2"),
    ],
)
def test_records_must_agree_with_each_other(tmp_path, second, message):
    with pytest.raises(UserError, match=message):
        load_ledger(write(tmp_path, CLAIM, second))


def write_paper(folder: Path, text: str) -> Path:
    """A ledger whose paper A is this text; the path of that file."""
    (write(folder) / "A.yaml").write_text(text, encoding="utf-8")
    return folder / "A.yaml"


SHARED = """
A5:
  title: Reach
  shared:
    section: main statement
    tier: primary
    type: ordering
    paper_value: rises
    design: folds
    caveat: A caveat.
    estimand: {table: reach, value: radius, where: {k: 1}, arms: [{method: ae}, {method: mae}]}
    rule: {smallest_effect: 0.5}
    tests: {quick: {dataset: leaves, fidelity: proxy}}
  claims:
    A5.1: {statement: First.}
    A5.2:
      statement: Second.
      tier: note
      caveat: null
      estimand: {where: {m: 2}}
      rule: {alpha: 0.01}
      tests: {smoke: {dataset: leaves, fidelity: proxy}}
"""


def test_a_leaf_claim_has_its_own_fields_and_else_the_shared_ones(tmp_path):
    path = write_paper(tmp_path, SHARED)
    first, second = load_ledger(tmp_path).claims
    assert (first.id, first.paper, first.tier, first.caveat) == ("A5.1", "A", "primary", "A caveat.")
    assert (second.id, second.paper, second.tier, second.caveat) == ("A5.2", "A", "note", None)
    assert load_ledger(tmp_path).titles == {"A5": "Reach"}
    # Estimand and rule field by field, the mappings in them and other fields as a whole.
    assert (second.estimand.table, second.estimand.where) == ("reach", {"m": 2})
    assert first.estimand.where == {"k": 1}
    assert (second.rule.family, second.rule.alpha, second.rule.smallest_effect) == ("A5", 0.01, 0.5)
    assert (list(first.tests), list(second.tests)) == (["quick"], ["smoke"])
    path.write_text(SHARED.replace("tier: primary", "colour: red"), encoding="utf-8")
    with pytest.raises(UserError, match=r"A.yaml, record A5.1, field (colour|tier)"):
        load_ledger(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    A5.2:", "    A6.2:", "A.yaml, record A6.2: it stands under A5; move it"),
        ("A5", "B5", "A.yaml, record B5.1: paper: 'A' does not fit the id"),
        ("  title: Reach\n", "", "A.yaml, field A5.title: Field required; add the field"),
        ("  shared:", "  common:", "A.yaml, field A5.common: .*remove the field"),
        ("    A5.1: {statement: First.}", "    A5.1: First.", "A.yaml, field A5.claims.A5.1: .*valid dictionary"),
        ("    A5.2:", "    A5.1:", "A.yaml: A5.1 occurs twice"),
        ("    rule: {smallest_effect: 0.5}", "    rule: 0.5", "A.yaml, record A5.1, field rule"),
    ],
)
def test_a_mistake_in_a_numbered_claim_names_the_file_and_the_place(tmp_path, old, new, message):
    text = SHARED.replace(old, new)
    assert text != SHARED
    write_paper(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        load_ledger(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A5: [", "not valid YAML"),
        (b"\xff\xfe\xfa", "cannot be read"),
        (b"A5: {}\nA5: {}", "A5 occurs twice, again at line 2; remove one"),
        (b"[1, 2]", "valid dictionary"),
        (b"", "valid dictionary"),
        (b"A5: 3", "field A5: .*valid dictionary"),
        (b"A5: {title: Reach, claims: {}}", "field A5.claims: .*at least 1"),
    ],
)
@pytest.mark.parametrize("name", ["A.yaml", "B.yaml"])
def test_a_file_that_is_no_ledger_is_refused_in_one_line(tmp_path, name, content, message):
    path = write(tmp_path) / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_ledger(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_designs_are_as_strict(tmp_path):
    path = write(tmp_path) / "designs.yaml"
    path.write_text("verdict_seeds_from: -1\ndesigns: {}", encoding="utf-8")
    with pytest.raises(UserError, match="designs.yaml, field verdict_seeds_from: .*greater than or equal to 0"):
        load_ledger(tmp_path)
    path.write_text("verdict_seeds_from: 1\ndesigns: {}\nclaims: {}", encoding="utf-8")
    with pytest.raises(UserError, match="designs.yaml, field claims: .*remove the field"):
        load_ledger(tmp_path)


@pytest.mark.parametrize("name", ["designs.yaml", "A.yaml", "B.yaml"])
def test_a_missing_file_is_named(tmp_path, name):
    (write(tmp_path, CLAIM) / name).unlink()
    with pytest.raises(UserError, match=f"{name}: ledger not found"):
        load_ledger(tmp_path)
