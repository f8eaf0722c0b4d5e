"""``audiosr bench``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from audiosr_cli.cli import console
from audiosr_cli.errors import UsageError

if TYPE_CHECKING:
    from audiosr_cli.bench.candidates import Setting
    from audiosr_cli.bench.report import Row, Table
    from audiosr_cli.bench.run import Chosen, Plan

_WIDE = 200  # columns of a table that goes to no terminal

_Source = Annotated[str | None, typer.Argument(metavar="INPUT", help="A recording to measure speed on.")]
_Synthetic = Annotated[float | None, typer.Option("--synthetic", help="Seconds of noise instead.")]
_Models = Annotated[
    str | None,
    typer.Option(
        "--models",
        help="separate, separate-sr, upsample (whole commands), models' names or files, comma-separated. "
        "[default: all; for --memory and --quality the commands]",
    ),
]
_Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        help="Peers beside them, comma-separated: soxr, ap-bwe, sepformer, sfsrnet, dprnn, conv-tasnet, "
        "speechbrain-sepformer, asteroid-dprnn, asteroid-convtasnet, demucs; or all that are installed.",
    ),
]
_QualityFolder = Annotated[
    Path | None,
    typer.Option(
        "--quality",
        help="Score on a folder: mix/*.wav with s1/*.wav, s2/*.wav (separation), or full-band *.wav (upsampling).",
    ),
]
_Rates = Annotated[str, typer.Option("--from", help="Rates that full-band references are restored from, in Hz.")]
_Memory = Annotated[bool, typer.Option("--memory", help="Peak memory against the length of a recording.")]
_Lengths = Annotated[str, typer.Option("--lengths", help="Seconds for --memory.")]
_Runs = Annotated[int, typer.Option("--runs", min=1, help="Runs of each, in turn; the median counts.")]
_Batch = Annotated[int, typer.Option("--batch", min=1, max=256, help="Windows through the model at once.")]
_Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where the models run.")]
_Threads = Annotated[int | None, typer.Option("--threads", min=1, max=256, help="As the commands'.")]
_Precision = Annotated[Literal["auto", "float32", "bf16"], typer.Option("--precision", help="As the commands'.")]
_AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a run instead of tables.")]
_Markdown = Annotated[bool, typer.Option("--markdown", help="Tables in Markdown, with machine and commit.")]
_Picture = Annotated[
    Path | None, typer.Option("--picture", help="Draw quality against speed, and memory, into this PNG.")
]


def bench(
    source: _Source = None,
    synthetic: _Synthetic = None,
    models: _Models = None,
    against: _Against = None,
    quality: _QualityFolder = None,
    rates: _Rates = "8000,16000",
    memory: _Memory = False,
    lengths: _Lengths = "1,10,60,600",
    runs: _Runs = 3,
    batch: _Batch = 1,
    threads: _Threads = None,
    precision: _Precision = "auto",
    device: _Device = "auto",
    as_json: _AsJson = False,
    markdown: _Markdown = False,
    picture: _Picture = None,
) -> None:
    """Measure speed (INPUT or --synthetic), --memory, and --quality, of ours and --against others.

    Every run is a process of its own, by turns. Start-up is a whole process on one second of audio. The floor is what
    the multiplications of a model would take at the highest rate that was measured here.
    """
    _check_call(source, synthetic, quality is not None or memory, as_json and markdown)
    from audiosr_cli.bench.candidates import Setting
    from audiosr_cli.bench.run import Plan, choose

    _check_here(picture, device)
    plan = Plan(
        tuple(models.split(",")) if models else (),
        _peers(against),
        source is not None or synthetic is not None,
        runs,
        tuple(_numbers("--lengths", lengths)) if memory else (),
        quality,
        tuple(dict.fromkeys(round(rate) for rate in _numbers("--from", rates))),
    )
    with TemporaryDirectory(prefix="audiosr-bench-") as folder:
        setting = Setting(Path(folder), source, synthetic or 1.0, device, batch, threads, precision)
        _run(plan, choose(plan), setting, as_json, markdown, picture)


def _check_call(source: str | None, synthetic: float | None, more: bool, both_forms: bool) -> None:
    """Raise UsageError on what cannot be meant; ``more`` than speed may be asked for."""
    if source is not None and synthetic is not None:
        raise UsageError("give either a recording or --synthetic SECONDS")
    if source is None and synthetic is None and not more:
        raise UsageError("nothing to measure; give a recording, --synthetic SECONDS, --memory or --quality FOLDER")
    if synthetic is not None and not 0 < synthetic < math.inf:
        raise UsageError(f"--synthetic {synthetic}: must be above 0 seconds")
    if both_forms:
        raise UsageError("--json and --markdown exclude each other")


def _check_here(picture: Path | None, device: str) -> None:
    """Raise UsageError where no picture can be drawn, or on ``cuda`` without one; ``auto`` the worker finds."""
    if picture is not None:
        from audiosr_cli.audio.spectrogram import check

        check(picture, "--picture")
    if device == "cuda":
        from audiosr_cli.runtime.device import pick_device

        pick_device(device)


def _peers(text: str | None) -> tuple[str, ...]:
    from audiosr_cli.bench.peers import PEERS, installed

    if text != "all":
        return tuple(text.split(",")) if text else ()
    here = installed()
    for name in [name for name in PEERS if name not in here]:
        console.say(f"{name} is left out: {PEERS[name].package} is not installed here")
    return tuple(here)


def _numbers(option: str, text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < number < math.inf for number in found):
        raise UsageError(f"{option} {text}: numbers above 0 are wanted, comma-separated")
    return found


def _run(plan: Plan, chosen: Chosen, setting: Setting, as_json: bool, markdown: bool, picture: Path | None) -> None:
    """Measure, tell, draw; the exit code says whether something failed."""
    from audiosr_cli.bench import report
    from audiosr_cli.bench.candidates import Failed
    from audiosr_cli.bench.run import run

    rows: list[Row] = []
    where = report.environment()
    if as_json:
        console.put(report.as_json(where))
    for row in run(plan, chosen, setting):
        rows.append(row)
        if isinstance(row, Failed):
            console.say(f"{row.model}: {row.reason}")
        if as_json:
            console.put(report.as_json(row))
    if markdown:
        console.put(report.markdown(report.tables(rows), where))
    elif not as_json:
        _print(report.tables(rows), str(where))
    if picture is not None:
        from audiosr_cli.bench.plot import draw

        draw(rows, where, picture)
    failed = sum(isinstance(row, Failed) for row in rows)
    if failed:
        raise typer.Exit(3 if report.tables(rows) else 1)


def _print(tables: list[Table], where: str) -> None:
    """Tables as a terminal shows them."""
    from rich.console import Console
    from rich.table import Table as Shown

    screen = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    for table in tables:
        shown = Shown(*table.columns, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        with console.onto_standard_output():
            screen.print(shown)
    console.put(where)
