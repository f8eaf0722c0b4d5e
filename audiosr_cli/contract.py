"""The contract of a model: what the engine, the models and the checkpoints agree on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from audiosr_cli.errors import UsageError

Task = Literal["separate", "upsample", "separate-sr", "embed"]


@dataclass(frozen=True)
class ModelSpec:
    """What the engine has to know of a model; rates in Hz, lengths in samples at ``in_rate``.

    One window of ``window`` samples yields ``window - 2 * context`` samples (times ``ratio``) of every
    source. Successive windows start ``hop`` samples apart; where ``hop`` is smaller than what a window
    yields, neighbours overlap by the rest. ``context`` is also the lookahead. A model takes ``inputs`` signals: the
    mixture alone, or the mixture followed by estimates of its sources, which have no content above ``cutoff_hz``.
    ``uses_cutoff``: the model needs the frequency at which the content of its input ends. ``uses_position``: it needs
    the sample at which each window begins.
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

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.core:
            raise UsageError(
                f"{self.name}: hop = {self.hop} samples; must be above 0 and at most what a window yields, {self.core}"
            )

    @property
    def core(self) -> int:
        """Samples at ``in_rate`` that one window answers for."""
        return self.window - 2 * self.context

    @property
    def overlap(self) -> int:
        """Samples at ``in_rate`` that two neighbouring windows both answer for."""
        return self.core - self.hop

    @property
    def out_rate(self) -> int:
        """Rate of the output in Hz."""
        return self.in_rate * self.ratio

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
