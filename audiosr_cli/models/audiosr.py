"""AudioSR (Liu et al. 2023, arXiv 2309.07314): bandwidth extension by latent diffusion of mel spectrograms.

As published: the mel front end, the autoencoder, the U-Net, velocities with zero terminal SNR, and that the low band of
the input replaces that of the output.

Deviations:

- It streams: noise is keyed by the frame of the recording, so overlapping windows share it.
- Mels are relative to the level of the low band around them, so gain in is gain out.
- The condition is a deterministic prediction of the full-band mels by a small network. With 0 diffusion steps that
  prediction is the output, which is the method of NVSR (Liu et al. 2022, arXiv 2203.14941).
- The vocoder is a SpectralBWE, which shapes the replicated low band: neighbouring windows agree in phase.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check, multiple, odd
from audiosr_cli.contract import ModelSpec
from audiosr_cli.dsp.spectra import hann_window, mel_filters
from audiosr_cli.models.base import Model
from audiosr_cli.models.diffusion import Sampling, ddim, keyed_noise
from audiosr_cli.models.latent_unet import LatentUNet, LatentUNetConfig
from audiosr_cli.models.mel_vae import MelVAE, MelVAEConfig
from audiosr_cli.models.registry import register
from audiosr_cli.models.spectral_bwe import ConvNeXtBlock, SpectralBWE, SpectralBWEConfig

# Lower edge of the mel filters in Hz, as published.
_LOWEST_HZ = 20.0
# Smallest mel magnitude before the logarithm, as published.
_FLOOR = 1e-5
# Natural logarithm of a mel relative to the level: quieter ones (-69 dB) are inaudible beside the low band.
_QUIETEST = -8.0
# Such logarithms are divided by this, so that the networks see about unit variance.
_LOG_MEL_STD = 2.5
# Mel bands of the crossfade from the input's mels to the estimated ones.
_CROSSFADE_MELS = 4

Objective = Callable[["AudioSR"], Tensor]


def log_mels(waves: Tensor, filters: Tensor, n_fft: int = 2048, hop_length: int = 480) -> Tensor:
    """Compute log mel spectrograms as AudioSR's front end does.

    Frame l is centred on samples ``l * hop_length`` to ``(l + 1) * hop_length``; the ends are reflected.

    Args:
        waves: (B, T).
        filters: Mel filters (M, F).
        n_fft: Samples of a frame.
        hop_length: Samples from one frame to the next.

    Returns:
        Natural logarithms of mel magnitudes (B, L, M), L = T / hop_length.
    """
    side = (n_fft - hop_length) // 2
    padded = F.pad(waves.unsqueeze(1), (side, side), mode="reflect")[:, 0]
    window = hann_window(n_fft, waves.device)
    spectra = torch.stft(padded, n_fft, hop_length, window=window, center=False, return_complex=True)
    power = torch.view_as_real(spectra).square().sum(-1)
    magnitude = power.clamp_min(1e-20).sqrt()  # with a gradient of zero at silence
    return (filters @ magnitude).clamp_min(_FLOOR).log().transpose(1, 2)


def join_bands(low: Tensor, high: Tensor, first: Tensor | float, width: float = 0.0) -> Tensor:
    """Join two bands.

    Args:
        low: Values below bin ``first``, (B, L, F).
        high: Values from there on, (B, L, F).
        first: First bin of the high band, a number or (B,).
        width: Bins below ``first`` over which the two are crossfaded; 0 switches at once.

    Returns:
        (B, L, F).
    """
    bins = torch.arange(low.shape[-1], device=low.device)
    above = (bins - (first.reshape(-1, 1, 1) if isinstance(first, Tensor) else first)).float()
    share = ((above + width) / width).clamp(0, 1) if width else (above >= 0).float()
    return low + share * (high - low)


@dataclass(frozen=True)
class MelPredictorConfig:
    """Configuration of a MelPredictor.

    Args:
        hidden: Features of a frame.
        blocks: Number of ConvNeXt blocks.
        kernel: Frames of their kernels, odd.

    Raises:
        UsageError: A value is impossible.
    """

    hidden: int = 192
    blocks: int = 4
    kernel: int = 7

    def __post_init__(self) -> None:
        at_least(self, 1, "hidden", "blocks")
        odd(self, "kernel")


@dataclass(frozen=True)
class AudioSRConfig:
    """Configuration of an AudioSR; the defaults are those of the bundled model, which is much smaller than published.

    Args:
        sample_rate: Sample rate of input and output in Hz.
        n_fft: Samples of a mel frame.
        hop_length: Samples from one mel frame to the next.
        mels: Mel bands.
        steady: Frames on each side over which levels are measured.
        core: Mel frames that one window answers for.
        overlap: Mel frames that two neighbouring windows have in common.
        margin: Mel frames on each side that only inform the output.
        expected: The network that predicts full-band mels.
        vae: The autoencoder.
        unet: The network of the diffusion.
        vocoder: The network that turns the input and full-band mels into the output.
        name: Name of the model.

    Raises:
        UsageError: A value is impossible.
    """

    sample_rate: int = 48000
    n_fft: int = 2048
    hop_length: int = 480
    mels: int = 256
    steady: int = 24
    core: int = 448
    overlap: int = 64
    margin: int = 64
    expected: MelPredictorConfig = field(default_factory=MelPredictorConfig)
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
        at_least(self, 1, "sample_rate", "n_fft", "hop_length", "mels", "steady", "core")
        at_least(self, 0, "overlap", "margin")
        check(self.overlap < self.core, f"overlap = {self.overlap}: must be less than core = {self.core}")
        self._check_vocoder()
        latents = f"vae.latent = {self.vae.latent}, unet.latent = {self.unet.latent}"
        check(self.vae.latent == self.unet.latent, f"{latents}: must be equal")
        side = self.n_fft - self.hop_length
        check(side >= 0 and side % 2 == 0, f"n_fft - hop_length = {side}: must be even and at least 0")
        unit_name, unit = "the strides of vae and unet", self.vae.stride * self.unet.stride
        multiple(self.mels, unit, "mels", unit_name)
        multiple(self.core + 2 * self.margin, unit, "core + 2 · margin", unit_name)
        for name in ("core", "overlap", "margin"):
            multiple(getattr(self, name), self.vae.stride, name, "the stride of vae")

    def _check_vocoder(self) -> None:
        """Raise UsageError unless the vocoder takes this model's mels."""
        own = {name: getattr(self, name) for name in ("sample_rate", "hop_length", "steady")}
        for name, value in (own | {"inputs": self.mels, "margin": 0}).items():
            actual = getattr(self.vocoder, name)
            check(actual == value, f"vocoder.{name} = {actual}: must be {value}")

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine."""
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


class MelPredictor(nn.Module):
    """Predict the mels above the cutoff from those below."""

    def __init__(self, mels: int, config: MelPredictorConfig) -> None:
        super().__init__()
        c = config
        self.enter, self.leave = nn.Linear(2 * mels, c.hidden), nn.Linear(c.hidden, mels)
        self.norm = nn.LayerNorm(c.hidden, eps=1e-6)
        self.blocks = nn.ModuleList(ConvNeXtBlock(c.hidden, c.kernel, 3) for _ in range(c.blocks))

    def forward(self, low: Tensor, known: Tensor) -> Tensor:
        """Mels (B, L, M), and which of them are below the cutoff (B or 1, 1, M), 0 to 1 → (B, L, M)."""
        h = self.enter(torch.cat([low * known, known.expand_as(low)], dim=2))
        for block in self.blocks:
            h = block(h)
        return self.leave(self.norm(h))


@register("audiosr", AudioSRConfig)
class AudioSR(Model):
    """The four networks: mel predictor, autoencoder, diffusion U-Net and vocoder.

    Attributes:
        filters: Mel filters (M, F).
        centres: Mean frequency in Hz of each mel filter (M,).
        spread: Standard deviation of the autoencoder's latents; latents are divided by it for the diffusion.
    """

    config: AudioSRConfig
    filters: Tensor
    centres: Tensor
    spread: Tensor

    def __init__(self, config: AudioSRConfig) -> None:
        super().__init__(config)
        c = config
        self.expected = MelPredictor(c.mels, c.expected)
        self.vae, self.unet, self.vocoder = MelVAE(c.vae), LatentUNet(c.unet), SpectralBWE(c.vocoder)
        filters = mel_filters(c.n_fft, c.mels, c.sample_rate, _LOWEST_HZ)
        self.register_buffer("filters", filters, persistent=False)
        centre = filters @ torch.linspace(0, c.sample_rate / 2, filters.shape[1]) / filters.sum(1)
        self.register_buffer("centres", centre, persistent=False)
        self.register_buffer("spread", torch.ones(()))

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
            sampling: How the high band is drawn; ``Sampling()`` by default.
            objective: For training: computed in place of the output, as training calls a network by ``forward`` only.

        Returns:
            (B, 1, 1, T - 2 * context), or what ``objective`` returns.
        """
        if objective is not None:
            return objective(self)
        cutoff = self.default_cutoff(x) if cutoff_hz is None else cutoff_hz
        sampling = sampling or Sampling()
        low_mels, _ = self.relative_mels(x[:, 0], cutoff)
        mels = self.predict_mels(low_mels, cutoff)
        if sampling.steps:
            position = torch.zeros(len(x), dtype=torch.long) if position is None else position
            mels = self.join_at_cutoff(low_mels, self.sample_mels(mels, position, sampling), cutoff)
        context = self.spec.context
        return self.synthesise(x, cutoff, mels)[..., context : x.shape[-1] - context]

    def relative_mels(self, waves: Tensor, cutoff: Tensor, level: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute normalised log mels relative to the level of the low band.

        Args:
            waves: (B, T).
            cutoff: (B,), where the low band ends, in Hz.
            level: (B, L, 1), in place of the level of the band below ``cutoff``.

        Returns:
            Mels (B, L, M), about from -3 to 3, and the levels (B, L, 1).
        """
        with torch.autocast(waves.device.type, enabled=False):
            waves = waves.float()
            if level is None:
                level = self.vocoder.level_below(waves, cutoff)
                level = (level[:, 1:] + level[:, :-1])[:, : waves.shape[-1] // self.config.hop_length] / 2
            mels = log_mels(waves, self.filters, self.config.n_fft, self.config.hop_length)
            relative = mels - (level * 2 + _FLOOR).log()  # twice, as the window of a mel frame is about twice as long
            return (relative.clamp_min(_QUIETEST) + 1) / _LOG_MEL_STD, level

    def first_mel(self, cutoff: Tensor) -> Tensor:
        """Return the first mel band above ``cutoff`` (B,) in Hz."""
        return torch.bucketize(cutoff, self.centres)

    def join_at_cutoff(self, low: Tensor, high: Tensor, cutoff: Tensor) -> Tensor:
        """Return mels ``low`` (B, L, M) below ``cutoff`` (B,) and ``high`` (B, L, M) above."""
        return join_bands(low, high, self.first_mel(cutoff), _CROSSFADE_MELS)

    def predict_mels(self, mels: Tensor, cutoff: Tensor) -> Tensor:
        """Predict the mels above ``cutoff`` (B,) and keep those below: (B, L, M) → the same shape."""
        ones = mels.new_ones(1, 1, mels.shape[2])
        known = join_bands(ones, 0 * ones, self.first_mel(cutoff), _CROSSFADE_MELS)
        return self.join_at_cutoff(mels, self.expected(mels, known), cutoff)

    def sample_mels(self, predicted: Tensor, position: Tensor, sampling: Sampling) -> Tensor:
        """Draw mels by diffusion.

        Args:
            predicted: The condition, (B, L, M).
            position: (B,), the first sample of each window in its recording.
            sampling: How to draw.

        Returns:
            (B, L, M).
        """
        stride = self.vae.config.stride
        condition = self.vae.encode(predicted.unsqueeze(1)).mean / self.spread
        shape = (condition.shape[1], condition.shape[3])
        first = (position // (self.config.hop_length * stride)).tolist()

        def noise(draw: int) -> Tensor:
            noises = [keyed_noise(sampling.seed, draw, frame, condition.shape[2], shape) for frame in first]
            return torch.stack(noises).transpose(1, 2).to(condition.device)

        latent = ddim(partial(self.guided_velocity, condition, sampling.guidance), noise, sampling.steps, sampling.eta)
        return self.vae.decode(latent * self.spread)[:, 0]

    def guided_velocity(self, condition: Tensor, guidance: float, noisy: Tensor, step: Tensor) -> Tensor:
        """Estimate the velocity with classifier-free guidance (Ho & Salimans 2022)."""
        step = step.to(noisy.device)
        conditional = self.unet(noisy, condition, step)
        if guidance == 1:
            return conditional
        unconditional = self.unet(noisy, torch.zeros_like(condition), step)
        return unconditional + guidance * (conditional - unconditional)

    def synthesise(self, x: Tensor, cutoff: Tensor, mels: Tensor) -> Tensor:
        """Run the vocoder on the input (B, 1, T) with full-band ``mels`` (B, L, M): (B, 1, 1, T)."""
        # The frames of the vocoder are centred between those of the mels.
        features = F.avg_pool1d(F.pad(mels.transpose(1, 2), (1, 1), mode="replicate"), 2, 1).transpose(1, 2)
        return self.vocoder(x, cutoff_hz=cutoff, features=features)
