"""YAML as people write it: read safely, and with a key that occurs twice refused rather than the first one dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from spatialmae.errors import UserError

MERGE = "<<"  # may stand twice


class _Loader(yaml.SafeLoader):
    """Makes plain values alone, as its base does, and runs nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != MERGE):
            if key.value in seen:
                raise _DuplicateKeyError(problem=f"{key.value} occurs twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


class _DuplicateKeyError(yaml.MarkedYAMLError):
    pass


def read_yaml(path: Path | str, missing: tuple[str, str]) -> Any:
    """What a YAML file holds.

    Args:
        path: the file.
        missing: what to say where there is none, and a hint.

    Raises:
        UserError: the file is missing or not YAML, or a key occurs twice in one section.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(path, *missing) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, f"cannot be read ({error})", "give a readable YAML file") from None
    except _DuplicateKeyError as error:
        raise UserError(path, f"{error.problem}, again{_place(error)}", "remove one") from None
    except yaml.YAMLError as error:
        raise UserError(path, f"not valid YAML{_place(error)}", "mend the syntax there") from None


def _place(error: yaml.YAMLError) -> str:
    line = getattr(getattr(error, "problem_mark", None), "line", None)
    return "" if line is None else f" at line {line + 1}"
