"""What the three processing commands share: their options, the progress bar, and how outcomes are told."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from audiosr_cli.allocator import check_limit, keep_freed_memory, memory_told
from audiosr_cli.errors import AudioSRError, UsageError

if TYPE_CHECKING:
    from audiosr_cli.audio.read import AudioReader
    from audiosr_cli.batch import Item, Outcome
    from audiosr_cli.pipeline import Pipeline
    from audiosr_cli.process import Progress
    from audiosr_cli.stages import Channels, Options

    Start = Callable[[Item, AudioReader], Progress | None]

_LONG_S = 60.0  # of work that is foretold

Inputs = Annotated[list[str], typer.Argument(help="Recordings, folders of recordings, or - for standard input.")]
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
    spectrogram: Annotated[
        str | None, typer.Option("--spectrogram", help="Draw what went in and came out into this PNG (one recording).")
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False
    skip: Annotated[bool, typer.Option("--skip", help="Leave inputs whose outputs all exist.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a recording on standard output.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say how long each recording took.")] = False


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command, ending in 141 where the reader of its output has gone: typer itself would make that 1."""

    @functools.wraps(command)
    def run(**values: Any) -> None:
        check_limit()
        try:
            with memory_told("audiosr"):
                command(**values)
        except BrokenPipeError as error:
            raise typer.Exit(141) from error
        except OSError as error:
            raise AudioSRError(f"{error.filename or 'standard output'}: {error.strerror}") from error

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


def run_batch(inputs: list[str], make: Callable[[Options], Pipeline], template: str, shared: Shared) -> None:
    """Check the call, load the models, run every input, tell what became of it, set the exit code."""
    from audiosr_cli import batch, picture
    from audiosr_cli.device import pick_bf16, pick_device
    from audiosr_cli.stages import Options

    if shared.overwrite and shared.skip:
        raise UsageError("--overwrite and --skip exclude each other")
    if shared.as_json and shared.output == "-":
        raise UsageError("--json and -o - both want standard output; give -o a file")
    naming = batch.Naming(shared.output, shared.template or template, shared.container)
    items = batch.collect(inputs)
    drawn = Path(shared.spectrogram) if shared.spectrogram else None
    if drawn is not None:
        picture.check(drawn)
        if len(items) != 1 or shared.output == "-":
            raise UsageError("--spectrogram shows one recording, and what files it became")
    keep_freed_memory()
    device = pick_device(shared.device)
    options = Options(
        device,
        shared.batch,
        shared.clip,
        _channels(shared.channels),
        shared.strict,
        shared.nonfinite,
        pick_bf16(shared.precision, device),
    )
    pipeline = make(options)
    batch.check(items, naming, pipeline.outputs)
    existing: batch.Existing = "overwrite" if shared.overwrite else "skip" if shared.skip else "fail"
    codes = []  # of those that failed
    with _progress(show=not shared.quiet) as bar:
        progress = bar if shared.quiet else _forecasting(pipeline, bar)
        for outcome in batch.run(items, pipeline, naming, existing, shared.subtype, progress):
            if outcome.error is not None:
                codes.append(outcome.error.exit_code)
            _tell(outcome, shared)
            if drawn is not None and outcome.report is not None:
                _draw(outcome, drawn)
    if codes:
        raise typer.Exit(min(codes) if len(codes) == len(items) else 3)


def _forecasting(pipeline: Pipeline, bar: Start | None) -> Start:
    """What starts the bar, and says before a long wait how long it will be."""

    def start(item: Item, reader: AudioReader) -> Progress | None:
        seconds = pipeline.forecast(reader)
        if seconds is not None and seconds > _LONG_S:
            _say(f"{item.source}: will take about {seconds / 60:.0f} minutes; fewer --steps are faster")
        return bar(item, reader) if bar else None

    return start


def _channels(text: str) -> Channels:
    if text in ("each", "mix"):
        return "mix" if text == "mix" else "each"
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--channels {text}: each, mix or a channel's number (from 1 on) are possible")
    return int(text)


def _say(text: str) -> None:
    print(f"audiosr: {text}", file=sys.stderr)


def _tell(outcome: Outcome, shared: Shared) -> None:
    report, error = outcome.report, outcome.error
    if error is not None:
        _say(str(error))
    elif report is None and not shared.quiet:
        _say(f"{outcome.item.source}: skipped, its outputs exist")
    if shared.as_json:
        row = asdict(report) if report else {"input": outcome.item.source, "outputs": []}
        row["status"] = "failed" if error else "done" if report else "skipped"
        print(json.dumps(row | ({"error": str(error)} if error else {})), flush=True)
    if report is None or shared.quiet:
        return
    for line in report.notes:
        _say(line)
    for line in report.warnings:
        _say(f"warning: {line}")
    if report.outputs != ["-"] and not shared.as_json:
        print("\n".join(report.outputs), flush=True)
    if shared.verbose:
        seconds = report.frames_in / report.rate_in
        speed = seconds / max(report.elapsed_s, 1e-9)
        _say(f"{report.input}: {seconds:.1f} s of audio in {report.elapsed_s:.1f} s ({speed:.1f} × real time)")


def _draw(outcome: Outcome, target: Path) -> None:
    from audiosr_cli import picture

    assert outcome.report is not None
    source = [] if outcome.item.source == "-" else [outcome.item.source]
    picture.draw([(Path(name).name, Path(name)) for name in (*source, *outcome.report.outputs)], target)


@contextmanager
def _progress(show: bool) -> Iterator[Start | None]:
    """A bar on standard error, one task a recording; nothing where that is no terminal."""
    if not show or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[at]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None, at="")

        def start(item: Item, reader: AudioReader) -> Callable[[int], None]:
            bar.reset(task, total=reader.frames, description=item.source.rsplit("/", 1)[-1], at="0 s")

            def step(frames: int) -> None:
                bar.update(task, completed=frames, at=f"{frames / reader.sample_rate:.0f} s")

            return step

        yield start
