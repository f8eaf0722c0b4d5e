"""``audiosr bench``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from audiosr_cli.errors import UsageError


def bench(
    source: Annotated[str | None, typer.Argument(metavar="[INPUT]", help="A recording to run on.")] = None,
    synthetic: Annotated[float | None, typer.Option("--synthetic", help="Seconds of noise instead.")] = None,
    models: Annotated[
        str | None, typer.Option("--models", help="Names or files, comma-separated. [default: all]")
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs of each, in turn; the median counts.")] = 3,
    batch: Annotated[int, typer.Option("--batch", min=1, max=256, help="Windows through the model at once.")] = 1,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where the models run.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a run instead of a table.")] = False,
) -> None:
    """Measure speed: real-time factor, CPU seconds per second of audio, peak memory."""
    if (source is None) == (synthetic is None):
        raise UsageError("give either a recording or --synthetic SECONDS")
    if synthetic is not None and synthetic <= 0:
        raise UsageError(f"--synthetic {synthetic}: must be above 0 seconds")
    from audiosr_cli import weights
    from audiosr_cli.bench import speed
    from audiosr_cli.device import pick_device
    from audiosr_cli.stages import Options

    options = Options(device=pick_device(device), batch=batch)
    alone = [name for name, entry in weights.catalogue().items() if {"separate", "upsample"} & {*entry["tasks"]}]
    names = models.split(",") if models else alone
    results: list[speed.Speed] = []
    for name in names * runs:
        model = weights.load_model(name, options.device)
        if model.spec.task in ("voice", "separate-sr"):
            raise UsageError(f"--models {name}: does not work on recordings by itself; name others")
        if source is not None:
            blocks, rate, channels = speed.recording(source)
        else:
            rate, channels = model.spec.in_rate, 1
            blocks = speed.noise(synthetic or 0.0, rate)
        results.append(speed.measure(name, model, blocks, rate, channels, options))
        if as_json:
            row = results[-1]
            figures = {"real_time_factor": row.real_time_factor, "cpu_s_per_s": row.cpu_per_s}
            print(json.dumps(asdict(row) | figures), flush=True)
    if not as_json:
        _table(names, results)


def _table(names: list[str], results: Sequence[object]) -> None:
    from statistics import median

    from rich.console import Console
    from rich.table import Table

    from audiosr_cli.bench.speed import Speed

    table = Table("model", "audio s", "real-time factor", "CPU s per s", "peak RSS MB")
    for name in names:
        rows = [row for row in results if isinstance(row, Speed) and row.model == name]
        factor = median(row.real_time_factor for row in rows)
        cpu = median(row.cpu_per_s for row in rows)
        peak = max(row.peak_rss_mb for row in rows)
        table.add_row(name, f"{rows[0].audio_s:.1f}", f"{factor:.4f}", f"{cpu:.4f}", f"{peak:.0f}")
    Console().print(table)
