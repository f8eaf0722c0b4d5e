"""AudioSR (Liu et al. 2023, arXiv 2309.07314): highs drawn by diffusion in the latent space of a mel autoencoder.

As published: the mel front end, the autoencoder, the latent network, velocities and zero terminal SNR, low bands put
back. Ours: it streams, as noise belongs to frames of the recording and not to windows; mels are measured against the
low band's level around them, so gain in is gain out; the condition is what a small network expects of the mels, which
by itself is NVSR's way (Liu et al. 2022, arXiv 2203.14941), here 0 steps; and waveforms come from the raised low band
(SpectralBWE), so that neighbouring windows have one phase where they meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.contract import ModelSpec
from audiosr_cli.dsp.spectra import hann_window, mel_filters
from audiosr_cli.models.base import Model
from audiosr_cli.models.diffusion import Sampling, ddim, keyed_noise
from audiosr_cli.models.latent_unet import LatentUNet, LatentUNetConfig
from audiosr_cli.models.mel_vae import MelVAE, MelVAEConfig
from audiosr_cli.models.registry import register
from audiosr_cli.models.spectral_bwe import Block, SpectralBWE, SpectralBWEConfig

_LOWEST_HZ = 20.0
_FLOOR = 1e-5  # of mels before their logarithm
_QUIETEST = -8.0  # natural logarithm of a mel against the level: what lies below is as good as nothing
_SPREAD = 2.5  # of logarithms: what networks see has about unit variance
_MIXED = 4  # mels over which the low band gives way to what is made

Objective = Callable[["AudioSR"], Tensor]


def log_mels(waves: Tensor, filters: Tensor, n_fft: int = 2048, hop_length: int = 480) -> Tensor:
    """Natural logarithms of mel magnitudes, AudioSR's front end: (B, T) → (B, L, M), L = T / hop_length.

    Frame l is centred on its hop of samples; the ends are reflected. ``filters`` are (M, F).
    """
    side = (n_fft - hop_length) // 2
    padded = F.pad(waves.unsqueeze(1), (side, side), mode="reflect")[:, 0]
    window = hann_window(n_fft, waves.device)
    spectra = torch.stft(padded, n_fft, hop_length, window=window, center=False, return_complex=True)
    power = torch.view_as_real(spectra).square().sum(-1)
    size = power.clamp_min(1e-20).sqrt()  # its gradient at silence is zero
    return (filters @ size).clamp_min(_FLOOR).log().transpose(1, 2)


def join_bands(low: Tensor, high: Tensor, first: Tensor | float, width: float = 0.0) -> Tensor:
    """``low`` below bin ``first`` (scalar or (B,)), ``high`` above: (B, L, F) both, the bins last.

    Over ``width`` bins up to ``first`` one gives way to the other; without, bins change at once.
    """
    bins = torch.arange(low.shape[-1], device=low.device)
    above = (bins - (first.reshape(-1, 1, 1) if isinstance(first, Tensor) else first)).float()
    share = ((above + width) / width).clamp(0, 1) if width else (above >= 0).float()
    return low + share * (high - low)


@dataclass(frozen=True)
class ExpectedConfig:
    """The network that expects mels: ``hidden`` features, ``blocks`` with kernels of ``kernel`` frames."""

    hidden: int = 192
    blocks: int = 4
    kernel: int = 7


@dataclass(frozen=True)
class AudioSRConfig:
    """Every number of an AudioSR.

    A window yields ``core`` mel frames of 10 ms, ``overlap`` of which it shares with the next, and hears ``margin`` on
    both sides. Levels are measured over ``steady`` frames on both sides. ``vocoder`` hears mels.
    """

    sample_rate: int = 48000
    n_fft: int = 2048
    hop_length: int = 480
    mels: int = 256
    steady: int = 24
    core: int = 448
    overlap: int = 64
    margin: int = 64
    expected: ExpectedConfig = field(default_factory=ExpectedConfig)
    vae: MelVAEConfig = field(
        default_factory=lambda: MelVAEConfig(
            width=16, multipliers=(1, 2, 4, 4), blocks=1, latent=8, attention=False, steady=True
        )
    )
    unet: LatentUNetConfig = field(
        default_factory=lambda: LatentUNetConfig(
            latent=8, width=32, multipliers=(1, 2, 4), blocks=1, transformers=1, head=32
        )
    )
    vocoder: SpectralBWEConfig = field(
        default_factory=lambda: SpectralBWEConfig(
            n_fft=960, hop_length=480, hidden=192, blocks=4, steady=24, inputs=256, margin=0, name="vocoder"
        )
    )
    name: str = "audiosr_small"

    def __post_init__(self) -> None:
        assert self.vocoder.inputs == self.mels and self.vocoder.hop_length == self.hop_length
        assert self.vocoder.sample_rate == self.sample_rate and self.vocoder.steady == self.steady
        assert self.vae.latent == self.unet.latent and (self.n_fft - self.hop_length) % 2 == 0
        unit = self.vae.stride * self.unet.stride
        assert self.mels % unit == 0 and (self.core + 2 * self.margin) % unit == 0
        assert self.margin % self.vae.stride == self.overlap % self.vae.stride == self.core % self.vae.stride == 0

    @property
    def spec(self) -> ModelSpec:
        """The contract that follows."""
        hop = self.hop_length
        return ModelSpec(
            name=self.name,
            task="upsample",
            in_rate=self.sample_rate,
            ratio=1,
            sources=1,
            channels=1,
            window=(self.core + 2 * self.margin) * hop,
            context=self.margin * hop,
            hop=(self.core - self.overlap) * hop,
            uses_cutoff=True,
            uses_position=True,
        )


class Expected(nn.Module):
    """Mels as they are to be expected above the cutoff, from those below."""

    def __init__(self, mels: int, config: ExpectedConfig) -> None:
        super().__init__()
        c = config
        self.enter, self.leave = nn.Linear(2 * mels, c.hidden), nn.Linear(c.hidden, mels)
        self.norm = nn.LayerNorm(c.hidden, eps=1e-6)
        self.blocks = nn.ModuleList(Block(c.hidden, c.kernel, 3) for _ in range(c.blocks))

    def forward(self, low: Tensor, known: Tensor) -> Tensor:
        """(B, L, M), and which of the mels are known (B, 1, M) → (B, L, M)."""
        h = self.enter(torch.cat([low * known, known.expand_as(low)], dim=2))
        for block in self.blocks:
            h = block(h)
        return self.leave(self.norm(h))


@register("audiosr", AudioSRConfig)
class AudioSR(Model):
    """The four networks, and how a recording goes through them."""

    config: AudioSRConfig
    filters: Tensor
    centres: Tensor
    spread: Tensor

    def __init__(self, config: AudioSRConfig) -> None:
        super().__init__(config)
        c = config
        self.expected = Expected(c.mels, c.expected)
        self.vae, self.unet, self.vocoder = MelVAE(c.vae), LatentUNet(c.unet), SpectralBWE(c.vocoder)
        filters = mel_filters(c.n_fft, c.mels, c.sample_rate, _LOWEST_HZ)
        self.register_buffer("filters", filters, persistent=False)
        centre = filters @ torch.linspace(0, c.sample_rate / 2, filters.shape[1]) / filters.sum(1)
        self.register_buffer("centres", centre, persistent=False)
        self.register_buffer("spread", torch.ones(()))  # standard deviation of latents

    def forward(
        self,
        x: Tensor,
        *,
        cutoff_hz: Tensor | None = None,
        position: Tensor | None = None,
        sampling: Sampling | None = None,
        objective: Objective | None = None,
    ) -> Tensor:
        """Restore the highs of a window.

        Args:
            x: (B, 1, T).
            cutoff_hz: (B,), where each item's content ends; a sixth of the rate by default.
            position: (B,), each item's first sample in its recording; 0 by default.
            sampling: How highs are drawn; ``Sampling()`` by default.
            objective: Computed in place of all that, for training, where a network is called only by its ``forward``.

        Returns:
            (B, 1, 1, T - 2 * context), or what ``objective`` returns.
        """
        if objective is not None:
            return objective(self)
        cutoff = self.default_cutoff(x) if cutoff_hz is None else cutoff_hz
        sampling = sampling or Sampling()
        mel, _ = self.hear(x[:, 0], cutoff)
        output = self.expect(mel, cutoff)
        if sampling.steps:
            position = torch.zeros(len(x), dtype=torch.long) if position is None else position
            output = self.join(mel, self.draw(output, position, sampling), cutoff)
        context = self.spec.context
        return self.voice(x, cutoff, output)[..., context : x.shape[-1] - context]

    def hear(self, waves: Tensor, cutoff: Tensor, level: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Waves (B, T) → mels against the level (B, L, M), about from -3 to 3, and the levels (B, L, 1).

        The level is that of the band below ``cutoff`` (B,), unless given.
        """
        with torch.autocast(waves.device.type, enabled=False):
            waves = waves.float()
            if level is None:
                level = self.vocoder.level_below(waves, cutoff)
                level = (level[:, 1:] + level[:, :-1])[:, : waves.shape[-1] // self.config.hop_length] / 2
            mel = log_mels(waves, self.filters, self.config.n_fft, self.config.hop_length)
            against = mel - (level * 2 + _FLOOR).log()  # a mel's window is about twice a bin's
            return (against.clamp_min(_QUIETEST) + 1) / _SPREAD, level

    def first_mel(self, cutoff: Tensor) -> Tensor:
        """The first mel that lies above ``cutoff`` (B,)."""
        return torch.bucketize(cutoff, self.centres)

    def join(self, low: Tensor, high: Tensor, cutoff: Tensor) -> Tensor:
        """Mels (B, L, M) of the input below ``cutoff`` (B,), others above."""
        return join_bands(low, high, self.first_mel(cutoff), _MIXED)

    def expect(self, mel: Tensor, cutoff: Tensor) -> Tensor:
        """What the mels (B, L, M) of a recording are above ``cutoff`` (B,) to be expected: the same shape."""
        ones = mel.new_ones(1, 1, mel.shape[2])
        known = join_bands(ones, 0 * ones, self.first_mel(cutoff), _MIXED)
        return self.join(mel, self.expected(mel, known), cutoff)

    def draw(self, expected: Tensor, position: Tensor, sampling: Sampling) -> Tensor:
        """Draw mels (B, L, M) with ``expected`` ones as the condition; windows begin at samples ``position`` (B,)."""
        stride = self.vae.config.stride
        condition = self.vae.encode(expected.unsqueeze(1)).mean / self.spread
        shape = (condition.shape[1], condition.shape[3])
        first = (position // (self.config.hop_length * stride)).tolist()

        def noise(which: int) -> Tensor:
            made = [keyed_noise(sampling.seed, which, frame, condition.shape[2], shape) for frame in first]
            return torch.stack(made).transpose(1, 2).to(condition.device)

        latent = ddim(partial(self.guided, condition, sampling.guidance), noise, sampling.steps, sampling.eta)
        return self.vae.decode(latent * self.spread)[:, 0]

    def guided(self, condition: Tensor, guidance: float, noisy: Tensor, step: Tensor) -> Tensor:
        """The velocity, away from what it would be without the condition (Ho & Salimans 2022)."""
        step = step.to(noisy.device)
        told = self.unet(noisy, condition, step)
        if guidance == 1:
            return told
        free = self.unet(noisy, torch.zeros_like(condition), step)
        return free + guidance * (told - free)

    def voice(self, x: Tensor, cutoff: Tensor, mel: Tensor) -> Tensor:
        """Waves (B, 1, T) with the highs that ``mel`` (B, L, M) asks for: (B, 1, 1, T)."""
        between = F.avg_pool1d(F.pad(mel.transpose(1, 2), (1, 1), mode="replicate"), 2, 1).transpose(1, 2)
        return self.vocoder(x, cutoff_hz=cutoff, features=between)
