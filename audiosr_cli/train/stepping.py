"""The end of a training step: undo the effects of a gradient that is not finite, and read the step's losses.

On CUDA the host does not wait for a step. The device itself decides whether the gradient is finite, and the host reads
that decision and the losses after the next step is queued.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audiosr_cli.errors import TrainingError
from audiosr_cli.train.log import Log
from audiosr_cli.train.tasks import Batch
from audiosr_cli.train.transfer import Readback

StateDict = dict[str, Tensor]

# Consecutive steps with a gradient that is not finite before a run fails.
_MAX_NONFINITE_STEPS = 10
# Batches of such steps that are saved for inspection.
_MAX_SAVED_BATCHES = 3


@dataclass(frozen=True)
class StepMetrics:
    """The losses of a step on the host.

    Attributes:
        step: Number of the step.
        terms: Weighted losses by name.
        finite: Whether the gradient was finite.
        batch: The step's batch, in case it has to be saved.
    """

    step: int
    terms: dict[str, float]
    finite: bool
    batch: Batch


@dataclass(frozen=True)
class _Pending:
    step: int
    names: tuple[str, ...]
    batch: Batch


class MetricsReadback:
    """Reads the metrics of steps in order.

    Args:
        deferred: Whether a step's metrics are read only after those of the next step are queued.
    """

    def __init__(self, deferred: bool) -> None:
        self.deferred = deferred
        self._unread: Readback[_Pending] | None = None

    def send(self, step: int, terms: dict[str, Tensor], finite: Tensor, batch: Batch) -> StepMetrics | None:
        """Queue the metrics of a step; return those of this step, or of the previous one if ``deferred``."""
        values = torch.stack([*(term.detach().float() for term in terms.values()), finite.float()])
        queued = Readback(values, _Pending(step, tuple(terms), batch))
        if not self.deferred:
            return _read(queued)
        previous = self.flush()
        self._unread = queued
        return previous

    def flush(self) -> StepMetrics | None:
        """Wait for the metrics that are queued but not returned yet, if any."""
        queued, self._unread = self._unread, None
        return None if queued is None else _read(queued)


def _read(queued: Readback[_Pending]) -> StepMetrics:
    *values, finite = queued.read()
    pending = queued.context
    return StepMetrics(pending.step, dict(zip(pending.names, values, strict=True)), bool(finite), pending.batch)


class GradientCheck:
    """Warns of steps whose gradient is not finite, saves their batches, and fails after ten in a row.

    Args:
        out: The run's folder.
        rank: Number of this process.
        log: Gets the warnings.
    """

    def __init__(self, out: Path, rank: int, log: Log) -> None:
        self._out, self._rank, self._log = out, rank, log
        self.consecutive = 0

    def __call__(self, metrics: StepMetrics) -> dict[str, float]:
        """Check one step and return its losses. Raises TrainingError after ten steps in a row."""
        if metrics.finite:
            self.consecutive = 0
            return metrics.terms
        self.consecutive += 1
        text = f"step {metrics.step}: the gradient is not finite; the step is skipped"
        if len(list(self._out.glob(f"nonfinite-*-rank{self._rank}.pt"))) < _MAX_SAVED_BATCHES:
            path = self._out / f"nonfinite-{metrics.step}-rank{self._rank}.pt"
            torch.save({key: value.cpu() for key, value in metrics.batch.items()}, path)
            text += f", its batch is in {path}"
        self._log.warn(metrics.step, text)
        if self.consecutive >= _MAX_NONFINITE_STEPS:
            raise TrainingError(
                f"{text}; {self.consecutive} in a row: lower [loop] learning_rate, or resume with precision = 'fp32'"
            )
        return metrics.terms


@torch.no_grad()
def restore_buffers(buffers: Iterable[Tensor], before: Iterable[Tensor], finite: Tensor | None = None) -> None:
    """Restore running statistics to their values ``before`` the step, unless ``finite`` () is true on the device."""
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value if finite is None else torch.where(finite, buffer, value))


class WeightAverage:
    """An exponential moving average (EMA) of a model's weights.

    Args:
        average: The averaged state dict, updated in place.
        state: The model's state dict, with the same keys.
    """

    def __init__(self, average: StateDict, state: StateDict) -> None:
        self.average = average
        pairs = list(zip(average.values(), state.values(), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, weight: float, finite: Tensor | None = None) -> None:
        """Compute average += weight * (state - average), if ``finite`` () is true on the device or None."""
        averages, weights = ([pair[i] for pair in self._floats] for i in (0, 1))
        if finite is None:
            torch._foreach_lerp_(averages, weights, weight)
        else:
            differences = torch._foreach_sub(weights, averages)
            torch._foreach_mul_(differences, torch.where(finite, weight, 0.0))
            torch._foreach_add_(averages, differences)
        for average, count in self._counts:
            average.copy_(count)
