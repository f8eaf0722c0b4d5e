"""Encoders of FFmpeg's libraries: lossy formats, FLAC and the containers of videos, with tags and cover art."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from math import inf, lcm
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.encoders.disk_file import DiskFile
from audiosr_cli.audio.encoders.remux import VideoSource
from audiosr_cli.audio.formats import BITS, OutputFormat, default_bitrate
from audiosr_cli.audio.metadata import mp4_tags
from audiosr_cli.audio.metadata.cover import Picture
from audiosr_cli.audio.metadata.fitting import CAPACITIES
from audiosr_cli.audio.metadata.types import Marker, Metadata
from audiosr_cli.errors import OutputError

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.container.core import Chapter

_MUXERS = {  # FFmpeg's names
    "flac": "flac",
    "opus": "opus",
    "mp3": "mp3",
    "m4a": "mp4",  # the one called ipod takes no cover art
    "mp4": "mp4",
    "mov": "mov",
    "mkv": "matroska",
    "webm": "webm",
}
_CODECS = {
    ("flac", "PCM_16"): ("flac", "s16"),
    ("flac", "PCM_24"): ("flac", "s32"),
    ("mkv", "PCM_16"): ("flac", "s16"),
    ("mkv", "PCM_24"): ("flac", "s32"),
    ("mov", "PCM_16"): ("pcm_s16le", "s16"),
    ("mov", "PCM_24"): ("pcm_s24le", "s32"),
}
_LOSSY_CODECS = {"MPEG_LAYER_III": ("libmp3lame", "fltp"), "AAC": ("aac", "fltp"), "OPUS": ("libopus", "flt")}
# Speakers of channels whose positions are unknown. None of them is an LFE channel, of which lossy encoders keep the
# lowest frequencies only.
_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "hexagonal", "7.0", "octagonal")
_SAME_ORDER = {0x60F: 0x3F}  # 5.1 with speakers at the sides: lossy formats know the one with speakers at the back
_AAC_MASKS = {0x7, 0xB, 0x33, 0x107, 0x37, 0x3F, 0x70F, 0x63F}
# FFmpeg's encoder mixes up the channels of 5.0 and 6.1, whose order libopus reads differently.
_OPUS_MASKS = {0x7, 0x33, 0x3F, 0x63F}
_OPUS_DISCRETE = "255"  # the mapping family of channels without positions
_BITEXACT = 0x400  # AVFMT_FLAG_BITEXACT: neither dates nor versions nor random numbers
_BITEXACT_CODEC = 1 << 23  # AV_CODEC_FLAG_BITEXACT
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_SKIP_SAMPLES = 11  # AV_PKT_DATA_SKIP_SAMPLES
_BUFFER_BYTES = 1 << 18
_FRAMES = 1 << 14  # samples a call of the encoder
_MP4 = ("m4a", "mp4", "mov")
_MAX_TIME_SCALE = 1_000_000  # of an MP4 file: 32 bits of its units are more than an hour
# Tags that FFmpeg writes to MP4 and QuickTime files.
_MOV_TAGS = {"title", "artist", "album", "date", "comment", "genre", "copyright"}
_MP4_TAGS = _MOV_TAGS | {
    "album_artist",
    "description",
    "composer",
    "disc",
    "episode_id",
    "grouping",
    "keywords",
    "lyrics",
    "network",
    "show",
    "synopsis",
    "track",
}


def has_encoder(output_format: OutputFormat) -> bool:
    """Return whether the installed FFmpeg libraries write a format."""
    import av

    codec = codec_of(output_format)
    muxer = _MUXERS.get(output_format.container)
    return codec is not None and codec[0] in av.codecs_available and muxer in av.formats_available


def codec_of(output_format: OutputFormat) -> tuple[str, str] | None:
    """Return FFmpeg's names of the encoder and of its sample format; None if libsndfile or our own code writes it."""
    container, subtype = output_format.container, output_format.subtype
    if container not in _MUXERS:
        return None
    return _CODECS.get((container, subtype)) or _LOSSY_CODECS.get(subtype)


