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
        stage: its name; training has one row for each of its stages.
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
        provenance: seconds of each job, named ``<stage>/<subject>`` or ``<stage>``, and of each stage of training;
            training; machine.
    """
    seconds: dict[str, list[float]] = {}
    for job, value in provenance["seconds"].items():
        stage = job if job.startswith(f"{TRAINING}/") else job.split("/")[0]
        seconds.setdefault(stage, []).append(value)
    total = sum(map(sum, seconds.values()))
    cpu = f"CPU, {provenance['machine']['cpus']} cores"
    costs = []
    for stage, values in seconds.items():
        count, device, name = len(values), cpu, stage.replace("_", " ")
        if stage.startswith(f"{TRAINING}/"):
            made = provenance["training"][stage.removeprefix(f"{TRAINING}/")]
            count, device = len(made["weights_sha256"]), ", ".join(made["devices"])
            name = f"training: {stage.removeprefix(f'{TRAINING}/')}"
        share = sum(values) / total if total else 0.0
        costs.append(Cost(name, count, sum(values) / 60, share, device))
    return sorted(costs, key=lambda cost: -cost.minutes)
