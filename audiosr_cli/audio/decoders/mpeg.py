"""Decoding of MPEG audio and ADTS AAC without a container: every frame in its place, in constant memory, from pipes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.decoders.conform import Conformer, DamageLog, Piece, silence
from audiosr_cli.audio.decoders.elementary import FrameReader, InfoTag, parse_info
from audiosr_cli.audio.decoders.libav import create_decoder, errors, make_packet, samples_of
from audiosr_cli.audio.decoders.promised import magic_of
from audiosr_cli.audio.wav import check_shape
from audiosr_cli.errors import InputError

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

_DECODERS = {"mp1": "mp1float", "mp2": "mp2float", "mp3": "mp3float", "aac": "aac"}
_SUBTYPES = {"mp1": "MPEG_LAYER_I", "mp2": "MPEG_LAYER_II", "mp3": "MPEG_LAYER_III", "aac": "AAC"}
# Frames by which a tag's count may be off: encoders disagree on whether the tag's own frame counts.
_COUNT_TOLERANCE = 1
# Trailing bytes, in frames, that are no damage: all kinds of programs append a few bytes of their own.
_TRAILING_FRAMES = 2
# Frames at the start, some minutes, of which none can be decoded: the rest is not tried.
_HOPELESS_FRAMES = 10_000


class FrameDecoder:
    """Decode a stream of MPEG audio or ADTS frames.

    Damaged stretches become silence whose length follows from their bytes. As in FFmpeg, the delay and padding that an
    encoder noted are removed at the start and the end of the stream, but not where files were joined.

    Args:
        read: Called with a number of bytes, returns up to that many; none at the end.
        name: Of the recording.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        subtype: Name of the codec.
        frames: Samples of each channel according to the file's tag; None without one.
        warnings: What is wrong with the file; complete at its end.
        notes: Always empty.

    Raises:
        InputError: If no frame can be decoded.
    """

    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        self.name, self.warnings, self.notes = name, list[str](), list[str]()
        self._frames = FrameReader(read)
        self._tag = InfoTag()
        self._count = 0  # frames with sound so far, those that are lost included
        self._whole = self._bytes = 0  # frames that are whole, and their bytes
        self._joined = self._ended = False
        self._pieces = self._decode()
        first = next(self._pieces, None)
        if first is None:
            raise InputError(f"{name}: cannot be read as audio: none of its frames can be decoded")
        self.sample_rate, self.channels = first.rate, len(first.wave)
        check_shape(self.sample_rate, self.channels, name)
        self._samples = first.wave.shape[1]  # of a frame
        self._conformer = Conformer(self.sample_rate, self.channels, name)
        self._damage = DamageLog(name, self.sample_rate)
        self._skip, tagged = self._tag.delay, self._tag.frames
        self.frames = None if tagged is None else max(0, tagged * self._samples - self._skip - self._tag.padding)
        self._held = deque([first])  # the last pieces, which may be padding

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read up to ``frames`` frames: (C, T) float32, full scale 1.0; T is 0 at the end."""
        while self._conformer.waiting < frames and not self._ended:
            piece = next(self._pieces, None)
            if piece is None:
                self._finish()
            else:
                self._held.append(piece)
                self._release(0 if self._joined else self._tag.padding // self._samples + 2)
        return self._conformer.take(frames)

    def close(self) -> None:
        """Release the decoder."""
        self._pieces.close()

    def _release(self, keep: int) -> None:
        """Pass on all pieces but the last ``keep``."""
        while len(self._held) > keep:
            wave, rate, kind = self._held.popleft()
            skipped = min(self._skip, wave.shape[1])
            self._skip -= skipped
            if kind == "lost":
                self._damage.add(self._conformer.done, wave.shape[1])
            self._conformer.push(wave[:, skipped:], rate)

    def _finish(self) -> None:
        self._ended = True
        if not self._joined and self._count == self._tag.frames:
            padding, held = self._tag.padding, list(self._held)
            while padding > 0 and held:
                piece = held.pop()
                left = max(0, piece.wave.shape[1] - padding)
                padding -= piece.wave.shape[1]
                if left:
                    held.append(piece._replace(wave=piece.wave[:, :left]))
            self._held = deque(held)
        self._release(0)
        self._conformer.finish()
        self.warnings += self._damage.warnings + self._conformer.warnings + self._end_warnings()

    def _end_warnings(self) -> list[str]:
        at = f"{self._conformer.done / self.sample_rate:.1f} s"
        if not self._joined and self._tag.frames is not None and self._count < self._tag.frames - _COUNT_TOLERANCE:
            promised = (self._tag.frames * self._samples - self._tag.delay - self._tag.padding) / self.sample_rate
            return [f"{self.name}: ends after {at} of the {promised:.1f} s in its header"]
        if self._frames.trailing and (kind := magic_of(self._frames.following)):
            return [f"{self.name}: another file ({kind}) follows its end, after {at}; only the first is read"]
        if not self._joined and self._tag.frames is not None and self._count >= self._tag.frames:
            return []  # all is there, whatever follows
        if self._frames.cut:
            return [f"{self.name}: ends within a frame, after {at}; the end of the file is missing"]
        if self._whole and self._frames.trailing > _TRAILING_FRAMES * self._bytes / self._whole:
            return [f"{self.name}: the last {self._frames.trailing} bytes, after {at}, are no frames and are lost"]
        return []

    def _decode(self) -> Generator[Piece, None, None]:
        """Yield the samples of all frames; nothing for those at the start that cannot be decoded."""
        context, first, last = None, True, None
        for frame in self._frames.frames():
            header, data, gap, joined = frame.header, frame.data, frame.gap, frame.joined
            if context is None:
                context, self.subtype = create_decoder(_DECODERS[header.kind]), _SUBTYPES[header.kind]
            if data is None:
                if last is not None:
                    context.flush_buffers()  # the bit reservoir belongs to what is lost
                    lost = round(gap * self._whole / self._bytes) if self._bytes else 0
                    yield from self._silence(last, lost)
                continue
            tag = parse_info(header, data) if first or joined else None
            if first or (joined and last is not None):
                self._tag, self._joined = (tag or InfoTag()) if first else self._tag, not first
            first = False
            if tag is not None:
                continue
            self._count, self._whole, self._bytes = self._count + 1, self._whole + 1, self._bytes + len(data)
            wave, rate = self._frame(context, data)
            if header.kind != "aac":  # whose decoder may double it; others report a change one frame late
                rate = header.sample_rate
            if wave is not None:
                last = Piece(wave, rate)
                yield last
            elif last is not None:
                self._count -= 1
                yield from self._silence(last, 1)
            elif self._count > _HOPELESS_FRAMES:
                return

    def _silence(self, last: Piece, lost: int) -> Iterator[Piece]:
        """Yield silence for ``lost`` frames like ``last``."""
        self._count += lost
        channels, samples = last.wave.shape
        yield from silence(lost * samples, channels, last.rate, "lost")

    def _frame(self, context: AudioCodecContext, data: bytes) -> tuple[NDArray[np.float32] | None, int]:
        """Decode one frame; None if that fails."""
        try:
            frames = context.decode(make_packet(data))
            waves = [samples_of(frame) for frame in frames]
            if not waves or any(wave.shape != waves[0].shape for wave in waves):
                return None, 0
            return np.concatenate(waves, axis=1), frames[0].sample_rate
        except errors():
            return None, 0
