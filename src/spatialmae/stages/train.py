"""Stage ``train``: one run of the configuration, or what is left of it."""

from __future__ import annotations

from dataclasses import replace

from spatialmae.config import Config
from spatialmae.errors import UserError
from spatialmae.stages.plan import plan_of
from spatialmae.train.command import keep_by_environment, train
from spatialmae.train.hardware import n_cores, prepare_cpu, reserved_device
from spatialmae.train.workers import Options, train_guarded


def run(config: Config, name: str) -> None:
    """Train the run ``name`` into ``runs/<name>/``; a run that was stopped goes on.

    Raises:
        UserError: there is no such run, its data are unusable, or it failed.
    """
    spec = next((run for run in config.all_runs() if run.name == name), None)
    if spec is None:
        raise UserError(name, "no run of this configuration", "see the names in results/<name>/runs, or run snakemake")
    threads = n_cores()
    prepare_cpu(threads)
    plan = plan_of(config, name, [spec])
    with reserved_device("auto", config.runs_per_gpu) as device:
        options = Options(threads, device, keep_trained=keep_by_environment())
        train(replace(plan, runs=(spec,)), train_guarded(spec, plan, options, {}))
