"""``audiosr config``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from audiosr_cli.cli import console, sources
from audiosr_cli.cli.commands import GroupedCommand, guarded
from audiosr_cli.cli.settings import COMMANDS, Setting, settings
from audiosr_cli.cli.sources import Value

app = typer.Typer(no_args_is_help=True, help="Show the options that files, presets and the environment set.")


@app.command("show", cls=GroupedCommand)
@guarded
def show(
    command: Annotated[
        Literal["separate", "upsample", "separate-sr", "turns"] | None,
        typer.Argument(
            metavar="COMMAND", show_default=False, help="separate, upsample, separate-sr or turns. [default: all]"
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", metavar="NAME", help="As with this preset.")] = None,
    no_config: Annotated[bool, typer.Option("--no-config", help="As without files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the value of every option, and where it comes from.

    The command line counts first, then a preset, the environment, ./audiosr.toml, the user's audiosr.toml, and the
    default.
    """
    rows = {name: _rows(name, preset, no_config) for name in COMMANDS if command in (None, name)}
    if as_json:
        plain = {name: {key: asdict(value) for key, value in row.items()} for name, row in rows.items()}
        console.print_output(json.dumps(plain))
    else:
        for name, row in rows.items():
            width = max(map(len, row))
            console.print_output(name)
            for key, value in row.items():
                text = _text(settings()[name][key], value.value)
                console.print_output(f"  {key:{width}}  {text:20}  {value.source}".rstrip())
    for line in sources.unknown_variables():
        console.print_message(f"warning: {line}")


@app.command("path", cls=GroupedCommand)
@guarded
def path() -> None:
    """Print where the files are looked for, the working folder's first, and whether they exist."""
    for file in (sources.folder_file().absolute(), sources.user_file()):
        console.print_output(f"{file}{'' if file.is_file() else ' (does not exist)'}")


def _rows(command: str, preset: str | None, no_config: bool) -> dict[str, Value]:
    """Return all options of a command, by name."""
    values = sources.resolve(command, None, preset, no_config)
    return {
        name: values.get(setting.parameter, Value(setting.default, "default"))
        for name, setting in settings()[command].items()
    }


def _text(setting: Setting, value: Any) -> str:
    """Format a value as a file would have it; a default that is no value in its own words."""
    if value is None:
        return f"({setting.default_text})" if setting.default_text else "(not set)"
    return json.dumps(value)
