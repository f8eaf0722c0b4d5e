"""The ``audiosr`` command: its sub-commands, and what the shell is told when something goes wrong."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from audiosr_cli import __version__
from audiosr_cli.cli import bench, console, doctor, models, options, separate, separate_sr, train, upsample
from audiosr_cli.errors import AudioSRError

_SIGNALLED = 128  # exit codes above are of signals and broken pipes

app = typer.Typer(
    name="audiosr",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command("separate")(options.guarded(separate.separate))
app.command("upsample")(options.guarded(upsample.upsample))
app.command("separate-sr")(options.guarded(separate_sr.separate_sr))
app.command("train")(options.guarded(train.train))
app.command("bench")(options.guarded(bench.bench))
app.command("doctor")(options.guarded(doctor.doctor))
app.add_typer(models.app, name="models")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"audiosr {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Separate overlapping speakers and restore the bandwidth of recordings of any length.

    Exit codes: 0 ok, 1 all failed, 2 usage, 3 some files failed, 130/143/141 interrupted, terminated, broken pipe.
    """


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # another one must not interrupt what this one begins
    raise SystemExit(128 + number)  # unwinds, so that temporary files go


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    call(app)


def call(app: typer.Typer) -> NoReturn:
    """Run the command line of ``app`` and leave with its exit code."""
    # Threads that wait for each other spin for long otherwise (GCC's OpenMP, read when torch is loaded): with two of
    # them on a core that is shared, `separate` took up to ten times longer; on cores of their own nothing is lost.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names go out as the bytes they are
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except AudioSRError as error:
        console.say(str(error))
        _leave(error.exit_code)
    except KeyboardInterrupt:
        _leave(130)
    except SystemExit as stop:
        _leave(stop.code if isinstance(stop.code, int) else 1)
    _leave(0)


def _leave(code: int) -> NoReturn:
    """Flush and exit; a reader that has gone is told by 141, and never by a traceback at shutdown."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 141
    except OSError as error:
        console.say(f"standard output: {error.strerror or error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    if code > _SIGNALLED:
        os._exit(code)  # threads that compute what nobody wants any more are not waited for; all else has unwound
    sys.exit(code)
