"""The models: one file a paper, one line here each."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from audiosr_cli.errors import ModelError
from audiosr_cli.models.audio_unet import AudioUNet, AudioUNetConfig
from audiosr_cli.models.base import Config, Model
from audiosr_cli.models.wave_u_net import WaveUNet, WaveUNetConfig
from audiosr_cli.windows import ModelSpec

__all__ = ["ARCHITECTURES", "Config", "Model", "ModelSpec", "build", "make_config"]

ARCHITECTURES: dict[str, tuple[type[Any], type[Model]]] = {
    "audio_unet": (AudioUNetConfig, AudioUNet),
    "wave_u_net": (WaveUNetConfig, WaveUNet),
}


def make_config(architecture: str, values: dict[str, Any]) -> Config:
    """The config of ``architecture`` with ``values`` over its defaults (lists become tuples).

    Raises ModelError on an unknown architecture, an unknown field or values that do not go together.
    """
    if architecture not in ARCHITECTURES:
        raise ModelError(f"unknown architecture {architecture!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    kind = ARCHITECTURES[architecture][0]
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ModelError(f"{architecture} has no field {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    try:
        config: Config = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (AssertionError, TypeError) as error:
        raise ModelError(f"the numbers of this {architecture} do not go together: {values}") from error
    return config


def build(architecture: str, config: Config) -> Model:
    """A model with fresh weights."""
    model: Model = ARCHITECTURES[architecture][1](config)
    return model
