"""Speed of a model on a recording: the whole route but the writing, in this process."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiosr_cli.api import load_voice
from audiosr_cli.audio.read import BLOCK, AudioReader
from audiosr_cli.models import Model
from audiosr_cli.stages import Options, Samples, Stage, listener, stream


@dataclass(frozen=True)
class Speed:
    """What one run took; seconds of audio count each channel once, CPU seconds are of all threads."""

    model: str
    audio_s: float
    channels: int
    wall_s: float
    cpu_s: float
    peak_rss_mb: float

    @property
    def real_time_factor(self) -> float:
        """Wall seconds per second of audio: below 1 is faster than real time."""
        return self.wall_s / self.audio_s

    @property
    def cpu_per_s(self) -> float:
        """CPU seconds per second of audio."""
        return self.cpu_s / self.audio_s


def noise(seconds: float, sample_rate: int, seed: int = 0) -> Callable[[], Iterator[Samples]]:
    """White noise at -20 dBFS in blocks (1, T); every call starts it anew."""

    def blocks() -> Iterator[Samples]:
        generator, left = np.random.default_rng(seed), round(seconds * sample_rate)
        while left > 0:
            count = min(left, BLOCK)
            yield (0.1 * generator.standard_normal((1, count))).astype(np.float32)
            left -= count

    return blocks


def recording(path: str) -> tuple[Callable[[], Iterator[Samples]], int, int]:
    """Blocks of a file, its rate in Hz and its channels."""
    with AudioReader(path) as reader:
        rate, channels = reader.sample_rate, reader.channels

    def blocks() -> Iterator[Samples]:
        with AudioReader(path) as reader:
            yield from reader.blocks()

    return blocks, rate, channels


def measure(
    name: str,
    model: Model,
    blocks: Callable[[], Iterator[Samples]],
    sample_rate: int,
    channels: int,
    options: Options,
) -> Speed:
    """One run of ``model`` over ``blocks``. The first window of a process costs more; run twice to compare."""
    _reset_peak()
    voice = listener(load_voice(), model.spec.out_rate) if model.spec.sources > 1 else None
    stage = Stage(model, sample_rate, model.spec.out_rate, channels, options, voice)
    frames = 0

    def counted() -> Iterator[Samples]:
        nonlocal frames
        for block in blocks():
            frames += block.shape[1]
            yield block

    wall, cpu = time.perf_counter(), time.process_time()
    for _ in stream(counted(), [stage]):
        pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Speed(name, max(frames, 1) / sample_rate, channels, wall, cpu, _peak_rss_mb())


def _reset_peak() -> None:
    """Start the peak anew, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_rss_mb() -> float:
    """Peak resident memory since the reset; of the whole process where there is no reset."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1e3
    unit = 1e6 if sys.platform == "darwin" else 1e3  # ru_maxrss counts bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
