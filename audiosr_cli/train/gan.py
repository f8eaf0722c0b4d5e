"""Adversarial training of waveforms: multi-period and multi-resolution discriminators, their losses and their steps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from audiosr_cli.dsp.spectra import stft
from audiosr_cli.errors import UsageError
from audiosr_cli.train.checks import positive
from audiosr_cli.train.optimizers import restore, step_if
from audiosr_cli.train.ranks import Ranks

# Largest norm of the discriminators' gradient.
_CLIP_NORM = 10.0

# The scores of one discriminator, and its feature maps from input to output.
DiscriminatorOutput = tuple[Tensor, list[Tensor]]


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminators and their width. An empty list leaves out that kind.

    Attributes:
        periods: Periods in samples, one multi-period discriminator each (HiFi-GAN).
        resolutions: FFT sizes in samples, one multi-resolution discriminator each (UnivNet).
        channels: Channels of the first layer.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    resolutions: tuple[int, ...] = (512, 1024, 2048)
    channels: int = 16

    def __post_init__(self) -> None:
        positive(self, "channels")
        if not self.periods + self.resolutions:
            raise UsageError("discriminators: give at least one of periods and resolutions")
        if min(self.periods, default=2) < 2:
            raise UsageError(f"periods = {list(self.periods)}: each must be at least 2 samples")
        if min(self.resolutions, default=16) < 16:
            raise UsageError(f"resolutions = {list(self.resolutions)}: each must be at least 16 samples")


class PeriodDiscriminator(nn.Module):
    """Fold a waveform into rows of ``period`` samples and judge it along the columns.

    Kong et al. 2020 (HiFi-GAN), sec. 2.3.
    """

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, 4 * channels, 8 * channels, 8 * channels]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0))) for a, b in pairwise(widths)
        )
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waves: Tensor) -> DiscriminatorOutput:
        """(B, T) → scores, features."""
        waves = F.pad(waves.unsqueeze(1), (0, -waves.shape[-1] % self.period), mode="reflect")
        return _discriminate(waves.reshape(len(waves), 1, -1, self.period), self.layers, self.out)  # (B, 1, T / P, P)


class ResolutionDiscriminator(nn.Module):
    """Judge a linear magnitude spectrogram with a 2-D network.

    Jang et al. 2021 (UnivNet), sec. 2.2.
    """

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

    def forward(self, waves: Tensor) -> DiscriminatorOutput:
        """(B, T) → scores, features."""
        spectrum = torch.view_as_real(stft(waves, self.n_fft, self.n_fft // 4))
        magnitude = (spectrum.square().sum(-1) + 1e-9).sqrt().transpose(1, 2)  # (B, L, F)
        return _discriminate(magnitude.unsqueeze(1), self.layers, self.out)


def _discriminate(h: Tensor, layers: nn.ModuleList, out: nn.Module) -> DiscriminatorOutput:
    features = []
    for layer in layers:
        h = F.leaky_relu(layer(h), 0.1)
        features.append(h)
    return out(h).flatten(1), features


class Discriminators(nn.Module):
    """All discriminators of ``config``, each with its own output."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            [PeriodDiscriminator(period, config.channels) for period in config.periods]
            + [ResolutionDiscriminator(n_fft, config.channels) for n_fft in config.resolutions]
        )

    def forward(self, waves: Tensor) -> list[DiscriminatorOutput]:
        """(B, T) → the output of each discriminator."""
        return [member(waves) for member in self.members]


def discriminator_loss(fake: list[DiscriminatorOutput], real: list[DiscriminatorOutput]) -> Tensor:
    """Compute the hinge loss of the discriminators: real scores above 1, fake ones below -1 (Lim & Ye 2017)."""
    terms = [F.relu(1 - b).mean() + F.relu(1 + a).mean() for (a, _), (b, _) in zip(fake, real, strict=True)]
    return torch.stack(terms).mean()


