"""Write the table of readable formats: python tools/format_table.py [--write docs/guides/formats.md]

Every format is encoded by FFmpeg's libraries (PyAV), libsndfile or by hand, and read back: whether that works, whether
the length is that of FFmpeg's own decoding to the sample, whether its title is read, whether a pipe gives the same
samples, and whether the missing end of a file cut at two thirds is reported.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import struct
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import soundfile

from audiosr_cli.audio.metadata.read import read_metadata
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.wav import WavFormat, encode, header
from audiosr_cli.errors import InputError

SECONDS = 3.3
TITLE = "A title"
_BEGIN, _END = "<!-- formats: begin -->", "<!-- formats: end -->"


def signal(rate: int, channels: int, seconds: float = SECONDS) -> np.ndarray:
    """Return a signal (C, T) float32 of that rate in Hz: tones that differ by channel, and some noise."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal((channels, len(time))) * 0.02
    tones = [0.3 * np.sin(2 * np.pi * 220 * (i + 1) * time) * (1 + np.sin(6 * time)) / 2 for i in range(channels)]
    return (np.stack(tones) + noise).astype(np.float32)


def mux(
    path: Path,
    wave: np.ndarray,
    rate: int,
    codec: str,
    container: str | None = None,
    options: dict[str, str] | None = None,
    bit_rate: int | None = None,
    video: bool = False,
    streams: int = 1,
    quality: int | None = None,
) -> None:
    """Encode a signal (C, T) with PyAV.

    Args:
        path: Where to.
        wave: The signal.
        rate: Hz.
        codec: FFmpeg's name of the encoder.
        container: FFmpeg's name of the format; by default that of the suffix.
        options: Of the muxer and the encoder.
        bit_rate: Bits a second.
        video: Whether there are pictures, too.
        streams: Number of streams with the same sound, each with half the level of the one before.
        quality: Of a variable bitrate, in the encoder's units.
    """
    layout = {1: "mono", 2: "stereo"}[len(wave)]
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        output.metadata["title"] = TITLE
        pictures = output.add_stream("mpeg4", rate=10) if video else None
        if pictures is not None:
            pictures.width = pictures.height = 64
            pictures.pix_fmt = "yuv420p"
        sounds = []
        for _ in range(streams):
            sound = output.add_stream(codec, rate=rate, layout=layout, options=options or {})
            if bit_rate:
                sound.bit_rate = bit_rate
            if quality is not None:
                sound.codec_context.flags |= av.codec.context.Flags.qscale
                sound.codec_context.global_quality = quality * 118
            sounds.append(sound)
        if pictures is not None:
            for i in range(int(wave.shape[1] / rate * 10)):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * (i % 10), np.uint8), "rgb24")
                output.mux(pictures.encode(frame))
            output.mux(pictures.encode())
        for i, sound in enumerate(sounds):
            _encode(output, sound, wave * np.float32(0.5**i), rate, layout)


def _encode(
    output: av.container.OutputContainer, sound: av.AudioStream, wave: np.ndarray, rate: int, layout: str
) -> None:
    resampler = av.AudioResampler(format=sound.format, layout=layout, rate=rate, frame_size=sound.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), "fltp", layout)
    frame.sample_rate, frame.pts = rate, 0
    for ready in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(sound.encode(ready))
    output.mux(sound.encode(None))


def dsf(path: Path, wave: np.ndarray, rate: int) -> None:
    """Write DSD in Sony's container: a first-order sigma-delta modulator at 64 times 44.1 kHz."""
    bits_rate, mono = 2822400, np.repeat(wave[0], 2822400 // rate).astype(np.float64)
    total = np.floor(np.cumsum((mono + 1) / 2))
    bits = np.diff(total, prepend=0.0).astype(np.uint8)
    data = np.packbits(bits, bitorder="little").tobytes()
    data += bytes(-len(data) % 4096)
    fmt = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, bits_rate, 1, len(bits), 4096, 0)
    head = struct.pack("<4sQQQ", b"DSD ", 28, 28 + 52 + 12 + len(data), 0)
    path.write_bytes(head + fmt + struct.pack("<4sQ", b"data", 12 + len(data)) + data)


def sphere(path: Path, wave: np.ndarray, rate: int) -> None:
    """Write NIST's SPHERE format."""
    fields = {"sample_count": wave.shape[1], "sample_n_bytes": 2, "channel_count": len(wave), "sample_rate": rate}
    lines = [f"{name} -i {value}" for name, value in fields.items()]
    lines += ["sample_byte_format -s2 01", "sample_coding -s3 pcm", "end_head"]
    head = ("NIST_1A\n   1024\n" + "\n".join(lines) + "\n").ljust(1024)
    path.write_bytes(head.encode() + np.rint(wave.T * 32767).astype("<i2").tobytes())


