"""What a call of ``audiosr bench`` measures, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiosr_cli.bench import memory, speed
from audiosr_cli.bench.candidates import COMMANDS, BenchSettings, Candidate, all_names, find_candidates
from audiosr_cli.bench.datasets import task_of
from audiosr_cli.bench.report import Row
from audiosr_cli.errors import UsageError


@dataclass(frozen=True)
class BenchPlan:
    """What to measure.

    Attributes:
        models: Names of commands and models; empty for those that fit the measurement.
        against: Names of peers.
        speed: Whether to measure speed.
        runs: Number of speed runs of each candidate.
        lengths: Lengths in seconds to measure memory at; empty to not measure it.
        quality: Folder of references to score on, or None.
        rates: Sample rates in Hz to restore full-band references from.
    """

    models: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    speed: bool = True
    runs: int = 3
    lengths: tuple[float, ...] = ()
    quality: Path | None = None
    rates: tuple[int, ...] = (8000, 16000)


@dataclass(frozen=True)
class Selection:
    """The candidates of each kind of measurement."""

    speed: Sequence[Candidate]
    memory: Sequence[Candidate]
    quality: Sequence[Candidate]


def select_candidates(plan: BenchPlan) -> Selection:
    """Find the candidates that ``plan`` names, before anything is measured.

    Raises:
        UsageError: If one is unknown, not installed, or cannot be measured like that.
        ModelError: If a model does not exist.
    """
    against = list(plan.against)
    for_speed = find_candidates(list(plan.models) or all_names(), against) if plan.speed else []
    for_memory = find_candidates(list(plan.models) or list(COMMANDS), against) if plan.lengths else []
    return Selection(for_speed, for_memory, _for_quality(plan))


def _for_quality(plan: BenchPlan) -> list[Candidate]:
    """Find the candidates for the task of the references."""
    if plan.quality is None:
        return []
    task = task_of(plan.quality)
    if set(plan.against) - {"soxr"} and not plan.speed and not plan.lengths:
        raise UsageError(
            "--against: peers have random weights, so their quality cannot be measured; "
            "add INPUT, --synthetic or --memory"
        )
    named = find_candidates(list(plan.models) or list(COMMANDS), [])
    fitting = [candidate for candidate in named if (candidate.task == "upsample") == (task == "upsample")]
    if not fitting:
        raise UsageError(f"--quality {plan.quality}: has references for {task}, which none of --models does")
    return fitting


def run(plan: BenchPlan, selection: Selection, settings: BenchSettings) -> Iterator[Row]:
    """Measure, and yield rows as they are ready: the machine, then speed, memory and quality."""
    if selection.speed:
        yield speed.measure_machine(settings.device, settings.threads)
        yield from speed.measure(selection.speed, settings, plan.runs)
    if selection.memory:
        yield from memory.measure(selection.memory, plan.lengths, settings)
    if plan.quality is not None:
        from audiosr_cli.bench import quality

        if task_of(plan.quality) == "separate":
            yield from quality.score_separation(plan.quality, selection.quality, settings)
        else:
            yield from quality.score_upsampling(plan.quality, selection.quality, plan.rates, settings)
