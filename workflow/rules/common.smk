# What the rules share: the validated configuration, its layout on disk, and the code that each depends on.
import ast
import importlib.util
import json
import sys
from pathlib import Path

from pydantic_core import to_jsonable_python
from snakemake.exceptions import WorkflowError

from spatialmae.config import PROBE_MODULES, SOURCE_MODULES, parse_config
from spatialmae.errors import UserError
from spatialmae.figures.catalogue import NOTEBOOKS, drawn_figures, notebook_subjects
from spatialmae.evaluation.measure import COSTS
from spatialmae.layout import Layout, costs_subject, datasets_with
from spatialmae.measures import MEASURES
from spatialmae.stages import resolve
from spatialmae.train.manifest import read_manifest
from spatialmae.yamlfile import read_yaml

try:
    for path in workflow.configfiles:
        read_yaml(path, ("configuration not found", "give an existing file"))  # Snakemake lets keys occur twice
    CONFIG = parse_config(config, " + ".join(map(str, workflow.configfiles)) or "--config")
except UserError as error:
    raise WorkflowError(str(error)) from None

L = Layout.of(CONFIG)
DATASETS, STAGES = list(CONFIG.datasets), list(CONFIG.training)
MANIFESTS = [str(L.manifest(stage)) for stage in STAGES]
LOGS, BENCHMARKS = f"{L.root}/logs", f"{L.root}/benchmarks"
ENVIRONMENT = "../../environment.yml"

# Jobs run in the interpreter that runs Snakemake, whether or not its environment is activated.
shell.prefix(f"export PATH={Path(sys.executable).parent}:$PATH; ")


def is_run_under_way():
    """Whether Snakemake runs in this folder, or was killed there: its jobs rely on the files as they are."""
    locks = Path(".snakemake/locks")
    return locks.is_dir() and any(locks.iterdir())


# What jobs read is written here rather than by a rule: Snakemake does not compare the params of jobs behind one that
# has to run, so that each edit would rerun that rule alone and leave old results. A dry run leaves what is there.
if workflow.is_main_process and not resolve.is_resolved(CONFIG) and not (workflow.dryrun and L.config.exists()):
    if L.config.exists() and is_run_under_way():
        problem = UserError(L.config, "left as it is while snakemake runs here", "if it does not, snakemake --unlock")
        print(problem, file=sys.stderr)
    else:
        try:
            resolve.run(CONFIG)
        except OSError as error:
            hint = "check the path, its permissions, and the space left"
            raise WorkflowError(str(UserError(L.config, error.strerror or str(error), hint))) from None


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
    stage="|".join(STAGES) or "(?!)",
    evaluation="|".join(CONFIG.evaluations) or "(?!)",
    notebook="[a-z]+",


def having(*analyses):
    """Data sets on which one of these analyses runs."""
    return [name for name, dataset in CONFIG.datasets.items() if set(analyses) & set(dataset.analyses)]


# The settings reach jobs as params and the paths as outputs, so edits of these modules need rerun nothing.
NOT_CODE = {"spatialmae.config", "spatialmae.layout", "spatialmae.errors"}


def code(name, seen=None):
    """Source files of a module and of all it imports from the package, directly or not."""
    seen = set() if seen is None else seen
    spec = importlib.util.find_spec(name)
    if name in seen or name in NOT_CODE or spec is None or spec.origin is None:
        return []
    seen.add(name)
    return [os.path.relpath(spec.origin), *code_imported(Path(spec.origin).read_text(encoding="utf-8"), seen)]


def code_of_notebook(path):
    """The same for all that a notebook's cells import."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    return code_imported("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"), set())


def code_imported(source, seen):
    """The same for all that some code imports."""
    files = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for imported in names:
            if imported.startswith("spatialmae.") and is_module(imported):
                files += code(imported, seen)
    return files


def is_module(name):
    """Whether a dotted name of the package is a module rather than a thing in one."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


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


def runs_of(wildcards):
    """Names of the runs of a training stage, each with a hash of all its settings."""
    return [run.name for run in CONFIG.training_runs(wildcards.stage)]


def damage(manifest):
    """What is wrong with a stage's manifest or the runs that it names; empty if nothing is, or no manifest is there."""
    if not manifest.exists():
        return ""
    try:
        entries = read_manifest(manifest).items()
    except UserError as error:
        return error.problem
    lost = [name for name, entry in entries if not is_whole(L.runs / name, entry.weights_sha256)]
    return f"{len(lost)} of {len(entries)} runs lost or damaged ({lost[0]} first)" if lost else ""


