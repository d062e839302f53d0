"""The fingerprint counts what a job's code is and imports, and nothing else."""

import ast
import json
import os
import subprocess
import sys
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialmae import fingerprint as module
from spatialmae.fingerprint import NOT_COUNTED, all_modules, bare_source, closure, counts, fingerprint

SRC = Path(module.__file__).parent.parent
JOBS = [name for name in all_modules() if name.startswith("spatialmae.stages.")] + ["spatialmae.train.trainer"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules in place of ours: a imports b, b imports c in a function."""
    sources = {
        "__init__": "from spatialmae.c import x\n",
        "a": "from spatialmae import b\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import spatialmae.d\n",
        "b": "def f():\n    import spatialmae.c\n",
        "c": "import numpy\nx = 1\n",
        "d": "",
        "errors": "from spatialmae import d\n",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for cached in (module._read, module._path, module.fingerprint, module.fingerprint_of_source):
        cached.cache_clear()


def test_the_closure_follows_imports_in_functions_but_not_those_for_type_checkers(package):
    assert closure("spatialmae.a") == {"spatialmae.a", "spatialmae.b", "spatialmae.c"}
    assert closure("spatialmae.b") == {"spatialmae.b", "spatialmae.c"}
    assert closure("spatialmae.c", "spatialmae.d") == {"spatialmae.c", "spatialmae.d"}


def test_a_package_counts_only_where_something_of_its_own_is_imported(package):
    (package / "d.py").write_text("from spatialmae import x\n")
    forget()
    assert closure("spatialmae.d") == {"spatialmae.d", "spatialmae", "spatialmae.c"}


def test_modules_of_messages_and_files_do_not_count_nor_what_they_alone_import(package):
    (package / "c.py").write_text("import spatialmae.errors\n")
    forget()
    assert closure("spatialmae.c") == {"spatialmae.c"}
    before = fingerprint("spatialmae.c")
    (package / "errors.py").write_text("x = 2\n")
    forget()
    assert fingerprint("spatialmae.c") == before


def test_a_module_that_does_not_exist_is_said_so(package):
    with pytest.raises(ModuleNotFoundError, match=r"spatialmae\.none: no module"):
        fingerprint("spatialmae.none")


def test_a_change_of_meaning_anywhere_in_the_closure_changes_the_fingerprint_and_words_do_not(package):
    before = fingerprint("spatialmae.a")
    (package / "c.py").write_text('"""Doc."""\nimport numpy\n\n# why\nx = 1  # one\n')
    forget()
    assert fingerprint("spatialmae.a") == before
    (package / "c.py").write_text("import numpy\nx = 2\n")
    forget()
    assert fingerprint("spatialmae.a") != before


def test_order_does_not_matter_and_cells_of_a_notebook_count_like_a_module():
    assert fingerprint("spatialmae.masks", "spatialmae.geometry") == fingerprint(
        "spatialmae.geometry", "spatialmae.masks"
    )
    source = "from spatialmae.masks import n_visible\n"
    before = module.fingerprint_of_source(source)
    assert module.fingerprint_of_source(f"# words\n{source}\n") == before
    assert module.fingerprint_of_source(f"{source}x = 1\n") != before


def test_comments_docstrings_and_blank_lines_are_taken_out_and_nothing_else():
    source = '"""Doc."""\n\nx = 1  # why\n\n\ndef f():\n    """Doc."""\n    return "# none", f"{x} # none"  # é\n'
    assert bare_source(source) == 'x = 1\ndef f():\n    return "# none", f"{x} # none"'
    parts = 'x = (\n    "a"  # one\n    "#b"  # two\n)\n'
    assert bare_source(parts) == 'x = (\n    "a"\n    "#b"\n)'


TOKENS = ["x = 1", '"a # b"', "# c", "'''\n# d\n'''", "y = f'{x} # e'", "z = 'é # f'  # g", "(", ")", "\n", "    "]


@given(st.lists(st.sampled_from(TOKENS), max_size=8))
def test_comments_are_those_of_pythons_own_tokenizer(tokens):
    source = "\n".join(tokens) + "\n"
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    assert module._comments(source, tree) == module._tokenized_comments(source)


def test_comments_of_the_package_are_those_of_pythons_own_tokenizer():
    for name in all_modules():
        source = module._path(name).read_text(encoding="utf-8")
        assert module._comments(source, ast.parse(source)) == module._tokenized_comments(source), name


class Oracle(ModuleFinder):
    """Python's own finder of imports, from bytecode, which stops at the modules that do not count."""

    def import_module(self, partname, fqname, parent):
        if not fqname.startswith("spatialmae") or not counts(fqname):
            return None
        return super().import_module(partname, fqname, parent)


def packages() -> set[str]:
    return {name for name in all_modules() if module._path(name).name == "__init__.py"}


@pytest.mark.parametrize("job", JOBS)
def test_the_closure_is_what_pythons_own_finder_finds(job):
    finder = Oracle(path=[str(SRC)])
    finder.run_script(str(module._path(job)))
    found = {name for name in finder.modules if name.startswith("spatialmae")} | {job}
    assert closure(job) - packages() == found - packages()


# Third-party packages are loaded once; each job is imported in a fork of that process.
IMPORT = """
import json, os, sys
import numpy, pandas, scipy.stats, sklearn.linear_model, torch, torch.func, tqdm, pydantic, jinja2, matplotlib, seaborn
for job in sys.argv[1:]:
    if os.fork() == 0:
        __import__(job)
        print(json.dumps([job, [name for name in sys.modules if name.startswith("spatialmae")]]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.slow
def test_what_a_job_really_imports_is_in_its_closure():
    command = [sys.executable, "-c", IMPORT, *JOBS, *(name for name in NOT_COUNTED if name in all_modules())]
    environment = os.environ | {"PYTHONPATH": str(SRC), "TQDM_DISABLE": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    imported = {job: set(names) for job, names in map(json.loads, result.stdout.splitlines())}
    assert imported.keys() >= set(JOBS)
    uncounted = set().union(*(names for job, names in imported.items() if not counts(job)))
    for job in JOBS:
        really = {name for name in imported[job] if counts(name)} - packages() - uncounted
        assert really <= closure(job), job


def test_an_edit_of_any_module_outdates_exactly_the_jobs_that_use_it(monkeypatch):
    before = {job: fingerprint(job) for job in JOBS}
    uses = {job: closure(job) for job in JOBS}
    read = module._read
    for edited in all_modules():
        monkeypatch.setattr(
            module, "_read", lambda name, edited=edited: ("edited" if name == edited else read(name)[0], read(name)[1])
        )
        module.fingerprint.cache_clear()
        outdated = {job for job in JOBS if fingerprint(job) != before[job]}
        assert outdated == {job for job in JOBS if edited in uses[job]}, edited
    monkeypatch.undo()
    module.fingerprint.cache_clear()


def test_what_does_not_count_exists():
    known = all_modules()
    assert all(name in known for name in NOT_COUNTED)
