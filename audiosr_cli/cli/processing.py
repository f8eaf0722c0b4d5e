"""A processing command: options that are not on its command line come from presets, the environment and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import typer

from audiosr_cli.cli import console, sources
from audiosr_cli.cli.commands import GroupedCommand
from audiosr_cli.cli.settings import settings
from audiosr_cli.errors import UsageError

# The base class of what typer raises for an impossible command line; typer does not export it.
_CallError = cast("type[Exception]", typer.BadParameter.__mro__[1])


class ProcessingCommand(GroupedCommand):
    """A command that takes what is not on its command line from other sources; each switch has a --no- form."""

    def make_parser(self, ctx: Any) -> Any:
        """Add the --no- form of every switch, which switches off what a file or variable switches on."""
        parser = super().make_parser(ctx)
        known = {setting.parameter: setting for setting in settings()[self._command].values()}
        parameters: list[Any] = self.get_params(ctx)
        for parameter in parameters:
            if parameter.name in known and known[parameter.name].kind is bool:
                name = f"--no-{known[parameter.name].name}"
                parser.add_option(obj=parameter, opts=[name], dest=parameter.name, action="store_const", const=False)
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; other sources are the defaults."""
        try:
            arguments, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        except _CallError as error:
            if getattr(error, "option_name", None) not in ("-i", "--input"):
                raise
            raise UsageError("-i: no such option", f"did you mean: audiosr {self._command} IN.wav?") from error
        if not arguments.get("help"):
            values = sources.resolve(
                self._command, arguments, arguments.get("preset"), bool(arguments.get("no_config"))
            )
            output = arguments.get("output")
            if self._command == "upsample" and list(arguments.get("inputs") or ()) == ["-"]:
                values.pop("output", None)  # a pipe stays a pipe, wherever recordings usually go
                output = output or "-"
            if _tells_format(output):
                values.pop("container", None)  # the name on the command line counts
            ctx.default_map = {name: value.value for name, value in values.items()}
        rest: list[str] = super().parse_args(ctx, args)
        if ctx.default_map and ctx.params.get("verbose") and not ctx.params.get("quiet"):
            for source in dict.fromkeys(value.source for value in values.values()):
                options = ", ".join(name for name, value in values.items() if value.source == source)
                console.print_message(f"options from {source}: {options.replace('_', '-')}")
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error of usage says that some options are not on the command line."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            if ctx.default_map and error.hint is None:
                error.hint = f"some options come from elsewhere; see audiosr config show {self._command}"
            raise

    @property
    def _command(self) -> str:
        return str(self.name)


def _tells_format(output: str | None) -> bool:
    """Return whether the output that the command line names has a format: its suffix, or WAV for standard output."""
    from audiosr_cli.audio.formats import container_of

    return output is not None and (output == "-" or container_of(Path(output)) is not None)
