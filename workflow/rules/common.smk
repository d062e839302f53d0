# What the rules share: the validated configuration, its layout on disk, and look-ups in both. Nothing here writes.
import json
import re
import shlex
import sys
from pathlib import Path

from pydantic_core import to_jsonable_python
from snakemake.exceptions import WorkflowError

from spatialmae.claims.ledger import ledger_files
from spatialmae.config import parse_config, read_values
from spatialmae.errors import UserError
from spatialmae.evaluation.measure import COSTS
from spatialmae.figures.declaration import drawn_figures, figure_subjects, notebook_inputs
from spatialmae.fingerprint import fingerprint, fingerprint_of_source
from spatialmae.layout import Layout, costs_subject, parts_of, tables_of
from spatialmae.measures import MEASURES

try:
    # Read again, since Snakemake merges files before what they extend and lets keys occur twice.
    values = read_values(workflow.configfiles, workflow.config_settings.config)
    CONFIG = parse_config(values, " + ".join(map(str, workflow.configfiles)) or "--config")
except UserError as error:
    raise WorkflowError(str(error)) from None

REPOSITORY = os.path.relpath(Path(workflow.basedir).parent)


def in_repository(path):
    """A file of the repository, wherever Snakemake runs."""
    return os.path.normpath(os.path.join(REPOSITORY, path))


# The claims are the repository's, unless the folder that Snakemake runs in has its own.
if not Path(CONFIG.claims.ledger).exists():
    ledger = in_repository(CONFIG.claims.ledger)
    CONFIG = CONFIG.model_copy(update={"claims": CONFIG.claims.model_copy(update={"ledger": ledger})})

L = Layout.of(CONFIG)
RESOLVED = str(L.config)  # what jobs read: the configuration as it is when Snakemake starts
DATASETS, TRAININGS = list(CONFIG.datasets), list(CONFIG.training)
PARTS = {part.name: part for part in parts_of(CONFIG)}
RUNS = {run.name: run for run in CONFIG.all_runs()}
LEDGER = [str(path) for path in ledger_files(CONFIG.claims.ledger)]
LOGS, BENCHMARKS = f"{L.root}/logs", f"{L.root}/benchmarks"
ENVIRONMENT = "../../environment.yml"

# Jobs run in the interpreter that runs Snakemake, whether or not its environment is activated.
shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")


# Before the first job, and never in a dry run.
onstart:
    from spatialmae.stages import resolve

    resolve.run(CONFIG)


def requested_parts():
    """The parts to be made: those that the command line names, or all.

    Processes of jobs, which parse this file again with targets of their own, learn it from the environment.
    """
    if workflow.is_main_process:
        named = [part for part in CONFIG.parts if part in sys.argv]  # Snakemake tells its targets only later
        os.environ |= {"SPATIALMAE_PARTS": ",".join(named or PARTS)}
    return [part for part in os.environ.get("SPATIALMAE_PARTS", "").split(",") if part] or list(PARTS)


# Claims, figures and report are about the parts to be made, and those made before, whose results are taken as they are.
REQUESTED = requested_parts()
SHOWN = [part for part in PARTS if part in REQUESTED or L.part(part).exists()]
OF_REQUESTED, OF_SHOWN = CONFIG.only(REQUESTED), CONFIG.only(SHOWN)


def made_by(measure, evaluation):
    """What a measure of trained models writes."""
    declared = MEASURES[measure]
    tables = [str(L.table(table, evaluation)) for table in declared.tables]
    costs = [str(L.table(COSTS, costs_subject(measure, evaluation)))] if declared.has_costs else []
    return tables + costs + ([str(L.pictures(measure, evaluation))] if declared.pictures else [])


EVALUATED = [
    path
    for name, evaluation in CONFIG.evaluations.items()
    for measure in evaluation.analyses
    for path in made_by(measure, name)
]


wildcard_constraints:
    dataset="|".join(DATASETS) or "(?!)",  # none: nothing matches
    training="|".join(TRAININGS) or "(?!)",
    run="|".join(map(re.escape, RUNS)) or "(?!)",
    evaluation="|".join(CONFIG.evaluations) or "(?!)",
    notebook="[a-z]+",
    part="|".join(PARTS),


