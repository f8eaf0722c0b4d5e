"""The video of a recording, and all else that belongs to it, copied packet by packet beside new sound."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiosr_cli.audio.decoders.libav import pick_stream
from audiosr_cli.audio.metadata.media import cleaned
from audiosr_cli.audio.metadata.provenance import TAG
from audiosr_cli.errors import OutputError

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

_BROADCAST = ("mpegts", "mpeg")
_MAX_FAILURES = 1000  # errors of the demuxer, after which it is given up
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_TIMED_THUMBNAILS = 0x800
_DISCARD_ALL = 48  # AVDISCARD_ALL, of the text track that carries an MP4 file's chapters
_VOLATILE = {"encoder", "duration"}  # tags of a stream that describe its old packets
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mxf,nut"}
_SUBTITLES = {  # that a container can hold as they are
    "mp4": {"mov_text"},
    "mov": {"mov_text"},
    "mkv": {"subrip", "ass", "webvtt", "text", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"},
    "webm": {"webvtt"},
}
_APPLE_HEVC = "hvc1"  # the only one of HEVC's two tags in MP4 that Apple's players accept


class VideoSource:
    """The streams of a video file that a new file takes along.

    Args:
        path: The recording.
        audio_stream: Which of its audio streams is replaced, counted from 1; None for the default one.

    Attributes:
        notes: What was left out, one sentence each.
        start_s: When the first sample of the replaced sound is played, on the clock of the output.
        sound_tags: Tags of the replaced audio stream, such as its language.
        sound_disposition: FFmpeg's flags of it.
        tags: Tags of the file that describe its content, in lower case.
        time_scale: A common multiple of the units of time of its video streams, in 1/s.
        codecs: Names of the codecs of its video streams.

    Raises:
        OSError: If the file cannot be read.
    """

    def __init__(self, path: Path, audio_stream: int | None = None) -> None:
        self._name = str(path)
        self.notes: list[str] = []
        self._input = _open(path)
        # Clocks of broadcasts start anywhere; all others start at 0, and what begins later does so on purpose.
        broadcast = self._input.format.name in _BROADCAST and self._input.start_time is not None
        self._shift_s = (self._input.start_time or 0) / 1_000_000 if broadcast else 0.0
        self.start_s = _start_of_sound(path, audio_stream) - self._shift_s
        self._sound = _sound_stream(self._input, audio_stream)
        self.sound_tags = _lasting(self._sound.metadata)
        self.sound_disposition = self._sound.disposition
        tags = cleaned(dict(self._input.metadata))
        self.tags = {name: text for name, text in tags.items() if name.upper() != TAG}
        self.time_scale = lcm(
            *(stream.time_base.denominator for stream in self._input.streams.video if stream.time_base)
        )
        self.codecs = [_codec(stream) for stream in self._input.streams.video if not _is_picture(stream)]
        self._streams: dict[int, Any] = {}  # of the output, by the index of the input's
        self._output: OutputContainer | None = None
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None

    def add_to(self, output: OutputContainer, container: str) -> None:
        """Add the streams to an output before its header is written.

        Raises:
            OutputError: If the container cannot hold the video.
        """
        self._output = output
        left_out: list[str] = []
        for stream in self._input.streams:
            if stream.index == self._sound.index or _is_picture(stream) or int(stream.discard) == _DISCARD_ALL:
                continue
            if not _fits(stream, container) or not self._add(stream, output):
                if stream.type == "video":
                    raise OutputError(f"{self._name}: {container} cannot hold {_codec(stream)} video; {_hint(stream)}")
                left_out.append(_describe(stream))
        if left_out:
            self.notes.append(f"{self._name}: {container} output is without {', '.join(left_out)}")
        output.set_chapters(self._input.chapters())
        streams: list[Any] = list(self._input.streams)
        for stream in streams:
            if stream.index not in self._streams:
                stream.discard = _DISCARD_ALL
        self._packets = _packets(self._input, [stream for stream in streams if stream.index in self._streams])
        self._advance()

    def _add(self, stream: Any, output: OutputContainer) -> bool:
        """Add a stream; return whether the container takes it."""
        try:
            added: Any = output.add_stream_from_template(stream, opaque=True)
        except (ValueError, RuntimeError):
            return False
        added.metadata.update(_lasting(stream.metadata))
        added.disposition = stream.disposition
        if stream.type == "video" and stream.codec_context.codec_tag == _APPLE_HEVC:
            added.codec_context.codec_tag = _APPLE_HEVC
        if stream.type != "attachment":
            self._streams[stream.index] = added
        return True

    def copy_until(self, time_s: float) -> None:
        """Copy the packets that are decoded before ``time_s``."""
        while self._next is not None and _time_s(self._next) <= time_s:
            self._next.stream = self._streams[self._next.stream_index]
            assert self._output is not None
            self._output.mux(self._next)
            self._advance()

    def _advance(self) -> None:
        """Read the next packet."""
        self._next = next((packet for packet in self._packets if packet.size), None)
        if self._next is not None and self._shift_s:
            shift = round(self._shift_s / self._next.time_base)
            self._next.pts = None if self._next.pts is None else self._next.pts - shift
            self._next.dts = None if self._next.dts is None else self._next.dts - shift

    def close(self) -> None:
        """Close the recording."""
        self._next, self._packets = None, iter(())
        self._input.close()


def has_video(path: Path) -> bool:
    """Return whether a recording has moving pictures, rather than only cover art or none."""
    import av

    try:
        with _open(path) as source:
            return bool(source.streams.audio) and any(not _is_picture(stream) for stream in source.streams.video)
    except (av.error.FFmpegError, ValueError):
        return False


def _packets(source: InputContainer, streams: list[Any]) -> Iterator[Any]:
    """Yield the packets of some streams, and empty ones at the end; behind damage go on where the demuxer can."""
    import av

    failures = 0
    while failures <= _MAX_FAILURES:
        try:
            yield from source.demux(streams)
            return
        except av.error.FFmpegError:
            failures += 1


def _hint(stream: Any) -> str:
    """Say which container can hold a stream."""
    import av

    with av.open(io.BytesIO(), "w", format="matroska") as trial:
        try:
            trial.add_stream_from_template(stream, opaque=True)
        except (ValueError, RuntimeError):
            return "use an audio format such as m4a"
    return "use mkv"


def _open(path: Path) -> InputContainer:
    import av

    return av.open(str(path.absolute()), metadata_errors="replace", container_options=_OPTIONS)


def _lasting(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a stream that describe its content."""
    return {key: text for key, text in tags.items() if key.lower() not in _VOLATILE}


