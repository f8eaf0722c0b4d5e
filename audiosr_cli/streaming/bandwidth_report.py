"""What a report says of the bandwidth of a recording and of its outputs."""

from __future__ import annotations

from collections.abc import Sequence

from audiosr_cli.models.runner import ModelCall


def cutoff_note(name: str, cutoff_hz: float | None, restored: bool) -> str:
    """Say where the content of a recording ends, and what was done about it."""
    if cutoff_hz is None:
        return f"{name}: silent; nothing to restore"
    result = "frequencies above were restored" if restored else "nothing to restore"
    return f"{name}: content ends at {cutoff_hz / 1000:.1f} kHz; {result}"


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
