"""What every model is: a network, the frozen config that shapes its weights, and the spec that follows."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from audiosr_cli.windows import ModelSpec


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
