"""Stage ``resolve``: the validated configuration, complete with its defaults, beside the results it makes."""

from __future__ import annotations

import yaml

from spatialmae.artifacts import write_text
from spatialmae.config import Config
from spatialmae.layout import Layout

HEADER = "# The configuration of these results, validated and with defaults filled in.\n"


def run(config: Config) -> None:
    """Write ``config.yaml``."""
    write_text(Layout.of(config).config, _text(config))


def is_resolved(config: Config) -> bool:
    """Whether ``config.yaml`` is there and says just this."""
    path = Layout.of(config).config
    return path.is_file() and path.read_bytes() == _text(config).encode()


def _text(config: Config) -> str:
    return HEADER + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
