"""Which decoder a recording needs: its content decides, not its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.decoders import libav
from audiosr_cli.audio.decoders.elementary import find_kind, id3_size, is_free_format
from audiosr_cli.audio.decoders.flac import FlacDecoder
from audiosr_cli.audio.decoders.libav import ByteInput, FileInput
from audiosr_cli.audio.decoders.media import MediaDecoder, OggTracks, OneTrack
from audiosr_cli.audio.decoders.mpeg import FrameDecoder
from audiosr_cli.audio.decoders.ogg import find_frames
from audiosr_cli.audio.decoders.sndfile import SoundFileDecoder
from audiosr_cli.audio.decoders.source import ByteSource
from audiosr_cli.audio.decoders.track import Track
from audiosr_cli.audio.decoders.wav import WavDecoder
from audiosr_cli.audio.decoders.wav_samples import CodecError
from audiosr_cli.audio.wav import MAGICS
from audiosr_cli.errors import InputError

# Files besides FLAC that libsndfile reads exactly: AIFF, CAF, AU, Wave64.
_SNDFILE_MAGIC = (b"FORM", b"caff", b".snd", b"dns.", b"riff\x2e\x91\xcf\x11")
# Containers that FFmpeg reads from a pipe without going back: Matroska and WebM, AMR, FLV, MPEG program streams.
_STREAMED_MAGIC = (b"\x1a\x45\xdf\xa3", b"#!AMR", b"FLV\x01", b"\0\0\x01\xba")
# Other containers, in which frames of MPEG audio may lie one after the other.
_CONTAINER_MAGIC = (b"\x30\x26\xb2\x75", b".RMF", b"wvpk", b"MAC ", b"TTA1", b"DSD ", b"tBaK", b"ajkg", b"NIST_1A")
_TS_PACKET = 188
# Formats without a header, known by the name only. ITU-T G.722 at 64 kbit/s, and G.726 at 32 kbit/s, both as sent.
_HEADERLESS = {".g722": "g722", ".722": "g722", ".g726": "g726"}
_HEAD_BYTES = 1 << 16
_TAG_BYTES = 1 << 14  # of a pipe, in which its tags are looked for
_MAX_SKIPPED_BYTES = 1 << 25  # of zeros and tags before the first frame, which may hold cover art; of a pipe in memory


class Decoder(Protocol):
    """A decoder that has opened a recording.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        subtype: libsndfile's name of the sample type, or the codec's name if it loses something.
        frames: Samples of each channel according to the header, which may be wrong; None if it does not say.
        warnings: What is wrong with the recording; complete at its end.
        notes: What else there is to say; complete at its end.
    """

    sample_rate: int
    channels: int
    subtype: str
    frames: int | None
    warnings: list[str]
    notes: list[str]

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read up to ``frames`` frames: (C, T) float32, full scale 1.0; T is 0 at the end."""

    def close(self) -> None:
        """Release what is held, but not the source."""


def open_decoder(source: ByteSource, audio_stream: int | None = None) -> Decoder:
    """Open a recording with the decoder that fits it.

    Args:
        source: The recording, at its first byte.
        audio_stream: Which of its streams of sound is read, counted from 1; None for the default one.

    Returns:
        The open decoder, which reads from ``source``.

    Raises:
        InputError: If it cannot be read as audio, or there is no such stream.
    """
    head = source.head(_TS_PACKET + 1)
    if not head:
        raise InputError(f"{source.name}: is empty; expected an audio file")
    if head[:4] == b"OggS" and libav.is_available():
        return _open_ogg(source, audio_stream)
    is_streamed = head.startswith(_STREAMED_MAGIC) or (head[0] == 0x47 and head[-1] == 0x47 and len(head) > _TS_PACKET)
    if is_streamed and libav.is_available():
        return _open_media(source, audio_stream)
    is_container = head[4:8] == b"ftyp" or head.startswith(_CONTAINER_MAGIC) or head[8:12] in (b"AVI ", b"CDXA")
    decoder = None
    if not is_container:
        decoder = _open_single(source, head)
    if decoder is None:
        return _open_any(source, audio_stream)
    if audio_stream not in (None, 1):
        decoder.close()
        raise InputError(f"{source.name}: --audio-stream {audio_stream}: it has only 1")
    return decoder


