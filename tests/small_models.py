"""Small configs of every architecture, and their golden outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from conftest import BWE
from torch import Tensor

from audiosr_cli.models import Model, build, make_config

WAVE = {"depth": 3, "filters": 4, "core": 256, "sample_rate": 8000}
AUDIO = {"filters": [4, 6, 8], "kernels": [9, 7, 5], "core": 128, "dropout": 0.0}
WINDOWS = {"context": 64, "core": 256, "overlap": 32, "sample_rate": 8000}
DUAL = WINDOWS | {
    "filters": 12,
    "kernel": 8,
    "stride": 4,
    "width": 8,
    "chunk": 10,
    "layers": 1,
    "heads": 2,
    "hidden": 9,
}
SPECTRAL = WINDOWS | {
    "n_fft": 64,
    "hop_length": 32,
    "fine": 16,
    "widths": [4, 6, 8],
    "time_strides": [2, 1],
    "hidden": 16,
    "layers": 1,
    "heads": 2,
}
MIXER = {"n_fft": 64, "hop_length": 16, "bands": [4, 4, 2, 8], "width": 6, "hidden": 8, "heads": 2}
MIXER |= {"dilations": [1, 2], "attention": 2}
BANDS = {"frame_s": 0.008, "width": 4, "blocks": 2, "frames": 16}
SR = {"n_fft": 64, "hop_length": 16, "widths": [4, 6], "kernels": [3, 5, 3], "frames": 16}
EXACT: list[tuple[str, dict[str, Any]]] = [
    ("wave_u_net", WAVE),
    ("wave_u_net", WAVE | {"learned_upsampling": True, "difference": False, "output": "linear"}),
    ("wave_u_net", WAVE | {"sources": 3, "channels": 2, "output": "clip"}),
    ("wave_u_net", WAVE | {"norm": True, "bias": False, "output": "linear", "depth": 4, "kernel_down": 7}),
    ("audio_unet", AUDIO),
    ("audio_unet", AUDIO | {"ratio": 2}),
    ("audio_unet", AUDIO | {"ratio": 4, "bias": False}),
    ("audio_unet", AUDIO | {"ratio": 6}),
    ("band_masks", BANDS),
    ("band_masks", BANDS | {"sample_rate": 48000, "sources": 3, "heuristic": False}),
    ("spectral_bwe", BWE),
    ("spectral_bwe", BWE | {"sample_rate": 16000, "fade_hz": 500.0, "kernel": 3, "steady": 1}),
    ("spectral_bwe", BWE | {"merge": "fill"}),
    ("sfsrnet", SR),
    ("sfsrnet", SR | {"heuristic": False, "sources": 3}),
]
WINDOWED: list[tuple[str, dict[str, Any]]] = [  # these hear their whole window
    (
        "conv_tasnet",
        WINDOWS | {"filters": 12, "kernel": 8, "stride": 4, "width": 6, "hidden": 8, "skip": 5, "blocks": 2},
    ),
    ("band_mixer", WINDOWS | MIXER),
    ("band_mixer", WINDOWS | MIXER | {"sources": 3, "hop_length": 32, "attention": 1}),
    ("dual_path", DUAL),
    ("dual_path", DUAL | {"path": "lstm", "rectified": False, "bias": True, "padding": 1.0, "mask": "sigmoid"}),
    ("dual_path", DUAL | {"stages": True, "sources": 3}),
    ("spectral_unet", SPECTRAL),
    ("spectral_unet", SPECTRAL | {"sources": 3, "fine": 32, "hop_length": 16}),
]
CASES = EXACT + WINDOWED
TOLERANCE = 1e-5  # of a full scale of 1: windows and the whole signal may run different kernels
GOLDEN = Path(__file__).parent / "golden" / "models.json"


def make(name: str, values: dict[str, Any]) -> Model:
    torch.manual_seed(0)
    model = build(name, make_config(name, values))
    with torch.no_grad():  # heads start near zero, which would make every comparison easy
        for key, weight in model.named_parameters():
            if key.startswith("heads.") and key.endswith(".weight") and weight.dim() == 3:
                weight.normal_(std=0.1)
            if key in ("head.weight", "head_wide.weight", "leave.weight", "size.weight", "flatness.weight"):
                weight.normal_(std=0.1)
    return model


def signal(model: Model, length: int, batch: int = 1) -> Tensor:
    return 0.3 * torch.randn(
        batch, model.spec.inputs * model.spec.channels, length, generator=torch.Generator().manual_seed(1)
    )


def golden_key(name: str, values: dict[str, Any]) -> str:
    """Where the golden value of a case is in models.json."""
    return f"{name} {json.dumps(values, sort_keys=True)}"


def first_samples(name: str, values: dict[str, Any]) -> list[float]:
    """The first eight output samples of a model with seeded weights."""
    model = make(name, values).eval()
    samples: list[float] = model(signal(model, model.spec.window))[0, 0, 0, :8].tolist()
    return samples
