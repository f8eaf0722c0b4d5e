"""doctor.py: checks, and problems that they find."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import soundfile

from audiosr_cli import doctor, pipelines
from audiosr_cli.checkpoints import catalogue
from audiosr_cli.pipelines import SeparateOptions
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline


def test_a_healthy_installation_has_no_problems() -> None:
    found = list(doctor.examine())
    assert [finding for finding in found if not finding.ok] == []
    named = {(finding.group, finding.name) for finding in found}
    assert {("version", "torch"), ("version", "libsndfile"), ("device", "threads"), ("command", "separate-sr")} <= named
    assert {name for group, name in named if group == "model"} == set(catalogue.entries())


def test_device_and_format_problems_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of torch on the default device, and formats that cannot be written."""
    devices: list[str] = []

    def fail(self: SeparateOptions, options: Options) -> Pipeline:
        devices.append(options.device)
        raise RuntimeError("CUDA error: no kernel image is available")

    monkeypatch.setattr(pipelines, "pick_device", {"auto": "cuda"}.get)
    monkeypatch.setattr(pipelines, "pick_bf16", lambda precision, name: False)
    monkeypatch.setattr(SeparateOptions, "pipeline", fail)
    found = doctor._test_run(SeparateOptions())
    assert (found.ok, found.value, devices) == (False, "CUDA error: no kernel image is available", ["cuda"])
    monkeypatch.setattr(soundfile, "check_format", lambda kind, subtype: subtype != "VORBIS")
    (formats,) = [finding for finding in islice(doctor.examine(), 9) if finding.name == "written"]
    assert (formats.ok, "ogg" in formats.value, "opus" in formats.value) == (False, False, True)


def test_a_damaged_model_is_found(small_weights: Path) -> None:
    path = small_weights / "spectral_bwe.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    ill = {finding.name: finding.value for finding in doctor.examine() if not finding.ok}
    assert "damaged" in ill["spectral_bwe"]
    assert "damaged" in ill["upsample"]
