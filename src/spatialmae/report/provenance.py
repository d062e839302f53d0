"""What results were made from and with: code, environment, data, machine, seeds, and the cost of each stage."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spatialmae import __version__
from spatialmae.artifacts import read_tensors
from spatialmae.claims.ledger import ledger_files
from spatialmae.config import Config
from spatialmae.errors import UserError
from spatialmae.layout import Layout, parts_of
from spatialmae.tables import read_table

PAGE = ("claims", "notebooks", "report")  # jobs of the page rather than of a part


def part_provenance(config: Config) -> dict[str, Any]:
    """Which code, data and machine the tables of a configuration, or of a part of one, came from; JSON-able."""
    layout = Layout.of(config)
    runs = {name: read_table(layout.table("training_runs", name)) for name in config.training}
    costs = {name: read_table(layout.table("costs", name)) for name in config.training}
    return {
        "spatialmae": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": git_state(),
        "constraints_sha256": _sha256(Path("constraints.txt")),
        "packages": package_versions(),
        "machine": machine(),
        "seeds": {name: config.dataset_seeds(name) for name in config.datasets} | _simulation_seeds(config),
        "threads": {name: dataset.threads for name, dataset in config.datasets.items()},
        "data": {name: read_tensors(layout.data(name), prefix="splits")[1]["provenance"] for name in config.datasets},
        "data_sha256": {name: _sha256(layout.data(name)) for name in config.datasets},
        "training": {name: trained_runs(table, costs[name]) for name, table in runs.items()},
        "seconds": job_seconds(layout.root / "benchmarks", _subjects(config)) | training_seconds(costs),
    }


def collect_provenance(config: Config) -> dict[str, Any]:
    """What a page says of itself, and of each part of the study that it shows; JSON-able.

    Raises:
        UserError: a part is not finished.
    """
    layout = Layout.of(config)
    parts = {part.name: _read_part(layout.part(part.name)) for part in parts_of(config)}
    return {
        "spatialmae": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": git_state(),
        "configuration": {"name": config.name, "sha256": _sha256(layout.config)},
        "ledger_sha256": _sha256_of_ledger(config.claims.ledger),
        "parts": parts,
        "seconds": job_seconds(layout.root / "benchmarks"),
    }


def _read_part(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(path, "not a readable record of a part", "make the part again: spatialmae part") from None


def _subjects(config: Config) -> set[str]:
    """What the jobs of a configuration are of."""
    simulations = ("checks", "ising", "hierarchy", "identifiability", "calibration")
    return {*config.datasets, *config.training, *config.evaluations, *(s for s in simulations if getattr(config, s))}


def _simulation_seeds(config: Config) -> dict[str, list[int]]:
    made = {"ising": config.ising, "hierarchy": config.hierarchy}
    return {name: config.simulation_seeds for name, section in made.items() if section}


def git_state() -> dict[str, Any]:
    """Commit of the checkout and whether files differ from it; both null outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"sha": commit, "modified": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {"sha": None, "modified": None}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_ledger(folder: str) -> str:
    """Of its files, one after the other."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in ledger_files(folder))).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the package's direct dependencies."""
    versions = {"python": platform.python_version()}
    for requirement in requires("spatialmae") or []:
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # an optional dependency that is not installed
    return versions


def machine() -> dict[str, Any]:
    """Kind of the machine that everything but the training ran on, without its name."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "blas": blas,
    }


def trained_runs(runs: pd.DataFrame, costs: pd.DataFrame) -> dict[str, Any]:
    """What a training was made with, and the hash of each run's weights.

    Args:
        runs: ``runs``: name, dataset, seed, torch, precision_used, code_matches, weights_sha256.
        costs: ``costs`` of the same runs: device, seconds.
    """
    return {
        "dataset": runs["dataset"].iloc[0],
        "seeds": sorted(int(seed) for seed in set(runs["seed"])),
        "devices": sorted(set(costs["device"].astype(str))),
        "torch": sorted(set(runs["torch"].astype(str))),
        "precision": sorted(set(runs["precision_used"])),
        "wall_seconds": round(float(costs["seconds"].sum()), 1),
        "made_by_other_code": runs.loc[~runs["code_matches"].astype(bool), "name"].tolist(),
        "weights_sha256": dict(zip(runs["name"], runs["weights_sha256"], strict=True)),
    }


def job_seconds(folder: Path, subjects: Collection[str] | None = None) -> dict[str, float]:
    """Wall time of finished jobs, in seconds, from the workflow's benchmark files; not of training, see ``costs``.

    Args:
        folder: that holds them: ``<stage>/<subject>.tsv``, or ``<stage>.tsv`` of a stage that is one job.
        subjects: data sets, trainings, evaluations, simulations; None: the jobs of the page.
    """
    seconds = {}
    for path in sorted(folder.rglob("*.tsv")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        stage, _, subject = name.partition("/")
        of_page = stage in PAGE
        wanted = of_page if subjects is None else not of_page and (subject or stage) in subjects
        if wanted and stage != "train":
            seconds[name] = round(float(pd.read_csv(path, sep="\t")["s"].iloc[-1]), 2)
    return seconds


def training_seconds(costs: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Time of each training's runs, in seconds, summed though they go side by side; shared runs count once.

    Args:
        costs: ``costs`` of each training: name, seconds.
    """
    seconds, counted = {}, set[str]()
    for training, table in costs.items():
        new = table.loc[~table["name"].isin(counted), "seconds"]
        seconds[f"train/{training}"] = round(float(new.sum()), 2)
        counted |= set(table["name"])
    return seconds
