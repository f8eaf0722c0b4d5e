"""Which options a file, a preset or the environment can set: their names, types and values."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from typer.models import OptionInfo

from audiosr_cli.config import hint
from audiosr_cli.errors import UsageError

COMMANDS = ("separate", "upsample", "separate-sr", "turns")
OF_ONE_CALL = frozenset(("preset", "no-config"))  # these choose what is read
BY_COMMAND = frozenset(("model",))  # means another thing in each command, so that it needs the command's name

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Setting:
    """An option of a processing command.

    Attributes:
        name: As on the command line, without the dashes: ``dry-run``.
        parameter: The name of the command's parameter.
        kind: bool, int, float or str.
        default: What holds if nothing sets it.
        default_text: What the default means where it is None, as the help says it; "" if it does not.
        choices: The only values; empty if others are possible.
        parser: Parses a text or number; None if ``kind`` says everything.
        low: Smallest number, or None.
        high: Largest number, or None.
    """

    name: str
    parameter: str
    kind: type[Any]
    default: Any
    default_text: str = ""
    choices: tuple[str, ...] = ()
    parser: Callable[[Any], Any] | None = None
    low: float | None = None
    high: float | None = None

    def convert(self, value: object, where: str, is_text: bool = False) -> Any:
        """Check a value and convert it to what the command takes.

        Args:
            value: As TOML has it, or a text.
            where: Where the value stands, for errors.
            is_text: Whether it comes from the environment, which holds texts only.

        Raises:
            UsageError: If the value has the wrong type or is impossible.
        """
        if is_text and self.kind is bool:
            value = _WORDS.get(str(value).strip().lower(), value)
        elif is_text and self.kind in (int, float) and self.parser is None:
            value = _number(str(value), self.kind)
        shown = f"{where} = {value!r}"
        if self.parser is not None:
            return _parsed(self.parser, value, where, shown)
        accepted = (int, float) if self.kind is float else self.kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.kind is not bool):
            raise UsageError(f"{shown}: expected {_KINDS[self.kind]}")
        if self.choices and value not in self.choices:
            raise UsageError(f"{shown}: must be one of {', '.join(self.choices)}{_similar(str(value), self.choices)}")
        if not isinstance(value, str):
            self._check_range(value, shown)
        return value

    def _check_range(self, value: Any, shown: str) -> None:
        if self.low is not None and value < self.low:
            raise UsageError(f"{shown}: must be at least {self.low:g}")
        if self.high is not None and value > self.high:
            raise UsageError(f"{shown}: must be at most {self.high:g}")


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _parsed(parser: Callable[[Any], Any], value: object, where: str, shown: str) -> Any:
    """Parse a text or number; errors say where it stands. Raises UsageError."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise UsageError(f"{shown}: expected a text or a number")
    try:
        return parser(value)
    except UsageError as error:
        raise UsageError(f"{where}: {error}", error.hint) from error


def _number(text: str, kind: type[Any]) -> object:
    """Convert a text to a number; leave it as it is if it is none."""
    try:
        return kind(text)
    except ValueError:
        return text


def _similar(value: str, known: tuple[str, ...]) -> str:
    text = hint(value, known)
    return text if "did you mean" in text else ""


@cache
def settings() -> dict[str, dict[str, Setting]]:
    """Return the settings of every processing command, by command and name."""
    from audiosr_cli.cli import separate, separate_sr, turns, upsample

    functions = (separate.separate, upsample.upsample, separate_sr.separate_sr, turns.turns)
    return {name: _settings_of(function) for name, function in zip(COMMANDS, functions, strict=True)}


def setting(name: str, command: str | None = None) -> Setting:
    """Return the setting called ``name`` of a command, or of the first command that has it; it must exist."""
    return next(known[name] for key, known in settings().items() if command in (None, key) and name in known)


def names(command: str | None = None) -> list[str]:
    """List the names that the table of a command can set, or those that can be set for all commands."""
    if command is not None:
        return list(settings()[command])
    return [name for name in dict.fromkeys(key for known in settings().values() for key in known) if _is_general(name)]


def _is_general(name: str) -> bool:
    return name not in BY_COMMAND


def _settings_of(function: Callable[..., None]) -> dict[str, Setting]:
    """Describe the options of a command by the annotations of its parameters."""
    known = {}
    for parameter in inspect.signature(function).parameters.values():
        annotation, option = get_args(parameter.annotation)
        if not isinstance(option, OptionInfo):
            continue
        words = (option.default, *(option.param_decls or ()))  # typer keeps the first word as a default
        name = next(word for word in words if isinstance(word, str) and word.startswith("--")).removeprefix("--")
        if name in OF_ONE_CALL:
            continue
        kind = next((inner for inner in get_args(annotation) if inner is not type(None)), annotation)
        choices = get_args(annotation) if get_origin(annotation) is Literal else ()
        stated = re.search(r"\[default: (.*?)\]", option.help or "")
        known[name] = Setting(
            name,
            parameter.name,
            str if choices else kind,
            parameter.default,
            stated[1] if stated else "",
            choices,
            option.parser,
            option.min,
            option.max,
        )
    return known
