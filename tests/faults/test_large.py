"""Faults 34 to 37: recordings that are larger than memory, and than 4 GiB."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile import audiosr, chunk, fmt, measured, riff, sparse

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.wav import WavFormat, WavWriter

CHANNELS, WIDTH = 16, 128  # and bytes a frame
MANY_MIB = 50  # by which memory may differ between a short recording and a long one


def silent_flac(path: Path, seconds: int) -> Path:
    with soundfile.SoundFile(path, "w", 384_000, 8, "PCM_24") as file:
        block = np.zeros((384_000, 8), np.int32)
        for _ in range(seconds):
            file.write(block)
    return path


@pytest.mark.parametrize("long", [8, pytest.param(600, marks=pytest.mark.slow)])
def test_034_a_small_flac_that_becomes_large(long: int, tmp_path: Path) -> None:
    """8 s are 98 MB as float32."""
    peaks = []
    for seconds in (2, long):
        path = silent_flac(tmp_path / f"{seconds}.flac", seconds)
        options = ("--model", "none", "--rate", 384_000, "-o", "/dev/null")
        done = measured(tmp_path, "upsample", path, *options)
        assert done.code == 0, done.stderr
        peaks.append(done.peak)
    assert path.stat().st_size < 5e6
    assert peaks[1] < peaks[0] + MANY_MIB


def big(path: Path, kind: str, size: int) -> tuple[Path, int]:
    """A sparse file of doubles with ``size`` bytes of samples, 0.5 in the last one; and its frames."""
    form = fmt(3, CHANNELS, 48000, 64)
    if kind == "wav":
        head = riff(chunk(b"fmt ", form), chunk(b"data", b"", 0xFFFFFFFF))
    elif kind == "rf64":
        ds64 = struct.pack("<QQQI", size + 72, size, size // WIDTH, 0)
        parts = chunk(b"ds64", ds64), chunk(b"fmt ", form), chunk(b"data", b"", 0xFFFFFFFF)
        head = b"RF64\xff\xff\xff\xffWAVE" + b"".join(parts)
    else:
        tail = bytes.fromhex("f3acd3118cd100c04f8edb8a")
        head = bytes.fromhex("726966662e91cf11a5d628db04c10000") + struct.pack("<Q", size + 104) + b"wave" + tail
        head += b"fmt " + tail + struct.pack("<Q", 24 + len(form)) + form
        head += b"data" + tail + struct.pack("<Q", 24 + size)
    return sparse(path, head, len(head) + size, struct.pack("<d", 0.5)), size // WIDTH


@pytest.mark.parametrize("large", [1 << 28, pytest.param(4_000_000_000 // WIDTH * WIDTH, marks=pytest.mark.slow)])
def test_035_a_sparse_wav_of_4_gb(large: int, tmp_path: Path) -> None:
    """A quarter of a GiB is 128 MiB as float32."""
    peaks = []
    for size in (1 << 26, large):
        path, _ = big(tmp_path / "a.wav", "wav", size)
        options = ("--channels", CHANNELS, "--model", "none", "-o", "/dev/null")
        done = measured(tmp_path, "upsample", path, *options)
        assert done.code == 0, done.stderr
        peaks.append(done.peak)
    assert peaks[1] < peaks[0] + MANY_MIB


@pytest.mark.parametrize("kind", ["w64", "rf64"])  # the header of a WAV past 4 GiB does not know
def test_036_headers_past_4_gib(kind: str, tmp_path: Path) -> None:
    path, frames = big(tmp_path / f"a.{kind}", kind, (1 << 32) + 1000 * WIDTH)
    with AudioReader(path) as reader:
        assert reader.frames == frames


@pytest.mark.slow  # decodes 4 GiB
@pytest.mark.parametrize("kind", ["w64", "rf64", "wav"])
def test_036_past_4_gib_in(kind: str, tmp_path: Path) -> None:
    path, frames = big(tmp_path / f"a.{kind}", kind, (1 << 32) + 1000 * WIDTH)
    options = ("--channels", CHANNELS, "--model", "none", "--subtype", 16, "-o", tmp_path / "b.wav")
    done = audiosr("upsample", path, *options)
    assert done.code == 0, done.stderr
    with soundfile.SoundFile(tmp_path / "b.wav") as output:
        assert output.frames == frames
        output.seek(frames - 2)
        assert output.read(2).tolist() == [0.0, 0.5]


class Holes(io.FileIO):
    """A file that zeros are not written to: they are holes in it."""

    def write(self, data: bytes) -> int:
        if len(data) > 1000 and not any(data[:1000]):
            return self.seek(len(data), io.SEEK_CUR)
        return super().write(data)


def check_rf64(path: Path, frames: int) -> None:
    with soundfile.SoundFile(path) as output:
        assert (output.frames, output.format) == (frames, "RF64")
        output.seek(frames - 1)
        assert output.read(1, always_2d=True)[0, -1] == 0.5


def test_037_past_4_gib_out_becomes_rf64(tmp_path: Path) -> None:
    """The writer of the command, on a file with holes: 4 GiB on the disk take long."""
    with Holes(tmp_path / "a.wav", "w+") as stream:
        writer = WavWriter(stream, WavFormat(48000, 1, 32, True), seekable=True)
        block = np.zeros((1, 1 << 24), np.float32)
        for _ in range(65):
            writer.write(block)
        writer.write(np.full((1, 1), 0.5, np.float32))
        writer.close()
    check_rf64(tmp_path / "a.wav", 65 * (1 << 24) + 1)


@pytest.mark.slow  # writes 4 GiB
def test_037_past_4_gib_out_by_the_command(tmp_path: Path) -> None:
    size = (1 << 33) + 1000 * WIDTH
    path, frames = big(tmp_path / "a.wav", "wav", size)
    done = audiosr("upsample", path, "--model", "none", "--subtype", "float", "-o", tmp_path / "b.wav")
    assert done.code == 0, done.stderr
    check_rf64(tmp_path / "b.wav", frames)
    (tmp_path / "b.wav").unlink()
