"""audio/formats.py: containers, sample types, and the limits of encoders."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiosr_cli.audio.formats import (
    FORMATS,
    bitrate_range,
    choose_format,
    container_of,
    default_bitrate,
    parse_bitrate,
)
from audiosr_cli.errors import OutputError, UsageError


def test_subtype_follows_the_input() -> None:
    assert choose_format("wav", None, "PCM_24", 48000, 2).subtype == "PCM_24"
    assert choose_format("wav", None, "DOUBLE", 48000, 2).subtype == "FLOAT"
    assert choose_format("flac", None, "FLOAT", 48000, 2).subtype == "PCM_24"
    assert choose_format("wav", None, "VORBIS", 48000, 2).subtype == "PCM_16"
    assert choose_format("wav", "24", "PCM_16", 48000, 2).subtype == "PCM_24"
    assert choose_format("wav", "float", "PCM_16", 48000, 2).subtype == "FLOAT"
    assert choose_format("mov", None, "PCM_24", 48000, 2).subtype == "PCM_24"
    assert choose_format("mkv", None, "AAC", 48000, 2).subtype == "AAC"
    assert choose_format("mp4", None, "PCM_24", 48000, 2).subtype == "AAC"


@pytest.mark.parametrize(
    ("container", "subtype", "rate", "channels"),
    [("xyz", None, 48000, 1), ("flac", "float", 48000, 1), ("mp3", None, 44100, 6), ("opus", None, 44100, 1)],
)
def test_formats_that_cannot_hold_the_output_are_refused(
    container: str, subtype: str | None, rate: int, channels: int
) -> None:
    with pytest.raises(OutputError):
        choose_format(container, subtype, "PCM_16", rate, channels)


def test_suffixes_name_containers() -> None:
    for container in FORMATS:
        assert container_of(Path(f"a.{container.upper()}")) == container
    assert container_of(Path("a.m4b")) == "m4a"
    assert container_of(Path("a.m4v")) == "mp4"
    assert container_of(Path("a.txt")) is None
    assert choose_format("M4V", None, "AAC", 48000, 2).container == "mp4"


@pytest.mark.parametrize(
    ("container", "rate", "channels", "bitrate"),
    [
        ("mp3", 44100, 2, 320_000),
        ("mp3", 22050, 1, 160_000),
        ("mp3", 8000, 1, 64_000),
        ("m4a", 48000, 2, 256_000),
        ("m4a", 16000, 1, 64_000),
        ("opus", 48000, 2, 192_000),
        ("webm", 16000, 1, 64_000),
        ("ogg", 44100, 2, 0),
        ("flac", 44100, 2, 0),
    ],
)
def test_default_bitrates_are_possible(container: str, rate: int, channels: int, bitrate: int) -> None:
    output_format = choose_format(container, None, "", rate, channels)
    assert default_bitrate(output_format) == bitrate
    assert not bitrate or bitrate in bitrate_range(output_format)


def test_bitrates_are_checked() -> None:
    assert choose_format("m4a", None, "", 48000, 2, 128_000).bitrate == 128_000
    with pytest.raises(OutputError, match="--bitrate 128000: flac with PCM_16 has none; it is for opus, mp3"):
        choose_format("flac", None, "PCM_16", 48000, 2, 128_000)
    with pytest.raises(OutputError, match=r"--bitrate 128000: mkv with PCM_24 has none; .*; see --subtype"):
        choose_format("mkv", "24", "PCM_16", 48000, 2, 128_000)
    with pytest.raises(OutputError, match="--bitrate 320001: mp3 at 44100 Hz with 2 channels takes 32000 to 320000"):
        choose_format("mp3", None, "", 44100, 2, 320_001)


@pytest.mark.parametrize(
    ("text", "bitrate"), [("192k", 192_000), ("192K", 192_000), ("64000", 64_000), ("47.5k", 47_500)]
)
def test_bitrates_are_read_as_ffmpeg_reads_them(text: str, bitrate: int) -> None:
    assert parse_bitrate(text, "mp3") == bitrate


@pytest.mark.parametrize("text", ["", "k", "-1k", "192 kbit/s", "1e5", "9" * 30])
def test_other_bitrates_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="--bitrate"):
        parse_bitrate(text, "mp3")


def test_formats_without_a_bitrate_refuse_one() -> None:
    with pytest.raises(UsageError, match="--bitrate 192k: wav has none; it is for opus, mp3, m4a, mp4, mov, mkv, webm"):
        parse_bitrate("192k", "wav")
