"""Options that hold for every recording and every command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.trim import frame_range
from audiosr_cli.audio.write import ClipPolicy
from audiosr_cli.contract import Kind
from audiosr_cli.errors import UsageError

Samples = NDArray[np.float32]
Channels = Literal["each", "mix"] | int  # every channel by itself, their mean, or one of them (counted from 1)

KindChoice = Kind | Literal["auto"]  # what recordings hold, or that of each
HumPolicy = Literal["remove", "share", "keep"]
Quality = Literal["fast", "standard", "best"]
Speakers = int | Literal["auto"]  # a number, or that of each recording


@dataclass(frozen=True)
class Options:
    """How a recording is processed.

    Args:
        device: "cpu", "cuda", or "cuda:N" for one of several GPUs.
        batch: Windows in one call of a model.
        clip: What happens to samples beyond full scale.
        channels: Which channels are processed: each by itself, their mean, or one of them, counted from 1.
        strict: Whether damaged input is an error rather than a warning.
        nonfinite: Whether NaN and infinite samples are an error or replaced by zeros.
        bf16: Compute matrix products and convolutions in bfloat16; else in float32 (on CUDA without TF32).
        hum: What happens to DC, rumble and hum in the input of a separator: "remove" keeps them from all outputs but
            the residual, "share" adds equal shares to the outputs, "keep" leaves them to the model.
        voices_by_channel: Whether each of two channels holds a voice of its own, which gets the track of its number.
            The pipeline detects that in each recording.
        threads: Batches that are computed at the same time on the CPU.
        provenance: Whether outputs carry a tag that says how they were made.
        start_s: Where the part of a recording begins that is processed, in seconds; None for the beginning.
        end_s: Where it ends, in seconds; None for the end.
        audio_stream: Which stream of sound of a video or the like is read, counted from 1; None for the default one.

    Raises:
        UsageError: If a number is below 1, or the end is not behind the start.
    """

    device: str = "cpu"
    batch: int = 1
    clip: ClipPolicy = "warn"
    channels: Channels = "each"
    strict: bool = False
    nonfinite: Literal["error", "zero"] = "error"
    bf16: bool = False
    threads: int = 1
    provenance: bool = True
    start_s: float | None = None
    end_s: float | None = None
    hum: HumPolicy = "keep"
    voices_by_channel: bool = False
    audio_stream: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "threads", "channels", "audio_stream"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: must be at least 1")
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            raise UsageError(f"--end {self.end_s:g} s: must be after --start {self.start_s or 0.0:g} s")

    def count_frames(self, frames: int | None, sample_rate: int) -> int | None:
        """Return how many of the ``frames`` of a recording at ``sample_rate`` Hz are processed; None if unknown."""
        first, last = frame_range(self.start_s, self.end_s, sample_rate)
        if frames is None:
            return None
        return max(0, (frames if last is None else min(last, frames)) - first)

    def count_channels(self, channels: int, name: str) -> int:
        """Return how many of the ``channels`` of the recording called ``name`` are processed.

        Raises:
            UsageError: If the recording lacks the chosen channel.
        """
        if isinstance(self.channels, int) and self.channels > channels:
            raise UsageError(f"--channels {self.channels}: {name} has only {channels}")
        return channels if self.channels == "each" else 1

    def pick_channels(self, block: Samples) -> Samples:
        """Return the channels of ``block`` (C, T) that are processed."""
        if self.channels == "each":
            return block
        if self.channels == "mix":
            mean: Samples = block.mean(0, keepdims=True, dtype=np.float32)
            return mean
        return block[self.channels - 1 : self.channels]
