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


class SeparatorConfig(Protocol):
    """What the spec of a separator follows from; lengths in samples."""

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    @property
    def sample_rate(self) -> int:
        """In and out, in Hz."""
        ...

    @property
    def sources(self) -> int:
        """How many it parts."""
        ...

    @property
    def context(self) -> int:
        """Heard on both sides, and not answered for."""
        ...

    @property
    def core(self) -> int:
        """What one window answers for."""
        ...

    @property
    def overlap(self) -> int:
        """What two neighbours both answer for."""
        ...


def separator_spec(config: SeparatorConfig, channels: int = 1) -> ModelSpec:
    """The contract of a separator."""
    return ModelSpec(
        name=config.name,
        task="separate",
        in_rate=config.sample_rate,
        ratio=1,
        sources=config.sources,
        channels=channels,
        window=config.core + 2 * config.context,
        context=config.context,
        hop=config.core - config.overlap,
    )


class RestorerConfig(Protocol):
    """What the spec of a network follows from that restores the bandwidth of estimates; lengths in samples."""

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    @property
    def sample_rate(self) -> int:
        """In and out, in Hz."""
        ...

    @property
    def sources(self) -> int:
        """How many estimates there are."""
        ...

    @property
    def context(self) -> int:
        """Heard on both sides, and not answered for."""
        ...


def restorer_spec(config: RestorerConfig, core: int) -> ModelSpec:
    """The contract of a network that hears a mixture and estimates of its sources; ``core`` is one window's yield."""
    return ModelSpec(
        name=config.name,
        task="separate-sr",
        in_rate=config.sample_rate,
        ratio=1,
        sources=config.sources,
        channels=1,
        window=core + 2 * config.context,
        context=config.context,
        hop=core,
        inputs=1 + config.sources,
    )


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
