"""Audio input: recordings of every readable format, files and pipes, in blocks (C, T) of float32."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.decoders.detect import open_decoder
from audiosr_cli.audio.decoders.ogg import encoded_rate
from audiosr_cli.audio.decoders.sndfile import codecs
from audiosr_cli.audio.decoders.source import ByteSource, EncodedBytes, EncodedSource
from audiosr_cli.audio.metadata.read import Metadata, read_metadata
from audiosr_cli.audio.resample import Resampler
from audiosr_cli.audio.trim import Trim
from audiosr_cli.audio.wav import RATES

__all__ = ["SUFFIXES", "AudioReader", "EncodedBytes", "EncodedSource", "codecs", "read_channels", "read_mono"]

# The names under which readable recordings are found in folders; their content decides what is in them. Names that are
# more often those of other files (.ts, .sln) are left out: such recordings are read if they are given by name.
_NAMES = """
    wav wave rf64 bw64 w64 bwf flac aif aiff aiff aifc au snd caf
    mp3 mp2 mp1 mpga aac adts m4a m4b m4r mp4 m4v mov 3gp 3g2 mkv mka webm ogg oga ogx ogv opus spx
    wma asf wmv amr awb ape wv tta tak mpc ac3 eac3 dts mlp thd dsf dff oma aa3 shn gsm g722 722 g726
    avi flv mpg mpeg vob m2ts mts mxf sph nist voc ra rm qcp ircam
"""
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
BLOCK = 1 << 16  # frames a block
# Most bytes of samples that `peek` keeps. 30 s of six channels at 96 kHz are 69 MB; 64 channels at 768 kHz, the most
# that is read, are 197 MB a second, so that their first 0.3 s have to do. Set by hand, November 2026.
PEEK_BYTES = 1 << 26


class AudioReader:
    """An open recording. Samples are neither mixed nor scaled.

    Args:
        source: A path, ``-`` for standard input, the bytes of a file, or a binary file object, which is read from where
            it stands to its end.
        audio_stream: Which of its streams of sound is read, counted from 1; None for the default one.

    Attributes:
        name: The path, "standard input" or the like, for messages.
        path: Where the recording can be opened again; None for pipes, file objects and bytes.
        audio_stream: As given.
        sample_rate: Hz.
        encoded_rate: Hz of what the encoder was given, where the file says so; else the sample rate. Opus is decoded at
            48 kHz whatever it was.
        channels: Number of channels.
        subtype: libsndfile's name of the sample type, or the codec's name if it loses something.
        frames: Samples of each channel according to the header, which may be wrong; None if the header does not say.
        warnings: What is wrong with the recording; complete when all blocks have been read.
        notes: What else there is to say about it; complete when all blocks have been read.

    Raises:
        InputError: If the recording cannot be opened or read as audio, or has no such stream.
    """

    def __init__(self, source: EncodedSource, audio_stream: int | None = None) -> None:
        self._source = ByteSource(source)
        self.name, self.path, self.audio_stream = self._source.name, self._source.path, audio_stream
        try:
            first_page = self._source.head(128)
            self._decoder = open_decoder(self._source, audio_stream)
            self._source.commit()
        except BaseException:
            self._source.close()
            raise
        decoder = self._decoder
        self.sample_rate, self.channels, self.subtype = decoder.sample_rate, decoder.channels, decoder.subtype
        rate = encoded_rate(first_page) or self.sample_rate
        self.encoded_rate = rate if rate in RATES else self.sample_rate
        self.frames, self.warnings, self.notes = decoder.frames, decoder.warnings, decoder.notes
        self._done = 0
        self._peeked = deque[NDArray[np.float32]]()
        self._peeked_bytes = 0
        self.trim(None, None)

    def trim(self, start_s: float | None, end_s: float | None) -> None:
        """Restrict ``blocks`` and ``peek`` to the part between two times in seconds; None is the beginning or end.

        What ``peek`` has read is not cut again, so that another part can be set only before it.
        """
        part = Trim(start_s, end_s, self.sample_rate, self.name)
        if not self._peeked:
            self._trim = part
        assert (part.first, part.last) == (self._trim.first, self._trim.last)

    def blocks(self, frames: int = BLOCK) -> Iterator[NDArray[np.float32]]:
        """Yield all samples in blocks (C, T), of at most ``frames`` frames unless ``peek`` has read them; iterate once.

        Raises:
            InputError: If the recording cannot be read, or ends before the part that ``trim`` has set.
        """
        while self._peeked:
            block = self._peeked.popleft()
            self._peeked_bytes -= block.nbytes
            yield block
        yield from self._trim.cut(self._blocks(frames))

    def peek(self, seconds: float, max_bytes: float = PEEK_BYTES) -> Iterator[NDArray[np.float32]]:
        """Yield at least the first ``seconds`` in blocks (C, T) without consuming them: `blocks` yields them, too.

        Args:
            seconds: How much is read, unless the recording ends before or ``max_bytes`` are reached.
            max_bytes: Most bytes of samples that are kept for ``blocks``: many channels at high sample rates are read
                less far. One block is read in any case.

        Raises:
            InputError: If the recording cannot be read, or ends before the part that ``trim`` has set.
        """
        yield from tuple(self._peeked)
        frames = seconds * self.sample_rate + self._trim.first
        most = max_bytes - 4 * self.channels * BLOCK  # as long as no more is kept, another block fits
        blocks = self._trim.cut(self._blocks(BLOCK))
        while self._done < frames and (self._peeked_bytes <= most or not self._peeked):
            block = next(blocks, None)
            if block is None:
                return
            self._peeked.append(block)
            self._peeked_bytes += block.nbytes
            yield block

    def _blocks(self, frames: int) -> Iterator[NDArray[np.float32]]:
        while (block := self._decoder.read(self._trim.limit(frames))).shape[1]:
            self._done += block.shape[1]
            yield block

    def metadata(self) -> Metadata:
        """Read tags, cover art, markers and so on; of a pipe, those that come before its samples."""
        return read_metadata(self._source.reopened())

    def check_unchanged(self) -> None:
        """Raise InputError if the file has been removed or modified since it was opened."""
        self._source.check_unchanged()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._decoder.close()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_mono(path: Path, sample_rate: int) -> tuple[NDArray[np.float32], int, list[str]]:
    """Read a whole recording into memory, as the mean of its channels.

    Args:
        path: The file.
        sample_rate: Hz of the result.

    Returns:
        (T,) float32, the sample rate in Hz that the file was made from, and warnings about damage.

    Raises:
        InputError: If the file cannot be read.
    """
    with AudioReader(path) as reader:
        resampler = Resampler(reader.sample_rate, sample_rate, 1)
        blocks = [resampler.push(block.mean(0, keepdims=True, dtype=np.float32)) for block in reader.blocks()]
        blocks.append(resampler.push(np.zeros((1, 0), np.float32), last=True))
    wave: NDArray[np.float32] = np.concatenate(blocks, axis=1)[0]
    return wave, reader.encoded_rate, reader.warnings


def read_channels(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """Read a whole recording into memory with all its channels.

    Args:
        path: The file.
        sample_rate: Hz of the result.

    Returns:
        (C, T) float32.

    Raises:
        InputError: If the file cannot be read.
    """
    with AudioReader(path) as reader:
        resampler = Resampler(reader.sample_rate, sample_rate, reader.channels)
        blocks = [resampler.push(block) for block in reader.blocks()]
        blocks.append(resampler.push(np.zeros((reader.channels, 0), np.float32), last=True))
    return np.concatenate(blocks, axis=1)
