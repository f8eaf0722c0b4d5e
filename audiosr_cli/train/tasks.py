"""What a task adds to the loop: how a batch is made, what the loss is, how good the model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from audiosr_cli.dsp import low_pass
from audiosr_cli.metrics import lsd, si_sdr
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train.data import Corpus
from audiosr_cli.train.degrade import random_edges
from audiosr_cli.train.losses import log_spectral, pit, si_sdr_and_level, spectral
from audiosr_cli.train.mixing import mixtures

_VALID_SEED = 20261120


class TrainingTask(Protocol):
    """A pair of (input, target) a batch, and the two figures that follow from them."""

    figure: str
    crop_s: float

    def batch(self, corpus: Corpus, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Input (B, C, T) at ``in_rate`` and target (B, S, C, T') at ``out_rate``, as long as the output."""
        ...

    def loss(self, estimate: Tensor, target: Tensor) -> Tensor:
        """What is minimised; both (B, S, C, T')."""
        ...

    def score(self, model: Model, corpus: Corpus) -> float:
        """The held-out figure named ``figure``; higher is better."""
        ...


@dataclass(frozen=True)
class Separation:
    """Mixtures of distinct speakers, permutation-invariant SI-SNR."""

    spec: ModelSpec
    batch_size: int
    crop_s: float
    spread_db: float = 5.0
    speed: float = 0.05
    level_db: tuple[float, float] = (-40.0, -6.0)
    figure: str = "SI-SDRi (dB)"

    def batch(self, corpus: Corpus, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The crop is what the model hears: its context is cut from the target."""
        length, context = round(self.crop_s * self.spec.in_rate), self.spec.context
        sources = mixtures(
            corpus, self.batch_size, length, generator, self.spec.sources, self.spread_db, self.speed, self.level_db
        )
        return sources.sum(1, keepdim=True), sources[..., context : length - context].unsqueeze(2)

    def loss(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Permutation-invariant negative SI-SNR with the level's error, in dB."""
        estimate, target = estimate.flatten(2), target.flatten(2)  # (B, S, T)
        return pit(estimate, target, si_sdr_and_level)

    def score(self, model: Model, corpus: Corpus) -> float:
        """Mean SI-SDR improvement over 40 fixed mixtures of the valid speakers, ± 2.5 dB, 5.12 s each."""
        generator = torch.Generator().manual_seed(_VALID_SEED)
        length = round(5.12 * self.spec.in_rate)
        sources = mixtures(corpus, 40, length, generator, self.spec.sources, 5.0, 0.0)
        mix = sources.sum(1, keepdim=True)  # (40, 1, T)
        context = model.spec.context
        with torch.no_grad():
            made = torch.cat([model(torch.nn.functional.pad(x, (context, context))) for x in torch.split(mix, 4)])
        before = si_sdr(mix, sources).mean()
        return float(-pit(made.flatten(2), sources, si_sdr, best_db=100.0) - before)


@dataclass(frozen=True)
class Upsampling:
    """Band-limited recordings, spectral losses at several resolutions."""

    spec: ModelSpec
    batch_size: int
    crop_s: float
    low_hz: float = 2000.0
    high_hz: float = 16000.0
    usual_hz: tuple[float, ...] = (4000.0, 8000.0)
    figure: str = "-LSD"

    def batch(self, corpus: Corpus, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The target is as long as what the model returns for the crop."""
        spec, length = self.spec, round(self.crop_s * self.spec.out_rate) // self.spec.ratio * self.spec.ratio
        waves = corpus.crops(corpus.draw(self.batch_size, generator).squeeze(1), length, generator, 0.05)
        waves = waves * torch.pow(10.0, torch.rand(len(waves), 1, generator=generator) * 1.2 - 0.9)
        waves = waves * (torch.randint(0, 2, (len(waves), 1), generator=generator) * 2 - 1)
        edge = random_edges(len(waves), self.low_hz, self.high_hz, self.usual_hz, generator)
        roll_off = 0.01 + 0.12 * torch.rand(len(waves), generator=generator)
        low = low_pass(waves, edge.clamp_max(spec.in_rate / 2), roll_off, spec.out_rate)
        cut = spec.context * spec.ratio
        return low[:, None, :: spec.ratio], waves[:, None, None, cut : length - cut]

    def loss(self, estimate: Tensor, target: Tensor) -> Tensor:
        """LSD, multi-resolution log magnitude and spectral convergence, and a little of the waveform."""
        estimate, target = estimate.flatten(0, 2), target.flatten(0, 2)
        wave = (estimate - target).abs().mean() / target.abs().mean().clamp_min(1e-4)
        return log_spectral(estimate, target) + spectral(estimate, target) + 0.1 * wave

    def score(self, model: Model, corpus: Corpus) -> float:
        """Negative LSD (AP-BWE definition), mean of 4 and 8 kHz edges over up to 20 valid recordings."""
        spec, total, count = model.spec, 0.0, 0
        for start, length in list(zip(corpus.starts, corpus.lengths, strict=True))[:: max(1, len(corpus.starts) // 20)]:
            length = min(int(length), 4 * spec.out_rate) // (16 * spec.ratio) * 16 * spec.ratio
            wave = corpus.samples[int(start) : int(start) + length].float()[None] / 32768
            for edge in self.usual_hz:
                low = low_pass(wave, torch.tensor([edge]), torch.tensor([0.09]), spec.out_rate)
                x = torch.nn.functional.pad(low[:, None, :: spec.ratio], (spec.context, spec.context))
                with torch.no_grad():
                    total += float(lsd(model(x).flatten(), wave[0]))
                count += 1
        return -total / count


TASKS: dict[str, type[Separation] | type[Upsampling]] = {"separate": Separation, "upsample": Upsampling}
