"""The ledger of claims (the folder ``claims``): strictly typed records, refused with one line that gives a hint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag, ValidationError, model_validator

from spatialmae.errors import UserError
from spatialmae.yamlfile import read_yaml

ClaimType = Literal["equality", "ordering", "trend", "inverted_u", "equivalence", "association"]
Fidelity = Literal["same", "scaled", "proxy"]
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Model = TypeVar("Model", bound=BaseModel)
Selector = dict[str, int | float | str]
"""Column name to the value its rows must have; numbers are matched within 1e-9."""

HINTS = {
    "extra_forbidden": "remove the field or correct its spelling",
    "missing": "add the field",
    "float_type": "give a number (YAML reads 1e-6 as text: write 1.0e-6)",
    "literal_error": "choose one of the values named",
}


class Record(BaseModel):
    """A strict, immutable piece of the ledger: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Difference(Record):
    """An arm that is itself a paired difference, value(plus) − value(minus)."""

    plus: Selector
    minus: Selector


def _kind_of_arm(arm: Any) -> str:
    is_pair = isinstance(arm, Difference) or (isinstance(arm, dict) and bool({"plus", "minus"} & arm.keys()))
    return "difference" if is_pair else "selector"


Arm = Annotated[
    Annotated[Selector, Tag("selector")] | Annotated[Difference, Tag("difference")], Discriminator(_kind_of_arm)
]


class Control(Record):
    """Rows whose value must lie in [min, max], seed by seed, or the claim's verdict is INVALID."""

    where: Selector
    min: Finite | None = None
    max: Finite | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Control:
        if self.min is None and self.max is None:
            raise ValueError("control: give min, max or both")
        return self


class Estimand(Record):
    """What is measured: a column of a table, and the arms in the order in which the claim says it rises.

    ``transform`` comes first: log makes differences log-ratios. An association has no arms: ``against`` is the column
    that the value goes with, ``cluster`` the settings that make a configuration, whose runs differ in the seed alone,
    and ``within`` takes the configurations' means off both columns.
    """

    table: Text
    value: Text
    against: Text | None = None
    cluster: list[Text] = []
    within: bool = False
    transform: Literal["identity", "log"] = "identity"
    where: Selector = {}
    arms: list[Arm] = []
    x: list[Finite] | None = None
    control: Control | None = None


class Rule(Record):
    """How a claim is decided; frozen before the runs it judges.

    ``alpha`` is the one-sided level after Holm within ``family``, and 1 − alpha the two-sided interval's level.
    ``smallest_effect`` is in the unit of the (transformed) value.
    """

    family: Text
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    smallest_effect: Positive | None = None
    tolerance: Positive | None = None
    margin: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None


class TestPlan(Record):
    """How one configuration tests a claim: data, fidelity, and what differs from the record's estimand and rule."""

    __test__ = False  # pytest would otherwise collect the class by its name

    dataset: Text
    fidelity: Fidelity
    where: Selector = {}
    arms: list[Arm] | None = None
    x: list[Finite] | None = None
    smallest_effect: Positive | None = None


