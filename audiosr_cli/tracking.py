"""Keeps every speaker on one track: across windows in time, and across the channels of one window."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

_SILENCE = 1e-10  # mean power (-100 dB) below which a stretch says nothing about who speaks
_CHANCE = 0.05  # agreement between channels below which they share no source


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

    A core follows what came before by the agreement of their sources over the overlap: each channel for
    itself where a model hears one channel at a time and may order each differently (``per_channel``), by
    all channels together where a channel has been silent, or the model hears them all. The first core has
    only its channels to compare, and follows its loudest. Where nothing agrees the order is left as it is.
    """

    def __init__(self, per_channel: bool = True) -> None:
        self.per_channel = per_channel

    def __call__(self, tail: Tensor | None, core: Tensor) -> Tensor:
        """``core`` (S, C, T) with its sources in the order of ``tail`` (S, C, overlap)."""
        if tail is None or not tail.shape[-1]:
            return self._across_channels(core) if self.per_channel else core
        head = core[..., : tail.shape[-1]]
        joint = agreement(tail.flatten(1), head.flatten(1))
        if not self.per_channel:
            return core[list(best_permutation(joint))]
        own = [agreement(tail[:, c], head[:, c]) for c in range(core.shape[1])]
        return _reorder(core, [pairs if pairs.any() else joint for pairs in own])

    def _across_channels(self, core: Tensor) -> Tensor:
        loudest = int(core.square().sum((0, 2)).argmax())
        pairs = [agreement(core[:, loudest], core[:, c]) for c in range(core.shape[1])]
        return _reorder(core, [each * (each.max() > _CHANCE) for each in pairs])


def _reorder(core: Tensor, pairs: list[Tensor]) -> Tensor:
    """``core`` (S, C, T) with the sources of channel c in the order that ``pairs[c]`` wants."""
    return torch.stack([core[list(best_permutation(each)), c] for c, each in enumerate(pairs)], dim=1)
