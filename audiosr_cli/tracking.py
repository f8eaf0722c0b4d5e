"""Keeps every speaker on one track: across windows in time, and across the channels of one window."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

_SILENCE = 1e-10  # mean power (-100 dB) below which a stretch says nothing about who speaks


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Scale-free agreement of every pair of sources, in [0, 1]: (S, T) twice → (S of first, S of second).

    The squared normalised correlation; level and polarity do not count. Zero where a source is silent.
    """
    power_1, power_2 = (x.square().mean(-1) for x in (first, second))
    shared = (first @ second.T / first.shape[-1]).square()
    heard = (power_1 > _SILENCE)[:, None] & (power_2 > _SILENCE)
    return torch.where(heard, shared / (power_1[:, None] * power_2).clamp_min(_SILENCE**2), 0.0)


def best_permutation(pairs: Tensor) -> tuple[int, ...]:
    """Which column goes to each row of ``pairs`` (S, S) so that the sum is largest; ties keep the order."""
    orders = permutations(range(len(pairs)))
    return max(orders, key=lambda order: float(sum(pairs[row, column] for row, column in enumerate(order))))


class Tracker:
    """Puts the sources of each window's core into one order for the whole recording.

    First the channels of a core are brought into the order of its loudest channel, as a model of one
    channel may order each differently; then the core into the order of what came before, by their
    agreement over the overlap. Where that is silent the order is left as it is.
    """

    def __call__(self, tail: Tensor | None, core: Tensor) -> Tensor:
        """``core`` (S, C, T) with its sources in the order of ``tail`` (S, C, overlap)."""
        core = self._across_channels(core)
        if tail is None or not tail.shape[-1]:
            return core
        head = core[..., : tail.shape[-1]]
        pairs = agreement(tail.flatten(1), head.flatten(1))
        return core[list(best_permutation(pairs))]

    def _across_channels(self, core: Tensor) -> Tensor:
        channels = core.shape[1]
        if channels == 1:
            return core
        loudest = int(core.square().sum((0, 2)).argmax())
        ordered = [core[list(best_permutation(agreement(core[:, loudest], core[:, c]))), c] for c in range(channels)]
        return torch.stack(ordered, dim=1)  # (S, C, T)