def is_whole(path, weights_sha256):
    """Whether all files of a run are there, as they were when it was finished with these weights."""
    from spatialmae.train.runs import RunFolder  # imports torch, which takes a second

    try:
        return RunFolder(path).read_record()["weights_sha256"] == weights_sha256
    except (UserError, OSError):
        return False


def data_of(wildcards):
    """Images of a training stage."""
    return str(L.data(CONFIG.training[wildcards.stage].dataset))


def data_of_evaluation(wildcards):
    """Images of an evaluation."""
    return str(L.data(CONFIG.evaluation_runs(wildcards.evaluation)[0].dataset))


def manifests_of(wildcards):
    """Manifests of the stages whose models an evaluation compares."""
    return [str(L.manifest(stage)) for stage in CONFIG.evaluations[wildcards.evaluation].stages]


def runs_of_evaluation(wildcards):
    """Names of the runs that an evaluation compares."""
    return [run.name for run in CONFIG.evaluation_runs(wildcards.evaluation)]


def data_of_calibration():
    """Images of the data sets that the recommender is calibrated on."""
    return [str(L.data(CONFIG.evaluation_runs(name)[0].dataset)) for name in CONFIG.calibration]


def evaluation_settings(measure):
    """Settings of an evaluation whose change reruns a measure."""
    read = {"stages", *MEASURES[measure].reads}

    def of(wildcards):
        return CONFIG.evaluations[wildcards.evaluation].model_dump_json(include=read)

    return of


TAKEN_UP = {name for measure in MEASURES.values() for name in measure.takes_up}


def taken_up(measure):
    """What a measure waits for, to read cached results of other measures rather than make them."""

    def of(wildcards):
        asked = CONFIG.evaluations[wildcards.evaluation].analyses
        return [path for other in MEASURES[measure].takes_up if other in asked for path in made_by(other, wildcards.evaluation)]

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


def data_code(wildcards):
    """Code of a data set: its own source's, and no other's."""
    kind = CONFIG.datasets[wildcards.dataset].source.kind
    return code(f"spatialmae.data.{SOURCE_MODULES.get(kind, kind)}") + code("spatialmae.stages.data")


def own_images(wildcards):
    """The files of a user's folder of images, where the data set is one."""
    source = CONFIG.datasets[wildcards.dataset].source
    if source.kind != "folder":
        return []
    return sorted(str(path) for path in Path(source.path).rglob("*") if path.is_file())


NOTEBOOK_TABLES = {
    "statistics": ["statistics", "statistics_summary"],
    "sweep": ["theory", "sweep"],
    "features": ["features"],
    "reach": ["reach", "jacobian", "reach_lags", "reach_sampled"],
    "ising": ["ising", "ising_profile"],
    "hierarchy": ["theorem", "levels", "identifiability"],
    "probes": ["probe_gabor", "probe_depth", "probe_class"],
    "training": ["runs", "training", "validation"],
    "nonlinear": [t for a in ("jacobian", "second_order", "probe", "fine_tuning") for t in MEASURES[a].tables] + [COSTS],
    "images": [
        *("image_quality", "attention", "separability", "tsne", "corruptions", "shape_bias", "dense"),
        *("linear_probe", "model_reach", "levels"),
    ],
    "calibration": ["calibration"],
    "claims": [],
}
CATEGORIES = {"A": "Paper A", "B": "Paper B", "both": "Both papers"}  # of Snakemake's own report


def tables_of(notebook):
    """What a notebook reads."""
    tables = [str(L.table(t, d)) for t in NOTEBOOK_TABLES[notebook] for d in datasets_with(CONFIG, t)]
    if notebook == "features":
        tables += [str(L.linear(dataset)) for dataset in datasets_with(CONFIG, "features")]
    if notebook == "training":
        tables += [str(L.reconstructions(stage)) for stage in STAGES]
    if notebook == "nonlinear":
        tables += [str(L.pictures("jacobian", evaluation)) for evaluation in datasets_with(CONFIG, "model_basis")]
        tables += [CONFIG.claims.ledger] if datasets_with(CONFIG, "second_order") else []  # for the control's range
    if notebook == "images":
        tables += [str(L.pictures("attention", evaluation)) for evaluation in datasets_with(CONFIG, "attention")]
    return tables + (list(rules.judge_claims.output) if notebook == "claims" else [])
