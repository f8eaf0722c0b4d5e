"""Tables of JSON or TOML as frozen dataclasses, with every key and type checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_origin, get_type_hints

from audiosr_cli.errors import UsageError

_NAMES = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def fill(kind: type[Any], section: str, values: Any, given: dict[str, Any] | None = None) -> Any:
    """An instance of the dataclass ``kind``; sub-tables fill its dataclass fields, lists its tuples.

    ``given`` holds fields that the table must not set. Raises UsageError on unknown and missing keys, and on
    values of another type; the dataclass checks the values itself.
    """
    if not isinstance(values, dict):
        raise UsageError(f"[{section}]: a table is wanted, not {values!r}")
    hints, given = get_type_hints(kind), given or {}
    known = {item.name for item in fields(kind) if item.init} - set(given)
    made = {}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"[{section}] has no key {key!r}{hint(key, known)}")
        if is_dataclass(hints[key]):
            made[key] = fill(hints[key], f"{section}.{key}", value)
        else:
            made[key] = _value(f"[{section}] {key}", value, hints[key])
    for item in fields(kind):
        if item.name in known - set(made) and item.default is item.default_factory:  # both are MISSING
            raise UsageError(f"[{section}] wants {item.name!r}")
    return kind(**given, **made)


def hint(key: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown ``key``: the nearest of those ``known``, or all of them."""
    close = get_close_matches(key, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _value(name: str, value: Any, hint: Any) -> Any:
    """``value`` as ``hint`` wants it, a list as a tuple. Raises UsageError."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{name} = {value!r}: a list is wanted")
        if Ellipsis not in inner and len(value) != len(inner):
            raise UsageError(f"{name} = {list(value)}: {len(inner)} values are wanted")
        return tuple(_value(name, part, inner[0]) for part in value)
    if origin is not None:  # Literal
        if value not in inner:
            raise UsageError(f"{name} = {value!r}; known: {', '.join(map(str, inner))}")
        return value
    wanted = (int, float) if hint is float else hint
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise UsageError(f"{name} = {value!r}: {_NAMES[hint]} is wanted")
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
