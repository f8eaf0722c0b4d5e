"""Decoding by libsndfile: PCM and FLAC, where it is exact, and all it knows where FFmpeg's libraries are missing."""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiosr_cli.audio.decoders.promised import following_file, missing_bytes
from audiosr_cli.audio.ogg_pages import MAGIC, MAX_PAGE_BYTES, Page, page_size
from audiosr_cli.audio.wav import check_shape
from audiosr_cli.errors import InputError

_READ_FRAMES = 1 << 12  # frames a read: the most that are lost before a damaged one


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read from start to end.

    After every read of a seekable file soundfile seeks to its position, which drops the bit reservoir of the MP3
    decoder and damages all blocks but the first.
    """

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False


class SoundFileDecoder:
    """Decode a file with libsndfile.

    Args:
        stream: A real file; it is read from its first byte, by its descriptor.
        name: For messages.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        subtype: libsndfile's name of the sample type.
        frames: Samples of each channel according to the header; None if it does not say.
        warnings: What is wrong with the file; complete at its end.
        notes: Always empty.

    Raises:
        InputError: If libsndfile cannot open the file.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name, self.warnings, self.notes = name, list[str](), list[str]()
        self._missing, self._following = missing_bytes(stream), following_file(stream)
        self._is_ogg = os.pread(stream.fileno(), 4, 0) == MAGIC
        os.lseek(stream.fileno(), 0, os.SEEK_SET)
        try:
            self._sound = _Forward(stream.fileno(), closefd=False)
        except (soundfile.LibsndfileError, TypeError) as error:
            reason = getattr(error, "error_string", str(error)).rstrip(".")
            raise InputError(f"{name}: cannot be read as audio: {reason}") from error
        self._descriptor = stream.fileno()
        self.sample_rate, self.channels = self._sound.samplerate, self._sound.channels
        self.subtype = self._sound.subtype
        self.frames = self._sound.frames if 0 <= self._sound.frames < 2**48 else None
        self._done = 0
        self._damaged = self._ended = False
        check_shape(self.sample_rate, self.channels, name)

    def read(self, frames: int) -> NDArray[np.float32]:
        """Read up to ``frames`` frames: (C, T) float32, full scale 1.0; T is 0 at the end."""
        blocks, count = [np.zeros((self.channels, 0), np.float32)], 0
        if self.frames is not None:  # FLAC's decoder fails as a whole on a read that touches what follows
            frames = max(0, min(frames, self.frames - self._done))
        while count < frames and (block := self._read(min(frames - count, _READ_FRAMES))).shape[1]:
            blocks.append(block)
            count += block.shape[1]
        if not count and not self._ended:
            self._ended = True
            self.warnings += self._end_warnings()
        return np.concatenate(blocks, axis=1)

    def close(self) -> None:
        """Close the decoder; the file stays open."""
        self._sound.close()

    def _read(self, frames: int) -> NDArray[np.float32]:
        """Read ``frames`` frames; none after damage."""
        nothing = np.zeros((self.channels, 0), np.float32)
        if self._damaged:
            return nothing
        try:
            block = self._sound.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            self._damaged = True
            at, reason = self._done / self.sample_rate, error.error_string.rstrip(".")
            self.warnings.append(f"{self.name}: damaged at {at:.1f} s ({reason}); everything after that is lost")
            return nothing
        self._done += len(block)
        return np.ascontiguousarray(block.T, np.float32)

    def _end_warnings(self) -> list[str]:
        """Warn if libsndfile reached the end too early."""
        if self._damaged:
            return []  # there is a warning already
        if self._is_ogg and not _ogg_is_whole(self._descriptor):
            return [f"{self.name}: the end of the file is missing; it has {self._done} frames"]
        if self._missing:
            at = self._done / self.sample_rate
            return [f"{self.name}: ends after {at:.1f} s, {self._missing} bytes earlier than its header says"]
        if self.frames is not None and self._done < self.frames:
            return [f"{self.name}: ends after {self._done} of the {self.frames} frames in its header"]
        if self._following:
            return [f"{self.name}: another file ({self._following}) follows its end; only the first is read"]
        return [] if self._done else [f"{self.name}: holds no samples"]


def _ogg_is_whole(descriptor: int) -> bool:
    """Return whether an Ogg file ends with a complete page that is marked as the last: libsndfile does not check."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, MAX_PAGE_BYTES, max(0, size - MAX_PAGE_BYTES))
    last = tail[max(0, tail.rfind(MAGIC)) :]
    expected = page_size(last)
    return expected is not None and len(last) >= expected and Page.parse(last).last


def codecs() -> tuple[str, list[str]]:
    """Return the version of libsndfile, and the formats it was built with."""
    return soundfile.__libsndfile_version__, sorted(soundfile.available_formats())
