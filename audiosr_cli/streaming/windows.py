"""The engine that streams a signal through a model in constant memory.

                 ┌── context ──┬────────── core ──────────┬── context ──┐
    window j     │  input only │   input and output       │  input only │
                 └─────────────┴───────────┬──────────────┴─────────────┘
    window j + 1               ┌── context ┴─┬────────── core ────────── …
                               └─────────────┴── overlap ─┘ of two cores, crossfaded

The core of window j starts at sample ``j * hop``. Zeros exist only before the first and after the last sample of the
signal (the valid padding of Wave-U-Net, Stoller et al. 2018, sec. 3.2.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace

import torch
from torch import Tensor

from audiosr_cli.contract import ModelSpec
from audiosr_cli.runtime.threads import SerialExecutor

# (B, inputs * C, window) → (B, S, C, (window - 2 * context) * ratio)
Forward = Callable[..., Tensor]
# (the end of the last core (S, C, overlap), a core (S, C, T)) → the core with its sources in order
Align = Callable[[Tensor | None, Tensor], Tensor]


class Engine:
    """Stream one signal through a model.

    The same windows go through the model together whatever blocks the input comes in, so the output does not depend
    on them. Holds ``window + (batch - 1) * hop`` samples of each channel, and the batches in progress.

    Args:
        spec: The contract of the model. If it has one channel, each channel of the signal is processed by itself;
            otherwise the numbers of channels must agree.
        forward: The model. With ``spec.uses_position`` it is also passed ``position`` (B,), the first sample of each
            window in the signal.
        channels: Channels C of the signal. If the model has several inputs, they are stacked: (inputs * C, T).
        batch: Windows in one call of ``forward``.
        align: Puts the sources of a core into the order of the core before.
        executor: Computes ``forward``; by default the calling thread.
        ahead: Batches that may be in progress while the output of earlier ones is joined and returned.
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
        self._in_progress = deque[list[Future[Tensor]]]()  # for each batch one future a signal
        self._buffer = torch.zeros(spec.inputs * channels, spec.window + (batch - 1) * spec.hop)
        self._filled = spec.context  # the zeros before the first sample
        self._tail: Tensor | None = None
        self._frames_in = 0
        self._submitted = self._finished = 0  # windows

    def push(self, block: Tensor) -> Tensor:
        """Process a block.

        Args:
            block: (inputs * C, T) float32 at ``in_rate``; T may be 0.

        Returns:
            The output that is ready, (S, C, T') at ``out_rate``; T' may be 0.
        """
        assert block.shape[0] == len(self._buffer)
        self._frames_in += block.shape[1]
        output = [self._empty()]
        while block.shape[1]:
            count = min(block.shape[1], self._buffer.shape[1] - self._filled)
            self._buffer[:, self._filled : self._filled + count] = block[:, :count]
            self._filled += count
            block = block[:, count:]
            if self._filled == self._buffer.shape[1]:
                self._submit(self.batch)
            output += self._collect(self.ahead)
        return torch.cat(output, dim=-1)

    def flush(self) -> Tensor:
        """Return the rest of the output (S, C, T'): in total ``ratio`` samples for each sample pushed."""
        hop_out, first = self.spec.hop * self.spec.ratio, self._finished
        windows = -(-self._frames_in // self.spec.hop)
        output = [self._empty()]
        while self._submitted < windows:
            self._buffer[:, self._filled :] = 0
            self._submit(min(self.batch, windows - self._submitted))
            output += self._collect(self.ahead)
        output += self._collect(0)
        return torch.cat(output, dim=-1)[..., : self._frames_in * self.spec.ratio - first * hop_out]

    def _empty(self) -> Tensor:
        return torch.zeros(self.spec.sources, self.channels, 0)

    def _submit(self, count: int) -> None:
        """Submit the next ``count`` windows, and advance the buffer past them."""
        spec = self.spec
        windows = self._buffer.unfold(-1, spec.window, spec.hop)[:, :count].transpose(0, 1)  # (B, I * C, W)
        at = torch.arange(self._submitted, self._submitted + count) * spec.hop - spec.context
        arguments = {"position": at} if spec.uses_position else {}
        signals = [windows[:, c :: self.channels] for c in range(self.channels)] if spec.channels == 1 else [windows]
        futures = [
            self.executor.submit(self.forward, signal.clone(memory_format=torch.contiguous_format), **arguments)
            for signal in signals
        ]
        self._in_progress.append(futures)
        remaining = self._buffer.shape[1] - count * spec.hop
        self._buffer[:, :remaining] = self._buffer[:, count * spec.hop :].clone()
        self._filled = remaining
        self._submitted += count

    def _collect(self, ahead: int) -> Iterator[Tensor]:
        """Yield finished output, one hop (S, C, hop * ratio) at a time; leave at most ``ahead`` batches in progress."""
        while self._in_progress and (
            len(self._in_progress) > ahead or all(future.done() for future in self._in_progress[0])
        ):
            cores = torch.cat([future.result() for future in self._in_progress.popleft()], dim=2)  # (B, S, C, T)
            self._finished += len(cores)
            yield from map(self._join, cores)

    def _join(self, core: Tensor) -> Tensor:
        """Return the first hop of ``core`` (S, C, T), aligned and crossfaded with the end of the core before."""
        if self.align is not None:
            core = self.align(self._tail, core)
        hop_out, overlap_out = self.spec.hop * self.spec.ratio, self.spec.overlap * self.spec.ratio
        if overlap_out and self._tail is not None:
            fade = (torch.arange(overlap_out) + 0.5) / overlap_out
            head = self._tail + fade * (core[..., :overlap_out] - self._tail)
            core = torch.cat([head, core[..., overlap_out:]], dim=-1)
        self._tail = core[..., hop_out:].clone()
        return core[..., :hop_out]


def skipping(spec: ModelSpec, forward: Forward, is_wanted: Callable[[Tensor], Tensor]) -> tuple[ModelSpec, Forward]:
    """Leave out windows whose output is not needed.

    Args:
        spec: The contract of the model.
        forward: The model.
        is_wanted: Positions of windows (B,), their first samples in the signal → whether they are needed, (B,).

    Returns:
        The contract and the model for an engine; the output of the windows that are left out is zero.
    """

    def forward_wanted(x: Tensor, position: Tensor) -> Tensor:
        wanted = is_wanted(position)
        length = (spec.window - 2 * spec.context) * spec.ratio
        output = x.new_zeros(len(x), spec.sources, x.shape[1] // spec.inputs, length)
        if wanted.any():
            arguments = {"position": position[wanted]} if spec.uses_position else {}
            output[wanted] = forward(x[wanted], **arguments)
        return output

    return replace(spec, uses_position=True), forward_wanted