class Claim(Record):
    """One leaf claim of a paper: it says, and a test of it tests, one thing."""

    id: Annotated[str, Field(pattern=r"^[AB][1-9]\d*\.[1-9]\d*$")]
    paper: Literal["A", "B"]
    section: Text
    statement: Text
    tier: Literal["primary", "note", "derived", "ours"]
    type: ClaimType
    paper_value: Text
    unit: str = ""
    figure: str = ""
    caveat: Text | None = None
    """What keeps the verdict from saying what a reader may take it to say."""
    deviations: list[Annotated[str, Field(pattern=r"^D[1-9]\d*$")]] = []
    design: str | None = None
    estimand: Estimand | None = None
    rule: Rule | None = None
    tests: dict[str, TestPlan] = {}
    planned: Text | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Claim:
        if not self.id.startswith(self.paper):
            raise ValueError(f"paper: {self.paper!r} does not fit the id")
        if self.tests and (self.estimand is None or self.rule is None or self.design is None):
            raise ValueError("tests: a claim with tests needs an estimand, a rule and a design")
        if self.design == "groups" and self.estimand and self.estimand.transform == "log":
            raise ValueError(
                "transform: the logarithm of a jackknife pseudo-value is not a pseudo-value; tabulate the log"
            )
        if not self.tests and self.planned is None:
            raise ValueError("planned: a claim without tests must say what will test it")
        for plan in self.tests.values():
            _check_design(self, plan)
        return self

    @property
    def is_ours(self) -> bool:
        """Whether neither paper claims it, so that it counts apart."""
        return self.tier == "ours"

    @property
    def parent(self) -> str:
        """The numbered claim this leaf belongs to, e.g. A5 for A5.1."""
        return self.id.split(".")[0]

    def arms_of(self, plan: TestPlan) -> list[Selector | Difference]:
        """The arms under one configuration: its own, else the estimand's."""
        assert self.estimand is not None
        return list(self.estimand.arms if plan.arms is None else plan.arms)

    def x_of(self, plan: TestPlan) -> list[float] | None:
        """The arms' places on the axis of a trend under one configuration: its own, else the estimand's."""
        assert self.estimand is not None
        return self.estimand.x if plan.x is None else plan.x

    def rule_of(self, plan: TestPlan) -> Rule:
        """The rule under one configuration: the record's, with the configuration's own smallest effect."""
        assert self.rule is not None
        if plan.smallest_effect is None:
            return self.rule
        return self.rule.model_copy(update={"smallest_effect": plan.smallest_effect})


class Designs(Record):
    """What a replicate is, by the name that claims give, and the first seed that carries verdicts."""

    verdict_seeds_from: Annotated[int, Field(ge=0)]
    designs: dict[str, Text]


class Ledger(Designs):
    """All leaf claims of both papers, with the designs they refer to."""

    titles: dict[str, Text] = {}
    """What each numbered claim, A5 say, is about."""
    claims: list[Claim]

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Ledger:
        _refuse_repeats("claims: statement", [claim.statement for claim in self.claims])
        for claim in self.claims:
            if claim.design is not None and claim.design not in self.designs:
                raise ValueError(f"design: {claim.design!r} of {claim.id} is not among the designs")
        return self


def _refuse_repeats(what: str, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"{what} {repeated[0]!r} occurs twice")


def _check_design(claim: Claim, plan: TestPlan) -> None:
    """Raise ValueError unless arms and rule hold what the claim's type needs."""
    assert claim.estimand is not None and claim.rule is not None
    arms, x = claim.arms_of(plan), claim.x_of(plan)
    _check_arms(claim.type, len(arms))
    if claim.type == "trend":
        _check_x(x, len(arms))
    elif x is not None:
        raise ValueError("estimand.x: only a trend has it")
    needed = {"equality": "tolerance", "equivalence": "margin", "association": "margin"}.get(
        claim.type, "smallest_effect"
    )
    for field in ("tolerance", "margin", "smallest_effect"):
        given = getattr(claim.rule, field) is not None
        if given != (field == needed):
            raise ValueError(f"rule.{field}: type {claim.type} needs rule.{needed} and no other threshold")
    if claim.rule.margin is not None and claim.rule.margin[0] >= claim.rule.margin[1]:
        raise ValueError("rule.margin: give [low, high] with low < high")
    if claim.type == "equality":
        _check_negative_control(claim.estimand.control, claim.rule)
    if claim.type == "association":
        _check_association(claim.estimand, claim.rule)
    else:
        _refuse_fields_of_associations(claim.estimand)


def _check_arms(kind: str, n_arms: int) -> None:
    """Raise ValueError unless a claim of this type can have so many arms."""
    allowed = {
        "equality": (0, 0),
        "association": (0, 0),
        "ordering": (1, None),
        "trend": (3, None),
        "inverted_u": (3, 3),
    }
    least, most = allowed.get(kind, (2, 2))
    if n_arms < least or (most is not None and n_arms > most):
        count = f"exactly {least}" if least == most else f"at least {least}"
        raise ValueError(f"estimand.arms: type {kind} has {count}, not {n_arms}")


def _check_x(x: list[float] | None, n_arms: int) -> None:
    if x is None or len(x) != n_arms or any(b <= a for a, b in pairwise(x)):
        raise ValueError(f"estimand.x: a trend over {n_arms} arms needs {n_arms} increasing numbers")