def _is_picture(stream: Any) -> bool:
    return bool(int(stream.disposition) & (_ATTACHED_PICTURE | _TIMED_THUMBNAILS))


def _fits(stream: Any, container: str) -> bool:
    """Return whether a container has a place for this kind of stream; FFmpeg answers for the codecs of videos."""
    if stream.type == "subtitle":
        return _codec(stream) in _SUBTITLES[container]
    return stream.type == "video" or (stream.type == "attachment" and container == "mkv")


def _codec(stream: Any) -> str:
    return "unknown" if stream.codec_context is None else str(stream.codec_context.codec.canonical_name)


def _describe(stream: Any) -> str:
    """Name a stream in a note."""
    language = f", {stream.language}" if stream.language not in (None, "und") else ""
    codec = "" if stream.codec_context is None else f"{_codec(stream)} "
    return f"stream {stream.index} ({codec}{stream.type}{language})"


def _time_s(packet: Any) -> float:
    time = packet.dts if packet.dts is not None else packet.pts
    return -1.0 if time is None else float(time * packet.time_base)


def _sound_stream(source: InputContainer, audio_stream: int | None) -> Any:
    """Return the audio stream that the reader decodes."""
    return pick_stream(source.streams.audio, audio_stream)


def _start_of_sound(path: Path, audio_stream: int | None) -> float:
    """Return when the first decoded sample of an audio stream is played, in seconds on the file's clock."""
    import av

    failed_s = 0.0  # of packets that cannot be decoded, for which the reader yields silence
    with _open(path) as source:
        stream = _sound_stream(source, audio_stream)
        for packet in _packets(source, [stream]):
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                failed_s += float((packet.duration or 0) * packet.time_base)
                continue
            for frame in frames:
                if frame.samples and frame.time is not None:
                    return float(frame.time) - failed_s
    return 0.0
