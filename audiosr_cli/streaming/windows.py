"""The engine that streams a signal through a model in constant memory.

                 ┌── context ──┬────────── core ──────────┬── context ──┐
    window j     │  heard only │  answered for            │  heard only │
                 └─────────────┴───────────┬──────────────┴─────────────┘
    window j + 1               ┌── context ┴─┬────────── core ────────── …
                               └─────────────┴── overlap ─┘ of two cores, crossfaded

Window j answers for the samples from ``j * hop`` on. Zeros stand only before the first and after the last
sample of the signal (the valid-padding scheme of Wave-U-Net, sec. 3.2.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future

import torch
from torch import Tensor

from audiosr_cli.contract import ModelSpec
from audiosr_cli.runtime.threads import SerialExecutor

Forward = Callable[..., Tensor]  # (B, inputs * C, window) → (B, S, C, (window - 2 * context) * ratio)
Align = Callable[[Tensor | None, Tensor], Tensor]  # (the last core's tail, a core) → the core, sources in order


class Engine:
    """Streams one signal of ``channels`` channels through a model; of several inputs one lies behind the other.

    A model of one channel is given every channel as a signal of its own; otherwise the counts must agree.
    ``batch`` windows go through ``forward`` at once: always the same ones, whatever blocks the input came
    in, so that its samples do not depend on them. ``align`` puts the sources of a core (S, C, T) into
    the order of the tail before it (S, C, overlap). With ``spec.uses_position`` ``forward`` also gets ``position``
    (B,), the first sample of each window. ``executor`` computes: up to ``ahead`` batches stay with it while what it has
    done is joined and handed out. Holds ``window + (batch - 1) * hop`` samples a channel, and those ahead.
    """

    def __init__(
        self,
        spec: ModelSpec,
        forward: Forward,
        channels: int = 1,
        batch: int = 1,
        align: Align | None = None,
        executor: Executor | None = None,
        ahead: int = 0,
    ) -> None:
        assert spec.channels in (1, channels) and batch >= 1
        self.spec, self.forward, self.channels, self.batch, self.align = spec, forward, channels, batch, align
        self.executor, self.ahead = executor or SerialExecutor(), ahead
        self._computing = deque[list[Future[Tensor]]]()  # of each batch the signals that go through by themselves
        self._buffer = torch.zeros(spec.inputs * channels, spec.window + (batch - 1) * spec.hop)
        self._filled = spec.context  # the zeros before the first sample
        self._tail: Tensor | None = None
        self._frames_in = 0
        self._begun = self._ended = 0  # windows

    def push(self, block: Tensor) -> Tensor:
        """Output (S, C, T') that is ready by now, maybe of earlier blocks; T' may be 0."""
        assert block.shape[0] == len(self._buffer)
        self._frames_in += block.shape[1]
        made = [self._empty()]
        while block.shape[1]:
            taken = min(block.shape[1], self._buffer.shape[1] - self._filled)
            self._buffer[:, self._filled : self._filled + taken] = block[:, :taken]
            self._filled += taken
            block = block[:, taken:]
            if self._filled == self._buffer.shape[1]:
                self._begin(self.batch)
            made += self._end(self.ahead)
        return torch.cat(made, dim=-1)

    def flush(self) -> Tensor:
        """The rest of the output (S, C, T'): in all, ``ratio`` samples for each that was pushed."""
        hop_out, first = self.spec.hop * self.spec.ratio, self._ended
        wanted = -(-self._frames_in // self.spec.hop)
        made = [self._empty()]
        while self._begun < wanted:
            self._buffer[:, self._filled :] = 0
            self._begin(min(self.batch, wanted - self._begun))
            made += self._end(self.ahead)
        made += self._end(0)
        return torch.cat(made, dim=-1)[..., : self._frames_in * self.spec.ratio - first * hop_out]

    def _empty(self) -> Tensor:
        return torch.zeros(self.spec.sources, self.channels, 0)

    def _begin(self, count: int) -> None:
        """Have the next ``count`` windows computed, and move on behind them."""
        spec = self.spec
        windows = self._buffer.unfold(-1, spec.window, spec.hop)[:, :count].transpose(0, 1)  # (B, I * C, W)
        at = torch.arange(self._begun, self._begun + count) * spec.hop - spec.context
        arguments = {"position": at} if spec.uses_position else {}
        signals = [windows[:, c :: self.channels] for c in range(self.channels)] if spec.channels == 1 else [windows]
        computing = [
            self.executor.submit(self.forward, signal.clone(memory_format=torch.contiguous_format), **arguments)
            for signal in signals
        ]
        self._computing.append(computing)
        kept = self._buffer.shape[1] - count * spec.hop
        self._buffer[:, :kept] = self._buffer[:, count * spec.hop :].clone()
        self._filled = kept
        self._begun += count

    def _end(self, ahead: int) -> Iterator[Tensor]:
        """What is computed, hop by hop (S, C, hop * ratio), in order; at most ``ahead`` batches are not waited for."""
        while self._computing and (len(self._computing) > ahead or all(one.done() for one in self._computing[0])):
            cores = torch.cat([one.result() for one in self._computing.popleft()], dim=2)  # (B, S, C, T)
            self._ended += len(cores)
            yield from map(self._join, cores)

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
