"""Measure peak resident memory for recordings of several lengths, each in a separate process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from audiosr_cli.bench.candidates import BenchSettings, Candidate, noise_file
from audiosr_cli.bench.processes import audiosr, measure_process, run_worker
from audiosr_cli.errors import BenchError

LENGTHS = (1.0, 10.0, 60.0, 600.0)  # seconds
_USABLE = 0.8  # share of the available memory that a measurement may take


@dataclass(frozen=True)
class Memory:
    """Peak memory of a process for a recording of ``audio_s`` seconds; None, with the reason, if not measured."""

    model: str
    audio_s: float
    peak_rss_mb: float | None
    reason: str = ""


def measure(candidates: Sequence[Candidate], lengths: Sequence[float], settings: BenchSettings) -> Iterator[Memory]:
    """Measure every candidate on noise of rising ``lengths`` (seconds).

    Lengths that would need more memory than there is are not tried, nor are longer ones after a failure.
    """
    for candidate in candidates:
        rows: list[Memory] = []
        for seconds in sorted(lengths):
            reason = _reason_to_stop(rows, seconds)
            rows.append(
                Memory(candidate.label, seconds, None, reason) if reason else _run(candidate, seconds, settings)
            )
            yield rows[-1]


def _run(candidate: Candidate, seconds: float, settings: BenchSettings) -> Memory:
    source = noise_file(settings.folder, seconds, candidate.rate)
    try:
        if candidate.kind == "command":
            usage = measure_process(
                audiosr(*candidate.command(source, str(settings.folder / "outputs"), *settings.options))
            )
        else:
            _, usage = run_worker(**settings.job(candidate, "time"), source=source, warm=None)
    except BenchError as error:
        return Memory(candidate.label, seconds, None, str(error))
    return Memory(candidate.label, seconds, usage.peak_mb)


def _reason_to_stop(rows: Sequence[Memory], seconds: float) -> str:
    """Return why a recording of ``seconds`` is not tried after ``rows``; empty if it is."""
    if not rows:
        return ""
    if rows[-1].peak_rss_mb is None:
        return rows[-1].reason
    expected = extrapolate([(row.audio_s, row.peak_rss_mb) for row in rows if row.peak_rss_mb is not None], seconds)
    return f"would need about {expected / 1e3:.0f} GB" if expected > _USABLE * available_mb() else ""


def extrapolate(points: Sequence[tuple[float, float]], seconds: float) -> float:
    """Extrapolate the memory in MB at ``seconds`` with the line through the last two ``points`` (seconds, MB)."""
    if len(points) < 2:
        return points[-1][1]
    (before, low), (after, high) = points[-2:]
    return high + (high - low) / (after - before) * (seconds - after)


def available_mb() -> float:
    """Return the available memory in MB, or all memory if the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024 / 1e6
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
