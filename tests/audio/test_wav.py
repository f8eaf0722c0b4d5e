"""audio/wav.py: headers and samples compared with libsndfile, and wrong headers."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noise

from audiosr_cli.audio.decoders.wav import WavDecoder, WavReader
from audiosr_cli.audio.decoders.wav_samples import CodecError
from audiosr_cli.audio.wav import WavFormat, WavWriter, encode, header
from audiosr_cli.errors import InputError

PCM = {"PCM_16": (16, False), "PCM_24": (24, False), "PCM_32": (32, False), "FLOAT": (32, True)}


def iter_blocks(decoder: WavDecoder, frames: int) -> Iterator[np.ndarray]:
    while (block := decoder.read(frames)).shape[1]:
        yield block


def read_all(stream: io.BytesIO, block: int = 1000) -> tuple[WavReader, np.ndarray]:
    reader = WavReader(stream, "test.wav")
    blocks = [np.zeros((reader.format.channels, 0), np.float32)]
    while (samples := reader.read(block)).shape[1]:
        blocks.append(samples)
    return reader, np.concatenate(blocks, axis=1)


def integers(frames: int, channels: int, bits: int) -> np.ndarray:
    limit = 2 ** (bits - 1)
    return np.random.default_rng(1).integers(-limit, limit, (channels, frames)).astype(np.int32)


@pytest.mark.parametrize("subtype", [*PCM, "DOUBLE", "PCM_U8"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_reads_what_libsndfile_writes(subtype: str, kind: str, channels: int) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, noise(777, channels).T, 44100, subtype, format=kind)
    stream.seek(0)
    expected, rate = soundfile.read(stream, dtype="float32", always_2d=True)
    stream.seek(0)
    reader, wave = read_all(stream, 100)
    assert (reader.format.sample_rate, reader.format.subtype, reader.frames) == (rate, subtype, 777)
    np.testing.assert_array_equal(wave, expected.T)
    assert reader.warnings == []


def test_reads_big_endian() -> None:
    stream = io.BytesIO()
    soundfile.write(stream, noise(300, 2).T, 16000, "PCM_24", endian="BIG", format="WAV")
    assert stream.getvalue()[:4] == b"RIFX"
    stream.seek(0)
    expected, _ = soundfile.read(stream, dtype="float32")
    stream.seek(0)
    np.testing.assert_array_equal(read_all(stream)[1], expected.T)


@pytest.mark.parametrize("subtype", PCM)
@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize("frames", [0, 1, 501])
@pytest.mark.parametrize("seekable", [True, False])
def test_libsndfile_reads_what_we_write(
    subtype: str, channels: int, frames: int, seekable: bool, tmp_path: Path
) -> None:
    bits, is_float = PCM[subtype]
    samples = noise(frames, channels) if is_float else integers(frames, channels, bits)
    wav_format = WavFormat(48000, channels, bits, is_float)
    with open(tmp_path / "a.wav", "wb") as stream:
        writer = WavWriter(stream, wav_format, seekable)
        writer.write(samples[:, : frames // 2])
        writer.write(samples[:, frames // 2 :])
        writer.close()
    scale = 1.0 if is_float else 2.0 ** (bits - 1)
    _, wave = read_all(io.BytesIO((tmp_path / "a.wav").read_bytes()))
    np.testing.assert_array_equal(wave, (samples / scale).astype(np.float32))
    if seekable:
        expected, rate = soundfile.read(tmp_path / "a.wav", dtype="float64", always_2d=True)
        assert (rate, soundfile.info(tmp_path / "a.wav").subtype) == (48000, subtype)
        np.testing.assert_array_equal(expected.T, samples / scale)


def test_header_becomes_rf64_past_4_gib() -> None:
    wav_format = WavFormat(44100, 2, 16)
    small, huge = header(wav_format, 100), header(wav_format, 2**31)
    assert len(small) == len(huge) == len(header(wav_format, None))
    assert (small[:4], small[12:16]) == (b"RIFF", b"JUNK")
    assert (huge[:4], huge[12:16]) == (b"RF64", b"ds64")
    total, data, frames = struct.unpack("<QQQ", huge[20:44])
    assert (data, frames, total) == (2**33, 2**31, len(huge) - 8 + 2**33)
    reader = WavReader(io.BytesIO(huge), "huge.wav")
    assert reader.frames == 2**31


def test_other_chunks_after_an_empty_data_chunk_are_no_samples() -> None:
    reader, wave = read_all(io.BytesIO(header(WavFormat(8000, 1, 16), 0) + b"LIST\x04\0\0\0abcd"))
    assert wave.shape == (1, 0)
    assert "no samples" in reader.warnings[0]


@pytest.mark.parametrize(
    ("size", "bits", "channels"),
    [
        (0xFFFFFFFF, 16, 1),
        (0x7FFFF000, 16, 1),
        (0x7FFFF000 // 9 * 9, 24, 3),
        (0x7FFFF000 // 12 * 12, 16, 6),
        (0, 16, 1),
    ],
)
def test_open_sizes_are_read_to_the_end(size: int, bits: int, channels: int) -> None:
    """Streaming writers leave all ones, SoX the most whole frames below 2 GiB, an interrupted writer zero."""
    wav_format, samples = WavFormat(8000, channels, bits), integers(321, channels, bits)
    head = header(wav_format, 321)
    stream = io.BytesIO(head[:-4] + struct.pack("<I", size) + encode(samples, wav_format))
    reader, wave = read_all(stream)
    assert reader.frames is None
    np.testing.assert_array_equal(wave * 2.0 ** (bits - 1), samples)
    assert len(reader.warnings) == (size == 0)


def test_truncated_data_keeps_whole_frames_and_warns() -> None:
    wav_format, samples = WavFormat(8000, 2, 16), integers(100, 2, 16)
    whole = header(wav_format, 100) + encode(samples, wav_format)
    reader, wave = read_all(io.BytesIO(whole[:-41]))
    np.testing.assert_array_equal(wave * 32768, samples[:, :89])
    assert len(reader.warnings) == 2
    assert "earlier than its header says" in reader.warnings[0]


def test_chunks_after_the_data_are_no_samples() -> None:
    wav_format, samples = WavFormat(8000, 1, 16), integers(10, 1, 16)
    stream = io.BytesIO(header(wav_format, 10) + encode(samples, wav_format) + b"LIST\x04\0\0\0abcd")
    assert read_all(stream)[1].shape == (1, 10)


def test_a_file_without_samples_has_a_warning() -> None:
    reader, wave = read_all(io.BytesIO(header(WavFormat(8000, 1, 16), 0)))
    assert wave.shape == (1, 0)
    assert "no samples" in reader.warnings[0]


def fmt(codec: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16) -> bytes:
    return struct.pack("<HHIIHH", codec, channels, rate, 0, 0, bits)


def riff(*chunks: tuple[bytes, bytes]) -> io.BytesIO:
    body = b"".join(tag + struct.pack("<I", len(content)) + content for tag, content in chunks)
    return io.BytesIO(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (io.BytesIO(b"RIFF\0\0\0\0WA"), "header ends"),
        (io.BytesIO(b"RIFF\0\0\0\0JUNK"), "not a WAV"),
        (riff(), "without a 'fmt'"),
        (riff((b"data", b"")), "without a 'fmt'"),
        (riff((b"fmt ", fmt())), "without a 'data'"),
        (riff((b"fmt ", fmt()[:10])), "format chunk has 10 bytes"),
        (riff((b"fmt ", fmt(channels=0)), (b"data", b"")), "0 channels"),
        (riff((b"fmt ", fmt(channels=65535)), (b"data", b"")), "65535 channels"),
        (riff((b"fmt ", fmt(rate=0)), (b"data", b"")), "sample rate is 0 Hz"),
        (riff((b"fmt ", fmt(rate=2**31)), (b"data", b"")), "sample rate is 2147483648 Hz"),
        (riff((b"fmt ", fmt(bits=0)), (b"data", b"")), "0-bit"),
        (riff((b"fmt ", fmt(bits=64)), (b"data", b"")), "64-bit"),
        (io.BytesIO(b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\x7fabc"), "claims"),
    ],
)
def test_damaged_and_implausible_headers_are_refused(stream: io.BytesIO, message: str) -> None:
    stream.seek(0)
    with pytest.raises(InputError, match=message) as caught:
        WavReader(stream, "bad.wav")
    assert str(caught.value).startswith("bad.wav: ")


def test_other_codecs_have_an_error_of_their_own() -> None:
    with pytest.raises(CodecError):
        WavReader(riff((b"fmt ", fmt(codec=7, bits=8)), (b"data", b"")), "mulaw.wav")


def test_12_bits_are_left_justified_in_16() -> None:
    reader = WavReader(riff((b"fmt ", fmt(bits=12)), (b"data", b"\x00\x40")), "a.wav")
    np.testing.assert_array_equal(reader.read(10), [[0.5]])


def in_containers(samples: np.ndarray, bits: int, low: bool, order: str = "<", channels: int = 1) -> io.BytesIO:
    """A file whose samples of ``bits`` are in 4 bytes each, at their top or (``low``) at their bottom."""
    wide = samples.T.astype(np.int64) << (0 if low else 32 - bits)
    form = struct.pack(f"{order}HHIIHH", 1, channels, 8000, 8000 * 4 * channels, 4 * channels, bits)
    stream = riff((b"fmt ", form), (b"data", wide.astype(f"{order}i4").tobytes()))
    if order == "<":
        return stream
    data = stream.getvalue()
    swapped = b"RIFX" + data[4:16] + struct.pack(">I", 16) + data[20:40] + struct.pack(">I", wide.size * 4) + data[44:]
    return io.BytesIO(swapped)


@pytest.mark.parametrize("low", [False, True], ids=["top", "bottom"])
@pytest.mark.parametrize(("order", "channels"), [("<", 1), ("<", 2), (">", 1)])
def test_24_bits_in_4_bytes_are_read_wherever_they_are(order: str, channels: int, low: bool) -> None:
    samples = integers(300, channels, 24)
    samples[:, :50] = 0
    reader, wave = read_all(in_containers(samples, 24, low, order, channels), 40)
    np.testing.assert_array_equal(wave * 2.0**23, samples)
    assert (reader.frames, reader.format.subtype, reader.warnings) == (300, "PCM_24", [])


def test_a_block_alignment_that_its_byte_rate_contradicts_is_ignored() -> None:
    samples = integers(100, 1, 16)
    form = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 4, 16)
    _, wave = read_all(riff((b"fmt ", form), (b"data", encode(samples, WavFormat(8000, 1, 16)))))
    np.testing.assert_array_equal(wave * 32768, samples)


def joined(*sizes: int | None) -> tuple[bytes, np.ndarray]:
    wav_format, samples = WavFormat(8000, 1, 16), integers(101, 1, 16)
    data = encode(samples, wav_format) + b"LIST\x04\0\0\0abcd"
    whole = [header(wav_format, size) + (data if size else encode(samples, wav_format)) for size in sizes]
    return b"".join(whole), np.concatenate([samples] * len(sizes), axis=1)


@pytest.mark.parametrize("sizes", [(101, 101), (101, None), (None, 101), (None, None, None)])
@pytest.mark.parametrize("block", [7, 1000])
def test_files_that_were_joined_are_all_read(sizes: tuple[int | None, ...], block: int) -> None:
    content, samples = joined(*sizes)
    reader, wave = read_all(io.BytesIO(content), block)
    np.testing.assert_array_equal(wave[:, : samples.shape[1]] * 32768, samples)
    assert wave.shape[1] - samples.shape[1] in (0, 6)  # the last chunk of an open size has no end
    assert reader.warnings == []


@pytest.mark.parametrize("sizes", [(None, 101), (None, None), (None, 0)])
def test_joined_files_are_read_in_blocks_that_get_smaller(sizes: tuple[int | None, ...]) -> None:
    content, samples = joined(*sizes)
    reader = WavReader(io.BytesIO(content), "test.wav")
    blocks = [reader.read(190)]  # holds the end of the first file and, still undecoded, some of the second
    while (block := reader.read(9)).shape[1]:
        blocks.append(block)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1)[:, : samples.shape[1]] * 32768, samples)


@pytest.mark.parametrize("block", [7, 1000])
def test_a_joined_file_of_another_sample_type_is_read_as_it_is(block: int) -> None:
    content, samples = joined(101)
    floats = np.linspace(-1, 1, 6, dtype=np.float32)
    other = header(WavFormat(8000, 1, 32, is_float=True), 6) + floats.tobytes()
    decoder = WavDecoder(io.BytesIO(content + other + content), "a.wav")
    wave = np.concatenate(list(iter_blocks(decoder, block)), axis=1)
    np.testing.assert_array_equal(wave[:, :101] * 32768, samples)
    np.testing.assert_array_equal(wave[:, 101:107], floats[None])
    np.testing.assert_array_equal(wave[:, 107:] * 32768, samples)
    assert decoder.warnings == []


@pytest.mark.parametrize("block", [7, 1000])
def test_joined_files_of_another_rate_and_layout_are_converted_and_told(block: int) -> None:
    content, samples = joined(101)
    other = header(WavFormat(16000, 2, 16), 100) + bytes(400)
    decoder = WavDecoder(io.BytesIO(content + other + content), "a.wav")
    wave = np.concatenate(list(iter_blocks(decoder, block)), axis=1)
    assert wave.shape == (1, 101 + 50 + 101)
    np.testing.assert_array_equal(wave[:, :101] * 32768, samples)
    np.testing.assert_array_equal(wave[:, 151:] * 32768, samples)
    assert "changes to stereo at 16000 Hz at 0.0 s; converted to mono at 8000 Hz" in decoder.warnings[0]
    assert len(decoder.warnings) == 2


def test_a_second_data_chunk_is_read_too() -> None:
    samples = integers(100, 1, 16)
    half = encode(samples[:, :50], WavFormat(8000, 1, 16)), encode(samples[:, 50:], WavFormat(8000, 1, 16))
    content = riff((b"fmt ", fmt()), (b"data", half[0]), (b"LIST", bytes(4)), (b"data", half[1]))
    reader, wave = read_all(content)
    np.testing.assert_array_equal(wave * 32768, samples)
    assert reader.warnings == []


def test_a_joined_file_that_cannot_be_read_is_told() -> None:
    content, samples = joined(101)
    compressed = riff((b"fmt ", fmt(codec=7, bits=8)), (b"data", bytes(8))).getvalue()
    for other, reason in ((compressed, "codec 0x0007"), (b"fLaC" + bytes(50), r"another file \(fLaC\)")):
        reader, wave = read_all(io.BytesIO(content + other))
        np.testing.assert_array_equal(wave * 32768, samples)
        assert re.search(reason, reader.warnings[0])


def test_bw64_is_read_like_rf64(tmp_path: Path) -> None:
    from encoded_files import format_table

    samples = noise(500, 2)
    format_table.bw64(tmp_path / "a.wav", samples, 48000)
    reader, wave = read_all(io.BytesIO((tmp_path / "a.wav").read_bytes()))
    assert reader.frames == 500
    np.testing.assert_allclose(wave, samples, atol=1 / 32768)
