"""Recordings in memory, and crops drawn from all of them at once.

Drawing and rendering are two steps, here and wherever batches are made: a *recipe* holds the random choices
of a whole batch as small tensors on the CPU, drawn by a generator, so that it is the same on every device
and on every rank; rendering turns a part of it into waveforms on the device that trains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from audiosr_cli.errors import TrainingError

Recipe = dict[str, Tensor]  # every entry has one row an item of the batch

_TAPS, _PHASES = 16, 512  # of the interpolation that changes speed


@dataclass(frozen=True)
class Corpus:
    """Recordings of one rate end to end as int16, with where each lies, who speaks and how far its band goes.

    ``samples`` (N,) int16, on any device. One entry a recording, on the CPU, sorted by speaker: ``starts``,
    ``lengths`` (samples), ``speakers`` (from 0 on) int64, ``bandwidth`` (Hz) and ``level`` (RMS, full scale
    is 1) float32. ``chance`` (P,): how likely each speaker is drawn. ``skipped`` names the files that could
    not be read, with the reason.
    """

    sample_rate: int
    samples: Tensor
    starts: Tensor
    lengths: Tensor
    speakers: Tensor
    bandwidth: Tensor
    level: Tensor
    chance: Tensor
    names: list[str]
    skipped: list[str]

    @property
    def seconds(self) -> float:
        """Length of all recordings together."""
        return int(self.lengths.sum()) / self.sample_rate

    def to(self, device: torch.device) -> Corpus:
        """The same with its samples on ``device``, or as it is where they would fill more than half of what is free."""
        if device.type == "cuda" and 2 * self.samples.nbytes > torch.cuda.mem_get_info(device)[0]:
            return self
        return replace(self, samples=self.samples.to(device))

    def draw(
        self, count: int, length: int, generator: torch.Generator, speakers: int = 1, speed: float = 0.0
    ) -> Recipe:
        """``count`` rows of crops of distinct ``speakers``, each (count, speakers).

        Speakers are drawn by ``chance``, a speaker's recordings by their length; ``rate`` is the factor of
        speed and pitch, within 1 ± ``speed``; ``first`` is where in its ``recording`` the crop starts, and
        negative for a recording shorter than the crop, which lies at a random place in zeros. Raises
        TrainingError where the corpus has too few speakers.
        """
        people = len(self.chance)
        if people < speakers:
            raise TrainingError(f"{people} speaker(s) found, {speakers} wanted in a mixture: one folder a speaker")
        shape = (count, speakers)
        race = -torch.rand(count, people, generator=generator).log() / self.chance  # the first to arrive are drawn
        who = race.topk(speakers, dim=1, largest=False).indices  # (count, speakers)
        ends = self.lengths.cumsum(0)
        last = torch.searchsorted(self.speakers, who, right=True) - 1
        total = torch.zeros(people, dtype=torch.long).index_add(0, self.speakers, self.lengths)
        into = torch.rand(shape, generator=generator, dtype=torch.float64) * total[who]
        recording = torch.searchsorted(ends, (ends[last] - total[who] + into).long(), right=True)
        rate = 1 + speed * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)
        room = self.lengths[recording] - length * rate
        first = (room * torch.rand(shape, generator=generator, dtype=torch.float64)).floor()
        return {"recording": recording, "first": first, "rate": rate}

    def render(self, recipe: Recipe, length: int, device: torch.device) -> Tensor:
        """The crops of ``recipe`` as (count, speakers, length) float32 on ``device``.

        Speed changes by interpolation with a windowed sinc of 16 taps: linear interpolation would dull and
        alias what a network for super-resolution has to learn.
        """
        recording, rate = recipe["recording"].flatten(), recipe["rate"].flatten()
        plain = bool((rate == 1).all())
        margin = 0 if plain else _TAPS // 2
        reach = length if plain else int(length * rate.max()) + _TAPS + 1
        first = recipe["first"].flatten().long() - margin
        place = first[:, None].to(self.samples.device) + torch.arange(reach, device=self.samples.device)
        size = self.lengths[recording, None].to(self.samples.device)
        index = (place + self.starts[recording, None].to(self.samples.device)).clamp_(0, len(self.samples) - 1)
        waves = self.samples[index] * ((place >= 0) & (place < size))
        waves = waves.to(device).float() / 32768  # (B * S, reach)
        if not plain:
            waves = _at(waves, rate.to(device), length)
        return waves.reshape(*recipe["recording"].shape, length)


def _at(waves: Tensor, rate: Tensor, length: int) -> Tensor:
    """Samples (B, length) of ``waves`` (B, T) at ``_TAPS // 2 + k * rate``, k = 0, 1, …"""
    position = rate[:, None] * torch.arange(length, device=waves.device, dtype=torch.float64)  # (B, length)
    below = position.floor()
    phase = ((position - below) * _PHASES).round().long()
    below = below.long() + 1
    taps = _sinc_table(waves.device)  # (_TAPS, _PHASES + 1)
    made = torch.zeros_like(position, dtype=torch.float32)
    for k in range(_TAPS):
        made.addcmul_(waves.gather(1, below + k), taps[k][phase])
    return made


def _sinc_table(device: torch.device) -> Tensor:
    """Hann-windowed sinc (_TAPS, _PHASES + 1): column p interpolates p / _PHASES past the middle tap."""
    offset = torch.arange(_TAPS, device=device)[:, None] - (_TAPS // 2 - 1)
    distance = offset - torch.arange(_PHASES + 1, device=device) / _PHASES
    taps = torch.sinc(distance) * torch.cos(torch.pi * distance / _TAPS).square() * (distance.abs() < _TAPS / 2)
    return taps / taps.sum(0)
