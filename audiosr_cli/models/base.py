"""The contract every model meets: a window of samples in, source windows out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

Task = Literal["separate", "upsample", "separate-sr"]


@dataclass(frozen=True)
class ModelSpec:
    """What the engine has to know of a model; rates in Hz, lengths in samples at ``in_rate``.

    One window of ``window`` samples yields ``window - 2 * context`` samples (times ``ratio``) of every
    source. Successive windows start ``hop`` samples apart; where ``hop`` is smaller than what a window
    yields, neighbours overlap by the rest. ``context`` is also the lookahead.
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

    def __post_init__(self) -> None:
        assert 0 < self.hop <= self.core, (self.hop, self.core)

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


class Config(Protocol):
    """A frozen dataclass that holds every number which shapes the weights."""

    @property
    def spec(self) -> ModelSpec:
        """The spec that follows from these numbers."""
        ...


class Model(nn.Module):
    """Base of the models.

    ``forward`` takes (B, C, T) float32 at ``in_rate``, C = ``spec.channels``, and returns
    (B, S, C, (T - 2 * context) * ratio), S = ``spec.sources``. Any T above twice the context will do for
    a convolutional model; the engine always passes ``spec.window``. No clipping and no scaling unless the
    model's own docstring says so.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.spec = config.spec

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, S, C, (T - 2 * context) * ratio)."""
        raise NotImplementedError
