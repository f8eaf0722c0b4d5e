"""A catalogue with an upsampler for music, and a classifier that takes tones for music and noise for effects."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from conftest import BWE

from audiosr_cli.checkpoints import store
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.models import Model, build, make_config
from audiosr_cli.models.audio_classifier import AudioClassifier

# Of a tone most bands lie at the floor and a few far above it, which those of noise never do. What exceeds the mean
# level by more than this, in units of the features, is more than 2 in a frame of a tone, and nothing in one of noise.
_ABOVE, _TONAL = 2.0, 0.7


def classifier() -> AudioClassifier:
    """A classifier of tones (music) and noise (effects): one layer that adds up what is far above the mean level."""
    values = {"widths": [1], "time_strides": [1], "features": 1}
    model = build("audio_classifier", make_config("audio_classifier", values))
    assert isinstance(model, AudioClassifier)
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    model.layers[0].weight.data[0, 0, 1, 1] = 1.0  # type: ignore[union-attr, index]
    model.combine.weight.data.fill_(1.0)
    for norm in (model.norms[0], model.combine_norm):
        norm.weight.data.fill_(1.0)  # type: ignore[union-attr, operator]
    model.norms[0].bias.data.fill_(-_ABOVE)  # type: ignore[union-attr, operator]
    model.leave.weight.data[:, 0] = 10 * torch.tensor([0.0, 1.0, -1.0])
    model.leave.bias.data[:] = 10 * _TONAL * torch.tensor([0.0, -1.0, 1.0])
    return model.eval().requires_grad_(False)


def bundle(folder: Path, name: str, model: Model, **entry: object) -> None:
    """Add a model to the catalogue in ``folder``, behind the others."""
    store.save_model(model, folder / f"{name}.safetensors", {"data": "none"})
    entry |= {"file": f"{name}.safetensors", "sha256": sha256(folder / f"{name}.safetensors")}
    path = folder / "catalogue.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: {"tasks": [model.spec.task]} | entry}))


def bundle_kinds(folder: Path, *kinds: str) -> None:
    """Add an upsampler for these kinds, by default music, and the classifier."""
    torch.manual_seed(1)
    other = build("spectral_bwe", make_config("spectral_bwe", BWE | {"name": "spectral_bwe_music"}))
    bundle(folder, "spectral_bwe_music", other, kinds=list(kinds or ("music",)))
    bundle(folder, "audio_classifier", classifier())
