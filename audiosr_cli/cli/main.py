"""The ``audiosr`` command: its sub-commands, signals and exit codes."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, NoReturn

import typer

from audiosr_cli import __version__
from audiosr_cli.cli import bench, config, console, doctor, models, separate, separate_sr, train, turns, upsample
from audiosr_cli.cli.commands import GroupedCommand, RootGroup, guarded
from audiosr_cli.cli.processing import ProcessingCommand
from audiosr_cli.errors import AudioSRError
from audiosr_cli.runtime.signals import exit_on_termination

_SIGNAL_CODES = 128  # exit codes above this are those of signals and broken pipes

app = typer.Typer(
    name="audiosr",
    cls=RootGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command("separate", cls=ProcessingCommand)(guarded(separate.separate))
app.command("upsample", cls=ProcessingCommand)(guarded(upsample.upsample))
app.command("separate-sr", cls=ProcessingCommand)(guarded(separate_sr.separate_sr))
app.command("turns", cls=ProcessingCommand)(guarded(turns.turns))
app.command("train", cls=GroupedCommand)(guarded(train.train))
app.command("bench", cls=GroupedCommand)(guarded(bench.bench))
app.command("doctor", cls=GroupedCommand)(guarded(doctor.doctor))
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")


def _print_version(requested: bool) -> None:
    if requested:
        print(f"audiosr {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Separate overlapping speakers and restore the bandwidth of recordings of any length.

    Exit codes: 0 success, 1 all failed, 2 invalid call, 3 some recordings failed, 130 interrupted (Ctrl-C),
    143 terminated, 129 hung up (the terminal was closed), 141 nobody reads the output.
    """


def main() -> NoReturn:
    """Run the command line and exit with its exit code."""
    call(app)


def call(app: typer.Typer) -> NoReturn:
    """Run the command line of ``app`` and exit with its exit code."""
    # By default threads that wait for each other spin for long (GCC's OpenMP reads this when torch is loaded). With two
    # threads on a shared core `separate` took up to ten times longer; on cores of their own nothing is lost.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    exit_on_termination()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names are printed as the bytes they are
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except AudioSRError as error:
        console.print_error(error)
        _exit(error.exit_code)
    except KeyboardInterrupt:
        _exit(130)
    except SystemExit as stop:
        _exit(stop.code if isinstance(stop.code, int) else 1)
    _exit(0)


def _exit(code: int) -> NoReturn:
    """Flush and exit: with 141 if nobody reads the output, and never with a traceback at shutdown."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 141
    except OSError as error:
        if code != 1:  # an error has been printed already
            console.print_message(f"standard output: {error.strerror or error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    if code > _SIGNAL_CODES:
        os._exit(code)  # does not wait for threads that still compute; everything else has been cleaned up
    sys.exit(code)
