"""Stage ``resolve``: the validated configuration, complete with its defaults, beside the results it makes."""

from __future__ import annotations

import yaml

from spatialmae.artifacts import write_text
from spatialmae.config import Config
from spatialmae.layout import Layout

HEADER = "# The configuration of these results, validated and with defaults filled in.\n"


def run(config: Config) -> None:
    """Write ``config.yaml``."""
    write_text(Layout.of(config).config, HEADER + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
