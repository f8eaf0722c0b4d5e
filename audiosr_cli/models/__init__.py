"""The models: one file a paper, one line here each."""

from __future__ import annotations

import re
from typing import Any

from audiosr_cli.config import fill
from audiosr_cli.contract import ModelSpec
from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.models.audio_unet import AudioUNet, AudioUNetConfig
from audiosr_cli.models.audiosr import AudioSR, AudioSRConfig
from audiosr_cli.models.band_masks import BandMasks, BandMasksConfig
from audiosr_cli.models.band_mixer import BandMixer, BandMixerConfig
from audiosr_cli.models.base import Config, Model
from audiosr_cli.models.conv_tasnet import ConvTasNet, ConvTasNetConfig
from audiosr_cli.models.dual_path import DualPath, DualPathConfig
from audiosr_cli.models.sfsrnet import SFSRNet, SFSRNetConfig
from audiosr_cli.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from audiosr_cli.models.spectral_bwe import SpectralBWE, SpectralBWEConfig
from audiosr_cli.models.spectral_unet import SpectralUNet, SpectralUNetConfig
from audiosr_cli.models.wave_u_net import WaveUNet, WaveUNetConfig

__all__ = ["ARCHITECTURES", "Config", "Model", "ModelSpec", "architecture_of", "build", "make_config"]

ARCHITECTURES: dict[str, tuple[type[Any], type[Model]]] = {
    "audio_unet": (AudioUNetConfig, AudioUNet),
    "audiosr": (AudioSRConfig, AudioSR),
    "band_masks": (BandMasksConfig, BandMasks),
    "band_mixer": (BandMixerConfig, BandMixer),
    "conv_tasnet": (ConvTasNetConfig, ConvTasNet),
    "dual_path": (DualPathConfig, DualPath),
    "sfsrnet": (SFSRNetConfig, SFSRNet),
    "spectral_bwe": (SpectralBWEConfig, SpectralBWE),
    "spectral_unet": (SpectralUNetConfig, SpectralUNet),
    "speaker_encoder": (SpeakerEncoderConfig, SpeakerEncoder),
    "wave_u_net": (WaveUNetConfig, WaveUNet),
}


def make_config(architecture: str, values: dict[str, Any]) -> Config:
    """The config of ``architecture`` with ``values`` over its defaults (lists become tuples).

    Raises ModelError on an unknown architecture, an unknown field or values that do not go together.
    """
    if architecture not in ARCHITECTURES:
        raise ModelError(f"unknown architecture {architecture!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    try:
        config: Config = fill(ARCHITECTURES[architecture][0], "model", values)
        config.spec  # noqa: B018 - its numbers have to go together, too
    except UsageError as error:
        raise ModelError(f"{architecture}: {error}") from error
    except (AssertionError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"the numbers of this {architecture} do not go together: {values}") from error
    if not re.fullmatch(r"[\w.+-]+", config.spec.name):
        raise ModelError(f"{architecture}: name = {config.spec.name!r}: letters, digits, and . _ + - are allowed")
    return config


def build(architecture: str, config: Config) -> Model:
    """A model with fresh weights."""
    model: Model = ARCHITECTURES[architecture][1](config)
    return model


def architecture_of(model: Model) -> str:
    """Return the name of the architecture of ``model``, a key of ``ARCHITECTURES``."""
    return next(name for name, (_, kind) in ARCHITECTURES.items() if kind is type(model))
