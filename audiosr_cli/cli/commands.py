"""How a call becomes a command: help in groups, dataclasses as options, errors of the operating system."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from audiosr_cli.errors import UsageError, error_of_system
from audiosr_cli.runtime.memory import check_memory_limit, explain_out_of_memory

INPUT, OUTPUT, TURNS, MODEL, BATCH, DEFAULTS, MESSAGES = GROUPS = (
    "Input",
    "Output",
    "Who speaks when",
    "Model",
    "Batch",
    "Defaults",
    "Messages",
)


class GroupedCommand(TyperCommand):
    """A command whose help lists parameters in groups, those of their ``rich_help_panel``, without loading rich."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group: ``GROUPS`` come last, in their order; --help joins the messages."""
        sections: dict[str, list[tuple[str, str]]] = {}
        parameters = self.get_params(ctx)
        grouped = any(getattr(parameter, "rich_help_panel", None) for parameter in parameters)
        for parameter in parameters:
            record = parameter.get_help_record(ctx)
            is_argument = parameter.param_type_name == "argument"
            if record is not None and is_argument:
                record = (str(parameter.metavar or parameter.name), record[1])  # the name alone, not its Python type
            default = "Arguments" if is_argument else MESSAGES if grouped else "Options"
            if record is not None:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(record)
        for title in sorted(sections, key=lambda title: GROUPS.index(title) if title in GROUPS else -1):
            with formatter.section(title):
                formatter.write_dl(sections[title])


class RootGroup(TyperGroup):
    """The ``audiosr`` command itself: where a recording stands in place of a command, it says which to use."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the command; refuse -i, which other tools have for the input."""
        if args and args[0] in ("-i", "--input"):
            _suggest_commands(args[0], args[1] if len(args) > 1 else "IN.wav")
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; refuse the name of a recording."""
        name = args[0]
        if self.get_command(ctx, name) is None and (name == "-" or Path(name).suffix or "/" in name or _exists(name)):
            _suggest_commands(name, name)
        return super().resolve_command(ctx, args)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def _suggest_commands(word: str, recording: str) -> NoReturn:
    name = shlex.quote(recording)
    raise UsageError(f"{word}: is not a command", f"did you mean: audiosr separate {name}, or audiosr upsample {name}")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command: refuse NUL bytes, report a lack of memory, and translate errors of the operating system.

    Where the reader of the output has gone, the command exits with 141; typer itself would exit with 1.
    """

    @functools.wraps(command)
    def run(**values: Any) -> None:
        check_memory_limit()
        for name, value in values.items():
            if any("\0" in str(text) for text in (value if isinstance(value, list) else [value])):  # not from a shell
                raise UsageError(f"{name.replace('_', '-')}: contains a NUL byte, which no path can")
        try:
            with explain_out_of_memory(command.__name__.replace("_", "-")):
                command(**values)
        except BrokenPipeError as error:
            raise typer.Exit(141) from error
        except OSError as error:
            raise error_of_system(error) from error

    return run


def expand(parameter: str, kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces one parameter of a command by one option for each field of a dataclass.

    Args:
        parameter: The keyword parameter that is replaced.
        kind: The dataclass; its fields are annotated with typer options and have defaults.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [known for name, known in signature.parameters.items() if name != parameter]
        hints = get_type_hints(kind, include_extras=True)
        added = [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
            )
            for field in fields(kind)
        ]

        def run(**values: Any) -> None:
            options = kind(**{option.name: values.pop(option.name) for option in added})
            command(**values, **{parameter: options})

        run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {}
        run.__doc__, run.__name__ = command.__doc__, command.__name__
        return run

    return decorate
