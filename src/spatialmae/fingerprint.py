"""The one account of what depends on which code: a digest of modules and of all that they import from the package.

Snakemake's rules carry it as a parameter, and every cache carries it in its keys, so that a change of meaning outdates
what was made with it. Comments, docstrings and blank lines do not count, nor do modules that carry only paths, messages
and files. Settings count by their values, which rules and keys hold beside the digest.

It needs nothing but Python, since training runs on machines that have little else.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "spatialmae"
ROOT = Path(__file__).parent

# Modules that decide where things lie, how they are read and written, and what is said: no number depends on them.
# A name stands for a module, or for a package and all that is in it.
NOT_COUNTED = (
    *("spatialmae.artifacts", "spatialmae.cli", "spatialmae.config", "spatialmae.errors", "spatialmae.fingerprint"),
    *("spatialmae.layout", "spatialmae.setting", "spatialmae.shapes", "spatialmae.tensorfile", "spatialmae.yamlfile"),
    *("spatialmae.train.plan", "spatialmae.train.runs"),
)


@cache
def fingerprint(*modules: str) -> str:
    """SHA-256 of the code of some modules and of all that they import, the same under every version of Python.

    Args:
        modules: dotted names, e.g. ``spatialmae.train.trainer``. Their order does not matter.

    Raises:
        ModuleNotFoundError: there is no such module in the package.
    """
    return _digest(f"{name} {_own_digest(name)}" for name in sorted(closure(*modules)))


@cache
def fingerprint_of_source(source: str) -> str:
    """The same of code that is no module, as the cells of a notebook."""
    imported = closure(*_imports(ast.parse(source)))
    return _digest([bare_source(source), *(f"{name} {_own_digest(name)}" for name in sorted(imported))])


def closure(*modules: str) -> frozenset[str]:
    """The modules themselves and all that they import from the package, directly or not, as far as they count.

    Imports inside functions count, those for type checkers alone do not. A package counts only where something that its
    ``__init__`` defines is imported.

    Raises:
        ModuleNotFoundError: there is no such module in the package.
    """
    found: set[str] = set()
    waiting = [name for name in modules if counts(name)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [imported for imported in _imports_of(name) if counts(imported)]
    return frozenset(found)


def counts(module: str) -> bool:
    """Whether numbers may depend on a module."""
    return not any(module == name or module.startswith(f"{name}.") for name in NOT_COUNTED)


def all_modules() -> list[str]:
    """Dotted names of all modules of the package, in order; packages stand for their ``__init__``."""
    paths = (path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py"))
    return sorted(".".join((PACKAGE, *(part for part in path.parts if part != "__init__"))) for path in paths)


def bare_source(source: str) -> str:
    """Source without comments, docstrings and blank lines."""
    return _bare(source, ast.parse(source))


def _bare(source: str, tree: ast.Module) -> str:
    lines = source.splitlines()
    for row, column in _comments(source, tree):
        lines[row] = lines[row][:column]
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for row in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _comments(source: str, tree: ast.Module) -> list[tuple[int, int]]:
    """Row and column, both from 0, at which each comment starts."""
    texts: dict[int, list[tuple[int, int]]] = {}  # of each row, the columns that strings take, in bytes
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)):
            last = node.end_lineno or node.lineno
            for row in range(node.lineno, last + 1):
                end = node.end_col_offset if row == last else None
                start = node.col_offset if row == node.lineno else 0
                texts.setdefault(row - 1, []).append((start, 10**9 if end is None else end))
                if last > node.lineno and "#" in source.splitlines()[row - 1]:
                    return _tokenized_comments(source)  # a comment may stand between the parts of one string
    found = []
    for row, line in enumerate(source.splitlines()):
        for place in (i for i, character in enumerate(line) if character == "#"):
            column = len(line[:place].encode())
            if not any(start <= column < end for start, end in texts.get(row, ())):
                found.append((row, place))
                break
    return found


def _tokenized_comments(source: str) -> list[tuple[int, int]]:
    """The same by Python's tokenizer, which takes ten times as long."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [(token.start[0] - 1, token.start[1]) for token in tokens if token.type == tokenize.COMMENT]


def _digest(parts: Iterator[str] | list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _own_digest(module: str) -> str:
    return _read(module)[0]


def _imports_of(module: str) -> tuple[str, ...]:
    return _read(module)[1]


@cache
def _read(module: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's own code, and what it imports from the package."""
    source = _path(module).read_text(encoding="utf-8")
    tree = ast.parse(source)
    return _digest([_bare(source, tree)]), tuple(_imports(tree))


def _imports(tree: ast.Module) -> Iterator[str]:
    """Modules of the package that code imports."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_own(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module and _is_own(node.module):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _exists(inner) else node.module
        else:
            waiting += ast.iter_child_nodes(node)


def _is_own(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def _exists(module: str) -> bool:
    try:
        return _path(module).is_file()
    except ModuleNotFoundError:
        return False


@cache
def _path(module: str) -> Path:
    """The file of a module, or of a package's ``__init__``."""
    inner = module.split(".")[1:]
    for path in (ROOT.joinpath(*inner).with_suffix(".py") if inner else None, ROOT.joinpath(*inner, "__init__.py")):
        if path is not None and path.is_file():
            return path
    raise ModuleNotFoundError(f"{module}: no module of {PACKAGE}")
