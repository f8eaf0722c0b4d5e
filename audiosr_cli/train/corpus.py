"""Recordings in memory, and crops drawn from all of them at once.

Drawing and rendering are two steps, here and wherever batches are made: a *recipe* holds the random choices
of a whole batch as small tensors on the CPU, drawn by a generator, so that it is the same on every device
and on every rank; rendering turns a part of it into waveforms on the device that trains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import count

import torch
from torch import Tensor

from audiosr_cli.dsp.spectra import irfft
from audiosr_cli.errors import TrainingError
from audiosr_cli.train.transfer import upload, upload_all

Recipe = dict[str, Tensor]  # every entry has one row an item of the batch

_MARGIN = 64  # samples on both sides of a stretched crop, where the spectrum's ends meet
_SPEEDS = 16  # that there are: each is an FFT length, for which a GPU makes and keeps a plan


@dataclass(frozen=True)
class Corpus:
    """Recordings of one rate end to end as int16, with where each lies, who speaks and how far its band goes.

    ``samples`` (N,) int16, on any device. One entry a recording, on the CPU, sorted by speaker: ``starts``,
    ``lengths`` (samples), ``speakers`` (from 0 on) int64, ``bandwidth`` (Hz) and ``level`` (RMS, full scale
    is 1) float32. ``chance`` (P,): how likely each speaker is drawn. ``skipped`` names the files that could
    not be read, ``damaged`` those that could in part, with the reason.
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
    damaged: list[str]

    @property
    def seconds(self) -> float:
        """Length of all recordings together."""
        return int(self.lengths.sum()) / self.sample_rate

    def to(self, device: torch.device) -> Corpus:
        """The same with its samples on ``device``, or as it is where they would fill more than half of what is free."""
        if device.type == "cuda" and 2 * self.samples.nbytes > torch.cuda.mem_get_info(device)[0]:
            return self
        return replace(self, samples=self.samples.to(device))

    def draw_speakers(self, rows: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw distinct speakers by ``chance``.

        Args:
            rows: Mixtures.
            count: Speakers in each.
            generator: Of the random choices.

        Returns:
            Speakers' indices (rows, count) int64.

        Raises:
            TrainingError: If the corpus has too few speakers.
        """
        people = int((self.chance > 0).sum())
        if people < count:
            raise TrainingError(
                f"{people} speaker(s) found, but a mixture needs {count}: put each speaker's recordings into a folder "
                "of their own"
            )
        race = -torch.rand(rows, len(self.chance), generator=generator).log() / self.chance  # first come, first drawn
        return race.topk(count, dim=1, largest=False).indices

    def draw(
        self,
        rows: int,
        length: int,
        generator: torch.Generator,
        speakers: int = 1,
        speed: float = 0.0,
        who: Tensor | None = None,
    ) -> Recipe:
        """``rows`` of crops of distinct ``speakers``; every entry is (rows, speakers).

        Speakers are drawn by ``chance`` or are those of ``who`` (rows, speakers), a speaker's recordings are drawn by
        their length; ``rate`` is the factor of speed and pitch, one of 16 within about 1 ± ``speed`` and one a column;
        ``first`` is where in its ``recording``
        the crop starts, and negative for a recording shorter than the crop, which lies at a random place in
        zeros. Raises TrainingError where the corpus has too few speakers.
        """
        shape = (rows, speakers)
        who = self.draw_speakers(rows, speakers, generator) if who is None else who
        ends = self.lengths.cumsum(0)
        last = torch.searchsorted(self.speakers, who, right=True) - 1
        total = torch.zeros(len(self.chance), dtype=torch.long).index_add(0, self.speakers, self.lengths)
        into = torch.rand(shape, generator=generator, dtype=torch.float64) * total[who]
        recording = torch.searchsorted(ends, (ends[last] - total[who] + into).long(), right=True)
        rate = torch.ones(speakers, dtype=torch.float64)
        if speed:
            share = (torch.rand(speakers, generator=generator, dtype=torch.float64) * _SPEEDS).floor() / (_SPEEDS - 1)
            wanted = 1 + speed * (2 * share - 1)
            pairs = [_stretch(length, float(factor)) for factor in wanted]
            rate = torch.tensor([before / after for after, before in pairs], dtype=torch.float64)
        room = self.lengths[recording] - length * rate
        first = (room * torch.rand(shape, generator=generator, dtype=torch.float64)).floor()
        return {"recording": recording, "first": first, "rate": rate.expand(shape)}

    def render(self, recipe: Recipe, length: int, device: torch.device) -> Tensor:
        """The crops of ``recipe`` as (rows, speakers, length) float32 on ``device``.

        Speed changes by resampling the spectrum of the whole crop, which leaves no image and no alias; so all
        items of a column share their rate.
        """
        shape = recipe["recording"].shape
        alike: dict[float, list[int]] = {}  # columns by their rate
        for column, rate in enumerate(recipe["rate"][:1].flatten().tolist()):
            alike.setdefault(rate, []).append(column)
        crops: dict[int, Tensor] = {}
        for rate, columns in alike.items():
            recording, first = (recipe[key][:, columns].flatten() for key in ("recording", "first"))
            waves = self._stretched(recording, first, rate, length, device).view(shape[0], len(columns), length)
            crops |= dict(zip(columns, waves.unbind(1), strict=True))
        if not crops:  # no items, so no rates
            return torch.zeros(*shape, length, device=device)
        return torch.stack([crops[column] for column in range(shape[1])], dim=1)

    def _stretched(self, recording: Tensor, first: Tensor, rate: float, length: int, device: torch.device) -> Tensor:
        """Crops (rows, length) at one ``rate``."""
        if rate == 1:
            return upload(self._cut(recording, first, length), device).float() / 32768
        stretched, reach = _stretch(length, rate)
        waves = upload(self._cut(recording, first - round(_MARGIN * rate), reach), device).float() / 32768
        ramp = torch.sin(torch.linspace(0, torch.pi / 2, _MARGIN - 8, device=device)).square()
        waves[:, : len(ramp)] *= ramp  # in the margins, so that the ends meet in silence
        waves[:, -len(ramp) :] *= ramp.flip(0)
        spectrum = torch.fft.rfft(waves)[:, : stretched // 2 + 1] * (stretched / reach)
        return irfft(spectrum, stretched)[:, _MARGIN : _MARGIN + length]

    def _cut(self, recording: Tensor, first: Tensor, reach: int) -> Tensor:
        """Samples (rows, reach) of the recordings from ``first`` on, zeros outside; on the corpus's device."""
        place = self.samples.device
        values = {"first": first.long(), "length": self.lengths[recording], "start": self.starts[recording]}
        row = {key: value[:, None] for key, value in upload_all(values, place).items()}  # (rows, 1)
        position = row["first"] + torch.arange(reach, device=place)
        inside = (position >= 0) & (position < row["length"])
        index = (position + row["start"]).clamp_(0, len(self.samples) - 1)
        return self.samples[index] * inside


@cache
def _stretch(length: int, rate: float) -> tuple[int, int]:
    """Lengths of a crop with its margins after and before a change of speed by about ``rate``: good for FFTs."""
    stretched = next(n for n in count(length + 2 * _MARGIN) if _is_smooth(n))
    wanted = round(stretched * rate)
    return stretched, next(n for away in count() for n in (wanted - away, wanted + away) if _is_smooth(n))


def _is_smooth(length: int) -> bool:
    """Whether ``length`` is even and without a prime factor above 13."""
    if length < 2 or length % 2:
        return False
    for prime in (2, 3, 5, 7, 11, 13):
        while length % prime == 0:
            length //= prime
    return length == 1
