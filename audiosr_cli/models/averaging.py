"""Average a separator's estimates over windows that start at different places within a frame.

Where a window starts decides how the frames of a spectrogram cut the signal, and so which errors a separator makes.
With n starts, the second window begins 1/n of a frame's hop after the first, and so on; the mean of their estimates
has less of each window's own errors. In between lie no zeros: every pass has the context of a whole window.

    window of the first start    │── context ──┬────────── core ──────────┬── context ──│
    window of the second start     │── context ──┬────────── core ──────────┬── context ──│
    all together                 │─── context ───┬───────── core ─────────┬─── context ───│
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import torch
from torch import Tensor

from audiosr_cli.contract import ModelSpec
from audiosr_cli.errors import UsageError


def starts_within_hop(frame_hop: int, starts: int) -> list[int]:
    """Return where the windows start, in samples: evenly spaced from 0 on, within one hop of the frames."""
    return [i * frame_hop // starts for i in range(starts)]


def averaged_spec(spec: ModelSpec, starts: list[int]) -> ModelSpec:
    """Return the spec of a model that is averaged over windows with these ``starts``.

    Args:
        spec: Of the model.
        starts: Samples from the start of the common window to that of each window; the first is 0, the last the
            largest.

    Raises:
        UsageError: If the windows have no output in common.
    """
    shift = starts[-1]
    core = spec.core - shift
    if core < 1:
        raise UsageError(
            f"{spec.name}: cannot be averaged over windows {shift} samples apart, as one yields only {spec.core}; "
            "leave out --quality best"
        )
    return replace(spec, window=spec.window + shift, context=spec.context + shift, hop=min(spec.hop, core))


def average(forward: Callable[..., Tensor], spec: ModelSpec, starts: list[int], x: Tensor) -> Tensor:
    """Run a separator on windows with these ``starts``, and return the mean of its estimates.

    The order of its sources may differ between the windows; that of the first one counts. Speech and the rest have a
    fixed order.

    Args:
        forward: The model: (B, inputs * C, window) → (B, S, C, core * ratio).
        spec: Of the model.
        starts: As for ``averaged_spec``.
        x: The common windows (B, inputs * C, window + starts[-1]).

    Returns:
        (B, S, C, (core - starts[-1]) * ratio).
    """
    shift, total = starts[-1], None
    for start in starts:
        output = forward(x[..., start : start + spec.window].contiguous())
        first = (shift - start) * spec.ratio
        common = output[..., first : first + (spec.core - shift) * spec.ratio].float()
        total = common if total is None else total + (common if spec.rest else in_order_of(total, common))
    assert total is not None
    return total / len(starts)


def in_order_of(reference: Tensor, estimate: Tensor) -> Tensor:
    """Return the sources of ``estimate`` in the order of those of ``reference`` that they correlate with most.

    That order also gives the sum of both the most energy, so it is the one in which least cancels.

    Args:
        reference: (B, S, C, T).
        estimate: (B, S, C, T). Silent sources stay where they are.

    Returns:
        (B, S, C, T).
    """
    sources = reference.shape[1]
    with torch.autocast(reference.device.type, enabled=False):
        products = reference.flatten(2) @ estimate.flatten(2).mT  # (B, S of the reference, S of the estimate)
    orders = torch.tensor(list(permutations(range(sources))), device=reference.device)  # (P, S)
    totals = products[:, torch.arange(sources, device=reference.device), orders].sum(-1)  # (B, P)
    best = orders[totals.argmax(1)]  # (B, S); of equal ones the first
    return estimate[torch.arange(len(estimate), device=estimate.device)[:, None], best]
