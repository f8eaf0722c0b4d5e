"""The contract of a model: what the engine, the models and the checkpoints agree on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from audiosr_cli.errors import UsageError

Task = Literal["separate", "upsample", "separate-sr", "embed", "classify"]
Kind = Literal["speech", "music", "effects"]  # of a recording; effects are all sounds that are neither


@dataclass(frozen=True)
class ModelSpec:
    """What the engine knows of a model. Lengths are in samples at ``in_rate``.

    Args:
        name: Name of the model.
        task: The command that runs it.
        in_rate: Sample rate of the input in Hz.
        ratio: Output samples per input sample.
        sources: Signals that the model returns, S.
        channels: Channels of each signal, C. With 1, every channel of a recording is processed by itself.
        window: Input of one window.
        context: Input on each side of a window for which the model returns nothing; also the lookahead.
        hop: From the start of one window to the start of the next. If it is less than ``core``, the outputs of
            neighbouring windows overlap and are crossfaded.
        inputs: Signals that the model takes: the mixture alone, or the mixture and an estimate of each source.
        cutoff_hz: With ``inputs`` above 1, the frequency above which the estimates have no content.
        uses_cutoff: ``forward`` takes ``cutoff_hz``, the frequency at which the content of the input ends.
        uses_position: ``forward`` takes ``position``, the sample of the recording at which each window begins.
        rest: The two sources are all speech and the rest of the mixture: noise, and maybe late reverberation. A model's
            training decides that, not its architecture, so it is not part of the config.

    Raises:
        UsageError: The hop is impossible, or there are not two sources with ``rest``.
    """

    name: str
    task: Task
    in_rate: int
    ratio: int
    sources: int
    channels: int
    window: int
    context: int
    hop: int
    inputs: int = 1
    cutoff_hz: float = 0.0
    uses_cutoff: bool = False
    uses_position: bool = False
    rest: bool = False

    def __post_init__(self) -> None:
        if self.rest and self.sources != 2:
            raise UsageError(f"{self.name}: sources = {self.sources}: must be 2 with rest: speech and the rest")
        if not 0 < self.hop <= self.core:
            raise UsageError(
                f"{self.name}: hop = {self.hop} samples; must be above 0 and at most what a window yields, {self.core}"
            )

    @property
    def speakers(self) -> int:
        """Sources that hold speech: 1, for any number of speakers, if the other one is the rest of the mixture."""
        return 1 if self.rest else self.sources

    @property
    def core(self) -> int:
        """Input samples for which one window returns output."""
        return self.window - 2 * self.context

    @property
    def overlap(self) -> int:
        """Input samples for which two neighbouring windows both return output."""
        return self.core - self.hop

    @property
    def out_rate(self) -> int:
        """Sample rate of the output in Hz."""
        return self.in_rate * self.ratio

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        return asdict(self)
