"""What a run cost: time, jobs and machine of each stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TRAINING = "train"


@dataclass(frozen=True)
class Cost:
    """One stage's cost.

    Attributes:
        stage: its name; each training has a row of its own.
        count: jobs, of training runs.
        minutes: summed over them, though some may have gone side by side.
        share: of all minutes, 0 to 1.
        device: what they ran on.
    """

    stage: str
    count: int
    minutes: float
    share: float
    device: str


def stage_costs(provenance: Mapping[str, Any]) -> list[Cost]:
    """Cost of each stage, the dearest first.

    Args:
        provenance: of the page, see :func:`~spatialmae.report.provenance.collect_provenance`: seconds of each job, its
            own and those of its parts, named ``<stage>/<subject>`` or ``<stage>``; training and machine of each part.
    """
    seconds, trained, machines = dict(provenance["seconds"]), dict[str, Any](), set[str]()
    for part in provenance["parts"].values():
        seconds |= part["seconds"]  # what parts share counts once
        trained |= part["training"]
        machines.add(f"CPU, {part['machine']['cpus']} cores")
    found: dict[str, list[float]] = {}
    for job, value in seconds.items():
        found.setdefault(job if job.startswith(f"{TRAINING}/") else job.split("/")[0], []).append(value)
    total = sum(map(sum, found.values()))
    costs = []
    for stage, values in found.items():
        count, device, name = len(values), ", ".join(sorted(machines)), stage.replace("_", " ")
        if stage.startswith(f"{TRAINING}/"):
            made = trained[stage.removeprefix(f"{TRAINING}/")]
            count, device = len(made["weights_sha256"]), ", ".join(made["devices"])
            name = f"training: {stage.removeprefix(f'{TRAINING}/')}"
        share = sum(values) / total if total else 0.0
        costs.append(Cost(name, count, sum(values) / 60, share, device))
    return sorted(costs, key=lambda cost: -cost.minutes)
