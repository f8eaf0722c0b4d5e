"""Speaker tracking: keeps every speaker on one track, across windows and across the channels of one window.

A hidden Markov model (`order.py`) decides the permutation of each window's sources, from the correlation of
neighbouring windows where they overlap and from speaker embeddings compared with each track's profile
(`profiles.py`); after a pause the embeddings are all the evidence there is. When only one person speaks, residual
leakage on the other tracks is moved back to that speaker's track.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from audiosr_cli.streaming.order import PermutationHMM, squared_correlation
from audiosr_cli.streaming.profiles import SpeakerProfiles
from audiosr_cli.streaming.tracking_config import TRACKING, TrackingConfig

Embed = Callable[[Tensor], Tensor]  # waveforms (N, T) → unit vectors (N, D), zeros for silence


@dataclass(frozen=True)
class _Channel:
    """One channel of a window, or several that the model processes together, after its sources were ordered.

    ``unordered`` are embeddings (S, D) of sources that are loud enough to learn from, ``placed`` those in the order of
    the tracks, weighted by how far they are trusted.
    """

    unordered: Tensor
    placed: Tensor
    posterior: float


class Tracker:
    """Puts the sources of each window into one order for the whole recording.

    Args:
        per_channel: Whether the model processes one channel at a time, and so may order each differently. Then each
            channel has a hidden Markov model of its own; the loudest channel decides first, and the others follow it
            where they share its sources.
        embed: The speaker encoder. Without it only overlaps and the other channels are evidence.
        config: Thresholds.

    Attributes:
        confidence: For each window the posterior probability in (0, 1] that its least certain channel is in order,
            given the recording so far.
    """

    def __init__(self, per_channel: bool = True, embed: Embed | None = None, config: TrackingConfig = TRACKING) -> None:
        self.per_channel, self.embed, self.config = per_channel, embed, config
        self.confidence: list[float] = []
        self._models: list[PermutationHMM] = []
        self._profiles = SpeakerProfiles(0, config)

    def __call__(self, tail: Tensor | None, core: Tensor) -> Tensor:
        """Order the sources of one window.

        Args:
            tail: (S, C, overlap), the end of the last window's output, which the start of ``core`` overlaps. None for
                the first window.
            core: (S, C, T), the window's sources. S is at most ``config.max_sources``.

        Returns:
            (S, C, T), one source on each track, with residual leakage moved back.
        """
        groups = [[c] for c in range(core.shape[1])] if self.per_channel else [list(range(core.shape[1]))]
        if not self._models:
            self._models = [PermutationHMM(len(core), self.config) for _ in groups]
            self._profiles = SpeakerProfiles(len(core), self.config)
        output, channels = torch.empty_like(core), list[_Channel]()
        powers = [core[:, group].square().mean(-1).amax(1) for group in groups]  # (S,) each
        order = sorted(range(len(groups)), key=lambda c: -float(powers[c].sum()))
        lead = order[0]
        for c in order:
            model, group = self._models[c], groups[c]
            model.follow_power(powers[c])
            reference = None if c == lead else (self._models[lead], output[:, groups[lead]])
            overlap = None if tail is None else tail[:, group]
            output[:, group], channel = self._order(model, core[:, group], powers[c], overlap, reference)
            channels.append(channel)
        placed = torch.stack([channel.placed for channel in channels]).mean(0)
        if self._profiles.update(placed, channels[0].placed, channels[0].unordered):
            for model in self._models:
                model.reset_belief()
        self.confidence.append(round(min(channel.posterior for channel in channels), 4))
        return output

    def _order(
        self,
        model: PermutationHMM,
        sources: Tensor,
        power: Tensor,
        tail: Tensor | None,
        reference: tuple[PermutationHMM, Tensor] | None,
    ) -> tuple[Tensor, _Channel]:
        """Order the ``sources`` (S, C, T) of one channel; ``reference`` is the loudest channel, ordered already."""
        config, profiles = self.config, self._profiles
        speaking = power > model.power_floor(config.speaking_share)
        # A faint source may be residual leakage of a loud one, so its embedding counts for less.
        weight = speaking * power / power.max().clamp_min(config.silence_power)
        embeddings = self._embeddings(sources) * weight[:, None]
        fit = profiles.fit(embeddings)
        if reference is not None:
            fit = fit + self._channel_fit(model, sources, weight, *reference)
        present = speaking if speaking.any() else power > config.silence_power
        posterior = model.step(self._overlap_log_odds(model, tail, sources), fit, present, profiles.assigned)
        order = model.sources_by_track
        loudest = int(power[order].argmax())
        leakage = profiles.leakage(embeddings[order], loudest)
        profiles.assigned |= speaking[order] & (leakage < 0.5)
        loud = power > config.speaking_share * model.level
        # A posterior of 0.5 or less is no reason to learn anything.
        trust = (1 - leakage) * profiles.assigned * loud[order] * max(0.0, 2 * posterior - 1)
        channel = _Channel(embeddings * loud[:, None], embeddings[order] * trust[:, None], posterior)
        return _move_leakage(sources[order], leakage, loudest), channel

    def _channel_fit(
        self, model: PermutationHMM, sources: Tensor, weight: Tensor, other: PermutationHMM, output: Tensor
    ) -> Tensor:
        """Compute log-odds (S tracks, S sources) from the ``output`` of another channel, which has its own model."""
        share = self.config.speaking_share
        floors = (other.power_floor(share), model.power_floor(share))
        correlation = squared_correlation(output.flatten(1), sources.flatten(1), floors)
        related = correlation.max() > self.config.min_channel_correlation
        return self.config.correlation_log_odds * correlation * weight * related

    def _overlap_log_odds(self, model: PermutationHMM, tail: Tensor | None, sources: Tensor) -> Tensor | None:
        """Compute log-odds (S tracks, S sources) that ``tail`` (S, C, overlap) goes on as ``sources``."""
        if tail is None or not tail.shape[-1]:
            return None
        config, floor = self.config, model.power_floor(self.config.overlap_share)
        log_odds = config.correlation_log_odds if self.embed is None else config.overlap_log_odds
        start = sources[..., : tail.shape[-1]]
        return log_odds * squared_correlation(tail.flatten(1), start.flatten(1), (floor, floor))

    def _embeddings(self, sources: Tensor) -> Tensor:
        """Compute embeddings (S, D) of ``sources`` (S, C, T) from the loudest channel; zeros without an encoder."""
        if self.embed is None:
            return sources.new_zeros(len(sources), 1)
        return self.embed(sources[:, int(sources.square().sum((0, 2)).argmax())])


def _move_leakage(tracks: Tensor, leakage: Tensor, loudest: int) -> Tensor:
    """Move the shares ``leakage`` (S,) of ``tracks`` (S, C, T) to the loudest track; the sum stays the same."""
    moved = tracks * leakage[:, None, None]
    output = tracks - moved
    output[loudest] += moved.sum(0)
    return output