def _check_negative_control(control: Control | None, rule: Rule) -> None:
    assert rule.tolerance is not None
    if control is None or control.min is None or control.min < rule.tolerance:
        raise ValueError("estimand.control: an equality needs a negative control with min ≥ the tolerance")


def _check_association(estimand: Estimand, rule: Rule) -> None:
    assert rule.margin is not None
    if estimand.against is None:
        raise ValueError("estimand.against: an association needs the column that the value goes with")
    if estimand.against == estimand.value:
        raise ValueError(f"estimand.against: {estimand.against!r} is the value itself; name another column")
    if not estimand.cluster:
        raise ValueError("estimand.cluster: an association needs the settings that make a configuration")
    _refuse_repeats("estimand.cluster:", estimand.cluster)
    measured = {"seed", estimand.value, estimand.against} & set(estimand.cluster)
    if measured:
        raise ValueError(f"estimand.cluster: {min(measured)!r} differs within a configuration; name settings alone")
    if estimand.transform != "identity":
        raise ValueError("estimand.transform: ranks do not change with it; leave identity")
    if rule.margin[0] <= -1 and rule.margin[1] >= 1:
        raise ValueError("rule.margin: every correlation lies in it; give bounds nearer to 0")


def _refuse_fields_of_associations(estimand: Estimand) -> None:
    for field in ("against", "cluster", "within"):
        if getattr(estimand, field):
            raise ValueError(f"estimand.{field}: only an association has it; remove it or correct the type")


class NumberedClaim(Record):
    """A numbered claim as the file of its paper holds it: its leaf claims by id, and the fields that they share."""

    title: Text
    shared: dict[str, Any] = {}
    claims: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]


class Paper(RootModel[dict[str, NumberedClaim]]):
    """The numbered claims of a paper."""


def ledger_files(folder: Path | str) -> list[Path]:
    """The files of a ledger: the designs, then the claims of each paper, in the order of the records."""
    return [Path(folder) / name for name in ("designs.yaml", "A.yaml", "B.yaml")]


def load_ledger(folder: Path | str) -> Ledger:
    """Read and validate the ledger.

    Raises:
        UserError: a file is missing, is not YAML or has a key twice, or a record breaks the schema; the message names
            the file, the record's id, the field and a hint.
    """
    designs_file, *paper_files = ledger_files(folder)
    designs = _validated(designs_file, Designs, _read(designs_file))
    titles, claims = {}, []
    for path in paper_files:
        for number, numbered in _validated(path, Paper, _read(path)).root.items():
            titles[number] = numbered.title
            claims += [_claim(path, number, name, numbered.shared, own) for name, own in numbered.claims.items()]
    return _validated(folder, Ledger, {**designs.model_dump(), "titles": titles, "claims": claims})


def _read(path: Path) -> Any:
    return read_yaml(path, ("ledger not found", "give the folder that holds designs.yaml, A.yaml and B.yaml"))


def _claim(path: Path, number: str, name: str, shared: dict[str, Any], own: dict[str, Any]) -> Claim:
    """A leaf claim of a numbered one: its own fields, else the shared ones; estimand and rule field by field."""
    where = f"{path}, record {name}"
    if name.split(".")[0] != number:
        raise UserError(where, f"it stands under {number}", "move it, or correct its id")
    record = {"id": name, "paper": path.stem, **shared, **own}
    for field, implied in (("estimand", {}), ("rule", {"family": number})):
        parts = [part[field] for part in (shared, own) if field in part]
        if parts and all(isinstance(part, dict) for part in parts):
            record[field] = {key: value for part in (implied, *parts) for key, value in part.items()}
    return _validated(where, Claim, record)


def _validated(where: Path | str, model: type[Model], raw: Any) -> Model:
    """What the model makes of the raw values; its first error as one line: where, field, problem, hint."""
    try:
        return model.model_validate(raw)
    except ValidationError as caught:
        error = caught.errors()[0]
        field = ".".join(map(str, error["loc"]))
        problem = error["msg"].removeprefix("Value error, ")
        hint = HINTS.get(error["type"], "correct the value")
        raise UserError(f"{where}, field {field}" if field else str(where), problem, hint) from None
