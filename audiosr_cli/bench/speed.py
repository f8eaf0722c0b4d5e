"""How fast commands, models and peers are: real-time factor, CPU seconds, start-up, peak memory, distance to the floor.

Every run is a process of its own, and subjects take turns, so that a machine that is slower for a while is so for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from audiosr_cli.bench.candidates import Failed, Setting, Subject, length, sound
from audiosr_cli.bench.processes import audiosr, spend, work
from audiosr_cli.errors import BenchError


@dataclass(frozen=True)
class Speed:
    """What one run took; seconds of audio count each channel once, CPU seconds are of all threads.

    ``wall_s``, ``cpu_s`` are of a process that has warmed up on a second of audio. ``startup_s`` is a whole process on
    a second of audio, in which importing torch takes ``torch_s``. ``gflop_per_s`` is what is to be multiplied for a
    second of one channel, in billions of FLOPs, if that could be counted; in ``bf16``, or else in float32.
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
        """Wall seconds per second of audio: below 1 is faster than real time."""
        return self.wall_s / self.audio_s

    @property
    def cpu_per_s(self) -> float:
        """CPU seconds per second of audio."""
        return self.cpu_s / self.audio_s

    def above_floor(self, gflops: float) -> float | None:
        """How many times the time that its FLOPs need at ``gflops`` (billions a second) it takes."""
        if not self.gflop_per_s:
            return None
        return self.real_time_factor / (self.channels * self.gflop_per_s / gflops)


@dataclass(frozen=True)
class Machine:
    """How many billions of FLOPs a second are reached here (see flops.py), with so many threads."""

    float32: float
    bf16: float
    threads: int

    def __str__(self) -> str:
        return f"floor: {self.float32:.0f} GFLOP/s (bf16 {self.bf16:.0f}), {self.threads} threads"


def machine(device: str = "auto", threads: int | None = None) -> Machine:
    """Measure the machine: a second and a half."""
    found, _ = work(action="rate", device=device, threads=threads)
    return Machine(found["float32"], found["bf16"], found["threads"])


def measure(subjects: Sequence[Subject], setting: Setting, runs: int) -> Iterator[Speed | Failed]:
    """``runs`` of every subject, by turns; what fails is told once and then left out.

    Raises InputError where the recording cannot be read.
    """
    seconds, channels = length(setting.source) if setting.source else (setting.seconds, 1)
    counted: dict[Subject, float | None] = {}
    broken: set[Subject] = set()
    for _ in range(runs):
        for subject in subjects:
            if subject in broken:
                continue
            try:
                if subject not in counted:
                    counted[subject] = work(**setting.job(subject, "count"))[0]["gflop_per_s"]
                yield _run(subject, setting, seconds, channels, counted[subject])
            except BenchError as error:
                broken.add(subject)
                yield Failed(subject.label, str(error))


def _run(subject: Subject, setting: Setting, seconds: float, channels: int, gflop_per_s: float | None) -> Speed:
    """One run: of a command two processes, as what starts is another program than what is timed."""
    source = setting.source or sound(setting.folder, setting.seconds, subject.rate)
    warm = sound(setting.folder, 1.0, subject.rate)
    found, spent = work(**setting.job(subject, "time"), source=source, warm=warm)
    startup = spent.wall_s - found["wall_s"]
    if subject.kind == "command":
        startup = spend(audiosr(*subject.command(warm, str(setting.folder / "started"), *setting.options))).wall_s
    return Speed(
        model=subject.label,
        audio_s=seconds,
        channels=channels,
        wall_s=found["wall_s"],
        cpu_s=found["cpu_s"],
        peak_rss_mb=spent.peak_mb,
        startup_s=startup,
        torch_s=found["torch_s"],
        gflop_per_s=gflop_per_s,
        bf16=found["bf16"],
    )


def middle(runs: Sequence[Speed]) -> Speed:
    """The medians of a subject's runs, and the largest of their peaks."""
    figures = ("wall_s", "cpu_s", "startup_s", "torch_s")
    medians = {name: median(getattr(run, name) for run in runs) for name in figures}
    return replace(runs[0], **medians, peak_rss_mb=max(run.peak_rss_mb for run in runs))
