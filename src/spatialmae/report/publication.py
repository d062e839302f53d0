"""What is committed of a finished run, and the table of it that the README begins with."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from spatialmae.artifacts import write_text
from spatialmae.claims.ledger import Ledger
from spatialmae.errors import UserError
from spatialmae.layout import Layout
from spatialmae.report.claims import VERDICTS, base_verdict
from spatialmae.tables import read_table

COLUMNS = ("cifar10", "hierarchy", "paper", "quick")  # configurations in the README's table, the fullest first


def publish(layout: Layout, reference: Path) -> None:
    """Copy a finished run into ``<reference>/<name>/``, in one step: verdicts, tables, figures, report, provenance.

    Figures are those in SVG. Weights, images and logs stay where they are.

    Raises:
        UserError: something is missing, the run was made from uncommitted changes, or its results lie elsewhere than
            the workflow puts them, so that the report would name a folder of this machine.
    """
    provenance = _read_json(layout.provenance)
    for path in (layout.config, layout.claims, layout.report, layout.tables, layout.figures, layout.parts):
        if not path.exists():
            raise UserError(path, "not found", "finish the run first: snakemake")
    for made in (provenance, *provenance["parts"].values()):
        if not made["commit"]["sha"] or made["commit"]["modified"]:
            raise UserError(layout.provenance, "made from uncommitted changes", "commit them, and make it again")
    if layout.root.is_absolute():
        hint = "run with results: results (training that was done elsewhere is taken up from there)"
        raise UserError(layout.config, f"its results lie in {layout.root.parent}, which the report names", hint)
    target = reference / layout.root.name
    if lost := sorted({path.stem for path in (target / "parts").glob("*.json")} - set(provenance["parts"])):
        hint = f"make it, or copy tables, figures and parts of {target} to {layout.root} first"
        raise UserError(layout.provenance, f"lacks the part {lost[0]}, which is published", hint)
    reference.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=reference, prefix=".") as folder:
        made = Path(folder) / layout.root.name
        for folder_of in (layout.tables, layout.parts):
            shutil.copytree(folder_of, made / folder_of.name, ignore=shutil.ignore_patterns(".*"))  # of killed jobs
        for file in (layout.config, layout.claims, layout.provenance):
            shutil.copy(file, made / file.name)
        # Its commands are to work in a fresh clone, where nothing has made the run's own copy of the configuration.
        page = layout.report.read_text(encoding="utf-8")
        published = page.replace(str(layout.config), str(reference / layout.root.name / layout.config.name))
        (made / layout.report.name).write_text(published, encoding="utf-8")
        shutil.copytree(layout.figures, made / "figures", ignore=shutil.ignore_patterns("*.png", ".*"))
        if target.exists():
            target.replace(Path(folder) / "before")
        made.replace(target)


def marks(section: str) -> tuple[str, str]:
    """The lines of a README between which a section stands that code writes."""
    return f"<!-- {section}: written by `spatialmae publish` -->", f"<!-- end of {section} -->"


def write_section(readme: Path, section: str, content: str) -> None:
    """Put Markdown between the README's marks of a section, for what was there.

    Raises:
        UserError: the README has no such marks.
    """
    text, (start, end) = readme.read_text(encoding="utf-8"), marks(section)
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise UserError(readme, f"lacks the marks between which {section} stand", f"add the lines {start} and {end}")
    before, rest = text.split(start)
    write_text(readme, f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}")


def verdict_table(ledger: Ledger, reference: Path) -> str:
    """Markdown: when and on what each published run was made, then the verdicts on each numbered claim."""
    published = [reference / name for name in COLUMNS if (reference / name / "tables").is_dir()]
    if not published:
        return "No run is published yet."
    claims = {run: read_table(run / "claims.csv") for run in published}
    lines = [f"- {_about(run, table)}" for run, table in claims.items()]
    lines += ["", f"| claim | {' | '.join(run.name for run in published)} |", "|---|" + "---|" * len(published)]
    for number, title in ledger.titles.items():
        lines.append(f"| {number} {title} | {' | '.join(_verdicts(table, number) for table in claims.values())} |")
    return "\n".join(lines)


def _about(folder: Path, claims: pd.DataFrame) -> str:
    name, provenance = folder.name, _read_json(folder / "provenance.json")
    parts = provenance["parts"].values()
    commits = list(dict.fromkeys(f"`{part['commit']['sha'][:7]}`" for part in parts))
    trained = {device for part in parts for training in part["training"].values() for device in training["devices"]}
    device = ", ".join(sorted(trained)) or f"{max(part['machine']['cpus'] for part in parts)} CPUs"
    papers = claims[claims["tier"] != "ours"]
    tested = int((papers["verdict"].map(base_verdict) != "NOT_TESTED").sum())
    page = f"{folder.parent.name}/{name}/report.html"
    return (
        f"**{name}**: {max(part['date'] for part in parts)}, {device}, "
        f"commit{'s' * (len(commits) > 1)} {', '.join(commits)}; {tested} of "
        f"{len(papers)} claims tested; [report](results/{page}), to be opened from a clone"
    )


def _verdicts(claims: pd.DataFrame, number: str) -> str:
    own = claims[claims["id"].map(lambda name: name.split(".")[0]) == number]
    ours = own["tier"] == "ours"
    papers, besides = (_counted(own.loc[rows, "verdict"]) for rows in (~ours, ours))
    return f"{papers or '–'}{besides and f'; of our own, {besides}'}"


def _counted(verdicts: pd.Series) -> str:
    found = Counter(verdicts.map(base_verdict))
    return ", ".join(f"{found[verdict]} {_word(verdict)}" for verdict in VERDICTS[:-1] if found[verdict])


def _word(verdict: str) -> str:
    return f"**{verdict.lower()}**" if verdict == "CONTRADICTED" else verdict.lower().replace("_", " ")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(path, "not readable", "run the report's stage first") from None
