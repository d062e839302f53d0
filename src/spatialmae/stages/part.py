"""Stage ``part``: what a part of the study was made from and with, once all its tables are there."""

from __future__ import annotations

from spatialmae.artifacts import write_json
from spatialmae.config import Config
from spatialmae.errors import UserError
from spatialmae.layout import Layout, parts_of
from spatialmae.report.provenance import part_provenance
from spatialmae.tables import read_table


def run(config: Config, name: str) -> None:
    """Write ``parts/<name>.json``.

    Raises:
        UserError: there is no such part, or a table of it is missing.
    """
    layout, parts = Layout.of(config), {part.name: part for part in parts_of(config)}
    if name not in parts:
        raise UserError(name, "no part of this configuration", f"use one of {', '.join(parts)}")
    for table, subject in parts[name].tables:
        read_table(layout.table(table, subject))
    write_json(layout.part(name), part_provenance(config.only([name])))
