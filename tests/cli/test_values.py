"""cli/values.py: values of options as people write them."""

from __future__ import annotations

import pytest

from audiosr_cli.cli import values
from audiosr_cli.errors import UsageError


def test_speakers_are_a_number_or_auto() -> None:
    assert [values.parse_speakers(text) for text in ("3", 3, " auto ", "AUTO")] == [3, 3, "auto", "auto"]


@pytest.mark.parametrize("text", ["0", "-1", "2.0", "", "many", "٣"])
def test_other_speakers_are_errors(text: str) -> None:
    with pytest.raises(UsageError, match=f"--speakers {text}: expected a whole number from 1 on, or auto"):
        values.parse_speakers(text)


@pytest.mark.parametrize(
    ("text", "hertz"),
    [
        ("48000", 48000),
        (48000, 48000),
        ("48k", 48000),
        ("48K", 48000),
        ("48kHz", 48000),
        ("48 kHz", 48000),
        ("44.1k", 44100),
        ("44.1 KHZ", 44100),
        ("11.025k", 11025),
        ("16000Hz", 16000),
        ("16000.0", 16000),
    ],
)
def test_sample_rates_are_hz_or_khz(text: object, hertz: int) -> None:
    assert values.parse_rate(text) == hertz


@pytest.mark.parametrize("text", ["", "k", "48q", "48kk", "-48k", "1e4", "nan", "48,000", "²k", "٤٨k", "9" * 5000])
def test_other_sample_rates_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected a sample rate, such as 48000, 48k or 44\.1k"):
        values.parse_rate(text)


def test_a_part_of_a_hertz_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--rate 44.1005k: is 44100.5 Hz; expected a whole number of Hz$"):
        values.parse_rate("44.1005k")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("1.25", 1.25), (1.25, 1.25), ("1:30", 90), ("90:00", 5400), ("01:02:03.5", 3723.5)],
)
def test_times_are_seconds_or_have_colons(text: object, seconds: float) -> None:
    assert values.parse_start(text) == seconds


@pytest.mark.parametrize("text", ["", ":", "1:", ":30", "1:2:3:4", "-5", "1e3", "inf", "nan", "5 s", "1:-3", "٣"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"^--end {text}: expected a time as seconds, mm:ss or hh:mm:ss"):
        values.parse_end(text)


@pytest.mark.parametrize("text", ["1:60", "1:60:00", "1:00:99.5"])
def test_parts_after_a_colon_are_below_60(text: str) -> None:
    with pytest.raises(UsageError, match="must be below 60"):
        values.parse_end(text)


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        ("16 16bit 16-bit s16 s16le pcm_16 PCM_16 pcm16 pcm_s16le", "PCM_16"),
        ("24 24bit 24Bits 24_bit s24 pcm_24 PCM_24 pcm_s24le", "PCM_24"),
        ("32 32bit s32 pcm_32", "PCM_32"),
        ("float FLOAT float32 f32 32f f32le pcm_f32le 32float", "FLOAT"),
        ("vorbis", "VORBIS"),
    ],
)
def test_sample_formats_have_many_spellings(spellings: str, name: str) -> None:
    assert {values.parse_subtype(text) for text in spellings.split()} == {name}
    assert values.parse_subtype(" 16 ") == values.parse_subtype(16) == "PCM_16"


@pytest.mark.parametrize(
    ("text", "near"), [("24bti", "24bit"), ("flaot", "float"), ("pmc_24", "pcm_24"), ("vorbsi", "vorbis")]
)
def test_a_wrong_sample_format_gets_the_nearest_one(text: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"--subtype {text}: unknown; known: 16, 24, 32, float") as caught:
        values.parse_subtype(text)
    assert caught.value.hint == f"did you mean {near}?"


@pytest.mark.parametrize("text", ["s", "12", "u8", "s64", "double", "xyz", ""])
def test_sample_formats_that_no_output_has_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown"):
        values.parse_subtype(text)


@pytest.mark.parametrize("text", ["0", "-1", "left", "1.0", "", "²"])
def test_channels_are_each_mix_or_a_number(text: str) -> None:
    assert [values.parse_channels(value) for value in ("each", "mix", "3", 3)] == ["each", "mix", "3", "3"]
    with pytest.raises(UsageError, match="expected each, mix, or the number of a channel"):
        values.parse_channels(text)
