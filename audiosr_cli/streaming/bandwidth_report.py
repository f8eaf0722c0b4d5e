"""What a report says of the bandwidth of a recording and of its outputs."""

from __future__ import annotations

from collections.abc import Sequence

from audiosr_cli.models.runner import ModelCall
from audiosr_cli.streaming.report import Report
from audiosr_cli.streaming.restoring import StretchedCall
from audiosr_cli.streaming.stretches import Bandwidth, Stretch


def add_bandwidth(report: Report, bandwidth: Bandwidth, models: Sequence[ModelCall]) -> None:
    """Add to ``report`` where the content of the recording ends, and what ``models`` did about it."""
    bandwidth = bandwidth.until(report.frames_in / report.rate_in)
    report.cutoff_hz = bandwidth.cutoff_hz
    if len(bandwidth.stretches) < 2:
        report.notes.append(f"{report.input}: {_cutoff_note(bandwidth.cutoff_hz, restored=bool(models))}")
        return
    report.stretches = list(bandwidth.stretches)
    report.notes += [f"{report.input}: {line}" for line in _stretch_notes(bandwidth.stretches, models)]


def _cutoff_note(cutoff_hz: float | None, restored: bool) -> str:
    if cutoff_hz is None:
        return "silent; nothing to restore"
    result = "frequencies above were restored" if restored else "nothing to restore"
    return f"content ends at {cutoff_hz / 1000:.1f} kHz; {result}"


def _stretch_notes(stretches: Sequence[Stretch], models: Sequence[ModelCall]) -> list[str]:
    """Say where stretches were restored, one sentence for each channel that has its own."""
    calls = [call for call in models if isinstance(call, StretchedCall)]
    channels = list(dict.fromkeys(stretch.channel for stretch in stretches))
    lines = []
    for channel in channels:
        own = [stretch for stretch in stretches if stretch.channel == channel]
        restored = [stretch for stretch in own if any(call.restores(stretch) for call in calls)]
        if not restored:
            continue
        cutoffs = sorted({f"{(stretch.cutoff_hz or 0) / 1000:.1f}" for stretch in restored}, key=float)
        where, name = "", "" if channel is None else f"channel {channel}: "
        if len(own) > 1:
            restored_s, total_s = (sum(s.end_s - s.start_s for s in part) for part in (restored, own))
            where = f" in {len(restored)} of {len(own)} stretches ({restored_s:.0f} s of {total_s:.0f} s)"
        there = " there" if where else ""
        lines.append(
            f"{name}content ends at {' and '.join(cutoffs)} kHz{where}; frequencies above were restored{there}"
        )
    return lines or ["content ends at several frequencies; nothing to restore"]


def bandwidth_warnings(
    name: str, sample_rate: int, rate: int | None, restores: bool, models: Sequence[ModelCall]
) -> list[str]:
    """Warn if the rate was not raised, or if content above the models' band was lost.

    Args:
        name: Of the recording.
        sample_rate: Hz of the recording.
        rate: Hz asked for; None for that of the recording.
        restores: Whether the bandwidth is restored, which the same rate does not forbid.
        models: That processed the recording.

    Returns:
        The warnings, one sentence each.
    """
    lines = []
    if rate is not None and rate <= sample_rate and not (restores and rate == sample_rate):
        result = "it was not raised" if rate == sample_rate else f"it was lowered to {rate} Hz"
        lines.append(f"{name}: the sample rate is {sample_rate} Hz already; {result}")
    restored = any(model.spec.inputs > 1 for model in models)
    rates = [model.spec.out_rate for model in models] or [sample_rate]
    highest = rates[-1] if restored else min(rates)
    if (rate is not None or restored) and sample_rate > highest:
        lines.append(f"{name}: content above {highest // 2} Hz is lost; the model's band ends there")
    return lines