def tables_of_part(part):
    """The tables that a part makes, and those of the training that it rests on."""
    sections = [*part.sections, *(f"training.{name}" for name in part.training)]
    tables = [str(L.table(*made)) for section in sections for made in tables_of(CONFIG, section)]
    evaluations = [section.removeprefix("evaluations.") for section in sections if section.startswith("evaluations.")]
    shown = [(measure, name) for name in evaluations for measure in CONFIG.evaluations[name].analyses]
    return tables + [str(L.pictures(*one)) for one in shown if MEASURES[one[0]].pictures]


def having(*analyses):
    """Data sets on which one of these analyses runs."""
    return [name for name, dataset in CONFIG.datasets.items() if set(analyses) & set(dataset.analyses)]


def settings(*sections, dataset=None):
    """The parts of the configuration, a data set's own first, whose change reruns a job."""

    def of(wildcards):
        own = CONFIG.datasets.get(dataset or getattr(wildcards, "dataset", None))
        parts = {name: getattr(own if hasattr(own, name) else CONFIG, name) for name in sections}
        return json.dumps(to_jsonable_python(parts), sort_keys=True)

    return of


def jackknifed(*tables):
    """Tables of pseudo-values, and beside each the one of estimates from all images."""
    return [str(L.table(name, "{dataset}")) for table in tables for name in (table, f"{table}_all")]


def threads_of(wildcards):
    """Threads that a data set's solves may use."""
    return CONFIG.datasets[wildcards.dataset].threads


def runs_of(training):
    """The finished runs of a training."""
    return [str(L.run(run.name)) for run in CONFIG.training_runs(training)]


def trunk_of(wildcards):
    """The run that a run goes on from, if it branches off another."""
    trunk = RUNS[wildcards.run].trunk(RUNS.values())
    return [] if trunk is None else [str(L.run(trunk.name))]


def data_of_evaluation(wildcards):
    """Images of an evaluation."""
    return str(L.data(CONFIG.evaluation_runs(wildcards.evaluation)[0].dataset))


def runs_of_evaluation(wildcards):
    """The finished runs that an evaluation compares."""
    return [str(L.run(run.name)) for run in CONFIG.evaluation_runs(wildcards.evaluation)]


def data_of_calibration():
    """Images of the data sets that the recommender is calibrated on."""
    return [str(L.data(CONFIG.evaluation_runs(name)[0].dataset)) for name in CONFIG.calibration]


def evaluation_settings(measure):
    """Settings of an evaluation whose change reruns a measure."""
    read = {"models", *MEASURES[measure].reads}

    def of(wildcards):
        return CONFIG.evaluations[wildcards.evaluation].model_dump_json(include=read)

    return of


TAKEN_UP = {name for measure in MEASURES.values() for name in measure.takes_up}


def taken_up(measure):
    """What a measure waits for, to read cached results of other measures rather than make them."""

    def of(wildcards):
        asked = set(MEASURES[measure].takes_up) & set(CONFIG.evaluations[wildcards.evaluation].analyses)
        return [path for other in sorted(asked) for path in made_by(other, wildcards.evaluation)]

    return of


def shares_runs(evaluation):
    """Whether another evaluation compares some of the same models."""
    own = {run.name for run in CONFIG.evaluation_runs(evaluation)}
    others = [CONFIG.evaluation_runs(other) for other in CONFIG.evaluations if other != evaluation]
    return any(run.name in own for runs in others for run in runs)


def fits_probes(measure):
    """1 if a measure makes results that others may ask for: one job at a time does, the next one takes them up."""
    among = measure in TAKEN_UP or MEASURES[measure].takes_up

    def of(wildcards):
        return int(bool(among) and not taken_up(measure)(wildcards) and shares_runs(wildcards.evaluation))

    return of


def source_module(dataset):
    """The module that makes or reads the images of a data set."""
    return f"spatialmae.data.{CONFIG.datasets[dataset].source.module}"


def own_images(wildcards):
    """The files of a user's folder of images, where the data set is one."""
    return [str(path) for path in CONFIG.datasets[wildcards.dataset].source.files()]


def code_of_notebook(name):
    """Fingerprint of the code that a notebook's cells import, and of what executes it."""
    cells = json.loads(Path(in_repository(f"notebooks/{name}.ipynb")).read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return fingerprint_of_source(source), fingerprint("spatialmae.stages.figures")


CATEGORIES = {"A": "Paper A", "B": "Paper B", "both": "Both papers"}  # of Snakemake's own report
