"""Stage ``data``: make or read the images of one data set."""

from __future__ import annotations

from importlib import import_module

from spatialmae.config import SOURCE_MODULES, Config
from spatialmae.data.dataset import ImageData
from spatialmae.layout import Layout

# The module is imported by name, so that a data set depends on its own source's code and no other's.
SEEDED = ("dead_leaves", "digits", "cifar10", "random_fields", "folder")


def run(config: Config, dataset: str) -> None:
    """Write ``data/<dataset>.safetensors``. Generated data and random splits follow the block's first seed."""
    source = config.datasets[dataset].source
    arguments = source.model_dump(exclude={"kind"})
    if source.kind in SEEDED:
        arguments["seed"] = config.seeds.first
    if source.kind == "cifar10":
        arguments["cache"] = Layout.of(config).downloads
    module = import_module(f"spatialmae.data.{SOURCE_MODULES.get(source.kind, source.kind)}")
    data: ImageData = getattr(module, source.kind)(**arguments)
    if source.kind == "folder":
        module.print_skipped(data)
    data.save(Layout.of(config).data(dataset))
