"""Format measurements as tables of text, as JSON, and as Markdown with machine, versions, commit and day."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from audiosr_cli import __version__
from audiosr_cli.bench.candidates import Failure
from audiosr_cli.bench.datasets import Quality
from audiosr_cli.bench.memory import Memory
from audiosr_cli.bench.speed import Machine, Speed, median_of
from audiosr_cli.runtime.provenance import commit

Row = Machine | Speed | Memory | Quality | Failure

_NONE = "–"
UNITS = {"SI-SDRi": "dB", "SDRi": "dB", "SNR": "dB", "gain": "dB", "lag": "samples"}


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Environment:
    """Machine, versions and day of a measurement."""

    cpu: str
    cores: int
    torch: str
    commit: str
    day: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores; torch {self.torch}; audiosr {self.commit}; {self.day}"


def environment() -> Environment:
    """Describe this machine and installation, without importing torch."""
    return Environment(_cpu(), os.cpu_count() or 1, version("torch"), _version(), date.today().isoformat())


def _cpu() -> str:
    """Return the name of the CPU, or of its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        return _output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _version() -> str:
    """Return this package's version, with the commit where it runs from a checkout."""
    code = commit()
    return f"{__version__} at {code}" if code else __version__


def _output_of(*command: str) -> str:
    """Return what a command prints; empty if it does not exist or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def as_json(row: Row | Environment) -> str:
    """Format a row as a JSON object, whose ``kind`` is its class in lower case."""
    more = {}
    if isinstance(row, Speed):
        more = {"real_time_factor": row.real_time_factor, "cpu_s_per_s": row.cpu_per_s}
    return json.dumps({"kind": type(row).__name__.lower()} | asdict(row) | more)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Build the tables of speed, memory and quality that there are rows for."""
    machine = next((row for row in rows if isinstance(row, Machine)), None)
    speeds = [row for row in rows if isinstance(row, Speed)]
    memories = [row for row in rows if isinstance(row, Memory)]
    qualities = [row for row in rows if isinstance(row, Quality)]
    result = [_speed(speeds, machine)] if speeds else []
    result += [_memory(memories)] if memories else []
    return result + ([_quality(qualities)] if qualities else [])


def medians(rows: Iterable[Row]) -> list[Speed]:
    """Return the median of each candidate's runs, in the order of the first runs."""
    runs: dict[str, list[Speed]] = {}
    for row in rows:
        if isinstance(row, Speed):
            runs.setdefault(row.model, []).append(row)
    return [median_of(speeds) for speeds in runs.values()]


def _speed(rows: Sequence[Speed], machine: Machine | None) -> Table:
    candidates = medians(rows)
    first = candidates[0]
    columns = (
        "model",
        "audio s",
        "real-time factor",
        "CPU s per s",
        f"× {first.model}",
        "start-up s",
        "of which torch s",
        "peak RSS MB",
        "GFLOP per s",
        "× roofline",
    )
    lines = [
        (
            row.model,
            f"{row.audio_s:.1f}",
            f"{row.real_time_factor:.4f}",
            f"{row.cpu_per_s:.4f}",
            f"{row.cpu_per_s / max(first.cpu_per_s, 1e-9):.3g}",
            f"{row.startup_s:.2f}",
            f"{row.torch_s:.2f}",
            f"{row.peak_rss_mb:.0f}",
            _format(row.gflop_per_s, 2),
            _format(row.times_roofline(machine.bf16 if row.bf16 else machine.float32) if machine else None, 1),
        )
        for row in candidates
    ]
    runs = max(sum(row.model == one.model for row in rows) for one in candidates)
    title = f"Speed, medians of {runs} runs" if runs > 1 else "Speed, one run"
    return Table(title + (f"; {machine}" if machine else ""), columns, tuple(lines))


def _memory(rows: Sequence[Memory]) -> Table:
    lengths = sorted({row.audio_s for row in rows})
    cells = {(row.model, row.audio_s): row for row in rows}
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        row_cells = [cells.get((model, seconds)) for seconds in lengths]
        lines.append((model, *(_peak(row) for row in row_cells)))
    return Table("Peak resident memory, MB", ("model", *(f"{seconds:g} s" for seconds in lengths)), tuple(lines))


def _peak(row: Memory | None) -> str:
    if row is None:
        return _NONE
    return row.reason if row.peak_rss_mb is None else f"{row.peak_rss_mb:.0f}"


def _quality(rows: Sequence[Quality]) -> Table:
    names = dict.fromkeys(name for row in rows for name in row.figures)
    headings = [f"{name} {UNITS[name]}" if name in UNITS else name for name in names]
    columns = ("model", "condition", "files", *headings, "CPU s per s, with start-up")
    lines = [
        (
            row.model,
            row.condition,
            str(row.files),
            *(_format(row.figures.get(name), 0 if name == "lag" else 2) for name in names),
            _format(row.cpu_per_s, 3),
        )
        for row in rows
    ]
    return Table("Quality, means over the files", columns, tuple(lines))


def _format(value: float | None, digits: int) -> str:
    """Format a figure, without a sign if it rounds to zero."""
    if value is None:
        return _NONE
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def markdown(tables: Sequence[Table], environment: Environment) -> str:
    """Format tables as Markdown, with the environment below them."""
    parts = []
    for table in tables:
        lines = [f"| {' | '.join(cells)} |" for cells in (table.columns, *table.rows)]
        lines.insert(1, "|" + "---|" * len(table.columns))
        parts.append("\n".join([f"{table.title}:", "", *lines]))
    return "\n\n".join([*parts, f"{environment}."])