def bw64(path: Path, wave: np.ndarray, rate: int) -> None:
    """Write BW64 with its sizes in a ds64 chunk."""
    wav_format = WavFormat(rate, len(wave), 16)
    data = encode(np.rint(wave * 32767).astype(np.int32), wav_format)
    head = header(wav_format, 1 << 31)
    at = head.index(b"ds64") + 8
    sizes = struct.pack("<QQQ", len(head) - 8 + len(data), len(data), wave.shape[1])
    path.write_bytes(b"BW64" + head[4:at] + sizes + head[at + 24 :] + data)


def wide_wav(path: Path, wave: np.ndarray, rate: int) -> None:
    """Write WAV of 24 bits in containers of 4 bytes."""
    count = len(wave)
    fmt = struct.pack("<HHIIHH", 1, count, rate, rate * 4 * count, 4 * count, 24)
    data = (np.rint(wave.T * (2**23 - 1)).astype(np.int64) << 8).astype("<i4").tobytes()
    chunks = b"fmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)


@dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes:
        name: What the row is called.
        suffix: Of the file.
        write: Called with (path, wave, rate).
        rate: Hz.
        channels: Number of channels.
        exact: Whether FFmpeg's own decoding is the measure of the length; otherwise the signal is.
    """

    name: str
    suffix: str
    write: Callable[[Path, np.ndarray, int], None]
    rate: int = 44100
    channels: int = 2
    exact: bool = True


def _muxed(name: str, suffix: str, codec: str, rate: int = 44100, channels: int = 2, **options: object) -> Format:
    return Format(name, suffix, lambda path, wave, hz: mux(path, wave, hz, codec, **options), rate, channels)


def _sndfile(name: str, suffix: str, kind: str, subtype: str | None = None, exact: bool = True) -> Format:
    def write(path: Path, wave: np.ndarray, rate: int) -> None:
        with soundfile.SoundFile(path, "w", rate, len(wave), subtype, format=kind) as file:
            with contextlib.suppress(soundfile.LibsndfileError):  # of formats without titles
                file.title = TITLE
            file.write(wave.T)

    return Format(name, suffix, write, exact=exact)


FORMATS = (
    _sndfile("WAV, 16 bit", "wav", "WAV", "PCM_16"),
    _sndfile("WAV, 32-bit float", "wav", "WAV", "FLOAT"),
    Format("WAV, 24 bit in 4 bytes", "wav", wide_wav, exact=False),
    _sndfile("WAV, mu-law", "wav", "WAV", "ULAW"),
    _muxed("WAV, Microsoft ADPCM", "wav", "adpcm_ms"),
    _muxed("WAV, IMA ADPCM", "wav", "adpcm_ima_wav"),
    _muxed("WAV, G.726", "wav", "g726", 8000, 1),
    _muxed("WAV, MP3", "wav", "libmp3lame"),
    _sndfile("RF64", "rf64", "RF64"),
    Format("BW64", "wav", bw64),
    _sndfile("Wave64", "w64", "W64"),
    _sndfile("AIFF", "aiff", "AIFF"),
    _sndfile("CAF", "caf", "CAF"),
    _sndfile("AU", "au", "AU"),
    _sndfile("FLAC", "flac", "FLAC"),
    _muxed("MP3, constant bitrate", "mp3", "libmp3lame", bit_rate=64000),
    _muxed("MP3, variable bitrate", "mp3", "libmp3lame", quality=4),
    _muxed("MP3 without a tag", "mp3", "libmp3lame", options={"write_xing": "0", "id3v2_version": "0"}),
    _muxed("MP2", "mp2", "mp2"),
    _muxed("AAC (ADTS)", "aac", "aac"),
    _muxed("AC-3", "ac3", "ac3"),
    _muxed("E-AC-3", "eac3", "eac3"),
    _muxed("M4A, AAC", "m4a", "aac", container="ipod"),
    _muxed("M4A, ALAC", "m4a", "alac", container="ipod"),
    _muxed("MP4 with video", "mp4", "aac", video=True),
    _muxed("MP4 with its index first", "mp4", "aac", video=True, options={"movflags": "faststart"}),
    _muxed("MOV, PCM", "mov", "pcm_s24le", video=True),
    _muxed("Matroska with video, FLAC", "mkv", "flac", video=True),
    _muxed("WebM, Opus", "webm", "libopus", 48000),
    _muxed("3GP, AMR", "3gp", "libopencore_amrnb", 8000, 1),
    _sndfile("Ogg Vorbis", "ogg", "OGG", "VORBIS"),
    _muxed("Opus", "opus", "libopus", 48000, container="ogg"),
    _muxed("Ogg FLAC", "oga", "flac", container="ogg"),
    _muxed("AMR-NB", "amr", "libopencore_amrnb", 8000, 1),
    _muxed("WMA", "wma", "wmav2", container="asf", bit_rate=128000),
    _muxed("WavPack", "wv", "wavpack"),
    _muxed("True Audio", "tta", "tta"),
    _muxed("G.722", "g722", "g722", 16000, 1),
    _muxed("AVI, MP3", "avi", "libmp3lame", video=True),
    _muxed("FLV, MP3", "flv", "libmp3lame", video=False),
    _muxed("MPEG transport stream, AAC", "ts", "aac"),
    Format("NIST SPHERE", "sph", sphere, 16000, 1),
    Format("DSD (DSF)", "dsf", dsf, 44100, 1),
)


@dataclass
class Row:
    """What was found out about a format."""

    name: str
    frames: int | None = None
    expected: int | None = None
    title: bool | None = None
    pipe: bool = False
    reports_truncation: bool = False
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Format the row."""
        difference = None if self.frames is None or self.expected is None else self.frames - self.expected
        length = "–" if difference is None else "exact" if difference == 0 else f"{difference:+d} samples"
        yes = {True: "yes", False: "no", None: "none"}
        cells = (yes[self.frames is not None], length, yes[self.title], yes[self.pipe], yes[self.reports_truncation])
        return f"| {self.name} | {' | '.join(cells)} |"


