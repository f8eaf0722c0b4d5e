"""What every model is: a network, the frozen config that shapes its weights, and the spec that follows."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from audiosr_cli.contract import ModelSpec


class Config(Protocol):
    """A frozen dataclass that holds every number which shapes the weights."""

    @property
    def spec(self) -> ModelSpec:
        """The spec that follows from these numbers."""
        ...


class MixtureConfig(Protocol):
    """What the spec of a model of mixtures follows from; lengths in samples."""

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
        """How many there are."""
        ...

    @property
    def context(self) -> int:
        """Heard on both sides, and not answered for."""
        ...

    @property
    def core(self) -> int:
        """What one window answers for."""
        ...


class SeparatorConfig(MixtureConfig, Protocol):
    """A separator's."""

    @property
    def overlap(self) -> int:
        """What two neighbours both answer for."""
        ...


class RestorerConfig(MixtureConfig, Protocol):
    """A restorer's."""

    @property
    def cutoff_hz(self) -> float:
        """Where estimates end."""
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


def restorer_spec(config: RestorerConfig) -> ModelSpec:
    """The contract of a network that hears a mixture and estimates of its sources below ``cutoff_hz``."""
    return ModelSpec(
        name=config.name,
        task="separate-sr",
        in_rate=config.sample_rate,
        ratio=1,
        sources=config.sources,
        channels=1,
        window=config.core + 2 * config.context,
        context=config.context,
        hop=config.core,
        inputs=1 + config.sources,
        cutoff_hz=config.cutoff_hz,
    )


class Model(nn.Module):
    """Base of the models.

    ``forward`` takes (B, inputs * C, T) float32 at ``in_rate``, C = ``spec.channels``, and returns
    (B, S, C, (T - 2 * context) * ratio), S = ``spec.sources``. Any T above twice the context will do for
    a convolutional model; the engine always passes ``spec.window``. No clipping and no scaling unless the
    model's own docstring says so. What varies from call to call is a keyword argument of those models that need it:
    ``cutoff_hz`` (B,) with ``spec.uses_cutoff``, ``position`` (B,) with ``spec.uses_position``.
    ``sha256`` is that of the checkpoint it came from, empty for fresh weights.
    """

    sha256 = ""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.spec = config.spec

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs * C, T) → (B, S, C, (T - 2 * context) * ratio)."""
        raise NotImplementedError

    def default_cutoff(self, x: Tensor) -> Tensor:
        """Return the cutoff (B,) in Hz that a model assumes for ``x`` (B, ...) where its caller gives none."""
        return x.new_full((len(x),), self.spec.in_rate / 6)

    def fitted(self, sample_rate: int, sources: int) -> Model:
        """The same network for recordings at ``sample_rate`` Hz and so many ``sources``, where its weights serve them.

        Otherwise itself, as here.
        """
        del sample_rate, sources
        return self
