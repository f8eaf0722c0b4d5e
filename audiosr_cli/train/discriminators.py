"""Discriminators and adversarial losses for waveforms: multi-period and multi-resolution, hinge, feature matching."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from audiosr_cli.dsp.spectra import stft
from audiosr_cli.errors import UsageError
from audiosr_cli.train.checks import positive

Judgement = tuple[Tensor, list[Tensor]]  # scores of the parts of a waveform, and the feature maps on the way there


@dataclass(frozen=True)
class Critics:
    """Which discriminators there are, and how wide; no ``periods`` and no ``resolutions`` leave that kind out."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    resolutions: tuple[int, ...] = (512, 1024, 2048)
    channels: int = 16

    def __post_init__(self) -> None:
        positive(self, "channels")
        if min((2, *self.periods)) < 2 or min((16, *self.resolutions)) < 16 or not self.periods + self.resolutions:
            raise UsageError(f"critics: periods {self.periods} from 2, resolutions {self.resolutions} from 16 on")


class PeriodDiscriminator(nn.Module):
    """A waveform folded to rows of ``period`` samples, judged along the columns (HiFi-GAN, sec. 2.3)."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, 4 * channels, 8 * channels, 8 * channels]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0))) for a, b in pairwise(widths)
        )
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waves: Tensor) -> Judgement:
        """(B, T) → scores, features."""
        waves = F.pad(waves.unsqueeze(1), (0, -waves.shape[-1] % self.period), mode="reflect")
        return _judge(waves.reshape(len(waves), 1, -1, self.period), self.layers, self.out)  # from (B, 1, T / P, P)


class ResolutionDiscriminator(nn.Module):
    """A linear magnitude spectrogram, judged by a 2-D network (UnivNet, Jang et al. 2021, sec. 2.2)."""

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        shapes = [(1, 1), (1, 2), (1, 2), (1, 2), (1, 1)]
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(channels if i else 1, channels, (3, 9 if i < 4 else 3), stride, (1, 4 if i < 4 else 1))
            )
            for i, stride in enumerate(shapes)
        )
        self.out = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, waves: Tensor) -> Judgement:
        """(B, T) → scores, features."""
        spectrum = torch.view_as_real(stft(waves, self.n_fft, self.n_fft // 4))
        size = (spectrum.square().sum(-1) + 1e-9).sqrt().transpose(1, 2)  # (B, L, F)
        return _judge(size.unsqueeze(1), self.layers, self.out)


def _judge(h: Tensor, layers: nn.ModuleList, out: nn.Module) -> Judgement:
    features = []
    for layer in layers:
        h = F.leaky_relu(layer(h), 0.1)
        features.append(h)
    return out(h).flatten(1), features


class Discriminators(nn.Module):
    """All of ``critics``, each with a judgement of its own."""

    def __init__(self, critics: Critics) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            [PeriodDiscriminator(period, critics.channels) for period in critics.periods]
            + [ResolutionDiscriminator(n_fft, critics.channels) for n_fft in critics.resolutions]
        )

    def forward(self, waves: Tensor) -> list[Judgement]:
        """(B, T) → a judgement from each."""
        return [member(waves) for member in self.members]


def discriminator_loss(made: list[Judgement], true: list[Judgement]) -> Tensor:
    """Hinge loss of the critics: true parts above 1, made ones below -1 (Lim & Ye 2017)."""
    parts = [F.relu(1 - b).mean() + F.relu(1 + a).mean() for (a, _), (b, _) in zip(made, true, strict=True)]
    return torch.stack(parts).mean()


def adversarial_loss(made: list[Judgement]) -> Tensor:
    """What the generator pays for being told from the truth: the negative score."""
    return torch.stack([-score.mean() for score, _ in made]).mean()


def feature_matching(made: list[Judgement], true: list[Judgement]) -> Tensor:
    """L1 between feature maps, each against the mean size of the true one (Kumar et al. 2019, MelGAN, sec. 2.3)."""
    parts = [
        ((a - b.detach()).abs().flatten(1).mean(1) / b.detach().abs().flatten(1).mean(1).clamp_min(1e-4)).mean()
        for (_, ours), (_, theirs) in zip(made, true, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    ]
    return torch.stack(parts).mean()
