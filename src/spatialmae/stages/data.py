"""Stage ``data``: make or read the images of one data set."""

from __future__ import annotations

from collections import Counter
from importlib import import_module

from spatialmae.config import Config
from spatialmae.data.dataset import ImageData
from spatialmae.layout import Layout


def run(config: Config, dataset: str) -> None:
    """Write ``data/<dataset>.safetensors``. Generated data and random splits follow the block's first seed."""
    source, layout = config.datasets[dataset].source, Layout.of(config)
    arguments = source.model_dump(exclude={"kind"})
    if source.takes_seed:
        arguments["seed"] = config.first_seed
    if source.downloads:
        arguments["cache"] = layout.downloads
    # By name, so that a data set depends on its own source's code and no other's.
    module = import_module(f"spatialmae.data.{source.module}")
    data: ImageData = getattr(module, source.kind)(**arguments)
    if "skipped" in data.provenance:
        print_skipped(data)
    data.save(layout.data(dataset))


def print_skipped(data: ImageData) -> None:
    """Print which files were left out and why, first a count by reason."""
    skipped = data.provenance["skipped"]
    print(f"{data.provenance['n_images']} images used, {len(skipped)} files left out")
    for reason, count in Counter(entry["reason"] for entry in skipped).most_common():
        print(f"  {count} × {reason}")
    for entry in skipped:
        print(f"{entry['file']}: {entry['reason']}")
