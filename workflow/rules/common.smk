# What the rules share: the validated configuration, its layout on disk, and the code that a rule depends on.
import ast
import importlib.util
import json
import sys
from pathlib import Path

from pydantic_core import to_jsonable_python
from snakemake.exceptions import WorkflowError

from spatialmae.config import parse_config
from spatialmae.errors import UserError
from spatialmae.layout import Layout

try:
    CONFIG = parse_config(
        config, " + ".join(map(str, workflow.configfiles)) or "--config"
    )
except UserError as error:
    raise WorkflowError(str(error)) from None

L = Layout.of(CONFIG)
DATASETS = list(CONFIG.datasets)
LOGS, BENCHMARKS = f"{L.root}/logs", f"{L.root}/benchmarks"
ENVIRONMENT = "../../environment.yml"
RUN = "python -m spatialmae"

# Jobs run in the interpreter that runs Snakemake, whether or not its environment is activated.
shell.prefix(f"export PATH={Path(sys.executable).parent}:$PATH; ")


wildcard_constraints:
    dataset="|".join(DATASETS),
    notebook="[a-z]+",


def having(*analyses):
    """Data sets on which one of these analyses runs."""
    return [
        name
        for name, dataset in CONFIG.datasets.items()
        if set(analyses) & set(dataset.analyses)
    ]


# The settings reach a rule as params and the paths as outputs: edits of these modules need rerun nothing.
NOT_CODE = {"spatialmae.config", "spatialmae.layout", "spatialmae.errors"}


def code(name, seen=None):
    """Source files of a module and of all it imports from the package, directly or not."""
    seen = set() if seen is None else seen
    spec = importlib.util.find_spec(name)
    if name in seen or name in NOT_CODE or spec is None or spec.origin is None:
        return []
    seen.add(name)
    files = [os.path.relpath(spec.origin)]
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [
                f"{node.module}.{alias.name}" for alias in node.names
            ]
        else:
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
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
    """The parts of the configuration, a data set's own first, that a rule depends on: a change reruns the rule."""

    def of(wildcards):
        own = CONFIG.datasets.get(dataset or getattr(wildcards, "dataset", None))
        parts = {
            name: getattr(own if hasattr(own, name) else CONFIG, name)
            for name in sections
        }
        return json.dumps(to_jsonable_python(parts), sort_keys=True)

    return of


def jackknifed(*tables):
    """Tables of pseudo-values, and beside each the one of estimates from all images."""
    return [str(L.table(name, "{dataset}")) for table in tables for name in (table, f"{table}_all")]


def threads_of(wildcards):
    """Threads that a data set's solves may use."""
    return CONFIG.datasets[wildcards.dataset].threads


rule resolve_config:
    output:
        str(L.config),
    log:
        f"{LOGS}/resolve_config.log",
    benchmark:
        f"{BENCHMARKS}/resolve_config.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    params:
        settings=CONFIG.model_dump_json(),
    message:
        "Writing the resolved configuration"
    shell:
        RUN + " resolve --settings {params.settings:q} > {log} 2>&1"