def adversarial_loss(fake: list[DiscriminatorOutput]) -> Tensor:
    """Compute the generator's hinge loss: the negative score of its output."""
    return torch.stack([-score.mean() for score, _ in fake]).mean()


def feature_matching(fake: list[DiscriminatorOutput], real: list[DiscriminatorOutput]) -> Tensor:
    """Compute the L1 distance of feature maps, relative to the real ones' mean magnitude.

    Kumar et al. 2019 (MelGAN), sec. 2.3; dividing by the magnitude is an addition.
    """
    terms = [
        ((a - b.detach()).abs().flatten(1).mean(1) / b.detach().abs().flatten(1).mean(1).clamp_min(1e-4)).mean()
        for (_, fake_maps), (_, real_maps) in zip(fake, real, strict=True)
        for a, b in zip(fake_maps, real_maps, strict=True)
    ]
    return torch.stack(terms).mean()


class AdversarialConfig(NamedTuple):
    """The discriminators, and the weights of the generator's two adversarial losses."""

    discriminators: DiscriminatorConfig
    adversarial_weight: float
    feature_matching_weight: float


class DiscriminatorTrainer:
    """Trains discriminators beside a generator, and computes the generator's adversarial losses.

    Args:
        config: The discriminators and the weights of the losses.
        learning_rate: Of the discriminators' AdamW.
        ranks: The processes of the run.
    """

    def __init__(self, config: AdversarialConfig, learning_rate: float, ranks: Ranks) -> None:
        self.config, self.device = config, ranks.device
        self.discriminators = Discriminators(config.discriminators).to(ranks.device)
        self.shared = ranks.wrap(self.discriminators)
        self.optimizer = torch.optim.AdamW(
            self.discriminators.parameters(), lr=learning_rate, betas=(0.8, 0.99), fused=True
        )

    def step(self, estimate: Tensor, reference: Tensor, bf16: bool, deferred: bool = False) -> dict[str, Tensor]:
        """Update the discriminators once, then compute the generator's weighted losses.

        Args:
            estimate: The generator's output (B, T).
            reference: The target (B, T).
            bf16: Whether the discriminators run in bf16.
            deferred: Whether the device decides if the discriminators' gradient is finite, so that the host need not
                wait for it.

        Returns:
            The losses by name.
        """
        count = len(estimate)
        self.discriminators.requires_grad_(True)
        with torch.autocast(self.device.type, torch.bfloat16, bf16):
            fake, real = _halves(self.shared(torch.cat([estimate.detach(), reference])), count)
        self.optimizer.zero_grad()
        discriminator_loss(fake, real).backward()  # type: ignore[no-untyped-call]
        finite = torch.isfinite(nn.utils.clip_grad_norm_(self.discriminators.parameters(), _CLIP_NORM))
        if deferred:
            step_if(finite, self.optimizer)
        elif bool(finite):
            self.optimizer.step()
        self.discriminators.requires_grad_(False)
        with torch.autocast(self.device.type, torch.bfloat16, bf16):
            fake, real = _halves(self.discriminators(torch.cat([estimate, reference])), count)
        return {
            "adversarial": self.config.adversarial_weight * adversarial_loss(fake),
            "feature_matching": self.config.feature_matching_weight * feature_matching(fake, real),
        }

    def state(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {"discriminators": self.discriminators.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Restore ``state``."""
        self.discriminators.load_state_dict(state["discriminators"])
        restore(self.optimizer, state["optimizer"])


def _halves(
    outputs: list[DiscriminatorOutput], count: int
) -> tuple[list[DiscriminatorOutput], list[DiscriminatorOutput]]:
    """Split the outputs of two concatenated batches, ``count`` items in the first; float32."""
    first = [(score[:count].float(), [h[:count].float() for h in maps]) for score, maps in outputs]
    second = [(score[count:].float(), [h[count:].float() for h in maps]) for score, maps in outputs]
    return first, second
