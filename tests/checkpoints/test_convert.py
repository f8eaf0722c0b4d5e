"""checkpoints/convert.py: imported networks give the outputs of SpeechBrain and Asteroid."""

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
TOLERANCE = 1e-4  # of the output's RMS: kernels and orders of summation differ


def imported(kind: str, tmp_path: Path) -> Model:
    return import_model(originals.save(kind, GOLDEN[kind]["shapes"], tmp_path), "imported")


def whole(model: Model) -> Tensor:
    """Return the output (S, T) for the whole signal, without context, as in the original."""
    config: Config = type(model.config)(**vars(model.config) | {"context": 0})  # type: ignore[attr-defined]
    model.config = config
    with torch.no_grad():
        return model(originals.signal().unsqueeze(1))[0, :, 0]


@pytest.mark.parametrize("kind", originals.KINDS)
def test_output_equals_the_golden_one_of_the_original(kind: str, tmp_path: Path) -> None:
    output, golden = whole(imported(kind, tmp_path)), GOLDEN[kind]
    atol = TOLERANCE * golden["rms"]
    torch.testing.assert_close(output[:, 1600:1616], torch.tensor(golden["made"]), rtol=0, atol=atol)
    assert float(output.square().mean().sqrt()) == pytest.approx(golden["rms"], rel=1e-4)


def asteroid(tmp_path: Path, **changes: Any) -> Path:
    """Change entries of a file of Asteroid."""
    state = torch.load(originals.save("DPRNNTasNet", GOLDEN["DPRNNTasNet"]["shapes"], tmp_path), weights_only=True)
    for key, value in changes.items():
        table = state["state_dict"] if "." in key else state["model_args"] if key not in state else state
        table[key] = value
    torch.save(state, tmp_path / "model.pth")
    return tmp_path / "model.pth"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name": "DCCRNet"}, "not an Asteroid checkpoint of ConvTasNet or DPRNNTasNet"),
        ({"model_name": [1]}, "not an Asteroid checkpoint"),
        ({"model_args": None}, "not an Asteroid checkpoint"),
        ({"state_dict": [1, 2]}, "not a dictionary of floating-point tensors"),
        ({"state_dict": {3: torch.zeros(1)}}, "not a dictionary of floating-point tensors"),
        ({"state_dict": {"masker.x": 1.0}}, "not a dictionary of floating-point tensors"),
        ({"rnn_type": "GRU"}, "rnn_type = 'GRU' is not supported; must be 'LSTM'"),
        ({"bidirectional": torch.zeros(2)}, "bidirectional = tensor"),
        ({"chunk_size": "100"}, "expected an integer of at least 1"),
        ({"n_filters": 10**9}, "has the shape"),
        ({"n_repeats": 10**9}, "too few for its number of layers"),
        ({"hop_size": 3}, "half of chunk_size"),
        ({"bn_chan": 13}, "has the shape"),
        ({"masker.new": torch.zeros(1)}, "unexpected tensor 'masker.new'"),
        ({"masker.mask_net.weight": torch.full((24, 12, 1), float("nan"))}, "is not finite"),
    ],
)
def test_changed_asteroid_files_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        import_model(asteroid(tmp_path, **changes), "imported")


def test_sample_rate_may_be_a_float_but_not_another_one(tmp_path: Path) -> None:
    assert import_model(asteroid(tmp_path, sample_rate=16000.0), "imported").spec.in_rate == 16000
    with pytest.raises(ModelError, match="16000 Hz, not 8000 Hz"):
        import_model(tmp_path / "model.pth", "imported", 8000)


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", b"\x80\x02)R.", b"import os", bytes(1000)])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.pth: not a file of tensors"):
        import_model(tmp_path / "x.pth", "imported")


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
def test_changed_sepformer_folders_are_refused(part: str, content: Any, tmp_path: Path) -> None:
    originals.save("SepFormer", GOLDEN["SepFormer"]["shapes"], tmp_path)
    if isinstance(content, dict):
        content = torch.load(tmp_path / f"{part}.ckpt", weights_only=True) | content
    torch.save(content, tmp_path / f"{part}.ckpt")
    with pytest.raises(ModelError):
        import_model(tmp_path, "imported")


@pytest.mark.parametrize("kind", originals.KINDS)
def test_an_imported_separator_works_with_a_restorer(kind: str, tmp_path: Path) -> None:
    save_model(imported(kind, tmp_path), tmp_path / "imported.safetensors", {})
    speakers = imported(kind, tmp_path).spec.sources
    mixture = np.random.default_rng(0).standard_normal((2, 50_001)).astype(np.float32)
    pipeline = SeparateSROptions(speakers, model=str(tmp_path / "imported.safetensors")).pipeline()
    output = pipeline.array(0.1 * mixture, 44100)
    assert [model.spec.task for model in pipeline.chain(44100)] == ["separate", "separate-sr"]
    assert output.shape == (speakers, 2, 50_001)
    # The restorer shares the mixture's spectrum from 12 to 18 kHz among the sources.
    highs = [np.fft.rfft(np.hanning(50_001) * wave)[:, 14_000:20_000] for wave in (output.sum(0), 0.1 * mixture)]
    np.testing.assert_allclose(*highs, atol=0.1 * np.abs(highs[1]).mean())


@pytest.mark.parametrize("kind", originals.KINDS)
def test_output_equals_that_of_the_installed_original(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("speechbrain" if kind == "SepFormer" else "asteroid", reason="the original is not installed")
    with torch.no_grad():
        theirs = originals.build(kind)(originals.signal())[0]
    ours = whole(imported(kind, tmp_path))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE * float(theirs.square().mean().sqrt()))
