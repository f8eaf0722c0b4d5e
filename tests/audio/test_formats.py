"""audio/formats.py: containers, sample types, and the limits of encoders."""

from __future__ import annotations

import pytest

from audiosr_cli.audio.formats import (
    choose_format,
)
from audiosr_cli.errors import OutputError


def test_subtype_follows_the_input() -> None:
    assert choose_format("wav", None, "PCM_24", 48000, 2).subtype == "PCM_24"
    assert choose_format("wav", None, "DOUBLE", 48000, 2).subtype == "FLOAT"
    assert choose_format("flac", None, "FLOAT", 48000, 2).subtype == "PCM_24"
    assert choose_format("wav", None, "VORBIS", 48000, 2).subtype == "PCM_16"
    assert choose_format("wav", "24", "PCM_16", 48000, 2).subtype == "PCM_24"
    assert choose_format("wav", "float", "PCM_16", 48000, 2).subtype == "FLOAT"


@pytest.mark.parametrize(
    ("container", "subtype", "rate", "channels"),
    [("xyz", None, 48000, 1), ("flac", "float", 48000, 1), ("mp3", None, 44100, 6), ("opus", None, 44100, 1)],
)
def test_formats_that_cannot_hold_the_output_are_refused(
    container: str, subtype: str | None, rate: int, channels: int
) -> None:
    with pytest.raises(OutputError):
        choose_format(container, subtype, "PCM_16", rate, channels)
