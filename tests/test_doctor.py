"""doctor.py: what is looked at, and that ill ones are told."""

from __future__ import annotations

from pathlib import Path

from audiosr_cli import doctor, weights


def test_a_healthy_installation() -> None:
    found = list(doctor.examine())
    assert [finding for finding in found if not finding.fine] == []
    named = {(finding.group, finding.name) for finding in found}
    assert {("version", "torch"), ("version", "libsndfile"), ("device", "threads"), ("task", "separate-sr")} <= named
    assert {name for group, name in named if group == "model"} == set(weights.catalogue())


def test_a_damaged_model_is_found(small_weights: Path) -> None:
    path = small_weights / "spectral_bwe.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    ill = {finding.name: finding.value for finding in doctor.examine() if not finding.fine}
    assert "damaged" in ill["spectral_bwe"]
    assert "damaged" in ill["upsample"]
