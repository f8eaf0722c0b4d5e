"""audio/decoders/elementary.py and audio/decoders/mpeg.py: MPEG audio and ADTS as people have them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoded_files import format_table, mux, signal

from audiosr_cli.audio.decoders.elementary import FrameReader, find_kind, parse_header, parse_info
from audiosr_cli.audio.read import AudioReader

RATE = 16000
CBR: dict[str, Any] = {"bit_rate": 32000}
NO_TAG: dict[str, Any] = {"options": {"write_xing": "0", "id3v2_version": "0"}, "bit_rate": 32000}


def encoded(
    path: Path, seconds: float = 3.0, codec: str = "libmp3lame", channels: int = 1, rate: int = RATE, **options
):  # type: ignore[no-untyped-def]
    mux(path, signal(rate, channels, seconds), rate, codec, **options)
    return path.read_bytes()


def read(content: bytes | Path) -> tuple[AudioReader, np.ndarray]:
    with AudioReader(content) as reader:
        return reader, np.concatenate([np.zeros((reader.channels, 0)), *reader.blocks(1000)], axis=1)


@pytest.fixture
def mp3(tmp_path: Path) -> bytes:
    return encoded(tmp_path / "a.mp3", **CBR)


@pytest.fixture
def bare(tmp_path: Path) -> bytes:
    return encoded(tmp_path / "b.mp3", **NO_TAG)


def test_a_variable_bitrate_without_a_tag_is_read_to_its_end(tmp_path: Path) -> None:
    content = encoded(tmp_path / "a.mp3", 8, options=NO_TAG["options"], quality=6)
    sizes = {len(frame.data or b"") for frame in FrameReader(io.BytesIO(content).read).frames()}
    assert len(sizes) > 3
    reader, wave = read(tmp_path / "a.mp3")
    assert wave.shape[1] == format_table.ffmpeg_frames(tmp_path / "a.mp3") >= 8 * RATE
    assert reader.warnings == []


def test_the_delay_and_padding_of_the_encoder_are_removed(mp3: bytes) -> None:
    reader, wave = read(mp3)
    assert wave.shape[1] == reader.frames == 3 * RATE
    assert reader.warnings == []
    original = signal(RATE, 1, 3)
    correlation = np.correlate(wave[0, 1000:9000], original[0, 1000 - 50 : 9000 + 50], "valid")
    assert np.argmax(correlation) == 50


def test_joined_mp3s_are_all_read_as_ffmpeg_reads_them(mp3: bytes, tmp_path: Path) -> None:
    (tmp_path / "joined.mp3").write_bytes(mp3 + mp3)
    reader, wave = read(tmp_path / "joined.mp3")
    assert wave.shape[1] == format_table.ffmpeg_frames(tmp_path / "joined.mp3") > 6 * RATE
    assert reader.warnings == []


@pytest.mark.parametrize(
    "lead", [bytes(3000), b"\xff" * 10, bytes(500) + b"\x55" * 77], ids=["zeros", "ones", "zeros and junk"]
)
def test_what_precedes_the_first_frame_is_no_damage(lead: bytes, bare: bytes) -> None:
    expected = read(bare)[1]
    reader, wave = read(lead + bare)
    np.testing.assert_array_equal(wave, expected)
    assert reader.warnings == []


@pytest.mark.parametrize(("suffix", "codec"), [("mp3", "libmp3lame"), ("mp2", "mp2"), ("aac", "aac")])
def test_a_capture_that_starts_within_a_frame_is_no_damage(suffix: str, codec: str, tmp_path: Path) -> None:
    options = NO_TAG if codec == "libmp3lame" else CBR
    content = encoded(tmp_path / f"a.{suffix}", codec=codec, **options)
    reader, wave = read(content[1003:])
    assert reader.warnings == []
    assert wave.shape[1] > 2 * RATE


def test_noise_in_the_middle_keeps_the_time_and_the_place_is_reported(mp3: bytes) -> None:
    expected = read(mp3)[1]
    damaged = bytearray(mp3)
    damaged[5000:6500] = np.random.default_rng(0).bytes(1500)
    reader, wave = read(bytes(damaged))
    assert wave.shape == expected.shape
    (warning,) = reader.warnings
    assert "damaged at 1." in warning
    assert "s are replaced by silence" in warning
    np.testing.assert_array_equal(wave[:, : int(1.1 * RATE)], expected[:, : int(1.1 * RATE)])
    np.testing.assert_array_equal(wave[:, int(2.2 * RATE) :], expected[:, int(2.2 * RATE) :])


def test_a_change_from_stereo_to_mono_keeps_the_first_layout(tmp_path: Path) -> None:
    first = encoded(tmp_path / "a.mp3", 2, channels=2, **NO_TAG)
    second = encoded(tmp_path / "b.mp3", 2, **NO_TAG)
    alone = read(second)[1]
    reader, wave = read(first + second)
    assert reader.channels == 2
    assert "changes to mono at 16000 Hz at 2." in reader.warnings[0]
    tail = wave[:, -RATE:]
    np.testing.assert_array_equal(tail[0], tail[1])
    np.testing.assert_allclose(tail[0], alone[0, -RATE:], atol=1e-5)


def test_a_change_of_the_sample_rate_is_resampled(tmp_path: Path) -> None:
    first = encoded(tmp_path / "a.mp3", 2, rate=44100, options=NO_TAG["options"])
    second = encoded(tmp_path / "b.mp3", 2, rate=22050, options=NO_TAG["options"])
    parts = [read(first)[1].shape[1], 2 * read(second)[1].shape[1]]
    reader, wave = read(first + second)
    assert (reader.sample_rate, wave.shape[1]) == (44100, sum(parts))
    assert "changes to mono at 22050 Hz" in reader.warnings[0]


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3 + 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "of the 3.0 s in its header"),
        (lambda content: content[:-7], "ends within a frame"),
        (lambda content: content + b"\x11" * 900, "are no frames and are lost"),
    ],
)
def test_a_missing_end_is_reported(change: Callable[[bytes], bytes], message: str, mp3: bytes, bare: bytes) -> None:
    reader, _ = read(change(mp3 if "header" in message else bare))
    assert message in reader.warnings[0]


def test_what_follows_all_frames_that_the_tag_counts_is_no_damage(mp3: bytes) -> None:
    reader, wave = read(mp3 + b"\x11" * 1100)
    assert (reader.warnings, wave.shape) == ([], (1, 3 * RATE))


@pytest.mark.parametrize(
    "tail",
    [
        b"TAG" + bytes(125),
        b"APETAGEX" + bytes([208, 7, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xA0]) + bytes(8 + 40),
        bytes(5000),
        b"LYRICSBEGIN" + b"x" * 100 + b"000111LYRICS200" + b"TAG" + bytes(125),
    ],
    ids=["ID3v1", "APE", "zeros", "Lyrics3"],
)
def test_tags_and_zeros_at_the_end_are_no_damage(tail: bytes, mp3: bytes) -> None:
    reader, wave = read(mp3 + tail)
    assert reader.warnings == []
    assert wave.shape[1] == 3 * RATE


def test_other_content_is_not_taken_for_frames() -> None:
    random = np.random.default_rng(0)
    assert all(find_kind(random.bytes(5000)) is None for _ in range(50))
    assert find_kind(b"some text " * 500) is None


def test_headers_agree_with_the_specification() -> None:
    header = parse_header(b"\xff\xfb\x90\x64\0\0\0")  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz, joint stereo
    assert header is not None
    assert header[:5] == ("mp3", 417, 1152, 44100, 2)
    low = parse_header(b"\xff\xf3\x88\xc0\0\0\0")  # MPEG-2 layer III, 64 kbit/s, 16 kHz, mono
    assert low is not None
    assert low[:5] == ("mp3", 288, 576, 16000, 1)
    assert parse_header(b"\xff\xfb\xf0\x64\0\0\0") is None  # no such bitrate
    assert parse_header(b"\xff\xeb\x90\x64\0\0\0") is None  # no such version


def test_the_tag_of_an_encoder_is_parsed(mp3: bytes) -> None:
    frame = next(iter(FrameReader(io.BytesIO(mp3).read).frames()))
    assert frame.data is not None
    tag = parse_info(frame.header, frame.data)
    assert tag is not None
    assert tag.frames is not None
    assert tag.frames * 576 - tag.delay - tag.padding == 3 * RATE