class MediaEncoder:
    """Write one file by FFmpeg's libraries.

    Args:
        path: The file, which must not exist.
        output_format: Its format, one for which ``codec_of`` is not None.
        metadata: Its tags, cover art and channel layout.
        name: What the file is called in messages.
        video: What else the file takes along; it is closed at the end.

    Attributes:
        notes: What of the metadata and the video the format cannot hold, one sentence each.

    Raises:
        OSError: If the file cannot be created.
        OutputError: If the encoder refuses the format.
    """

    def __init__(
        self, path: Path, output_format: OutputFormat, metadata: Metadata, name: str, video: VideoSource | None = None
    ) -> None:
        self._format, self._name, self.notes, self._video = output_format, name, list[str](), video
        self._bits = BITS.get(output_format.subtype, 0)
        codec = codec_of(output_format)
        assert codec is not None
        self._codec, self._sample_format = codec
        rate = output_format.sample_rate
        self._done = 0 if video is None else round(video.start_s * rate)  # the time of the next sample
        self._disk = DiskFile(path)
        try:
            what = "" if video is None else f" with {' and '.join(video.codecs)} video"
            with self._translated_errors(f"cannot be written as {output_format.container}{what}"):
                self._open(metadata)
        except BaseException:
            self._disk.close()
            raise

    def _open(self, metadata: Metadata) -> None:
        import av

        container = self._format.container
        self._container = av.open(
            self._disk,
            "w",
            format=_MUXERS[container],
            container_options=self._muxer_options(),
            metadata_errors="replace",
            buffer_size=_BUFFER_BYTES,
        )
        self._container.flags |= _BITEXACT
        if self._video is not None:
            self._video.add_to(self._container, container)
            self.notes += self._video.notes
        self._stream = self._add_sound(metadata)
        cover = self._add_metadata(metadata)
        self._container.start_encoding()
        if cover is not None:
            self._container.mux(cover)

    def _muxer_options(self) -> dict[str, str]:
        if self._format.container in _MP4:  # the time scale makes lengths exact to the sample
            brand = {"brand": "M4A "} if self._format.container == "m4a" else {}
            scale = self._format.sample_rate
            if self._video is not None and lcm(scale, self._video.time_scale) <= _MAX_TIME_SCALE:
                scale = lcm(scale, self._video.time_scale)
            return {"movflags": "+faststart", "movie_timescale": str(scale), **brand}
        return {"id3v2_version": "3"} if self._format.container == "mp3" else {}

    def _add_sound(self, metadata: Metadata) -> AudioStream:
        output_format = self._format
        stream: Any = self._container.add_stream(self._codec, rate=output_format.sample_rate)
        layout, discrete = _layout(self._codec, output_format.channels, metadata.channel_mask)
        if output_format.channels > 2 and metadata.channel_mask and layout in _LAYOUTS:
            self.notes.append(f"{self._name}: {output_format.container} files cannot hold these speaker positions")
        if discrete:
            stream.codec_context.options["mapping_family"] = _OPUS_DISCRETE
        stream.codec_context.layout = layout
        stream.codec_context.format = self._sample_format
        stream.codec_context.flags |= _BITEXACT_CODEC
        if bitrate := output_format.bitrate or default_bitrate(output_format):
            stream.codec_context.bit_rate = bitrate
        if self._video is not None:
            stream.metadata.update(self._video.sound_tags)
            stream.disposition = self._video.sound_disposition
        result: AudioStream = stream
        return result

    def _add_metadata(self, metadata: Metadata) -> av.Packet[Any] | None:
        """Add tags and cover art before the header is written; return the packet of the picture if there is one."""
        container = self._format.container
        tags = {} if self._video is None else dict(self._video.tags)
        tags |= {key: value for key, value in metadata.tags.items() if value}
        known = _MOV_TAGS if container == "mov" else _MP4_TAGS if container in _MP4 else tags.keys()
        if lost := sorted(metadata.tags.keys() - known):
            self.notes.append(
                f"{self._name}: {container} files have no place for the tags {', '.join(lost)}; they are left out"
            )
        if container in ("m4a", "mp4") and metadata.provenance and (slot := mp4_tags.slot(tags)) is not None:
            tags[slot] = mp4_tags.placeholder(metadata.provenance)
        tags.pop("encoder", None)  # FFmpeg would remove it, and put the last tag, the name of a chapter, in its place
        self._container.metadata.update(tags)
        if metadata.markers or self._video is None:  # a video has brought its chapters
            self._container.set_chapters([_chapter(i, marker) for i, marker in enumerate(metadata.markers, 1)])
        if metadata.cover is None:
            return None
        picture = Picture.of(metadata.cover)
        if picture is not None and CAPACITIES[container].cover:
            return _add_picture(self._container, container, picture)
        why = "is neither JPEG nor PNG" if picture is None else f"has no place in {container} files"
        self.notes.append(f"{self._name}: the cover art {why}, and is left out")
        return None

    def write(self, samples: NDArray[np.float32] | NDArray[np.int32]) -> None:
        """Append samples (C, T): floats, or integers in units of the last bit. Raises OutputError or OSError."""
        for start in range(0, samples.shape[1], _FRAMES):
            with self._translated_errors("cannot be written"):
                self._mux(self._stream.encode(self._frame(samples[:, start : start + _FRAMES])))
            self._disk.check()

    def _mux(self, packets: Iterable[Any]) -> None:
        """Write packets of the sound, between those of the video."""
        for packet in packets:
            if (
                self._format.container == "mkv"
                and self._codec == "aac"
                and 0 < packet.duration < self._stream.frame_size
            ):
                _trim(packet, self._stream.frame_size - packet.duration)
            if self._video is not None:
                self._video.copy_until(float(packet.dts * packet.time_base))
            self._container.mux(packet)

    def _frame(self, samples: NDArray[np.float32] | NDArray[np.int32]) -> av.AudioFrame:
        import av

        if self._sample_format == "s32":  # encoders of 24 bits take the upper ones
            samples = samples.astype(np.int32) << (32 - self._bits)
        # Interleaved for all encoders, which reorder them: PyAV crashes on the planes of eight channels.
        packed = self._sample_format.rstrip("p")
        dtype = {"s16": np.int16, "s32": np.int32}.get(packed, np.float32)
        array = np.ascontiguousarray(samples.T, dtype).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(array, packed, self._stream.layout.name)
        frame.sample_rate, frame.pts = self._format.sample_rate, self._done
        frame.time_base = Fraction(1, self._format.sample_rate)
        self._done += samples.shape[1]
        return frame

    def close(self) -> None:
        """Complete the file. Raises OutputError or OSError."""
        with self._translated_errors("cannot be written"):
            self._mux(self._stream.encode(None))
            if self._video is not None:
                self._video.copy_until(inf)
            self._container.close()
        self._disk.check()
        self.abort()

    def abort(self) -> None:
        """Close all files as they are; after ``close`` do nothing."""
        self._disk.abandon()
        self._container.close()
        self._disk.close()
        if self._video is not None:
            self._video.close()

    @contextmanager
    def _translated_errors(self, what: str) -> Iterator[None]:
        """Turn FFmpeg's errors into those of the disk, or else into OutputErrors."""
        from av.error import FFmpegError

        try:
            yield
        except (FFmpegError, ValueError) as error:
            self._disk.check()
            reason = getattr(error, "strerror", None) or error
            hint = "; use mkv" if self._video is not None and self._format.container != "mkv" else ""
            raise OutputError(f"{self._name}: {what}: {reason}{hint}") from error


