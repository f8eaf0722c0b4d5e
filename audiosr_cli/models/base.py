"""The base class of all models, and the specs that follow from their configs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from audiosr_cli.config import at_least, check
from audiosr_cli.contract import ModelSpec

# The frames of a model whose config has none: those of spectral2.
_FRAME_HOP_S = 0.016


class Config(Protocol):
    """A frozen dataclass with every number that shapes the weights or the windows of a model."""

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine, computed from these numbers."""
        ...


class WindowConfig(Protocol):
    """What the configs of separators and restorers have in common; lengths in samples at ``sample_rate``."""

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    @property
    def sample_rate(self) -> int:
        """Sample rate of input and output in Hz."""
        ...

    @property
    def sources(self) -> int:
        """Number of sources."""
        ...

    @property
    def context(self) -> int:
        """Input on each side of a window for which the model returns nothing."""
        ...

    @property
    def core(self) -> int:
        """Output of one window."""
        ...


class SeparatorConfig(WindowConfig, Protocol):
    """The config of a model that takes a mixture and returns its sources."""

    @property
    def overlap(self) -> int:
        """Output that two neighbouring windows have in common; they are crossfaded there."""
        ...


class RestorerConfig(WindowConfig, Protocol):
    """The config of a model that takes a mixture with band-limited estimates of its sources."""

    @property
    def cutoff_hz(self) -> float:
        """Frequency above which the estimates have no content."""
        ...


def separator_spec(config: SeparatorConfig, channels: int = 1) -> ModelSpec:
    """Return the spec of a separator."""
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
    """Return the spec of a restorer: its input is the mixture, followed by an estimate of each source."""
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


def check_separator(config: SeparatorConfig) -> None:
    """Raise UsageError unless the rate, the number of sources and the windows of a separator are possible."""
    at_least(config, 1, "sample_rate", "sources", "core")
    at_least(config, 0, "context", "overlap")
    check(config.overlap < config.core, f"overlap = {config.overlap}: must be less than core = {config.core}")


class Model(nn.Module):
    """Base class of the models.

    ``forward`` maps (B, inputs * C, T) float32 at ``spec.in_rate`` to (B, S, C, (T - 2 * context) * ratio), where C is
    ``spec.channels`` and S is ``spec.sources``. The engine always passes T = ``spec.window``; convolutional models take
    any T above twice the context. A model neither clips nor scales unless its docstring says so.

    What varies per call is a keyword argument of those models that need it: ``cutoff_hz`` (B,) with
    ``spec.uses_cutoff``, ``position`` (B,) with ``spec.uses_position``, and ``sampling`` for diffusion models.

    Args:
        config: The config that shapes the weights.

    Attributes:
        config: As given.
        spec: The contract with the engine.
        sha256: SHA-256 of the checkpoint that the weights came from, empty for fresh ones.
    """

    sha256 = ""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.spec = config.spec

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def frame_hop(self) -> int:
        """Input samples from one of the model's frames to the next, as its config states it; 16 ms if it does not."""
        stated: int = getattr(self.config, "hop_length", 0) or getattr(self.config, "stride", 0)
        return stated or max(1, round(_FRAME_HOP_S * self.spec.in_rate))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs * C, T) → (B, S, C, (T - 2 * context) * ratio)."""
        raise NotImplementedError

    def default_cutoff(self, x: Tensor) -> Tensor:
        """Return the cutoff (B,) in Hz of ``x`` (B, ...) if the caller gives none: a sixth of the input's rate."""
        return x.new_full((len(x),), self.spec.in_rate / 6)

    def fitted(self, sample_rate: int, sources: int) -> Model:
        """Return a model with the same weights for recordings at ``sample_rate`` Hz with ``sources`` sources.

        Models whose weights serve one rate and one number of sources, which is most of them, return themselves.
        """
        del sample_rate, sources
        return self
