"""JSON and TOML written by others: what is nested too deeply is an error of the text, like any other."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from typing import Any

# Levels of nesting, far more than any config, manifest or checkpoint has. Python's own limit of about 1,000 depends on
# what has been called before, and is a RecursionError; below it, printing or walking through the values may fail.
_MAX_DEPTH = 100


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: If the text is not JSON, or nested more than 100 levels deep.
    """
    try:
        return _checked(json.loads(text))
    except RecursionError as error:
        raise _too_deep() from error


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ValueError: If the text is not TOML, or nested more than 100 levels deep.
    """
    try:
        tables: dict[str, Any] = _checked(tomllib.loads(text))
    except RecursionError as error:
        raise _too_deep() from error
    return tables


def _checked(value: Any) -> Any:
    """Return ``value``. Raises ValueError if it is nested too deeply."""
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for one in level for child in _children(one)]
        if not level:
            return value
    raise _too_deep()


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _too_deep() -> ValueError:
    return ValueError(f"nested more than {_MAX_DEPTH} levels deep")
