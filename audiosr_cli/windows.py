"""The contract of a model, and the engine that streams a signal through one in constant memory.

                 ┌── context ──┬────────── core ──────────┬── context ──┐
    window j     │  heard only │  answered for            │  heard only │
                 └─────────────┴───────────┬──────────────┴─────────────┘
    window j + 1               ┌── context ┴─┬────────── core ────────── …
                               └─────────────┴── overlap ─┘ of two cores, crossfaded

Window j answers for the samples from ``j * hop`` on. Zeros stand only before the first and after the last
sample of the signal (the valid-padding scheme of Wave-U-Net, sec. 3.2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Task = Literal["separate", "upsample", "separate-sr", "voice"]
Forward = Callable[..., Tensor]  # (B, inputs * C, window), (B,) if placed → (B, S, C, (window - 2 * context) * ratio)
Align = Callable[[Tensor | None, Tensor], Tensor]  # (the last core's tail, a core) → the core, sources in order


@dataclass(frozen=True)
class ModelSpec:
    """What the engine has to know of a model; rates in Hz, lengths in samples at ``in_rate``.

    One window of ``window`` samples yields ``window - 2 * context`` samples (times ``ratio``) of every
    source. Successive windows start ``hop`` samples apart; where ``hop`` is smaller than what a window
    yields, neighbours overlap by the rest. ``context`` is also the lookahead. ``inputs`` signals are heard together:
    the mixture alone, or with estimates of its sources behind it, which end at ``edge_hz``. A model that ``hears_edge``
    is told where the content of its input ends; one that is ``placed``, at which sample each of its windows begins.
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
    edge_hz: float = 0.0
    hears_edge: bool = False
    placed: bool = False

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


class Engine:
    """Streams one signal of ``channels`` channels through a model; of several inputs one lies behind the other.

    A model of one channel is given every channel as a signal of its own; otherwise the counts must agree.
    ``batch`` windows go through ``forward`` at once: always the same ones, whatever blocks the input came
    in, so that its samples do not depend on them. ``align`` puts the sources of a core (S, C, T) into
    the order of the tail before it (S, C, overlap). Holds ``window + (batch - 1) * hop`` samples a channel.
    """

    def __init__(
        self, spec: ModelSpec, forward: Forward, channels: int = 1, batch: int = 1, align: Align | None = None
    ) -> None:
        assert spec.channels in (1, channels) and batch >= 1
        self.spec, self.forward, self.channels, self.batch, self.align = spec, forward, channels, batch, align
        self._buffer = torch.zeros(spec.inputs * channels, spec.window + (batch - 1) * spec.hop)
        self._filled = spec.context  # the zeros before the first sample
        self._tail: Tensor | None = None
        self._frames_in = 0
        self._windows_done = 0

    def push(self, block: Tensor) -> Tensor:
        """Output (S, C, T') that ``block`` (inputs * C, T) completes; T' may be 0."""
        assert block.shape[0] == len(self._buffer)
        self._frames_in += block.shape[1]
        made = [self._empty()]
        while block.shape[1]:
            taken = min(block.shape[1], self._buffer.shape[1] - self._filled)
            self._buffer[:, self._filled : self._filled + taken] = block[:, :taken]
            self._filled += taken
            block = block[:, taken:]
            if self._filled == self._buffer.shape[1]:
                made.append(self._run(self.batch))
        return torch.cat(made, dim=-1)

    def flush(self) -> Tensor:
        """The rest of the output (S, C, T'): in all, ``ratio`` samples for each that was pushed."""
        hop_out, first = self.spec.hop * self.spec.ratio, self._windows_done
        wanted = -(-self._frames_in // self.spec.hop)
        made = [self._empty()]
        while self._windows_done < wanted:
            self._buffer[:, self._filled :] = 0
            made.append(self._run(min(self.batch, wanted - self._windows_done)))
        return torch.cat(made, dim=-1)[..., : self._frames_in * self.spec.ratio - first * hop_out]

    def _empty(self) -> Tensor:
        return torch.zeros(self.spec.sources, self.channels, 0)

    def _run(self, count: int) -> Tensor:
        """The next ``count`` windows, joined: (S, C, count * hop * ratio)."""
        spec = self.spec
        windows = self._buffer.unfold(-1, spec.window, spec.hop)[:, :count].transpose(0, 1)  # (B, I * C, W)
        begun = torch.arange(self._windows_done, self._windows_done + count) * spec.hop - spec.context
        where = (begun,) if spec.placed else ()
        if spec.channels == 1:
            each = (self.forward(windows[:, c :: self.channels].contiguous(), *where) for c in range(self.channels))
            cores = torch.cat(list(each), dim=2)  # (B, S, C, T)
        else:
            cores = self.forward(windows.contiguous(), *where)
        kept = self._buffer.shape[1] - count * spec.hop
        self._buffer[:, :kept] = self._buffer[:, count * spec.hop :].clone()
        self._filled = kept
        self._windows_done += count
        return torch.cat([self._join(core) for core in cores], dim=-1)

    def _join(self, core: Tensor) -> Tensor:
        """The first hop of ``core`` (S, C, T), in order and faded in over the tail of the one before."""
        if self.align is not None:
            core = self.align(self._tail, core)
        hop_out, overlap_out = self.spec.hop * self.spec.ratio, self.spec.overlap * self.spec.ratio
        if overlap_out and self._tail is not None:
            fade = (torch.arange(overlap_out) + 0.5) / overlap_out
            head = self._tail + fade * (core[..., :overlap_out] - self._tail)
            core = torch.cat([head, core[..., overlap_out:]], dim=-1)
        self._tail = core[..., hop_out:].clone()
        return core[..., :hop_out]
