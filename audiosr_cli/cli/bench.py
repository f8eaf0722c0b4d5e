"""``audiosr bench``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from audiosr_cli.cli import console
from audiosr_cli.cli.commands import INPUT, MESSAGES, MODEL, OUTPUT
from audiosr_cli.errors import UsageError

if TYPE_CHECKING:
    from audiosr_cli.bench.candidates import BenchSettings
    from audiosr_cli.bench.report import Row, Table
    from audiosr_cli.bench.run import BenchPlan, Selection

_WIDTH = 200  # columns of a table that does not go to a terminal
_MEASUREMENTS = "Measurements"

_Source = Annotated[
    str | None,
    typer.Argument(metavar="INPUT", rich_help_panel=INPUT, help="Recording to measure speed on."),
]
_Synthetic = Annotated[
    float | None,
    typer.Option(
        "--synthetic", metavar="SECONDS", rich_help_panel=INPUT, help="Measure speed on so much noise instead."
    ),
]
_Models = Annotated[
    str | None,
    typer.Option(
        "--models",
        metavar="NAMES",
        rich_help_panel=MODEL,
        help="Comma-separated: separate, separate-sr and upsample (whole commands), names of bundled models, or "
        ".safetensors files. [default: all; for --memory and --quality the commands]",
    ),
]
_Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="NAMES",
        rich_help_panel=MODEL,
        help="Comma-separated peers to compare with: soxr, ap-bwe, sepformer, sfsrnet, dprnn, conv-tasnet, "
        "speechbrain-sepformer, asteroid-dprnn, asteroid-convtasnet, demucs; or all that are installed.",
    ),
]
_QualityFolder = Annotated[
    Path | None,
    typer.Option(
        "--quality",
        metavar="FOLDER",
        rich_help_panel=_MEASUREMENTS,
        help="Score on references: mix/*.wav with s1/*.wav, s2/*.wav (separation), or full-band *.wav (upsampling).",
    ),
]
_Perceptual = Annotated[
    bool,
    typer.Option(
        "--perceptual",
        rich_help_panel=_MEASUREMENTS,
        help="With --quality: also STOI, PESQ, ViSQOL, DNSMOS (pip install 'audiosr-cli[metrics]').",
    ),
]
_Rates = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="HZ,HZ",
        rich_help_panel=_MEASUREMENTS,
        help="Sample rates to restore full-band references from.",
    ),
]
_Memory = Annotated[
    bool,
    typer.Option(
        "--memory", rich_help_panel=_MEASUREMENTS, help="Measure peak memory for recordings of several lengths."
    ),
]
_Lengths = Annotated[
    str,
    typer.Option("--lengths", metavar="SECONDS,…", rich_help_panel=_MEASUREMENTS, help="Lengths for --memory."),
]
_Runs = Annotated[
    int,
    typer.Option(
        "--runs", metavar="N", min=1, rich_help_panel=_MEASUREMENTS, help="Speed runs of each; reports the median."
    ),
]
_Batch = Annotated[
    int,
    typer.Option("--batch", metavar="N", min=1, max=256, rich_help_panel=MODEL, help="Number of windows in a batch."),
]
_Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option("--device", rich_help_panel=MODEL, help="Where to run the models."),
]
_Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        max=256,
        rich_help_panel=MODEL,
        help="Number of batches processed in parallel on the CPU. [default: number of cores, at most 4]",
    ),
]
_Precision = Annotated[
    Literal["auto", "float32", "bf16"],
    typer.Option("--precision", rich_help_panel=MODEL, help="auto uses bf16 if it is faster on this device."),
]
_AsJson = Annotated[
    bool,
    typer.Option(
        "--json", rich_help_panel=MESSAGES, help="Print one JSON object for each measurement instead of tables."
    ),
]
_Markdown = Annotated[
    bool,
    typer.Option("--markdown", rich_help_panel=MESSAGES, help="Print tables in Markdown, with machine and commit."),
]
_Picture = Annotated[
    Path | None,
    typer.Option(
        "--picture", metavar="PNG", rich_help_panel=OUTPUT, help="Plot quality against speed, and memory, to this file."
    ),
]


def bench(
    source: _Source = None,
    synthetic: _Synthetic = None,
    quality: _QualityFolder = None,
    perceptual: _Perceptual = False,
    rates: _Rates = "8000,16000",
    memory: _Memory = False,
    lengths: _Lengths = "1,10,60,600",
    runs: _Runs = 3,
    picture: _Picture = None,
    models: _Models = None,
    against: _Against = None,
    batch: _Batch = 1,
    threads: _Threads = None,
    precision: _Precision = "auto",
    device: _Device = "auto",
    as_json: _AsJson = False,
    markdown: _Markdown = False,
) -> None:
    """Measure speed, memory and quality of models.

    Measures speed on INPUT or --synthetic noise, and --memory and --quality. Each run is a separate process; models
    are interleaved. The roofline is the time of a model's multiplications at the highest rate of this machine.
    """
    _check_call(source, synthetic, quality is not None or memory, as_json and markdown)
    from audiosr_cli.bench.candidates import BenchSettings
    from audiosr_cli.bench.run import BenchPlan, select_candidates

    _check_machine(picture, device)
    if perceptual:
        _check_perceptual(quality)
    plan = BenchPlan(
        tuple(models.split(",")) if models else (),
        _peers(against),
        source is not None or synthetic is not None,
        runs,
        tuple(_numbers("--lengths", lengths)) if memory else (),
        quality,
        tuple(dict.fromkeys(round(rate) for rate in _numbers("--from", rates))),
    )
    with TemporaryDirectory(prefix="audiosr-bench-") as folder:
        settings = BenchSettings(Path(folder), source, synthetic or 1.0, device, batch, threads, precision, perceptual)
        _run(plan, select_candidates(plan), settings, as_json, markdown, picture)


def _check_call(source: str | None, synthetic: float | None, more: bool, both_forms: bool) -> None:
    """Raise UsageError if options contradict each other; ``more`` than speed may be measured."""
    if source is not None and synthetic is not None:
        raise UsageError("a recording and --synthetic exclude each other; give one of them")
    if source is None and synthetic is None and not more:
        raise UsageError("nothing to measure; give a recording, --synthetic SECONDS, --memory or --quality FOLDER")
    if synthetic is not None and not 0 < synthetic < math.inf:
        raise UsageError(f"--synthetic {synthetic}: must be above 0 seconds")
    if both_forms:
        raise UsageError("--json and --markdown exclude each other; give one of them")


def _check_machine(picture: Path | None, device: str) -> None:
    """Raise UsageError if no picture can be drawn, or "cuda" is asked for and missing."""
    if picture is not None:
        from audiosr_cli.audio.spectrogram import check

        check(picture, "--picture")
    if device == "cuda":
        from audiosr_cli.runtime.device import pick_device

        pick_device(device)


def _check_perceptual(quality: Path | None) -> None:
    """Raise UsageError if perceptual metrics cannot be computed."""
    from audiosr_cli.bench.perceptual import check_installed

    if quality is None:
        raise UsageError("--perceptual scores the recordings of --quality; give --quality FOLDER, too")
    check_installed("--perceptual")


def _peers(text: str | None) -> tuple[str, ...]:
    from audiosr_cli.bench.peers import PEERS, installed

    if text != "all":
        return tuple(text.split(",")) if text else ()
    available = installed()
    for name in [name for name in PEERS if name not in available]:
        console.print_message(f"leaving out {name}: {PEERS[name].package} is not installed")
    return tuple(available)


def _numbers(option: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [0.0]
    if not all(0 < number < math.inf for number in numbers):
        raise UsageError(f"{option} {text}: expected numbers above 0, separated by commas")
    return numbers


def _run(
    plan: BenchPlan,
    selection: Selection,
    settings: BenchSettings,
    as_json: bool,
    markdown: bool,
    picture: Path | None,
) -> None:
    """Measure, print and plot; exit with 3 if something failed, with 1 if everything did."""
    from audiosr_cli.bench import report
    from audiosr_cli.bench.candidates import Failure
    from audiosr_cli.bench.run import run

    rows: list[Row] = []
    environment = report.environment()
    if as_json:
        console.print_output(report.as_json(environment))
    for row in run(plan, selection, settings):
        rows.append(row)
        if isinstance(row, Failure):
            console.print_message(f"{row.model}: {row.reason}")
        if as_json:
            console.print_output(report.as_json(row))
    tables = report.tables(rows)
    if markdown:
        console.print_output(report.markdown(tables, environment))
    elif not as_json:
        _print(tables, str(environment))
    if picture is not None:
        from audiosr_cli.bench.plot import draw

        draw(rows, environment, picture)
    if any(isinstance(row, Failure) for row in rows):
        raise typer.Exit(3 if tables else 1)


def _print(tables: list[Table], environment: str) -> None:
    """Print tables for a terminal."""
    from rich.console import Console
    from rich.table import Table as RichTable

    screen = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    for table in tables:
        rich_table = RichTable(*table.columns, title=table.title, title_justify="left")
        for row in table.rows:
            rich_table.add_row(*row)
        with console.writing_standard_output():
            screen.print(rich_table)
    console.print_output(environment)