def _open_single(source: ByteSource, head: bytes) -> Decoder | None:
    """Open a recording whose format holds one stream of sound; None if it is of another."""
    if head[:4] in MAGICS and (head[8:12] == b"WAVE" or len(head) < 12):
        return _open_wav(source)
    if head.startswith(b"fLaC"):
        return _attempt(lambda: FlacDecoder(source.file(), source.name))
    if head.startswith(_SNDFILE_MAGIC):
        return _attempt(lambda: SoundFileDecoder(source.file(), source.name))
    start = _skip_to_sound(source)
    if start is None or not libav.is_available():
        return None
    beginning = source.head(start + _HEAD_BYTES, start)
    if beginning.startswith(b"fLaC"):
        return _attempt(lambda: FlacDecoder(source.file(), source.name, start))
    if beginning[:4] in MAGICS and beginning[8:12] == b"WAVE":
        return _open_wav(source, start)
    if is_free_format(beginning):  # which FFmpeg refuses
        decoder = SoundFileDecoder(source.file(), source.name)
        decoder.frames = None  # an estimate
        return decoder
    if find_kind(beginning) is None:
        return None
    source.commit()
    return FrameDecoder(source.read, source.name)


def _open_wav(source: ByteSource, start: int = 0) -> Decoder | None:
    """Open a WAV file behind ``start`` bytes of tags and zeros; None if its codec is for FFmpeg."""
    skipped = 0
    while skipped < start:
        skipped += len(source.read(start - skipped))
    try:
        decoder = WavDecoder(source, source.name)
        source.commit()
        return decoder
    except CodecError as error:
        source.rewind()
        return _attempt(lambda: SoundFileDecoder(source.file(), source.name)) if error.codec in (6, 7) else None


def _attempt(open_it: Callable[[], Decoder]) -> Decoder | None:
    """Return what ``open_it`` opens; None if that is not possible but another decoder may be."""
    try:
        return open_it()
    except InputError:
        if not libav.is_available():
            raise
        return None


def _skip_to_sound(source: ByteSource) -> int | None:
    """Return the bytes of zeros and ID3 tags before the first sound; None if there are too many."""
    start = 0
    while True:
        head = source.head(start + _HEAD_BYTES, start)
        step = id3_size(head) or len(head) - len(head.lstrip(b"\0"))
        start += step
        if not step:
            return start
        if start > _MAX_SKIPPED_BYTES:
            return None


def _open_ogg(source: ByteSource, audio_stream: int | None) -> Decoder:
    frames = find_frames(source.file()) if source.seekable() else None
    if source.seekable():
        source.file()
    else:
        source.head(_TAG_BYTES)
        source.rewind()
    source.commit()
    decoder = MediaDecoder(OggTracks(source.read, source.name, audio_stream), source.name)
    decoder.frames = frames
    return decoder


def _open_media(source: ByteSource, audio_stream: int | None, demuxer: str | None = None) -> Decoder:
    """Open a container with FFmpeg, a pipe without a copy."""
    if source.seekable():
        data: ByteInput = FileInput(source.file(), source.name)
    else:
        source.head(_TAG_BYTES)
        source.rewind()
        source.commit()
        data = ByteInput(source.read, source.name)
    return MediaDecoder(OneTrack(Track(data, source.name, audio_stream, demuxer)), source.name)


def _open_any(source: ByteSource, audio_stream: int | None) -> Decoder:
    """Open a recording without a known signature: with FFmpeg, with libsndfile, or by its name if it has no header."""
    stream = source.file()
    problem: InputError | None = None
    if libav.is_available():
        try:
            return _open_media(source, audio_stream)
        except InputError as error:
            problem = error
    stream.seek(0)
    head = stream.read(4)
    # MP3 that FFmpeg refuses, also in WAV, makes libsndfile's decoder write to standard error.
    seems_mpeg = head[:3] == b"ID3" or head in MAGICS or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
    try:
        if audio_stream in (None, 1) and not (seems_mpeg and problem is not None):
            return SoundFileDecoder(source.file(), source.name)
    except InputError as error:
        if problem is None:
            raise InputError(f"{error}; other formats need PyAV, which is missing: pip install av") from error
    suffix = source.path.suffix.lower() if source.path is not None else ""
    if suffix in _HEADERLESS and libav.is_available():
        return _open_media(source, audio_stream, _HEADERLESS[suffix])
    libav.require(source.name)
    assert problem is not None
    raise problem
