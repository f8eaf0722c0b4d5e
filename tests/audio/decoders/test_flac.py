"""FLAC files that were joined, or begin late."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiosr_cli.audio.read import AudioReader


def flac(path: Path, frames: int, sample_rate: int = 16000, channels: int = 1) -> tuple[bytes, np.ndarray]:
    samples = np.random.default_rng(frames).integers(-9000, 9000, (frames, channels), np.int16)
    soundfile.write(path, samples, sample_rate, format="FLAC")
    return path.read_bytes(), samples.T


def read(path: Path) -> tuple[AudioReader, np.ndarray]:
    with AudioReader(path) as reader:
        return reader, np.concatenate([np.zeros((reader.channels, 0)), *reader.blocks(5000)], axis=1)


@pytest.mark.parametrize("tag", [b"", b"ID3\3\0\0\0\0\0\x0a" + bytes(10)])
def test_all_of_joined_files_is_read_to_the_sample(tag: bytes, tmp_path: Path) -> None:
    first, samples = flac(tmp_path / "1.flac", 9001)
    second, others = flac(tmp_path / "2.flac", 200_000)
    (tmp_path / "a.flac").write_bytes(tag + first + second + first)
    reader, wave = read(tmp_path / "a.flac")
    np.testing.assert_array_equal(wave * 32768, np.concatenate([samples, others, samples], axis=1))
    assert reader.warnings == []


def test_a_change_of_the_format_is_converted_and_told(tmp_path: Path) -> None:
    first, samples = flac(tmp_path / "1.flac", 9001)
    second, _ = flac(tmp_path / "2.flac", 4800, 48000, 2)
    (tmp_path / "a.flac").write_bytes(first + second)
    reader, wave = read(tmp_path / "a.flac")
    assert wave.shape == (1, 9001 + 1600)
    np.testing.assert_array_equal(wave[:, :9001] * 32768, samples)
    assert "changes to stereo at 48000 Hz at 0.6 s" in reader.warnings[0]


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), bytes(5000)])
def test_what_follows_the_last_frame_costs_nothing(tail: bytes, tmp_path: Path) -> None:
    content, samples = flac(tmp_path / "1.flac", 9001)
    (tmp_path / "a.flac").write_bytes(content + tail)
    reader, wave = read(tmp_path / "a.flac")
    np.testing.assert_array_equal(wave * 32768, samples)
    assert reader.warnings == []


def test_a_following_file_of_another_kind_or_without_sound_is_told(tmp_path: Path) -> None:
    content, _ = flac(tmp_path / "1.flac", 9001)
    for other, kind in ((b"RIFF\0\0\0\0WAVEfmt ", "RIFF"), (b"fLaC\0\0\0\x22" + bytes(50), "fLaC")):
        (tmp_path / "a.flac").write_bytes(content + other)
        assert f"another file ({kind}) follows, which cannot be read" in read(tmp_path / "a.flac")[0].warnings[0]


def test_a_part_that_is_cut_loses_only_its_own_end(tmp_path: Path) -> None:
    first, _ = flac(tmp_path / "1.flac", 20_000)
    second, others = flac(tmp_path / "2.flac", 9001)
    (tmp_path / "a.flac").write_bytes(first[:-3000] + second)
    reader, wave = read(tmp_path / "a.flac")
    np.testing.assert_array_equal(wave[:, -9001:] * 32768, others)
    assert "the rest of that part is lost" in reader.warnings[0]


def test_short_files_are_all_read_and_only_one_copy_of_what_follows_is_open(tmp_path: Path) -> None:
    content, samples = flac(tmp_path / "1.flac", 1000)
    (tmp_path / "a.flac").write_bytes(8 * content)
    reader, wave = read(tmp_path / "a.flac")
    np.testing.assert_array_equal(wave * 32768, np.tile(samples, 8))
    assert reader.warnings == []
    with AudioReader(tmp_path / "a.flac") as reader:
        numbers = [os.open(os.devnull, os.O_RDONLY) for _ in reader.blocks(1000)]  # the lowest that is free
    for number in numbers:
        os.close(number)
    assert max(numbers) - numbers[0] <= 7 + 3
