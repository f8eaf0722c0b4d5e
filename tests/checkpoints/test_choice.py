"""checkpoints/choice.py: which upsampler is for a kind; the other choices are tested by tests/test_pipelines.py."""

from __future__ import annotations

from pathlib import Path

from kinds import bundle_kinds

from audiosr_cli.checkpoints import choice
from audiosr_cli.contract import Kind

KINDS: tuple[Kind, ...] = ("speech", "music", "effects")


def test_without_kinds_in_the_catalogue_the_default_upsampler_is_for_all(small_weights: Path) -> None:
    assert [choice.find_upsampler(kind) for kind in KINDS] == ["spectral_bwe"] * 3


def test_kinds_that_no_upsampler_is_for_get_the_default_one(small_weights: Path) -> None:
    bundle_kinds(small_weights, "music")
    assert [choice.find_upsampler(kind) for kind in KINDS] == ["spectral_bwe", "spectral_bwe_music", "spectral_bwe"]


def test_an_upsampler_may_be_for_several_kinds(small_weights: Path) -> None:
    bundle_kinds(small_weights, "music", "effects")
    assert [choice.find_upsampler(kind) for kind in KINDS] == ["spectral_bwe", *["spectral_bwe_music"] * 2]
