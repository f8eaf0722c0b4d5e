"""The packages whose checkpoints can be imported: small networks of theirs, with weights that need no file.

SpeechBrain and Asteroid are wanted for ``build`` only. Weights are a formula of their names and shapes.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ASTEROID_ARGS: dict[str, dict[str, Any]] = {
    "ConvTasNet": {
        "n_filters": 24,
        "kernel_size": 16,
        "stride": 8,
        "sample_rate": 8000,
        "bn_chan": 12,
        "hid_chan": 20,
        "skip_chan": 10,
        "conv_kernel_size": 3,
        "n_blocks": 3,
        "n_repeats": 2,
        "n_src": 3,
        "mask_act": "relu",
    },
    "DPRNNTasNet": {
        "n_filters": 24,
        "kernel_size": 16,
        "stride": 8,
        "sample_rate": 16000,
        "bn_chan": 12,
        "hid_size": 10,
        "chunk_size": 20,
        "hop_size": 10,
        "n_repeats": 2,
        "n_src": 2,
        "mask_act": "sigmoid",
    },
}
KINDS = ("SepFormer", *ASTEROID_ARGS)
SAMPLES = 16 + 8 * 400  # whole frames, so that nobody's padding matters


def signal() -> Tensor:
    """Two tones that swell, (1, SAMPLES)."""
    time = torch.arange(SAMPLES) / 8000
    return (torch.sin(2 * torch.pi * 440 * time) * time * 2 + 0.3 * torch.cos(2 * torch.pi * 1234 * time)).unsqueeze(0)


def formula(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Values that look random: a sine along each tensor, its phase from the name; norms stay near one."""
    made = {}
    for name, shape in shapes.items():
        wave = torch.sin(torch.arange(torch.Size(shape).numel()) * 2.399963 + zlib.crc32(name.encode()) % 1000)
        scale = 1.5 / max(1, torch.Size(shape[1:]).numel()) ** 0.5
        is_gain = name.endswith("gamma") or ("norm" in name and name.endswith("weight"))
        made[name] = (1 + 0.2 * wave if is_gain else wave * scale).reshape(shape)
    return made


def save(kind: str, shapes: dict[str, list[int]], folder: Path) -> Path:
    """A checkpoint as the package would save it; returns what to import."""
    tensors = formula(shapes)
    if kind == "SepFormer":
        for part in ("encoder", "masknet", "decoder"):
            own = {key.removeprefix(f"{part}."): v for key, v in tensors.items() if key.startswith(f"{part}.")}
            torch.save(own, folder / f"{part}.ckpt")
        return folder
    state = {"model_name": kind, "model_args": ASTEROID_ARGS[kind], "state_dict": tensors, "infos": {}}
    torch.save(state, folder / "model.pth")
    return folder / "model.pth"


class SepFormer(torch.nn.Module):
    """SpeechBrain's three parts, put together as its ``SepformerSeparation`` does."""

    def __init__(self) -> None:
        from speechbrain.lobes.models import dual_path

        super().__init__()

        def block() -> Any:
            return dual_path.SBTransformerBlock(
                num_layers=2, d_model=32, nhead=8, d_ffn=48, use_positional_encoding=True, norm_before=True
            )

        self.encoder = dual_path.Encoder(kernel_size=16, out_channels=32)
        self.masknet = dual_path.Dual_Path_Model(
            in_channels=32, out_channels=32, intra_model=block(), inter_model=block(), num_layers=2, K=250,
            norm="ln", linear_layer_after_inter_intra=False, skip_around_intra=True, num_spks=2,
        )  # fmt: skip
        self.decoder = dual_path.Decoder(in_channels=32, out_channels=1, kernel_size=16, stride=8, bias=False)

    def forward(self, mix: Tensor) -> Tensor:
        """(1, T) → (1, S, T)."""
        encoded = self.encoder(mix)
        masks = self.masknet(encoded)
        return torch.stack([self.decoder(mask * encoded) for mask in masks], dim=1)


def build(kind: str) -> torch.nn.Module:
    """The package's own network with the formula's weights, in evaluation mode."""
    if kind == "SepFormer":
        network: torch.nn.Module = SepFormer()
    else:
        import asteroid.models

        network = getattr(asteroid.models, kind)(**ASTEROID_ARGS[kind])
    own = network.state_dict()
    kept = {key: value for key, value in own.items() if not key.endswith("pos_enc.pe")}
    network.load_state_dict(own | formula({key: list(value.shape) for key, value in kept.items()}))
    return network.eval()
