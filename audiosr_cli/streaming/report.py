"""The report of one recording: levels, lengths, confidence and warnings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.conversation.turns import Turn
from audiosr_cli.streaming.stages import Stage
from audiosr_cli.streaming.stretches import Stretch

# Level of a track (dB below the loudest one) from which the report asks whether fewer people speak: residual leakage
# lies about there, and so do people who hardly speak. Set by hand, November 2026.
_EMPTY_TRACK_DB = 20.0
# Posterior probability of the speaker order below which the report warns. Set by hand, November 2026.
_UNCERTAIN = 0.75


@dataclass
class Report:
    """The result of processing one recording.

    Attributes:
        input: Path of the recording, or "the array" and the like.
        outputs: Paths of the outputs; none if they are kept in memory.
        frames_in: Samples read of each channel.
        frames_out: Samples written of each channel.
        rate_in: Sample rate of the recording in Hz.
        rate_out: Sample rate of the outputs in Hz.
        channels: Channels that were processed.
        cutoff_hz: Frequency at which the content of the recording ends, as detected or set; that of its widest stretch.
            None if it is silent or its cutoff does not matter.
        stretches: Where the content ends over time or in each channel, if that changes and has been detected.
        zeroed: Samples that were not finite and are zero now.
        clipped: Samples that were clipped; in memory, samples beyond full scale, which are kept.
        gain: Factor of all outputs under ``--clip rescale``.
        levels_db: RMS of each output in dBFS, None for silence.
        kind: What the recording was treated as, "speech", "music" or "effects", if that was detected; else None.
        kind_confidence: Estimated probability that this is right; None if it was not detected, and for silence.
        labels: Paths of the label files.
        turns: Who speaks when, if it was asked for.
        speakers: Number of speakers, if it was counted; None if it was given.
        speakers_confidence: Estimated probability that this number is right; None if it was given.
        confidence: For each window of the separator, the probability that the speakers are on their tracks.
        confidence_hop_s: Seconds from one window to the next.
        elapsed_s: Wall time in seconds.
        warnings: What may be wrong with the outputs, one sentence each.
        notes: What else a user may want to know.
    """

    input: str
    outputs: list[str]
    frames_in: int = 0
    frames_out: int = 0
    rate_in: int = 0
    rate_out: int = 0
    channels: int = 0
    cutoff_hz: float | None = None
    stretches: list[Stretch] = field(default_factory=list)
    zeroed: int = 0
    clipped: int = 0
    gain: float = 1.0
    levels_db: list[float | None] = field(default_factory=list)
    kind: str | None = None
    kind_confidence: float | None = None
    labels: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    speakers: int | None = None
    speakers_confidence: float | None = None
    confidence: list[float] = field(default_factory=list)
    confidence_hop_s: float = 0.0
    elapsed_s: float = 0.0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def complete_report(
    report: Report,
    reader: AudioReader | ArrayReader,
    stages: Sequence[Stage],
    energy: NDArray[np.float64],
    sources: int,
) -> None:
    """Add levels, confidence and warnings to the report of a recording that has been processed.

    Args:
        report: The report, with its lengths.
        reader: The recording.
        stages: What it passed through.
        energy: (S,), of each output.
        sources: Number of outputs, the residual excluded.
    """
    _add_levels(report, energy)
    _add_confidence(report, stages)
    report.notes += reader.notes
    report.warnings += reader.warnings + _level_warnings(report) + _speaker_warnings(report, sources)
    report.warnings += [line for stage in stages for line in stage.warnings]
    mains = next((stage.filter.mains_hz for stage in stages if stage.filter), None)
    if mains is not None:
        report.notes.append(f"{report.input}: hum at multiples of {mains:g} Hz; see --hum")


def _add_levels(report: Report, energy: NDArray[np.float64]) -> None:
    """Add the levels of the outputs, from the ``energy`` of each."""
    samples = max(report.frames_out * report.channels, 1)
    # Rounded, as the last bits depend on how blocks are summed up, and so on threads.
    report.levels_db = [round(10 * math.log10(e / samples), 6) if e else None for e in energy.tolist()]


def _add_confidence(report: Report, stages: Sequence[Stage]) -> None:
    """Add the confidence of the speaker order, if there is one."""
    for stage in stages:
        if stage.tracker is not None:
            report.confidence, report.confidence_hop_s = stage.tracker.confidence, stage.hop_s


def _level_warnings(report: Report) -> list[str]:
    """Warn about samples that were changed, and outputs that were attenuated."""
    lines = []
    if report.zeroed:
        lines.append(f"{report.input}: {report.zeroed} samples were not finite and have been set to zero")
    if report.clipped:
        lines.append(f"{report.input}: {report.clipped} samples clipped; use --clip rescale or --subtype float")
    if report.gain < 1:
        lines.append(
            f"{report.input}: all outputs were attenuated by {-20 * np.log10(report.gain):.1f} dB to avoid clipping"
        )
    return lines


def _speaker_warnings(report: Report, speakers: int) -> list[str]:
    """Warn about tracks that are nearly empty, and about an uncertain speaker order."""
    levels = [-math.inf if level is None else level for level in report.levels_db[:speakers]]
    lines = [
        f"{report.input}: the track of speaker {i + 1} is nearly empty ({level - max(levels):.0f} dB); "
        "are there fewer speakers?"
        for i, level in enumerate(levels)
        if max(levels) > -math.inf and level < max(levels) - _EMPTY_TRACK_DB
    ]
    uncertain = [i for i, probability in enumerate(report.confidence) if probability < _UNCERTAIN]
    if uncertain and speakers > 1:
        times = ", ".join(f"{i * report.confidence_hop_s:.0f} s" for i in uncertain[:5])
        more = ", ..." if len(uncertain) > 5 else ""
        windows = f"{len(uncertain)} of {len(report.confidence)} windows"
        lines.append(f"{report.input}: speaker order is uncertain at {times}{more} ({windows})")
    return lines
