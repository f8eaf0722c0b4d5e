"""Recordings in memory, and crops drawn from them.

Batches are made in two steps, here and in ``mixing`` and ``bandlimit``. ``draw`` makes the random choices of a whole
batch: small tensors on the CPU that are the same on every device and in every process. ``render`` turns some rows of
them into waveforms on the device that trains.
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

# The random choices of a batch by name; every entry has one row for each item of the batch.
RandomParameters = dict[str, Tensor]

# Share of the Nyquist frequency from which a recording counts as full-band.
FULL_BAND = 0.95
# Samples on both sides of a resampled crop, faded to silence because the ends of an FFT wrap around.
_MARGIN = 64
# Number of different speeds. Each is an FFT length, for which a GPU computes and keeps a plan.
_SPEEDS = 16


@dataclass(frozen=True)
class Corpus:
    """Recordings of one sample rate, end to end as int16, with their metadata.

    The tensors of metadata are on the CPU and have one entry for each recording, sorted by speaker.

    Attributes:
        sample_rate: Hz.
        samples: All recordings (N,) int16, on any device.
        starts: First sample of each recording, int64.
        lengths: Samples of each recording, int64.
        speakers: Speaker's index, int64.
        bandwidth: Bandwidth in Hz, float32.
        level: RMS, where full scale is 1, float32.
        speaker_probs: Probability that each speaker is drawn (P,).
        names: Path of each recording.
        skipped: Files that could not be read, with the reason.
        damaged: Files that could only be read in part, with the reason.
    """

    sample_rate: int
    samples: Tensor
    starts: Tensor
    lengths: Tensor
    speakers: Tensor
    bandwidth: Tensor
    level: Tensor
    speaker_probs: Tensor
    names: list[str]
    skipped: list[str]
    damaged: list[str]

    @property
    def seconds(self) -> float:
        """Total duration in seconds."""
        return int(self.lengths.sum()) / self.sample_rate

    def to(self, device: torch.device) -> Corpus:
        """Move the samples to ``device``, unless they would fill more than half of its free memory."""
        if device.type == "cuda" and 2 * self.samples.nbytes > torch.cuda.mem_get_info(device)[0]:
            return self
        return replace(self, samples=self.samples.to(device))

    def draw_speakers(self, rows: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw distinct speakers by ``speaker_probs``.

        Args:
            rows: Number of mixtures.
            count: Speakers in each.
            generator: Source of the random choices.

        Returns:
            Speakers' indices (rows, count) int64.

        Raises:
            TrainingError: If the corpus has too few speakers.
        """
        available = int((self.speaker_probs > 0).sum())
        if available < count:
            raise TrainingError(
                f"{available} speaker(s) in the data, but a mixture needs {count}: put each speaker's recordings "
                "into a separate folder"
            )
        # Exponential races: the smallest arrival times are a draw without replacement.
        arrival = -torch.rand(rows, len(self.speaker_probs), generator=generator).log() / self.speaker_probs
        return arrival.topk(count, dim=1, largest=False).indices

    def draw(
        self,
        rows: int,
        length: int,
        generator: torch.Generator,
        sources: int = 1,
        speed: float = 0.0,
        speakers: Tensor | None = None,
    ) -> RandomParameters:
        """Draw crops of distinct speakers: the speakers by ``speaker_probs``, their recordings in proportion to length.

        Args:
            rows: Number of mixtures, or of single crops.
            length: Samples of a crop.
            generator: Source of the random choices.
            sources: Crops in each row, of as many speakers.
            speed: Speed and pitch change by one of 16 factors within about 1 ± this, the same for a whole column.
            speakers: Speakers' indices (rows, sources) where they are chosen already.

        Returns:
            ``recording``, ``first`` (sample of the recording where the crop starts, negative for a recording shorter
            than the crop, which gets a random place among zeros) and ``rate`` (factor of speed): (rows, sources) each.

        Raises:
            TrainingError: If the corpus has too few speakers.
        """
        shape = (rows, sources)
        if speakers is None:
            speakers = self.draw_speakers(rows, sources, generator)
        ends = self.lengths.cumsum(0)
        last = torch.searchsorted(self.speakers, speakers, right=True) - 1
        total = torch.zeros(len(self.speaker_probs), dtype=torch.long).index_add(0, self.speakers, self.lengths)
        offset = torch.rand(shape, generator=generator, dtype=torch.float64) * total[speakers]
        recording = torch.searchsorted(ends, (ends[last] - total[speakers] + offset).long(), right=True)
        rate = torch.ones(sources, dtype=torch.float64)
        if speed:
            share = (torch.rand(sources, generator=generator, dtype=torch.float64) * _SPEEDS).floor() / (_SPEEDS - 1)
            factors = 1 + speed * (2 * share - 1)
            sizes = [_fft_sizes(length, float(factor)) for factor in factors]
            rate = torch.tensor([before / after for after, before in sizes], dtype=torch.float64)
        slack = self.lengths[recording] - length * rate
        first = (slack * torch.rand(shape, generator=generator, dtype=torch.float64)).floor()
        return {"recording": recording, "first": first, "rate": rate.expand(shape)}

    def render(self, params: RandomParameters, length: int, device: torch.device) -> Tensor:
        """Render the crops of ``params``.

        Speed is changed by resampling the spectrum of the whole crop, without images or aliases; this needs one rate
        for all items of a column.

        Args:
            params: What ``draw`` returned, or some of its rows.
            length: Samples of a crop.
            device: Where to render.

        Returns:
            (rows, sources, length) float32.
        """
        shape = params["recording"].shape
        by_rate: dict[float, list[int]] = {}  # columns
        for column, rate in enumerate(params["rate"][:1].flatten().tolist()):
            by_rate.setdefault(rate, []).append(column)
        crops: dict[int, Tensor] = {}
        for rate, columns in by_rate.items():
            recording, first = (params[key][:, columns].flatten() for key in ("recording", "first"))
            waves = self._resampled(recording, first, rate, length, device).view(shape[0], len(columns), length)
            crops |= dict(zip(columns, waves.unbind(1), strict=True))
        if not crops:  # no items
            return torch.zeros(*shape, length, device=device)
        return torch.stack([crops[column] for column in range(shape[1])], dim=1)

    def _resampled(self, recording: Tensor, first: Tensor, rate: float, length: int, device: torch.device) -> Tensor:
        """Render crops (rows, length) at one ``rate``."""
        if rate == 1:
            return upload(self._cut(recording, first, length), device).float() / 32768
        resampled, size = _fft_sizes(length, rate)
        waves = upload(self._cut(recording, first - round(_MARGIN * rate), size), device).float() / 32768
        ramp = torch.sin(torch.linspace(0, torch.pi / 2, _MARGIN - 8, device=device)).square()
        waves[:, : len(ramp)] *= ramp
        waves[:, -len(ramp) :] *= ramp.flip(0)
        spectrum = torch.fft.rfft(waves)[:, : resampled // 2 + 1] * (resampled / size)
        return irfft(spectrum, resampled)[:, _MARGIN : _MARGIN + length]

    def _cut(self, recording: Tensor, first: Tensor, size: int) -> Tensor:
        """Cut samples (rows, size) out of the recordings from ``first`` on, zeros outside; on the corpus's device."""
        place = self.samples.device
        values = {"first": first.long(), "length": self.lengths[recording], "start": self.starts[recording]}
        row = {key: value[:, None] for key, value in upload_all(values, place).items()}  # (rows, 1)
        position = row["first"] + torch.arange(size, device=place)
        inside = (position >= 0) & (position < row["length"])
        index = (position + row["start"]).clamp_(0, len(self.samples) - 1)
        return self.samples[index] * inside


@cache
def _fft_sizes(length: int, rate: float) -> tuple[int, int]:
    """Return the lengths of a crop with margins after and before a change of speed by about ``rate``."""
    after = next(n for n in count(length + 2 * _MARGIN) if _is_smooth(n))
    before = round(after * rate)
    return after, next(n for away in count() for n in (before - away, before + away) if _is_smooth(n))


def _is_smooth(length: int) -> bool:
    """Return whether ``length`` is even and has no prime factor above 13, so that FFTs of it are fast."""
    if length < 2 or length % 2:
        return False
    for prime in (2, 3, 5, 7, 11, 13):
        while length % prime == 0:
            length //= prime
    return length == 1
