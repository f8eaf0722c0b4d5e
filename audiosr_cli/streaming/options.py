"""The options of a call that hold for every recording and every command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.write import ClipPolicy
from audiosr_cli.errors import UsageError

Samples = NDArray[np.float32]
Channels = Literal["each", "mix"] | int  # every channel by itself, their mean, or one of them, counted from 1


@dataclass(frozen=True)
class Options:
    """How a recording is processed, whatever is done to it.

    ``batch`` windows go through a model at once, its matrix products and convolutions in bfloat16 with ``bf16``, or
    else in float32 (on CUDA without TF32). On the CPU ``threads`` compute such batches at the same time.
    ``strict`` makes an error of damage that is otherwise a warning; ``nonfinite`` "zero" silences samples that are no
    finite numbers, which are otherwise an error.
    """

    device: str = "cpu"
    batch: int = 1
    clip: ClipPolicy = "warn"
    channels: Channels = "each"
    strict: bool = False
    nonfinite: Literal["error", "zero"] = "error"
    bf16: bool = False
    threads: int = 1

    def count_channels(self, channels: int, name: str) -> int:
        """How many of ``channels`` are processed. Raises UsageError where the one wanted is not there."""
        if isinstance(self.channels, int) and self.channels > channels:
            raise UsageError(f"--channels {self.channels}: {name} has {channels}")
        return channels if self.channels == "each" else 1

    def pick_channels(self, block: Samples) -> Samples:
        """The channels of ``block`` (C, T) that are processed."""
        if self.channels == "each":
            return block
        if self.channels == "mix":
            mixed: Samples = block.mean(0, keepdims=True, dtype=np.float32)
            return mixed
        return block[self.channels - 1 : self.channels]
