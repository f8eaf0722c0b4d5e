"""The end of a training step: what a gradient that is not finite must not change, and what the host learns of it.

On CUDA the host does not wait for a step. The device decides by itself whether the gradient is finite, and the host
reads the terms of the loss, and that decision, once the next step is queued.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from audiosr_cli.train.tasks import Batch
from audiosr_cli.train.transfer import Readback

State = dict[str, Tensor]


@dataclass(frozen=True)
class Report:
    """What is known of a step once it is computed; ``batch`` is there in case it has to be kept."""

    step: int
    terms: dict[str, float]
    finite: bool
    batch: Batch


@dataclass(frozen=True)
class _Sent:
    step: int
    names: tuple[str, ...]
    batch: Batch


class Reports:
    """Reports of steps, in order: each at once, or where ``late`` when the next one is sent."""

    def __init__(self, late: bool) -> None:
        self.late = late
        self._unread: Readback[_Sent] | None = None

    def send(self, step: int, terms: dict[str, Tensor], finite: Tensor, batch: Batch) -> Report | None:
        """Queue the report of a step that is queued; return the one that is due, if any."""
        values = torch.stack([*(term.detach().float() for term in terms.values()), finite.float()])
        sent = Readback(values, _Sent(step, tuple(terms), batch))
        if not self.late:
            return _read(sent)
        due = self.last()
        self._unread = sent
        return due

    def last(self) -> Report | None:
        """Wait for the report that has been sent but not returned, if any."""
        sent, self._unread = self._unread, None
        return None if sent is None else _read(sent)


def _read(sent: Readback[_Sent]) -> Report:
    *values, finite = sent.read()
    of = sent.context
    return Report(of.step, dict(zip(of.names, values, strict=True)), bool(finite), of.batch)


@torch.no_grad()
def take_back(buffers: Iterable[Tensor], before: Iterable[Tensor], finite: Tensor | None = None) -> None:
    """Give running statistics their values ``before`` the step; unless ``finite`` () where it is given."""
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value if finite is None else torch.where(finite, buffer, value))


class Average:
    """Moves averaged weights towards a model's.

    Args:
        average: what is moved, by name.
        state: what it follows, with the same names.
    """

    def __init__(self, average: State, state: State) -> None:
        self.average = average
        pairs = list(zip(average.values(), state.values(), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def follow(self, weight: float, finite: Tensor | None = None) -> None:
        """Go the share ``weight`` of the way; nowhere unless ``finite`` () where it is given."""
        averages, weights = ([pair[i] for pair in self._floats] for i in (0, 1))
        if finite is None:
            torch._foreach_lerp_(averages, weights, weight)
        else:
            ways = torch._foreach_sub(weights, averages)
            torch._foreach_mul_(ways, torch.where(finite, weight, 0.0))
            torch._foreach_add_(averages, ways)
        for average, count in self._counts:
            average.copy_(count)
