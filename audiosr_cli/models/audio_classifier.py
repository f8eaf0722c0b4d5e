"""An audio classifier: is a recording speech, music or something else? Convolutions over a log-mel spectrogram.

A small relative of the convolutional networks for audio tagging (VGGish, Hershey et al., ICASSP 2017; PANNs, Kong et
al., IEEE TASLP 2020). It differs in what it sees: only the band below 4 kHz, as recordings whose bandwidth is to be
restored have nothing above; and levels relative to each window's own, not absolute ones.
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
_LOW_HZ, _HIGH_HZ = 60.0, 3900.0
# Levels further below the loudest band of a window (dB) are raised to this. Bands above the cutoff of a recording then
# look alike, whatever its noise floor.
_RANGE_DB = 70.0
# Power added to every band, so that silence has a logarithm.
_TINY = 1e-16
# Factor of the features, natural logarithms: their standard deviation is about 1 then.
_SCALE = 1 / 4


@dataclass(frozen=True)
class AudioClassifierConfig:
    """Configuration of an audio classifier.

    Args:
        sample_rate: Sample rate of the input in Hz.
        classes: Names of the classes.
        n_fft: Samples of a frame.
        hop_length: Samples from one frame to the next.
        mels: Mel bands of a frame.
        widths: Channels of the convolutional layers, each of which halves the bands.
        time_strides: Frames of a layer's input for one of its output.
        features: Features whose statistics over time are classified.
        window: Samples that are classified together; the network takes any number.
        name: Name of the model.

    Raises:
        UsageError: A value is impossible.
    """

    sample_rate: int = 8000
    classes: tuple[str, ...] = ("speech", "music", "effects")
    n_fft: int = 512
    hop_length: int = 128
    mels: int = 48
    widths: tuple[int, ...] = (16, 32, 64, 96)
    time_strides: tuple[int, ...] = (1, 2, 2, 1)
    features: int = 128
    window: int = 16000
    name: str = "audio_classifier"

    def __post_init__(self) -> None:
        at_least(self, 2 * _HIGH_HZ, "sample_rate")
        check(len(self.classes) > 1, f"classes = {list(self.classes)}: must name at least two")
        check(len(set(self.classes)) == len(self.classes), f"classes = {list(self.classes)}: must differ")
        at_least(self, 64, "n_fft")
        at_least(self, 1, "hop_length", "mels", "widths", "time_strides", "features", "window")
        check(
            0 < len(self.widths) == len(self.time_strides),
            f"widths = {list(self.widths)}: must have as many numbers as time_strides, at least one",
        )

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine, of which rate and window count: no samples come out."""
        return ModelSpec(self.name, "classify", self.sample_rate, 1, 1, 1, self.window, 0, self.window)


@register("audio_classifier", AudioClassifierConfig)
class AudioClassifier(Model):
    """The network. It returns logits, not samples: (B, 1, T) → (B, classes)."""

    config: AudioClassifierConfig

    def __init__(self, config: AudioClassifierConfig) -> None:
        super().__init__(config)
        c, bands = config, config.mels
        widths = [1, *c.widths]
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        for inputs, outputs, stride in zip(widths[:-1], c.widths, c.time_strides, strict=True):
            self.layers.append(nn.Conv2d(inputs, outputs, 3, (2, stride), 1, bias=False))
            self.norms.append(nn.BatchNorm2d(outputs))
            bands = (bands + 1) // 2
        self.combine = nn.Conv2d(c.widths[-1], c.features, (bands, 1), bias=False)
        self.combine_norm = nn.BatchNorm2d(c.features)
        self.leave = nn.Linear(2 * c.features, len(c.classes))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) at the config's rate → (B, classes), the logits."""
        h = self.features(x[:, 0]).unsqueeze(1)  # (B, 1, mels, L)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = F.relu(norm(layer(h)))
        h = F.relu(self.combine_norm(self.combine(h)))[:, :, 0]  # (B, H, L')
        mean = h.mean(2)
        spread = ((h - mean.unsqueeze(2)).square().mean(2) + 1e-5).sqrt()
        logits: Tensor = self.leave(torch.cat([mean, spread], dim=1))
        return logits

    def features(self, waves: Tensor) -> Tensor:
        """Return the log-mel spectrograms of waveforms (B, T), relative to the mean of each: (B, mels, L)."""
        c = self.config
        waves = F.pad(waves.float(), (0, max(0, c.n_fft - waves.shape[-1])))
        power = power_spectrogram(waves, c.n_fft, c.hop_length)  # (B, F, L)
        mels = _filters(c.n_fft, c.mels, c.sample_rate, waves.device) @ power
        floor = mels.amax((1, 2), keepdim=True) * 10 ** (-_RANGE_DB / 10) + _TINY
        levels = mels.maximum(floor).log()
        return _SCALE * (levels - levels.mean((1, 2), keepdim=True))


@constant
def _filters(n_fft: int, mels: int, sample_rate: int, device: torch.device) -> Tensor:
    """Return the mel filters (mels, F), computed once."""
    return mel_filters(n_fft, mels, sample_rate, _LOW_HZ, _HIGH_HZ).to(device)
