"""audio/decoders/ogg.py: pages, and chains of streams."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noise
from encoded_files import mux, signal

from audiosr_cli.audio.decoders.ogg import PageReader
from audiosr_cli.audio.ogg_pages import FIRST, LAST, checksum
from audiosr_cli.audio.read import AudioReader, read_mono
from audiosr_cli.errors import InputError


def vorbis(frames: int, rate: int = 16000, channels: int = 1) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, noise(frames, channels, 0.1).T, rate, "VORBIS", format="OGG")
    return stream.getvalue()


def read(content: bytes | Path) -> tuple[AudioReader, np.ndarray]:
    with AudioReader(content) as reader:
        return reader, np.concatenate([np.zeros((reader.channels, 0)), *reader.blocks(1000)], axis=1)


def pages(content: bytes) -> list[bytes]:
    reader = PageReader(io.BytesIO(content).read)
    return [page.data for page in iter(reader.next, None)]


@pytest.mark.parametrize("frames", [1, 100, 5000, 60000])
def test_the_length_is_that_of_the_last_page(frames: int) -> None:
    reader, wave = read(vorbis(frames))
    assert wave.shape == (1, frames)
    assert reader.warnings == []


def test_chained_streams_are_all_read_each_to_its_end() -> None:
    parts = [vorbis(32000), vorbis(48000), vorbis(777)]
    reader, wave = read(b"".join(parts))
    expected = np.concatenate([read(part)[1] for part in parts], axis=1)
    np.testing.assert_array_equal(wave, expected)
    assert reader.warnings == []


def test_a_chain_keeps_the_rate_and_layout_of_its_first_stream() -> None:
    reader, wave = read(vorbis(32000, channels=2) + vorbis(48000) + vorbis(22050, 22050))
    assert (reader.sample_rate, wave.shape) == (16000, (2, 32000 + 48000 + 16000))
    assert ["mono at 16000 Hz at 2.0 s" in reader.warnings[0], "22050 Hz at 5.0 s" in reader.warnings[1]] == [True] * 2
    np.testing.assert_array_equal(wave[0, 40000:], wave[1, 40000:])


def test_streams_of_other_codecs_are_chained_too(tmp_path: Path) -> None:
    mux(tmp_path / "a.oga", signal(48000, 1, 1), 48000, "flac", container="ogg")
    mux(tmp_path / "a.opus", signal(48000, 1, 1), 48000, "libopus", container="ogg")
    joined = (tmp_path / "a.oga").read_bytes() + (tmp_path / "a.opus").read_bytes()
    assert read(joined)[1].shape == (1, 96000)


def test_parts_of_a_chain_that_cannot_be_read_are_counted() -> None:
    unknown = b"OggS\0" + bytes([FIRST | LAST]) + bytes(20) + b"\1\7unknown"
    unknown = unknown[:22] + checksum(unknown).to_bytes(4, "little") + unknown[26:]
    reader, wave = read(vorbis(8000) + 8 * 2 * unknown + vorbis(8000))
    assert wave.shape == (1, 16000)
    assert [line.endswith("this part of a chain is left out") for line in reader.warnings] == [True] * 5 + [False]
    assert reader.warnings[5].endswith(": 3 more parts of a chain are left out")


def test_a_damaged_page_becomes_silence_and_is_reported() -> None:
    content = vorbis(16000 * 20)
    whole, wave = read(content)
    parts = pages(content)
    middle = len(parts) // 2
    damaged = bytearray(parts[middle])
    damaged[-10] ^= 1
    for broken in ([*parts[:middle], bytes(damaged), *parts[middle + 1 :]], parts[:middle] + parts[middle + 1 :]):
        reader, repaired = read(b"".join(broken))
        assert repaired.shape == wave.shape
        assert "are replaced by silence" in reader.warnings[0]
        np.testing.assert_array_equal(repaired[:, -16000:], wave[:, -16000:])
    assert whole.warnings == []


def test_a_capture_is_read_from_the_first_stream_that_begins_in_it() -> None:
    first = b"".join(pages(vorbis(16000 * 5))[3:])
    reader, wave = read(first + vorbis(16000))
    assert wave.shape == (1, 16000)
    assert reader.warnings == []
    with pytest.raises(InputError, match="the beginning of its stream is missing"):
        AudioReader(first)


def test_a_missing_end_is_reported() -> None:
    content = vorbis(16000 * 10)
    for cut in (content[: len(content) // 2], b"".join(pages(content)[:-1])):
        assert "the end of the file is missing" in read(cut)[0].warnings[0]


def test_checksums_are_those_of_the_encoder() -> None:
    (page, *_) = pages(vorbis(100))
    assert checksum(page[:22] + bytes(4) + page[26:]) == int.from_bytes(page[22:26], "little")


def test_opus_is_read_at_48_khz_and_its_origin_is_known(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.opus", noise(16000).T, 16000, "OPUS", format="OGG")
    reader, wave = read(tmp_path / "a.opus")
    assert (reader.sample_rate, reader.encoded_rate, wave.shape, reader.frames) == (48000, 16000, (1, 48000), 48000)
    assert read_mono(tmp_path / "a.opus", 16000)[1] == 16000
