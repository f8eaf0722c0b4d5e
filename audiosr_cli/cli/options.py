"""What the commands share: options of the processing commands, help in groups, and how a call becomes a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_type_hints

import typer
from typer.core import TyperCommand

from audiosr_cli.errors import UsageError, error_of_system
from audiosr_cli.runtime.memory import check_memory_limit, explain_out_of_memory

INPUT, OUTPUT, MODEL, BATCH, MESSAGES = GROUPS = ("Input", "Output", "Model", "Batch", "Messages")

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUTS",
        show_default=False,
        rich_help_panel=INPUT,
        help="Recordings, folders of recordings, 'globs', @lists of paths, or - for standard input.",
    ),
]
Speakers = Annotated[
    int,
    typer.Option("--speakers", "-s", metavar="N", min=1, rich_help_panel=MODEL, help="Number of speakers."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", rich_help_panel=MODEL, help="Name of a bundled model, or a .safetensors file."
    ),
]
Residual = Annotated[
    bool,
    typer.Option(
        "--residual",
        rich_help_panel=OUTPUT,
        help="Also write the residual: the input minus all separated speakers.",
    ),
]
Upsampler = Annotated[
    str | None,
    typer.Option(
        "--upsampler",
        metavar="MODEL",
        rich_help_panel=MODEL,
        help="Model that restores highs above the input's bandwidth.",
    ),
]


@dataclass(frozen=True)
class Shared:
    """The options that every processing command has."""

    channels: Annotated[
        str,
        typer.Option(
            "--channels",
            metavar="each|mix|N",
            rich_help_panel=INPUT,
            help="Process each channel, their mean (one output channel), or only channel N (from 1 on).",
        ),
    ] = "each"
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from",
            metavar="LIST",
            rich_help_panel=INPUT,
            help="File with one input path a line, or - for standard input.",
        ),
    ] = None
    null: Annotated[
        bool,
        typer.Option(
            "--null",
            "-0",
            rich_help_panel=INPUT,
            help="Paths in lists are separated by NUL bytes, as find -print0 prints them.",
        ),
    ] = False
    strict: Annotated[
        bool,
        typer.Option("--strict", rich_help_panel=INPUT, help="Fail on damaged recordings instead of warning."),
    ] = False
    nonfinite: Annotated[
        Literal["error", "zero"],
        typer.Option(
            "--nonfinite",
            rich_help_panel=INPUT,
            help="Samples that are NaN or infinite: fail, or set them to zero and count them.",
        ),
    ] = "error"
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            rich_help_panel=OUTPUT,
            help="Folder, file, or - for standard output. [default: current folder]",
        ),
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            metavar="NAME",
            rich_help_panel=OUTPUT,
            help="File name of the outputs, with the fields {stem}, {speaker}, {rate} and {ext}.",
        ),
    ] = None
    container: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            rich_help_panel=OUTPUT,
            help="wav, flac, w64, aiff, caf, m4a, mp3, opus, ogg; or mp4, mov, mkv, webm, which keep the video. "
            "[default: the output's suffix, or wav]",
        ),
    ] = None
    subtype: Annotated[
        str | None,
        typer.Option(
            "--subtype",
            metavar="16|24|32|float",
            rich_help_panel=OUTPUT,
            help="Sample format. [default: the input's; 16 for lossy input]",
        ),
    ] = None
    bitrate: Annotated[
        str | None,
        typer.Option(
            "--bitrate",
            metavar="BITS",
            rich_help_panel=OUTPUT,
            help="Bits per second of lossy outputs, such as 192k. [default: one that cannot be heard]",
        ),
    ] = None
    clip: Annotated[
        Literal["warn", "rescale", "error"],
        typer.Option(
            "--clip",
            rich_help_panel=OUTPUT,
            help="Samples above full scale: clip and count them, lower the level of all outputs, or fail.",
        ),
    ] = "warn"
    fail: Annotated[
        bool, typer.Option("--fail", rich_help_panel=OUTPUT, help="Fail if an output exists (default).")
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel=OUTPUT, help="Replace outputs that already exist.")
    ] = False
    skip: Annotated[
        bool, typer.Option("--skip", rich_help_panel=OUTPUT, help="Skip inputs whose outputs already exist.")
    ] = False
    no_provenance: Annotated[
        bool,
        typer.Option(
            "--no-provenance",
            rich_help_panel=OUTPUT,
            help="Do not tag outputs with the version, models and options that made them.",
        ),
    ] = False
    keep_time: Annotated[
        bool,
        typer.Option(
            "--keep-time", rich_help_panel=OUTPUT, help="Give outputs the modification time of their recording."
        ),
    ] = False
    spectrogram: Annotated[
        str | None,
        typer.Option(
            "--spectrogram",
            metavar="PNG",
            rich_help_panel=OUTPUT,
            help="Draw the spectrograms of the input and the outputs into this file (one recording).",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", rich_help_panel=OUTPUT, help="Print what would be written, and write nothing."),
    ] = False
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option("--device", rich_help_panel=MODEL, help="Where to run the model."),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bf16"],
        typer.Option("--precision", rich_help_panel=MODEL, help="auto uses bf16 if it is faster on this device."),
    ] = "auto"
    batch: Annotated[
        int,
        typer.Option(
            "--batch", metavar="N", min=1, max=256, rich_help_panel=MODEL, help="Number of windows in a batch."
        ),
    ] = 1
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            min=1,
            max=256,
            rich_help_panel=MODEL,
            help="Number of batches processed in parallel on the CPU. [default: number of cores, at most 4]",
        ),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", metavar="i/N", rich_help_panel=BATCH, help="Process only every N-th input, from the i-th on."
        ),
    ] = None
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            min=1,
            rich_help_panel=BATCH,
            help="Number of worker processes, each with --threads threads or its share of the default. [default: 1]",
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            rich_help_panel=BATCH,
            help="Run on a Ray cluster, one worker per GPU (or CPU), at most --jobs. ADDRESS: local starts a cluster, "
            "auto or HOST:PORT connects to a running one. All nodes need the same paths, and audiosr-cli[ray].",
        ),
    ] = None
    manifest: Annotated[
        str | None,
        typer.Option(
            "--manifest",
            metavar="FILE",
            rich_help_panel=BATCH,
            help="Append a JSON line about every recording to this file.",
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", rich_help_panel=BATCH, help="Skip recordings that --manifest shows as complete."),
    ] = False
    as_json: Annotated[
        bool,
        typer.Option("--json", rich_help_panel=MESSAGES, help="Print events to standard output, one JSON object each."),
    ] = False
    progress: Annotated[
        Literal["auto", "plain", "json", "none"],
        typer.Option(
            "--progress",
            rich_help_panel=MESSAGES,
            help="Progress on standard error: a bar on a terminal, lines, JSON events, or nothing.",
        ),
    ] = "auto"
    quiet: Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=MESSAGES, help="Print errors only.")] = False
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", rich_help_panel=MESSAGES, help="Print how long each recording took."),
    ] = False


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


processing = expand("shared", Shared)  # the decorator of every processing command
