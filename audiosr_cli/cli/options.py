"""What the three processing commands share: their options, and the way a call becomes a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_type_hints

import typer

from audiosr_cli.errors import AudioSRError, UsageError
from audiosr_cli.runtime.memory import check_memory_limit, explain_out_of_memory

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUTS...",
        show_default=False,
        help="Recordings, folders of recordings, 'globs', @lists of paths, or - for standard input.",
    ),
]
Speakers = Annotated[int, typer.Option("--speakers", "-s", min=1, help="How many people speak.")]
Model = Annotated[str | None, typer.Option("--model", help="A bundled model's name or a .safetensors file.")]
Residual = Annotated[bool, typer.Option("--residual", help="Write what the speakers leave of the input, too.")]
Upsampler = Annotated[str | None, typer.Option("--upsampler", help="The same for the second half.")]


@dataclass(frozen=True)
class Shared:
    """The options that every processing command has."""

    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder, file, or - for standard output. [default: current folder]"),
    ] = None
    template: Annotated[
        str | None, typer.Option("--template", help="Names of outputs, made of {stem}, {speaker}, {rate} and {ext}.")
    ] = None
    container: Annotated[
        str | None, typer.Option("--format", help="wav, flac, w64, aiff, caf, ogg, opus or mp3. [default: wav]")
    ] = None
    subtype: Annotated[
        str | None, typer.Option("--subtype", help="16, 24, 32 or float. [default: the input's; 16 for lossy input]")
    ] = None
    clip: Annotated[
        Literal["warn", "rescale", "error"],
        typer.Option("--clip", help="What lies above full scale: clip and count, turn all outputs down, or fail."),
    ] = "warn"
    channels: Annotated[
        str, typer.Option("--channels", help="each by itself, mix (their mean, so mono comes out), or one, from 1 on.")
    ] = "each"
    strict: Annotated[bool, typer.Option("--strict", help="Damage in a recording is an error, not a warning.")] = False
    nonfinite: Annotated[
        Literal["error", "zero"],
        typer.Option("--nonfinite", help="Samples that are NaN or infinite: fail, or zero and count them."),
    ] = "error"
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where the model runs.")] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bf16"], typer.Option("--precision", help="auto: bf16 where that is faster.")
    ] = "auto"
    batch: Annotated[int, typer.Option("--batch", min=1, max=256, help="Windows through the model at once.")] = 1
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, max=256, help="Such batches at the same time, on a CPU. [default: its cores, 4 at most]"
        ),
    ] = None
    spectrogram: Annotated[
        str | None, typer.Option("--spectrogram", help="Draw what went in and came out into this PNG (one recording).")
    ] = None
    files_from: Annotated[
        str | None, typer.Option("--files-from", help="A file with one input a line, or - for standard input.")
    ] = None
    null: Annotated[bool, typer.Option("--null", "-0", help="Lists are separated by NUL bytes, as find -print0.")] = (
        False
    )
    shard: Annotated[str | None, typer.Option("--shard", help="i/N: every N-th input only, from the i-th on.")] = None
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="So many processes; each has --threads, or its share. [default: one]"),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="The same on Ray, a process for each GPU or CPU, --jobs of them at most: local starts a cluster, auto "
            "and HOST:PORT are one that this machine is in. All nodes need the same paths, and audiosr-cli[ray].",
        ),
    ] = None
    manifest: Annotated[
        str | None, typer.Option("--manifest", help="A JSON line on every recording is added to this file.")
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave what --manifest proves to be done, do the rest, and again.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False
    fail: Annotated[bool, typer.Option("--fail", help="Outputs that exist are errors; so it is by default.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False
    skip: Annotated[bool, typer.Option("--skip", help="Leave inputs whose outputs all exist.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Events on standard output, a JSON object each.")] = False
    progress: Annotated[
        Literal["auto", "plain", "json", "none"],
        typer.Option("--progress", help="On standard error: a bar on a terminal, lines, JSON events, or nothing."),
    ] = "auto"
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say how long each recording took.")] = False


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command, ending in 141 where the reader of its output has gone: typer itself would make that 1."""

    @functools.wraps(command)
    def run(**values: Any) -> None:
        check_memory_limit()
        for name, value in values.items():
            if any("\0" in str(text) for text in (value if isinstance(value, list) else [value])):  # not from a shell
                raise UsageError(f"{name.replace('_', '-')}: holds a NUL byte, as no path does")
        try:
            with explain_out_of_memory(command.__name__.replace("_", "-")):
                command(**values)
        except BrokenPipeError as error:
            raise typer.Exit(141) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise AudioSRError(f"{where}{error.strerror or error}") from error

    return run


def processing(command: Callable[..., None]) -> Callable[..., None]:
    """A command with a parameter ``shared: Shared``, as one that has all of Shared's options instead."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "shared"]
    hints = get_type_hints(Shared, include_extras=True)
    more = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(Shared)
    ]

    def run(**values: Any) -> None:
        shared = Shared(**{parameter.name: values.pop(parameter.name) for parameter in more})
        command(**values, shared=shared)

    run.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run
