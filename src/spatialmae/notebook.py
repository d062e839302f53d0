"""Running a figure notebook with papermill, into an executed notebook and a page that opens offline."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import papermill
from nbconvert import HTMLExporter, NotebookExporter

from spatialmae.artifacts import write_text
from spatialmae.errors import UserError

# nbconvert's page would load require.js, MathJax and Mermaid from the network, which our notebooks do not need, and
# has no place for an image's alternative text.
_OFFLINE_TEMPLATE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block data_png scoped -%}
{%- set width = output | get_metadata("width", "image/png") -%}
{%- set alt = output | get_metadata("alt", "image/png") -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data["image/png"] | escape_html }}"
{%- if width %} width="{{ width | escape_html }}"{% endif %} alt="{{ (alt or "") | escape_html }}">
</div>
{%- endblock -%}
"""
_QUIET = {"PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def run_notebook(
    source: Path | str,
    output: Path | str,
    html: Path | str,
    log_copy: Path | str,
    parameters: Mapping[str, Any],
) -> None:
    """Execute a notebook; ``output`` and ``html`` exist afterwards only if every cell ran.

    papermill exits normally where a notebook has no cell tagged ``parameters`` or does not know a parameter that it
    is given, so both are checked first. What was executed lies in ``log_copy``, after a failure with its traceback.
    The executed notebook holds no times and no paths but those given in ``parameters``: same input, same bytes.

    Args:
        source: the notebook, with a cell tagged ``parameters``.
        output: where the executed notebook goes.
        html: where its page goes: one file without code, which loads nothing from the network.
        log_copy: where papermill writes while it executes.
        parameters: values for that cell; the current folder is that of the kernel, so paths may be relative.

    Raises:
        UserError: the notebook is missing, has no parameters cell, does not know a parameter, or a cell failed.
    """
    for result in (output, html):
        Path(result).unlink(missing_ok=True)
    _check_parameters(Path(source), parameters)
    executed = _execute(source, log_copy, parameters)
    _remove_traces(executed)
    title = {"metadata": {"name": f"spatialmae: {Path(source).stem}"}}
    page, _ = HTMLExporter(
        raw_template=_OFFLINE_TEMPLATE, exclude_input=True, exclude_output_prompt=True
    ).from_notebook_node(executed, resources=title)
    notebook, _ = NotebookExporter().from_notebook_node(executed)
    write_text(html, page)
    write_text(output, notebook)


def _check_parameters(source: Path, parameters: Mapping[str, Any]) -> None:
    if not source.is_file():
        raise UserError(source, "notebook not found", "give the path of a notebook")
    known = papermill.inspect_notebook(str(source))
    if not known:
        raise UserError(source, "no cell tagged `parameters` with assignments", "tag the cell that holds the defaults")
    for name in parameters:
        if name not in known:
            raise UserError(source, f"parameter {name!r} is unknown", f"give only {', '.join(known)}")


def _execute(source: Path | str, log_copy: Path | str, parameters: Mapping[str, Any]) -> Any:
    Path(log_copy).parent.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet_kernels():
            return papermill.execute_notebook(
                str(source),
                str(log_copy),
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                extra_arguments=["--log-level=ERROR"],
            )
    except papermill.PapermillExecutionError as error:
        problem = f"cell {error.exec_count} failed with {error.ename}: {error.evalue}"
        raise UserError(source, problem, f"see the traceback in {log_copy}") from error


@contextmanager
def _quiet_kernels() -> Iterator[None]:
    """Kernels started in the block print no warnings, which would name paths of this machine, and no progress."""
    before = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update(_QUIET)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _remove_traces(notebook: Any) -> None:
    """Drop what papermill notes of this run: paths, times, and the random name of the cell it adds."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
