"""One stream of sound in a container that FFmpeg's libraries demux, with silence in place of what is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

from audiosr_cli.audio.decoders.conform import Piece, silence
from audiosr_cli.audio.decoders.libav import (
    ByteInput,
    choose_stream,
    decoder_options,
    discard_others,
    errors,
    open_container,
    samples_of,
    subtype_of,
)
from audiosr_cli.audio.decoders.ogg import Link

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

# Formats whose header says how long the sound is, with the seconds by which it may be off; in others FFmpeg estimates.
_PRECISE = {
    "mov": 0.1,
    "matroska": 0.5,
    "asf": 0.5,
    "flv": 0.5,
    "ape": 0.1,
    "wv": 0.1,
    "tta": 0.1,
    "tak": 0.1,
    "iff": 0.1,
    "nistsphere": 0.1,
    "wav": 0.1,
    "aiff": 0.1,
    "caf": 0.1,
    "mpc8": 0.1,
}
# Of these, those whose header has the duration of the longest stream, from the start of the file.
_LONGEST = {"matroska", "flv"}
# Formats with timestamps of their own, so that a jump means that sound is missing.
_TIMED = {"mov", "matroska", "asf", "mpegts", "flv", "ogg"}
# Of these, those in which recorders and telephones leave out silence on purpose, unless bytes are left over there.
_PAUSES = {"matroska", "ogg", "flv", "mov"}
_HOLE_BYTES = 2048  # between packets of Matroska, from which they are what is left of a packet: headers are shorter
# Seconds from which a jump of the timestamps counts: Matroska's are rounded to ms, Ogg's are extrapolated by up to a
# block. Set by hand, November 2026.
_GAP_S = 0.1
_MAX_GAP_S = 4 * 3600.0  # what all jumps of a file may add up to; beyond, its timestamps are not believed
_MAX_FAILURES = 1000  # errors of a demuxer, one after the other, after which no more is read: it may never end
_ROUNDING_S = 0.001  # of timestamps
# Seconds of an Ogg stream within which a page that is missing shows in the timestamps: those of a page.
_OGG_AHEAD_S = 5.0
_OGG_BLOCK = 8192  # samples: the longest block of Vorbis
_HOPELESS_PACKETS = 20_000  # packets of which none can be decoded, some minutes, after which no more is tried


class Track:
    """One stream of sound in a container.

    Args:
        source: The container, as a file or a pipe.
        name: Of the recording.
        number: Which of its streams of sound, counted from 1; None for the default one.
        demuxer: FFmpeg's name of the format, where the content does not say it.
        link: The part of an Ogg file that ``source`` reads, which knows what FFmpeg does not see.

    Attributes:
        format: FFmpeg's name of the format, of several the first.
        note: What to say about the choice of the stream; empty if there was none.
        truncated: What to say about a missing end, complete when all has been read.
    """

    def __init__(
        self,
        source: ByteInput,
        name: str,
        number: int | None = None,
        demuxer: str | None = None,
        link: Link | None = None,
    ) -> None:
        self.name, self._link = name, link
        self._container: InputContainer = open_container(source, name, demuxer)
        self.format = self._container.format.name.split(",")[0]
        self._stream, self.note = choose_stream(self._container, name, number)
        self._context = self._stream.codec_context
        self._context.options = decoder_options(self._context.name)
        self._absent, self._following = source.missing, source.following
        self._hole = False  # whether a stretch of the file belongs to no packet
        self._lost, self._lost_at_s = 0, 0.0  # losses of the link: reported ones, and until when all were
        self._silent_s = 0.0  # inserted so far
        self._end_s = 0.0  # of the last packet of any stream
        self._cut = False  # whether a packet was
        self._decoded_s = 0.0
        if self.format not in _LONGEST:
            discard_others(self._container, self._stream)

    @property
    def duration_s(self) -> float | None:
        """Seconds according to the header; None if it does not say."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / 1e6 if self._container.duration else None

    @property
    def shape(self) -> tuple[int, int]:
        """Sample rate in Hz and number of channels according to the header; 0 if it does not say."""
        return self._context.sample_rate or 0, self._context.channels or 0

    def subtype(self, first: Piece | None) -> str:
        """Return the name of the sample type, from the header and the first piece."""
        return subtype_of(self._context, None if first is None else first.wave)

    def close(self) -> None:
        """Release the container."""
        self._container.close()

    def pieces(self) -> Iterator[Piece]:
        """Yield all sound, with silence in place of what is missing; iterate only once."""
        if self._link is None:
            yield from self._decode()
            return
        # FFmpeg does not cut the end where the last page of an Ogg stream is its first with sound.
        waiting, held, done = deque[Piece](), 0, 0
        for piece in self._decode():
            waiting.append(piece)
            held += piece.wave.shape[1]
            done += piece.wave.shape[1]
            while held - waiting[0].wave.shape[1] > _OGG_BLOCK:
                held -= waiting[0].wave.shape[1]
                yield waiting.popleft()
        self._link.drain()
        excess = 0 if self._link.frames is None else min(held, max(0, done - self._link.frames))
        for piece in waiting:
            yield piece._replace(wave=piece.wave[:, : max(0, held - excess)])
            held -= piece.wave.shape[1]

    def _decode(self) -> Iterator[Piece]:
        last: Piece | None = None
        expected: float | None = None  # seconds at which the next frame should start
        failed_s, failed, packets = 0.0, 0, 0  # since the last frame
        for packet in self._packets():
            packets += 1
            try:
                frames = packet.decode()
                waves = [samples_of(frame) for frame in frames]
            except errors():
                frames, waves = [], []
                failed_s, failed = failed_s + _duration_of(packet), failed + 1
            if last is None and packets > _HOPELESS_PACKETS:
                return
            for frame, wave in zip(frames, waves, strict=True):
                at = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
                if last is not None or (failed and self.format in _PRECISE):
                    yield from self._missing(last or Piece(wave, frame.sample_rate), at, expected, failed_s, failed)
                if packet.is_corrupt and last is not None:
                    yield from silence(0, len(wave), frame.sample_rate, "lost")
                failed_s, failed, packets = 0.0, 0, 0
                last = Piece(wave, frame.sample_rate)
                start = at if at is not None else expected
                expected = None if start is None else start + wave.shape[1] / frame.sample_rate
                self._decoded_s += wave.shape[1] / frame.sample_rate
                yield last
        if last is not None and failed:
            yield from self._missing(last, None, None, failed_s, failed)

    def _missing(
        self, last: Piece, at: float | None, expected: float | None, failed_s: float, failed: int
    ) -> Iterator[Piece]:
        """Yield silence for what lies between the last frame and the one that starts at ``at``."""
        jump = at - expected if at is not None and expected is not None and self.format in _TIMED else 0.0
        missing_s = jump if jump > (_ROUNDING_S if failed else _GAP_S) else failed_s
        channels, rate = len(last.wave), last.rate
        lost = 0 if self._link is None else self._link.lost
        if missing_s:
            self._silent_s += missing_s
            believable = self._silent_s <= _MAX_GAP_S
            self._decoded_s += missing_s * believable
            is_pause = self.format in _PAUSES and not (failed or lost > self._lost or self._hole) and believable
            kind: Literal["lost", "gap"] = "gap" if is_pause else "lost"
            yield from silence(round(missing_s * rate) * believable, channels, rate, kind)
            self._lost, self._hole = lost, False
        elif failed or (lost > self._lost and self._decoded_s > self._lost_at_s + _OGG_AHEAD_S):
            yield from silence(0, channels, rate, "lost")
            self._lost = lost
        if lost == self._lost:
            self._lost_at_s = self._decoded_s

    def _packets(self) -> Iterator[Packet[AudioStream]]:
        """Yield the packets of the stream, and an empty one at the end."""
        failures, size, end = 0, 0, 0
        while failures < _MAX_FAILURES:
            try:
                for packet in self._container.demux():
                    failures = 0
                    if packet.size and packet.pts is not None and packet.time_base:
                        self._end_s = max(self._end_s, float(packet.pts * packet.time_base) + _duration_of(packet))
                    if packet.pos is not None and self.format == "matroska":
                        self._hole = self._hole or packet.pos > end + _HOLE_BYTES > _HOLE_BYTES
                        end = max(end, packet.pos + packet.size)
                    # Not its stream_index, which is 0 in the empty packets that end all streams.
                    if packet.stream is not None and packet.stream.index == self._stream.index:
                        # AC-3 has frames of one size, of which FFmpeg conceals the missing part.
                        shorter = "ac3" in self.format and 0 < packet.size < 0.9 * size
                        if packet.size:  # the last one is empty
                            size, self._cut = packet.size, shorter or packet.is_corrupt
                        yield cast("Packet[AudioStream]", packet)
                return
            except errors():
                failures += 1
        self._cut = True

    def end_warnings(self, done_s: float) -> list[str]:
        """Return what to say about a missing end, when ``done_s`` seconds have been read."""
        tolerance, promised = _PRECISE.get(self.format), self.duration_s
        if tolerance is not None and promised is not None:
            ends = self._end_s if self.format in _LONGEST else self._decoded_s
            if ends < promised - max(tolerance, 0.002 * promised):
                return [f"{self.name}: ends after {ends:.1f} of the {promised:.1f} s in its header"]
        if self._cut:
            return [f"{self.name}: ends within a packet, after {done_s:.1f} s; the end of the file is missing"]
        if self._absent:
            return [f"{self.name}: ends after {done_s:.1f} s, {self._absent} bytes earlier than its header says"]
        if self._following:
            return [f"{self.name}: another file ({self._following}) follows its end; only the first is read"]
        return []


def _duration_of(packet: Packet[Any]) -> float:
    """Return the seconds of a packet; 0 if it does not say."""
    if not packet.duration or packet.time_base is None:
        return 0.0
    return max(0.0, float(packet.duration * packet.time_base))
