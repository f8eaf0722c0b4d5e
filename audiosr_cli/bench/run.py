"""What a call of ``audiosr bench`` measures, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiosr_cli.bench import memory, speed
from audiosr_cli.bench.candidates import COMMANDS, Setting, Subject, all_names, find
from audiosr_cli.bench.datasets import task_of
from audiosr_cli.bench.report import Row
from audiosr_cli.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """What is to be measured of which models and peers, by their names; no ``models`` are those that fit.

    ``timed`` measures speed in ``runs``, ``lengths`` (seconds) memory, ``quality`` the sound on a folder of
    references, which are to be restored from ``rates`` (Hz) where they are not of separation.
    """

    models: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    timed: bool = True
    runs: int = 3
    lengths: tuple[float, ...] = ()
    quality: Path | None = None
    rates: tuple[int, ...] = (8000, 16000)


@dataclass(frozen=True)
class Chosen:
    """The subjects of each part of a plan."""

    speed: Sequence[Subject]
    memory: Sequence[Subject]
    quality: Sequence[Subject]


def choose(plan: Plan) -> Chosen:
    """Find everything that ``plan`` names. Raises UsageError, before anything is measured."""
    against = list(plan.against)
    timed = find(list(plan.models) or all_names(), against) if plan.timed else []
    grown = find(list(plan.models) or list(COMMANDS), against) if plan.lengths else []
    return Chosen(timed, grown, _heard(plan))


def _heard(plan: Plan) -> list[Subject]:
    """The subjects whose sound is judged: those of the references' task."""
    if plan.quality is None:
        return []
    task = task_of(plan.quality)
    if set(plan.against) - {"soxr"} and not plan.timed and not plan.lengths:
        raise UsageError(
            "--against: peers have random weights, no quality; they go with INPUT, --synthetic or --memory"
        )
    named = find(list(plan.models) or list(COMMANDS), [])
    found = [one for one in named if (one.task == "upsample") == (task == "upsample")]
    if not found:
        raise UsageError(f"--quality {plan.quality}: is to {task}; none of --models does")
    return found


def run(plan: Plan, chosen: Chosen, setting: Setting) -> Iterator[Row]:
    """Rows as they are measured: the machine's, then speed, memory, quality."""
    if chosen.speed:
        yield speed.machine(setting.device, setting.threads)
        yield from speed.measure(chosen.speed, setting, plan.runs)
    if chosen.memory:
        yield from memory.measure(chosen.memory, plan.lengths, setting)
    if plan.quality is not None:
        from audiosr_cli.bench import quality

        if task_of(plan.quality) == "separate":
            yield from quality.separation(plan.quality, chosen.quality, setting)
        else:
            yield from quality.upsampling(plan.quality, chosen.quality, plan.rates, setting)
