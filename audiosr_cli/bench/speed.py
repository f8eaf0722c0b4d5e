"""Measure the speed of commands, models and peers: real-time factor, CPU time, start-up, peak memory and roofline.

Each run is a separate process, and candidates are interleaved, so that a machine that is slower for a while slows all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from audiosr_cli.bench.candidates import BenchSettings, Candidate, Failure, duration, noise_file
from audiosr_cli.bench.processes import audiosr, measure_process, run_worker
from audiosr_cli.errors import BenchError


@dataclass(frozen=True)
class Speed:
    """Measurements of one run.

    Attributes:
        model: Label of the candidate.
        audio_s: Duration of the recording.
        channels: Number of its channels.
        wall_s: Wall time for the recording, after a warm-up on one second of audio.
        cpu_s: CPU time of all threads for the recording.
        peak_rss_mb: Peak resident memory of the process.
        startup_s: Wall time of a whole process with one second of audio.
        torch_s: The part of it that importing torch takes.
        gflop_per_s: Billions of FLOPs for one second of one channel; None if they cannot be counted.
        bf16: Whether the model computed in bfloat16 rather than float32.
    """

    model: str
    audio_s: float
    channels: int
    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    startup_s: float
    torch_s: float
    gflop_per_s: float | None = None
    bf16: bool = False

    @property
    def real_time_factor(self) -> float:
        """Return wall seconds per second of audio; below 1 is faster than real time."""
        return self.wall_s / self.audio_s

    @property
    def cpu_per_s(self) -> float:
        """Return CPU seconds per second of audio."""
        return self.cpu_s / self.audio_s

    def times_roofline(self, gflops: float) -> float | None:
        """Return the wall time relative to the time that its FLOPs take at ``gflops`` billions a second."""
        if not self.gflop_per_s:
            return None
        return self.real_time_factor / (self.channels * self.gflop_per_s / gflops)


@dataclass(frozen=True)
class Machine:
    """Highest rate of this machine in billions of FLOPs a second (see ``flops``), and its number of threads."""

    float32: float
    bf16: float
    threads: int

    def __str__(self) -> str:
        return f"roofline: {self.float32:.0f} GFLOP/s (bf16 {self.bf16:.0f}), {self.threads} threads"


def measure_machine(device: str = "auto", threads: int | None = None) -> Machine:
    """Measure the machine, in about 1.5 seconds."""
    answer, _ = run_worker(action="rate", device=device, threads=threads)
    return Machine(answer["float32"], answer["bf16"], answer["threads"])


def measure(candidates: Sequence[Candidate], settings: BenchSettings, runs: int) -> Iterator[Speed | Failure]:
    """Yield ``runs`` measurements of every candidate, interleaved; one that fails is reported once and left out.

    Raises:
        InputError: If the recording cannot be read.
    """
    seconds, channels = duration(settings.source) if settings.source else (settings.seconds, 1)
    gflops: dict[Candidate, float | None] = {}
    broken: set[Candidate] = set()
    for _ in range(runs):
        for candidate in candidates:
            if candidate in broken:
                continue
            try:
                if candidate not in gflops:
                    gflops[candidate] = run_worker(**settings.job(candidate, "count"))[0]["gflop_per_s"]
                yield _run(candidate, settings, seconds, channels, gflops[candidate])
            except BenchError as error:
                broken.add(candidate)
                yield Failure(candidate.label, str(error))


def _run(
    candidate: Candidate, settings: BenchSettings, seconds: float, channels: int, gflop_per_s: float | None
) -> Speed:
    """Measure one run; the start-up of a command is measured in a second process, the command itself."""
    source = settings.source or noise_file(settings.folder, settings.seconds, candidate.rate)
    warm = noise_file(settings.folder, 1.0, candidate.rate)
    answer, usage = run_worker(**settings.job(candidate, "time"), source=source, warm=warm)
    startup = usage.wall_s - answer["wall_s"]
    if candidate.kind == "command":
        startup = measure_process(
            audiosr(*candidate.command(warm, str(settings.folder / "startup"), *settings.options))
        ).wall_s
    return Speed(
        model=candidate.label,
        audio_s=seconds,
        channels=channels,
        wall_s=answer["wall_s"],
        cpu_s=answer["cpu_s"],
        peak_rss_mb=usage.peak_mb,
        startup_s=startup,
        torch_s=answer["torch_s"],
        gflop_per_s=gflop_per_s,
        bf16=answer["bf16"],
    )


def median_of(runs: Sequence[Speed]) -> Speed:
    """Return the medians of a candidate's runs, and the largest of their memory peaks."""
    figures = ("wall_s", "cpu_s", "startup_s", "torch_s")
    medians = {name: median(getattr(run, name) for run in runs) for name in figures}
    return replace(runs[0], **medians, peak_rss_mb=max(run.peak_rss_mb for run in runs))
