"""Decoding of containers, audio or video, by FFmpeg's libraries: M4A, MP4, Matroska, Ogg, WMA and so on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.decoders.conform import Conformer, DamageLog, Piece
from audiosr_cli.audio.decoders.libav import ByteInput
from audiosr_cli.audio.decoders.ogg import Link, PageReader
from audiosr_cli.audio.decoders.track import Track
from audiosr_cli.audio.wav import check_shape
from audiosr_cli.errors import InputError

_LISTED = 5  # parts of a chain that are left out, listed one by one


class Tracks(Protocol):
    """The tracks of a recording, one after the other."""

    def __iter__(self) -> Iterator[Track]:
        """Return itself."""

    def __next__(self) -> Track:
        """Open the next track. Raises InputError or StopIteration."""

    def warnings(self, done: int) -> list[str]:
        """Return what is wrong with the recording as a whole, when all of it, ``done`` frames, has been read."""


class OneTrack:
    """The tracks of a recording that has one."""

    def __init__(self, track: Track) -> None:
        self._tracks = iter([track])

    def __iter__(self) -> Iterator[Track]:
        """Return itself."""
        return self

    def __next__(self) -> Track:
        """Return the track, once."""
        return next(self._tracks)

    def warnings(self, done: int) -> list[str]:  # noqa: ARG002 - the interface's
        """Return nothing: the track knows what is wrong with it."""
        return []


class OggTracks:
    """The tracks of an Ogg file: one for each link of a chain.

    Args:
        read: Called with a number of bytes, returns up to that many; none at the end.
        name: Of the recording.
        number: Which stream of sound of each link, counted from 1; None for the default one.
    """

    def __init__(self, read: Callable[[int], bytes], name: str, number: int | None) -> None:
        self.name, self._number = name, number
        self._pages = PageReader(read)
        self._link: Link | None = None
        self._skipped, self._lines = 0, list[str]()  # parts that cannot be read, and a line for each of the first few

    def __iter__(self) -> Iterator[Track]:
        """Return itself."""
        return self

    def __next__(self) -> Track:
        """Open the next link that has sound in it."""
        while True:
            if self._link is None:
                page = self._pages.next()
            else:
                self._link.drain()
                page = self._link.following
            while page is not None and not page.first:  # a capture may begin anywhere
                page = self._pages.next()
            if page is None:
                raise StopIteration
            is_first, self._link = self._link is None, Link(self._pages, page)
            link = self._link
            try:
                return Track(ByteInput(link.read, self.name), self.name, self._number, "ogg", link)
            except InputError as error:
                if is_first:
                    raise
                self._skipped += 1
                if len(self._lines) < _LISTED:
                    self._lines.append(f"{error}; this part of a chain is left out")

    def warnings(self, done: int) -> list[str]:
        """Return what is wrong with the file as a whole, when all of it, ``done`` frames, has been read."""
        more = self._skipped - len(self._lines)
        lines = self._lines + ([f"{self.name}: {more} more parts of a chain are left out"] if more else [])
        if self._pages.cut or (self._link is not None and not self._link.is_complete):
            lines.append(f"{self.name}: the end of the file is missing; it has {done} frames")
        return lines


class MediaDecoder:
    """Decode the tracks of a recording, one after the other.

    Args:
        tracks: Usually one.
        name: Of the recording.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        subtype: Name of the codec, or of the sample type if it loses nothing.
        frames: Samples of each channel according to the header; None if it does not say.
        warnings: What is wrong with the file; complete at its end.
        notes: What else there is to say.

    Raises:
        InputError: If there is no sound that can be decoded.
    """

    def __init__(self, tracks: Tracks, name: str) -> None:
        self.name, self.warnings, self.notes = name, list[str](), list[str]()
        self._tracks = tracks
        track = next(tracks, None)
        if track is None:
            raise InputError(f"{name}: cannot be read as audio: the beginning of its stream is missing")
        self._track: Track | None = track
        if track.note:
            self.notes.append(track.note)
        self._pieces = track.pieces()
        first = next(self._pieces, None)
        if first is None:
            self.sample_rate, self.channels = track.shape
            if track.duration_s or not self.sample_rate or not self.channels:
                raise InputError(f"{name}: cannot be read as audio: none of its sound can be decoded")
        else:
            self.sample_rate, self.channels = first.rate, len(first.wave)
        check_shape(self.sample_rate, self.channels, name)
        self.subtype = track.subtype(first)
        duration = track.duration_s
        self.frames = None if duration is None else round(duration * self.sample_rate)
        self._conformer = Conformer(self.sample_rate, self.channels, name)
        self._damage, self._gaps = DamageLog(name, self.sample_rate), DamageLog(name, self.sample_rate)
        if first is not None:
            self._push(first)

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read up to ``frames`` frames: (C, T) float32, full scale 1.0; T is 0 at the end."""
        while self._conformer.waiting < frames and self._track is not None:
            piece = next(self._pieces, None)
            if piece is not None:
                self._push(piece)
            else:
                self._next_track()
        return self._conformer.take(frames)

    def close(self) -> None:
        """Release the container."""
        if self._track is not None:
            self._track.close()

    def _push(self, piece: Piece) -> None:
        if piece.kind != "sound":
            log = self._damage if piece.kind == "lost" else self._gaps
            log.add(self._conformer.done, piece.wave.shape[1])
        self._conformer.push(piece.wave, piece.rate)

    def _next_track(self) -> None:
        assert self._track is not None
        done_s = self._conformer.done / self.sample_rate
        endings = self._track.end_warnings(done_s)
        self._track.close()
        self._track = next(self._tracks, None)
        if self._track is not None:
            self._pieces = self._track.pieces()
            self.warnings += endings
            return
        self._conformer.finish()
        self.notes += self._gaps.gaps
        self.warnings += self._damage.warnings + self._conformer.warnings + endings
        self.warnings += self._tracks.warnings(self._conformer.done)
        if not self._conformer.done and not self.warnings:
            self.warnings.append(f"{self.name}: holds no samples")
