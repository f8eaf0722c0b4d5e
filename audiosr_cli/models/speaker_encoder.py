"""The speaker encoder: a time-delay network with statistics pooling, as in x-vectors (Snyder et al., ICASSP 2018).

Optional, after ECAPA-TDNN (Desplanques et al., Interspeech 2020): residual layers, features of all layers together, and
attention over time. At a small part of their size: it only has to distinguish the few speakers of one recording.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check
from audiosr_cli.contract import ModelSpec
from audiosr_cli.dsp.spectra import constant, mel_filters, power_spectrogram
from audiosr_cli.models.base import Model
from audiosr_cli.models.registry import register

# Band of the mel filters in Hz: every rate from 8 kHz on has it.
_LOW_HZ, _HIGH_HZ = 60.0, 3800.0
# Length of a frame and distance of frames in seconds.
_FRAME_S, _HOP_S = 0.032, 0.016
# Frames count as speech above this share of the loudest frame's power (-30 dB).
_SPEECH_POWER = 1e-3
# Signals of at most this mean power (-100 dB) are silent; their embedding is zero.
_SILENT = 1e-10


@dataclass(frozen=True)
class SpeakerEncoderConfig:
    """Configuration of a speaker encoder.

    Args:
        sample_rate: Sample rate in Hz that ``forward`` takes; ``embed`` takes any from 8000 Hz on.
        mels: Mel bands of a frame.
        width: Features of the convolutional layers.
        dilations: Dilation of each layer.
        residual: Whether each layer but the first adds to its input.
        pooled: Features, combined from those of all layers, whose statistics are pooled; 0 for those of the last layer.
        attention: Features of the attention that weighs the frames of the statistics; 0 for equal weights.
        size: Numbers of an embedding.
        window: Samples that the spec names; the network takes any number.
        name: Name of the model.

    Raises:
        UsageError: A value is impossible.
    """

    sample_rate: int = 8000
    mels: int = 40
    width: int = 128
    dilations: tuple[int, ...] = (1, 2, 3, 4)
    residual: bool = False
    pooled: int = 0
    attention: int = 0
    size: int = 64
    window: int = 16000
    name: str = "speaker_encoder"

    def __post_init__(self) -> None:
        at_least(self, 2 * _HIGH_HZ, "sample_rate")
        check(bool(self.dilations), "dilations = []: must have at least one number")
        at_least(self, 1, "mels", "width", "size", "window", "dilations")
        at_least(self, 0, "pooled", "attention")

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine, of which the rate counts: no samples come out."""
        return ModelSpec(self.name, "embed", self.sample_rate, 1, 1, 1, self.window, 0, self.window)


@register("speaker_encoder", SpeakerEncoderConfig)
class SpeakerEncoder(Model):
    """The network. It returns an embedding of unit length, not samples: (B, 1, T) → (B, size)."""

    config: SpeakerEncoderConfig

    def __init__(self, config: SpeakerEncoderConfig) -> None:
        super().__init__(config)
        c = config
        widths = [c.mels] + [c.width] * len(c.dilations)
        self.layers = nn.ModuleList(
            nn.Conv1d(widths[i], widths[i + 1], 3, padding=dilation, dilation=dilation)
            for i, dilation in enumerate(c.dilations)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(c.width) for _ in c.dilations)
        pooled = c.pooled or c.width
        self.combine = nn.Conv1d(c.width * len(c.dilations), pooled, 1) if c.pooled else None
        self.combine_norm = nn.BatchNorm1d(pooled) if c.pooled else None
        self.attention = (
            nn.Sequential(nn.Conv1d(pooled, c.attention, 1), nn.Tanh(), nn.Conv1d(c.attention, pooled, 1))
            if c.attention
            else None
        )
        self.leave = nn.Linear(2 * pooled, c.size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) at the config's rate → (B, size)."""
        return self.embed(x[:, 0], self.config.sample_rate)

    def embed(self, waves: Tensor, sample_rate: int) -> Tensor:
        """Return the speaker embeddings of waveforms.

        Args:
            waves: (B, T).
            sample_rate: Their sample rate in Hz, 8000 or more.

        Returns:
            (B, size), of unit length; zeros for silence.
        """
        n_fft, hop = round(_FRAME_S * sample_rate), round(_HOP_S * sample_rate)
        waves = F.pad(waves.float(), (0, max(0, n_fft - waves.shape[-1])))
        power = power_spectrogram(waves, n_fft, hop)  # (B, F, L)
        level = power.mean(1)  # (B, L)
        speech = (level >= _SPEECH_POWER * level.amax(1, keepdim=True)).float().unsqueeze(1)  # (B, 1, L)
        filters = _filters(n_fft, self.config.mels, sample_rate, waves.device)
        mels = (filters @ power).clamp_min(1e-8 * level.amax(1)[:, None, None] + 1e-20).log()
        mean = (mels * speech).sum((1, 2), keepdim=True) / (speech.sum((1, 2), keepdim=True) * self.config.mels)
        h = (mels - mean) / 3
        h = self._features(h)  # (B, pooled, L)
        weight = self._frame_weights(h, speech)
        mean = (h * weight).sum(2, keepdim=True)
        spread = (((h - mean).square() * weight).sum(2) + 1e-5).sqrt()
        embedding = F.normalize(self.leave(torch.cat([mean[..., 0], spread], dim=1)).float(), dim=1)
        return embedding * (waves.square().mean(1, keepdim=True) > _SILENT)

    def _features(self, h: Tensor) -> Tensor:
        """(B, mels, L) → (B, pooled, L)."""
        outputs = []
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            output = norm(F.leaky_relu(layer(h), 0.1))
            h = h + output if self.config.residual and i else output
            outputs.append(h)
        if self.combine is None or self.combine_norm is None:
            return h
        combined: Tensor = self.combine_norm(F.leaky_relu(self.combine(torch.cat(outputs, 1)), 0.1))
        return combined

    def _frame_weights(self, h: Tensor, speech: Tensor) -> Tensor:
        """Return the weights of frames, which sum to 1 over those of ``speech`` (B, 1, L): (B, 1 or pooled, L)."""
        if self.attention is None:
            return speech / speech.sum(2, keepdim=True)
        scores = self.attention(h).float().masked_fill(speech == 0, -torch.inf)
        return torch.softmax(scores, 2)


@constant
def _filters(n_fft: int, mels: int, sample_rate: int, device: torch.device) -> Tensor:
    """Return the mel filters (mels, F), computed once."""
    return mel_filters(n_fft, mels, sample_rate, _LOW_HZ, _HIGH_HZ).to(device)