def _trim(packet: Any, samples: int) -> None:
    """Mark the last ``samples`` that a packet decodes to as padding; of other muxers the length of the packet does."""
    from av.packet import PacketSideData

    padding: Any = PacketSideData(_SKIP_SAMPLES, 10)  # type: ignore[call-arg]
    padding.update(struct.pack("<2I2B", 0, samples, 0, 0))
    packet.set_sidedata(padding)


def _layout(codec: str, channels: int, mask: int) -> tuple[str, bool]:
    """Return FFmpeg's name of a channel layout, that of WAVE's ``mask`` if possible; and whether Opus has none."""
    mask = _SAME_ORDER.get(mask, mask) if codec in ("aac", "libopus") else mask
    if codec == "libopus" and channels > 2:
        return (f"0x{mask:x}", False) if mask in _OPUS_MASKS else (_LAYOUTS[channels - 1], True)
    if channels <= 2 or mask.bit_count() != channels or (codec == "aac" and mask not in _AAC_MASKS):
        return _LAYOUTS[channels - 1], False
    return f"0x{mask:x}", False


def _chapter(number: int, marker: Marker) -> Chapter:
    """Return a marker as a chapter."""
    start, end = (round(seconds * 1000) for seconds in (marker.start_s, marker.start_s + marker.length_s))
    title = {"title": marker.label} if marker.label else {}
    return {"id": number, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": title}


def _add_picture(output: OutputContainer, container: str, picture: Picture) -> av.Packet[Any] | None:
    """Add cover art in the way of a container; return its packet if it is a stream."""
    import av

    if container == "opus":
        output.metadata["METADATA_BLOCK_PICTURE"] = picture.base64_block()
        return None
    if container == "mkv":
        output.add_attachment(picture.file_name, picture.mime_type, picture.data)
        return None
    stream: Any = output.add_mux_stream(picture.codec, width=picture.width, height=picture.height)
    stream.disposition = _ATTACHED_PICTURE
    stream.metadata["comment"] = "Cover (front)"
    packet = av.Packet(picture.data)
    packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, 0, 0, True
    packet.time_base = Fraction(1, 1000)
    return packet
