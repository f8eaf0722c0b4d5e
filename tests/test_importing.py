"""importing.py: the networks of SpeechBrain and Asteroid, whose outputs ours have to give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import originals
import pytest
import torch
from torch import Tensor

from audiosr_cli.importing import import_model
from audiosr_cli.models import Model
from audiosr_cli.models.base import Config

GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "importing.json").read_text())
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


@pytest.mark.parametrize("kind", originals.KINDS)
def test_gives_what_the_installed_original_gives(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("speechbrain" if kind == "SepFormer" else "asteroid", reason="the original is not installed")
    with torch.no_grad():
        theirs = originals.build(kind)(originals.signal())[0]
    ours = whole(imported(kind, tmp_path))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE * float(theirs.square().mean().sqrt()))
