"""audio/read.py: all formats in blocks, pipes, and damaged files."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import noise, tone

from audiosr_cli.audio.read import BLOCK, AudioReader, read_mono
from audiosr_cli.errors import InputError


def read_all(source: Path | str, block: int = 1000) -> tuple[AudioReader, np.ndarray]:
    with AudioReader(source) as reader:
        return reader, np.concatenate([np.zeros((reader.channels, 0)), *reader.blocks(block)], axis=1)


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "caf", "w64", "au", "ogg", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_equal_the_whole_file_as_libsndfile_reads_it(suffix: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(5000, channels=channels).T, 16000)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    reader, wave = read_all(path, 777)
    assert (reader.sample_rate, reader.channels) == (16000, channels)
    np.testing.assert_allclose(wave, expected.T, rtol=0, atol=5e-6)  # decoders round differently
    assert reader.warnings == []


def test_peeking_twice_yields_the_same_beginning(tmp_path: Path) -> None:
    wave = tone(200_000)
    soundfile.write(tmp_path / "a.wav", wave.T, 16000, "FLOAT")
    with AudioReader(tmp_path / "a.wav") as reader:
        for seconds in (1.0, 1.0, 6.0, 2.0, 100.0):
            peeked = np.concatenate(list(reader.peek(seconds)), axis=1)
            assert peeked.shape[1] >= min(seconds * 16000, 200_000)
            np.testing.assert_array_equal(peeked, wave[:, : peeked.shape[1]])
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks()), axis=1), wave)


def test_peeking_keeps_at_most_64_mib_of_many_channels_and_loses_none(tmp_path: Path) -> None:
    frames = 9 * BLOCK // 2
    soundfile.write(tmp_path / "a.wav", np.zeros((frames, 64), np.int16), 768_000, "PCM_U8")
    with AudioReader(tmp_path / "a.wav") as reader:
        for _ in range(2):
            assert sum(block.nbytes for block in reader.peek(30.0)) == 1 << 26
        assert sum(block.shape[1] for block in reader.blocks()) == frames


def test_peeking_again_keeps_more_once_blocks_have_been_consumed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(5 * BLOCK).T, 16000)
    with AudioReader(tmp_path / "a.wav") as reader:
        most = 10 * BLOCK  # of 4 bytes a frame: two blocks and a half
        assert len(list(reader.peek(60.0, most))) == 2
        next(reader.blocks())
        assert len(list(reader.peek(60.0, most))) == 2


def test_peeking_reads_one_block_whatever_its_size(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(3 * BLOCK).T, 16000)
    with AudioReader(tmp_path / "a.wav") as reader:
        assert [block.shape for block in reader.peek(30.0, 1)] == [(1, BLOCK)]


def test_format_is_detected_from_content_not_from_the_suffix(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(100).T, 8000, format="FLAC")
    assert read_all(tmp_path / "a.wav")[1].shape == (1, 100)


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "ULAW"), ("FLAC", "PCM_16")])
def test_reads_a_fifo(kind: str, subtype: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a", noise(30000, 2).T, 8000, subtype, format=kind)
    os.mkfifo(tmp_path / "pipe")
    content = (tmp_path / "a").read_bytes()
    feeder = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(content))
    feeder.start()
    _, wave = read_all(tmp_path / "pipe")
    feeder.join()
    np.testing.assert_array_equal(wave, read_all(tmp_path / "a")[1])


def test_mu_law_wav_is_read_with_libsndfile(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(500).T, 8000, "ULAW")
    reader, wave = read_all(tmp_path / "a.wav")
    assert (reader.subtype, wave.shape) == ("ULAW", (1, 500))


def test_a_truncated_flac_keeps_its_beginning_and_warns(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(50000).T, 16000)
    path.write_bytes(path.read_bytes()[:-20000])
    reader, wave = read_all(path)
    assert 10000 < wave.shape[1] < 50000
    assert len(reader.warnings) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"RIFF", "header ends"),
        (b"some text\n" * 9, "cannot be read"),
        (bytes(range(256)), "cannot be"),
    ],
)
def test_files_without_audio_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match=message):
        AudioReader(tmp_path / "a.wav")


def test_missing_files_and_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="No such file"):
        AudioReader(tmp_path / "missing.wav")
    with pytest.raises(InputError, match="is a folder"):
        AudioReader(tmp_path)
    with pytest.raises(InputError, match="File name too long"):
        AudioReader("a" * 5000)
    with pytest.raises(InputError, match="null byte"):
        AudioReader("a\0b")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(closed=True))
    with pytest.raises(InputError, match="standard input is closed"):
        AudioReader("-")


def test_read_mono_mixes_down_and_resamples(tmp_path: Path) -> None:
    wave = tone(4410, 200, 44100)
    soundfile.write(tmp_path / "a.wav", np.concatenate([wave, 0 * wave]).T, 44100, "FLOAT")
    output, rate, damage = read_mono(tmp_path / "a.wav", 8000)
    assert (output.shape, rate, damage) == ((800,), 44100, [])
    np.testing.assert_allclose(output[100:-100], tone(800, 200, 8000, level=0.25)[0, 100:-100], atol=1e-3)
