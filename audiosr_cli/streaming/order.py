"""The order of a window's sources: a hidden Markov model over permutations.

The states are the permutations in which a separator may return its sources. Two kinds of evidence are log-odds that
add up: the correlation of two windows where they overlap says how the permutation changed, and the similarity of
speaker embeddings to the tracks' profiles says which permutation it is. The forward algorithm (Rabiner 1989,
sec. III A) turns them into a posterior for each window, so that a wrong choice made on little evidence is corrected
by the windows after it. Output that is written already stays as it is.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from audiosr_cli.streaming.tracking_config import TRACKING, TrackingConfig


def squared_correlation(first: Tensor, second: Tensor, floors: tuple[float, float] | None = None) -> Tensor:
    """Compute the squared normalised correlation of every pair of sources; level and polarity do not count.

    Args:
        first: Waveforms (S, T).
        second: Waveforms (S', T).
        floors: Mean powers of ``first`` and ``second`` that a source must exceed; silence by default.

    Returns:
        Values in [0, 1], (S, S'); 0 for pairs with a source that is not above its floor.
    """
    floors = floors or (TRACKING.silence_power, TRACKING.silence_power)
    power_1, power_2 = (x.square().mean(-1) for x in (first, second))
    shared = (first @ second.T / first.shape[-1]).square()
    audible = (power_1 > floors[0])[:, None] & (power_2 > floors[1])
    return torch.where(audible, shared / (power_1[:, None] * power_2).clamp_min(TRACKING.silence_power**2), 0.0)


def all_permutations(sources: int) -> Tensor:
    """List the permutations of 0 … ``sources`` - 1: (P, S)."""
    return torch.tensor(list(permutations(range(sources))))


class PermutationHMM:
    """The order of the sources of one channel, or of several channels that a model processes together.

    Args:
        sources: Number S of sources.
        config: Thresholds.

    Attributes:
        permutations: (P, S), the source on each track.
        tracks: (P, S), the track of each source.
        belief: (P,), log-probability of each permutation after the last window.
        peak: Mean power of the loudest source in the last seconds.
        level: Mean power of the loudest source in the last minutes.
    """

    def __init__(self, sources: int, config: TrackingConfig = TRACKING) -> None:
        self.config = config
        self.permutations = all_permutations(sources)
        self.tracks = self.permutations.argsort(1)
        self.belief = torch.zeros(len(self.permutations))
        self.peak = self.level = 0.0
        self._current = 0

    @property
    def sources_by_track(self) -> list[int]:
        """The source that belongs on each track."""
        order: list[int] = self.permutations[self._current].tolist()
        return order

    def follow_power(self, power: Tensor) -> None:
        """Update ``peak`` and ``level`` from the mean powers (S,) of a window's sources."""
        self.peak = max(self.config.peak_decay * self.peak, float(power.max()))
        self.level = max(self.config.level_decay * self.level, float(power.max()))

    def reset_belief(self) -> None:
        """Make all permutations equally likely: the profiles that the belief was built on have been replaced."""
        self.belief = torch.zeros_like(self.belief)

    def power_floor(self, share: float) -> float:
        """Return ``share`` of the peak power, or the power of silence if that is more."""
        return max(self.config.silence_power, share * self.peak)

    def step(self, overlap: Tensor | None, fit: Tensor, speaking: Tensor, assigned: Tensor) -> float:
        """Advance by one window.

        Args:
            overlap: (S tracks, S sources), log-odds that a track of the last window goes on as a source of this one.
                None without an overlap.
            fit: (S tracks, S sources), log-odds that a source belongs on a track.
            speaking: (S,) bool, the sources that speak.
            assigned: (S,) bool, the tracks that have had a speaker. The others are interchangeable until one of them
                is chosen for a new speaker.

        Returns:
            The posterior probability that every speaking source is on its track.
        """
        log_odds = self.config.stay_log_odds * torch.eye(len(self.permutations))
        if overlap is not None:
            log_odds = log_odds + self._transitions(overlap)
        belief = (self.belief[:, None] + log_odds).logsumexp(0)
        belief = belief + fit[torch.arange(len(fit)), self.permutations].sum(1)
        belief = belief - belief.logsumexp(0)
        best = int(belief.argmax())
        # Equally likely permutations differ by rounding only (1e-6): no reason to change the order.
        self._current = best if belief[best] > belief[self._current] + 1e-6 else self._current
        place = self.tracks[:, speaking]  # (P, speaking sources)
        # Permutations that differ in unassigned tracks only mean the same order; their probabilities add up.
        named = torch.where(assigned[place], place, -1)
        same = (named == named[self._current]).all(1)
        posterior = float(belief[same].exp().sum())
        # From now on the track chosen for a new speaker is theirs, and the other choices become unlikely.
        rejected = same & (place != place[self._current]).any(1)
        others = torch.arange(len(belief)) != self._current
        limit = float(belief[self._current]) - self.config.stay_log_odds * others
        self.belief = (belief - self.config.first_choice_log_odds * rejected).clamp_max(limit)
        return min(posterior, 1.0)

    def _transitions(self, overlap: Tensor) -> Tensor:
        """Compute log-odds (P before, P now) of all transitions from those of each track and source."""
        place = self.tracks[self._current]  # the track of each source of the last window
        return overlap[place[self.permutations][:, None, :], self.permutations[None, :, :]].sum(-1)
