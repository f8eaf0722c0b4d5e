"""Builds frozen dataclasses from tables of JSON or TOML; checks every key and type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_origin, get_type_hints

from audiosr_cli.errors import UsageError

_NAMES = {float: "a number", int: "an integer", bool: "true or false", str: "a string"}


def fill(kind: type[Any], section: str, values: Any, fixed: dict[str, Any] | None = None) -> Any:
    """Build a dataclass from a table; sub-tables fill fields that are dataclasses, lists fill tuples.

    Args:
        kind: The dataclass. It checks the values themselves when it is built.
        section: Name of the table, for errors.
        values: The table.
        fixed: Values of fields that the table must not set.

    Returns:
        An instance of ``kind``.

    Raises:
        UsageError: If a key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(values, dict):
        raise UsageError(f"[{section}]: expected a table, not {values!r}")
    hints, fixed = get_type_hints(kind), fixed or {}
    allowed = {item.name for item in fields(kind) if item.init} - set(fixed)
    arguments = {}
    for key, value in values.items():
        if key not in allowed:
            raise UsageError(f"[{section}] has no key {key!r}{hint(key, allowed)}")
        if is_dataclass(hints[key]):
            arguments[key] = fill(hints[key], f"{section}.{key}", value)
        else:
            arguments[key] = _value(f"[{section}] {key}", value, hints[key])
    for item in fields(kind):
        # Without a default and a default factory both are MISSING.
        if item.name in allowed - set(arguments) and item.default is item.default_factory:
            raise UsageError(f"[{section}]: the key {item.name!r} is missing")
    return kind(**fixed, **arguments)


def hint(key: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown ``key``: the most similar one of ``known``, or all of them."""
    similar = get_close_matches(key, list(known), 1)
    return f"; did you mean {similar[0]!r}?" if similar else f"; known: {', '.join(sorted(known))}"


def _value(name: str, value: Any, hint: Any) -> Any:
    """Check ``value`` against the type ``hint``, and return it, a list as a tuple. Raises UsageError."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{name} = {value!r}: expected a list")
        if Ellipsis not in inner and len(value) != len(inner):
            raise UsageError(f"{name} = {list(value)}: expected {len(inner)} values")
        return tuple(_value(name, part, inner[0]) for part in value)
    if origin is not None:  # Literal
        if value not in inner:
            raise UsageError(f"{name} = {value!r}: must be one of {', '.join(map(str, inner))}")
        return value
    expected = (int, float) if hint is float else hint
    if not isinstance(value, expected) or (isinstance(value, bool) and hint is not bool):
        raise UsageError(f"{name} = {value!r}: expected {_NAMES[hint]}")
    return float(value) if hint is float else value


def check(condition: bool, message: str) -> None:
    """Raise UsageError with ``message`` unless ``condition`` holds: for conditions that a config checks of itself."""
    if not condition:
        raise UsageError(message)


def at_least(config: Any, low: float, *names: str) -> None:
    """Raise UsageError unless each named field, or every number of a tuple, is at least ``low`` and below 2^31."""
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple | list) else (value,)
        if any(number >= 2**31 for number in numbers):
            raise UsageError(f"{name} = {_shown(value)}: must be below 2^31")
        if not all(number >= low for number in numbers):  # not a number is not, either
            raise UsageError(f"{name} = {_shown(value)}: must be at least {low:g}")


def odd(config: Any, *names: str) -> None:
    """Raise UsageError unless each named field, or every number of a tuple, is odd, above 0 and below 2^31."""
    at_least(config, 1, *names)
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple | list) else (value,)
        if not all(number % 2 for number in numbers):
            raise UsageError(f"{name} = {_shown(value)}: must be odd")


def multiple(value: int, unit: int, value_name: str, unit_name: str) -> None:
    """Raise UsageError unless ``value`` is a multiple of ``unit``; the names say what the two are."""
    if value % unit:
        raise UsageError(f"{value_name} = {value}: must be a multiple of {unit_name} = {unit}")


def _shown(value: Any) -> Any:
    """``value`` as in the file that it came from."""
    return list(value) if isinstance(value, tuple) else value
