"""checkpoints/convert.py: the networks of SpeechBrain and Asteroid, whose outputs ours have to give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import originals
import pytest
import torch
from torch import Tensor

from audiosr_cli.checkpoints.convert import import_model
from audiosr_cli.checkpoints.store import save_model
from audiosr_cli.errors import ModelError
from audiosr_cli.models import Model
from audiosr_cli.models.base import Config
from audiosr_cli.pipelines import SeparateSROptions

GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "golden" / "importing.json").read_text())
TOLERANCE = 1e-4  # of the output's RMS: other kernels, other orders of summing, small differences of larger numbers


def imported(kind: str, tmp_path: Path) -> Model:
    return import_model(originals.save(kind, GOLDEN[kind]["shapes"], tmp_path), "brought")


def whole(model: Model) -> Tensor:
    """The output (S, T) for the whole signal: no context, as the original has none."""
    config: Config = type(model.config)(**vars(model.config) | {"context": 0})  # type: ignore[attr-defined]
    model.config = config
    with torch.no_grad():
        return model(originals.signal().unsqueeze(1))[0, :, 0]


@pytest.mark.parametrize("kind", originals.KINDS)
def test_gives_what_the_original_gave(kind: str, tmp_path: Path) -> None:
    made, golden = whole(imported(kind, tmp_path)), GOLDEN[kind]
    atol = TOLERANCE * golden["rms"]
    torch.testing.assert_close(made[:, 1600:1616], torch.tensor(golden["made"]), rtol=0, atol=atol)
    assert float(made.square().mean().sqrt()) == pytest.approx(golden["rms"], rel=1e-4)


def asteroid(tmp_path: Path, **changes: Any) -> Path:
    """Asteroid's file with other entries."""
    state = torch.load(originals.save("DPRNNTasNet", GOLDEN["DPRNNTasNet"]["shapes"], tmp_path), weights_only=True)
    for key, value in changes.items():
        place = state["state_dict"] if "." in key else state["model_args"] if key not in state else state
        place[key] = value
    torch.save(state, tmp_path / "model.pth")
    return tmp_path / "model.pth"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_name": "DCCRNet"}, "not an Asteroid checkpoint of ConvTasNet, DPRNNTasNet"),
        ({"model_name": [1]}, "not an Asteroid checkpoint"),
        ({"model_args": None}, "not an Asteroid checkpoint"),
        ({"state_dict": [1, 2]}, "not named tensors"),
        ({"state_dict": {3: torch.zeros(1)}}, "not named tensors"),
        ({"state_dict": {"masker.x": 1.0}}, "not named tensors"),
        ({"rnn_type": "GRU"}, "rnn_type = 'GRU'; 'LSTM' can be imported"),
        ({"bidirectional": torch.zeros(2)}, "bidirectional = tensor"),
        ({"chunk_size": "100"}, "a whole number from 1 on is wanted"),
        ({"n_filters": 10**9}, "has the shape"),
        ({"n_repeats": 10**9}, "too few for the layers"),
        ({"hop_size": 3}, "half of chunk_size"),
        ({"bn_chan": 13}, "has the shape"),
        ({"masker.new": torch.zeros(1)}, "holds 'masker.new'"),
        ({"masker.mask_net.weight": torch.full((24, 12, 1), float("nan"))}, "is not finite"),
    ],
)
def test_what_is_no_model_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        import_model(asteroid(tmp_path, **changes), "brought")


def test_a_whole_float_is_a_rate(tmp_path: Path) -> None:
    assert import_model(asteroid(tmp_path, sample_rate=16000.0), "brought").spec.in_rate == 16000
    with pytest.raises(ModelError, match="16000 Hz, not at 8000"):
        import_model(tmp_path / "model.pth", "brought", 8000)


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", b"\x80\x02)R.", b"import os", bytes(1000)])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.pth: not a file of tensors"):
        import_model(tmp_path / "x.pth", "brought")


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("encoder", {"conv1d.weight": 3}),
        ("encoder", {"conv1d.weight": torch.zeros(())}),
        ("masknet", {"conv1d.weight": torch.zeros(())}),
        ("masknet", {"conv1d.weight": torch.zeros(0, 32, 1)}),
        ("masknet", {"dual_mdl.999999999.intra_norm.weight": torch.zeros(32)}),
        ("decoder", [1]),
    ],
)
def test_folders_that_are_no_sepformer_are_refused(part: str, content: Any, tmp_path: Path) -> None:
    originals.save("SepFormer", GOLDEN["SepFormer"]["shapes"], tmp_path)
    if isinstance(content, dict):
        content = torch.load(tmp_path / f"{part}.ckpt", weights_only=True) | content
    torch.save(content, tmp_path / f"{part}.ckpt")
    with pytest.raises(ModelError):
        import_model(tmp_path, "brought")


@pytest.mark.parametrize("kind", originals.KINDS)
def test_is_the_low_rate_half(kind: str, tmp_path: Path) -> None:
    save_model(imported(kind, tmp_path), tmp_path / "brought.safetensors", {})
    speakers = imported(kind, tmp_path).spec.sources
    mixture = np.random.default_rng(0).standard_normal((2, 50_001)).astype(np.float32)
    pipeline = SeparateSROptions(speakers, model=str(tmp_path / "brought.safetensors")).pipeline()
    made = pipeline.array(0.1 * mixture, 44100)
    assert [model.spec.task for model in pipeline.chain(44100)] == ["separate", "separate-sr"]
    assert made.shape == (speakers, 2, 50_001)
    heard, kept = (np.fft.rfft(np.hanning(50_001) * wave)[:, 14_000:20_000] for wave in (0.1 * mixture, made.sum(0)))
    np.testing.assert_allclose(kept, heard, atol=0.1 * np.abs(heard).mean())  # 12 to 18 kHz: shares of the mixture's


@pytest.mark.parametrize("kind", originals.KINDS)
def test_gives_what_the_installed_original_gives(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("speechbrain" if kind == "SepFormer" else "asteroid", reason="the original is not installed")
    with torch.no_grad():
        theirs = originals.build(kind)(originals.signal())[0]
    ours = whole(imported(kind, tmp_path))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE * float(theirs.square().mean().sqrt()))
