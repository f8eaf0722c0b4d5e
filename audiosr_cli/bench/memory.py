"""Peak resident memory against the length of a recording, each in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from audiosr_cli.bench.candidates import Setting, Subject, sound
from audiosr_cli.bench.processes import audiosr, spend, work
from audiosr_cli.errors import BenchError

LENGTHS = (1.0, 10.0, 60.0, 600.0)  # seconds
_ROOM = 0.8  # of the memory that is free may be taken


@dataclass(frozen=True)
class Memory:
    """Peak of a process over a recording of ``audio_s``; None, with the reason, where it could not be had."""

    model: str
    audio_s: float
    peak_rss_mb: float | None
    reason: str = ""


def measure(subjects: Sequence[Subject], lengths: Sequence[float], setting: Setting) -> Iterator[Memory]:
    """Every subject on noise of rising ``lengths``, commands as the shell runs them.

    What grows too large for this machine is not tried, and after a failure no longer recording is.
    """
    for subject in subjects:
        found: list[Memory] = []
        for seconds in sorted(lengths):
            reason = _reason_to_stop(found, seconds)
            found.append(Memory(subject.label, seconds, None, reason) if reason else _run(subject, seconds, setting))
            yield found[-1]


def _run(subject: Subject, seconds: float, setting: Setting) -> Memory:
    source = sound(setting.folder, seconds, subject.rate)
    try:
        if subject.kind == "command":
            spent = spend(audiosr(*subject.command(source, str(setting.folder / "made"), *setting.options)))
        else:
            _, spent = work(**setting.job(subject, "time"), source=source, warm=None)
    except BenchError as error:
        return Memory(subject.label, seconds, None, str(error))
    return Memory(subject.label, seconds, spent.peak_mb)


def _reason_to_stop(found: Sequence[Memory], seconds: float) -> str:
    """Why ``seconds`` are not tried after what was ``found``; nothing where they are."""
    if not found:
        return ""
    if found[-1].peak_rss_mb is None:
        return found[-1].reason
    expected = foretold([(row.audio_s, row.peak_rss_mb) for row in found if row.peak_rss_mb is not None], seconds)
    return f"would take about {expected / 1e3:.0f} GB" if expected > _ROOM * free_mb() else ""


def foretold(points: Sequence[tuple[float, float]], seconds: float) -> float:
    """MB at ``seconds``, on the line through the last two of the ``points`` (s, MB)."""
    if len(points) < 2:
        return points[-1][1]
    (before, low), (after, high) = points[-2:]
    return high + (high - low) / (after - before) * (seconds - after)


def free_mb() -> float:
    """Memory that processes may still take; all there is where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024 / 1e6
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
