"""What a recording holds, speech, music or effects: windows of some parts of it → classifier → one decision."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.resample import Resampler
from audiosr_cli.contract import Kind
from audiosr_cli.models.audio_classifier import AudioClassifier
from audiosr_cli.streaming.excerpts import open_excerpt
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.report import Report

# Seconds of a file that are classified, in parts of so many seconds, spread over its first half hour: what lies behind
# would have to be decoded once more for little. All set by hand, November 2026.
_MAX_S, _PART_S, _REACH_S = 60.0, 6.0, 1800.0
# Seconds of the beginning of a pipe: those that are kept for its cutoff.
_PIPE_S = 30.0
# A window counts if its power is above this share of the loudest window's (-30 dB), and above that of silence (-100
# dBFS).
_AUDIBLE, _SILENT = 1e-3, 1e-10
# Probability of speech from which a recording is treated as speech even if something else is likelier: its network is
# what recordings get that nobody can tell.
_MAYBE_SPEECH = 0.4


@dataclass(frozen=True)
class DetectedKind:
    """What a recording is treated as.

    Attributes:
        kind: Speech also where it may be speech, or the recording is silent.
        confidence: Estimated probability of that kind; None for silence.
        likeliest: The kind with the highest probability.
        elapsed_s: Wall time of the detection in seconds.
    """

    kind: Kind
    confidence: float | None
    likeliest: Kind
    elapsed_s: float = 0.0


def detect_kind(reader: AudioReader | ArrayReader, classifier: AudioClassifier, options: Options) -> DetectedKind:
    """Decide what an open recording holds, from parts of a file or array and from the beginning of a pipe.

    Args:
        reader: The recording, trimmed. All of its samples can still be read afterwards.
        classifier: Recognises the kinds.
        options: How the recording is processed.

    Raises:
        InputError: If the recording cannot be read.
        UsageError: If it lacks the channel that the options choose.
    """
    started = time.monotonic()
    options.count_channels(reader.channels, reader.name)
    with open_excerpt(reader, options, _MAX_S, _PART_S, _PIPE_S, _REACH_S) as (blocks, _):
        wave = _mono(blocks, reader.sample_rate, classifier.spec.in_rate, options)
    probabilities = classify(wave, classifier)
    elapsed_s = time.monotonic() - started
    if probabilities is None:
        return DetectedKind("speech", None, "speech", elapsed_s)
    likeliest = max(probabilities, key=lambda kind: probabilities[kind])
    kind: Kind = "speech" if probabilities["speech"] >= _MAYBE_SPEECH else likeliest
    return DetectedKind(kind, probabilities[kind], likeliest, elapsed_s)


def classify(wave: Tensor, classifier: AudioClassifier) -> dict[Kind, float] | None:
    """Compute the mean probability of each kind over the windows of a waveform that are not quiet.

    Args:
        wave: (T,) at the classifier's rate; what does not fill a last window is left out, unless it is all there is.
        classifier: Recognises the kinds.

    Returns:
        The probabilities, which sum to 1; None for silence.
    """
    size = classifier.spec.window
    windows = wave.unfold(0, size, size) if len(wave) >= size else wave.unsqueeze(0)  # (B, T)
    power = windows.square().mean(1) if windows.numel() else windows.new_zeros(1)
    audible = power > max(_SILENT, _AUDIBLE * float(power.max()))
    if not audible.any():
        return None
    with torch.inference_mode():
        mean = classifier(windows[audible].unsqueeze(1)).softmax(1).mean(0)
    # Rounded, as the last bits depend on the processor and on threads.
    values = [round(value, 4) for value in mean.tolist()]
    return dict(zip(cast("tuple[Kind, ...]", classifier.config.classes), values, strict=True))


def _mono(blocks: Iterable[Samples], sample_rate: int, rate: int, options: Options) -> Tensor:
    """Return the mean of the channels that are processed, at ``rate`` Hz (T,); samples that are not finite are 0."""
    resampler = Resampler(sample_rate, rate, 1)
    pieces = [
        resampler.push(np.nan_to_num(options.pick_channels(block), posinf=0, neginf=0).mean(0, keepdims=True))
        for block in blocks
    ]
    pieces.append(resampler.push(np.zeros((1, 0), np.float32), last=True))
    return torch.from_numpy(np.concatenate(pieces, axis=1)[0])


def add_kind(report: Report, detected: DetectedKind, restored: bool) -> None:
    """Add what was detected to the report of a recording; a note says so if it was restored and is no speech."""
    report.kind, report.kind_confidence = detected.kind, detected.confidence
    report.elapsed_s += detected.elapsed_s
    if restored and detected.likeliest != "speech" and detected.confidence is not None:
        doubt = f"it may be {detected.likeliest}, but is " if detected.kind != detected.likeliest else ""
        report.notes.insert(
            0, f"{report.input}: {doubt}treated as {detected.kind} (confidence {detected.confidence:.2f}; see --kind)"
        )