def read(source: Path | str) -> tuple[np.ndarray, list[str]]:
    """Return all samples (C, T) and the warnings."""
    with AudioReader(source) as reader:
        blocks = list(reader.blocks())
        return np.concatenate([np.zeros((reader.channels, 0), np.float32), *blocks], axis=1), reader.warnings


def ffmpeg_frames(path: Path) -> int:
    """Return how many frames FFmpeg decodes."""
    frames = 0
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            with contextlib.suppress(av.error.InvalidDataError):  # as the ffmpeg command goes on
                frames += sum(frame.samples for frame in packet.decode())
    return frames


def has_title(path: Path) -> bool | None:
    """Return whether a file's title is read; None if it has none."""
    if read_metadata(path).tags.get("title") == TITLE:
        return True
    with av.open(str(path)) as container:
        everywhere = [container.metadata, *(stream.metadata for stream in container.streams)]
    return False if any(TITLE in tags.values() for tags in everywhere) else None


def read_pipe(content: bytes, folder: Path) -> np.ndarray:
    """Return the samples that are read when the bytes come from a named pipe."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=_feed, args=(pipe, content))
    feeder.start()
    try:
        return read(pipe)[0]
    finally:
        feeder.join()
        pipe.unlink()


def _feed(pipe: Path, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        pipe.write_bytes(content)


def reports_truncation(content: bytes, path: Path) -> bool:
    """Return whether a file with this content, which is cut, has a warning or is refused."""
    path.write_bytes(content)
    try:
        return bool(read(path)[1])
    except InputError:
        return True


def examine(form: Format, folder: Path, seconds: float = SECONDS) -> Row:
    """Encode, read and cut one format."""
    row, wave = Row(form.name), signal(form.rate, form.channels, seconds)
    path = folder / f"a.{form.suffix}"
    form.write(path, wave, form.rate)
    content = path.read_bytes()
    row.expected = ffmpeg_frames(path) if form.exact else wave.shape[1]
    try:
        samples, warnings = read(path)
        row.frames = samples.shape[1]
        row.problems += warnings
        row.pipe = np.array_equal(read_pipe(content, folder), samples)
    except InputError as error:
        row.problems.append(str(error))
    row.title = has_title(path)
    row.reports_truncation = reports_truncation(content[: len(content) * 2 // 3 + 1], path)
    path.unlink()
    return row


def table(rows: list[Row]) -> str:
    """Format all rows."""
    head = "| Format | Read | Length against FFmpeg's | Tags | Same from a pipe | Truncation is reported |"
    return "\n".join([head, "|---|---|---|---|---|---|", *(row.line() for row in rows)])


def main() -> None:
    """Print the table, or write it into a page between its two markers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page that has the table between its markers")
    page = parser.parse_args().write
    with tempfile.TemporaryDirectory() as folder:
        rows = [examine(form, Path(folder)) for form in FORMATS]
    for row in rows:
        for problem in row.problems:
            print(f"{row.name}: {problem}")
    if page is None:
        print(table(rows))
        return
    before, rest = page.read_text(encoding="utf-8").split(_BEGIN)
    after = rest.split(_END)[1]
    page.write_text(f"{before}{_BEGIN}\n{table(rows)}\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
