"""Audio output: one gate before every encoder, and atomic files of all formats."""

from __future__ import annotations

import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.encoders.media import MediaEncoder, codec_of, has_encoder
from audiosr_cli.audio.encoders.remux import VideoSource, has_video
from audiosr_cli.audio.encoders.sndfile import SoundFileEncoder, can_write
from audiosr_cli.audio.formats import BITS, FORMATS, VIDEO_CONTAINERS, OutputFormat
from audiosr_cli.audio.metadata.riff import write_chunks, write_w64_chunks
from audiosr_cli.audio.metadata.tail_chunks import append_metadata
from audiosr_cli.audio.metadata.types import Metadata
from audiosr_cli.audio.wav import WavFormat, WavWriter, header, w64_header
from audiosr_cli.errors import OutputError, SampleError
from audiosr_cli.files.atomic import flush, place, temporary

ClipPolicy = Literal["warn", "rescale", "error"]
GainCurve = Callable[[int, int], NDArray[np.float32]]


class Gate:
    """Check, clip and quantise samples before an encoder.

    The output is integers for PCM (in units of the last bit), else floats. Float files keep samples above full scale;
    for all others they are clipped and counted.

    Args:
        output_format: The format of the output.
        clip: What happens to samples above full scale.
        name: For errors.
        spooled: Whether blocks are measured before they are spooled, and come here later.
    """

    def __init__(self, output_format: OutputFormat, clip: ClipPolicy, name: str, spooled: bool = False) -> None:
        self.bits = BITS.get(output_format.subtype)
        self.keeps_overs = output_format.subtype == "FLOAT"
        self.sample_rate, self.clip, self.name = output_format.sample_rate, clip, name
        self.rescales = clip == "rescale" and not self.keeps_overs
        self.spooled = spooled or self.rescales
        self.frames = self.measured = self.clipped = 0
        self.peak = 0.0

    def measure(self, block: NDArray[np.float32]) -> None:
        """Update the peak by ``block`` (C, T). Raises SampleError, with the position, if it is not finite."""
        peak = float(np.max(np.abs(block), initial=0.0))
        if not np.isfinite(peak):
            at = self.measured + int(np.argmin(np.isfinite(block).all(axis=0)))
            position = f"sample {at} ({at / self.sample_rate:.3f} s)"
            raise SampleError(f"{self.name}: {position} is not a finite number; is the input far beyond full scale?")
        self.peak = max(self.peak, peak)
        self.measured += block.shape[1]

    def __call__(self, block: NDArray[np.float32]) -> NDArray[np.float32] | NDArray[np.int32]:
        """Check, clip and quantise ``block`` (C, T). Raises SampleError."""
        if not self.spooled:
            self.measure(block)
        if not self.keeps_overs and np.max(np.abs(block), initial=0.0) > 1.0:
            over = np.abs(block) > 1.0
            if self.clip == "error":
                at = (self.frames + int(np.argmax(over.any(axis=0)))) / self.sample_rate
                raise SampleError(f"{self.name}: clipped at {at:.3f} s; use --clip warn or rescale, or --subtype float")
            self.clipped += int(over.sum())
        self.frames += block.shape[1]
        if self.keeps_overs:
            return block
        block = np.clip(block, -1, 1)
        if self.bits is None:
            return block
        scale = 2.0 ** (self.bits - 1)
        wide = block.astype(np.float64) if self.bits > 24 else block
        return np.clip(np.rint(wide * wide.dtype.type(scale)).astype(np.float64), -scale, scale - 1).astype(np.int32)


class AudioWriter:
    """Write one output, as a context manager.

    With ``clip="rescale"`` samples are spooled to a temporary float file until ``finish`` is called with the gain that
    keeps the loudest of all outputs in range; so they are if that gain is to vary. ``target`` appears at ``commit``;
    leaving the context without it removes what was written.

    Args:
        target: A path, or ``-`` for standard output.
        output_format: The format.
        clip: What happens to samples above full scale.
        exclusive: Fail if ``target`` exists at ``commit``; otherwise replace it.
        metadata: Of the output: tags, cover art and so on.
        source: A recording; if it has a video and the format can hold one, the output takes it along.
        audio_stream: Which audio stream of ``source`` the samples replace, counted from 1; None for the default one.
        spooled: Whether samples are spooled in any case.

    Attributes:
        energy: Sum of squares of the spooled samples, after their gain; known after ``finish``.
        notes: What of metadata and video the format cannot hold, one sentence each.

    Raises:
        OutputError: If the target cannot be written.
        SampleError: If samples are not finite, or above full scale with ``clip="error"``.
    """

    def __init__(
        self,
        target: str | Path,
        output_format: OutputFormat,
        clip: ClipPolicy = "warn",
        exclusive: bool = False,
        metadata: Metadata | None = None,
        source: Path | None = None,
        audio_stream: int | None = None,
        spooled: bool = False,
    ) -> None:
        self.target, self.output_format, self.exclusive = target, output_format, exclusive
        self.source, self.audio_stream = source, audio_stream
        self.metadata = metadata or Metadata()
        self.name = "standard output" if str(target) == "-" else str(target)
        self.gate, self.energy = Gate(output_format, clip, self.name, spooled), 0.0
        self._files = ExitStack()  # temporary and open files
        self._spool: BinaryIO | None = None
        self._sink: WavWriter | SoundFileEncoder | MediaEncoder | None = None
        self._part: Path | None = None

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._files.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._named_errors():
            self._files.close()

    @property
    def notes(self) -> list[str]:
        """What of metadata and video the format cannot hold."""
        return [] if self._sink is None or isinstance(self._sink, WavWriter) else self._sink.notes

    def _open(self) -> None:
        if self.gate.spooled:
            folder = None if str(self.target) == "-" else Path(self.target).parent
            with self._named_errors():  # beside the target, as /tmp is often memory
                self._spool = self._files.enter_context(tempfile.TemporaryFile(dir=folder))
        if str(self.target) == "-":
            if self.output_format.container != "wav":
                raise OutputError(f"standard output must be wav, not {self.output_format.container}")
            with self._named_errors():
                self._sink = self._raw_writer(sys.stdout.buffer, seekable=False)
            return
        target = Path(self.target)
        with self._named_errors():
            if target.exists() and not stat.S_ISREG(target.stat().st_mode):
                if self.output_format.container != "wav":
                    raise OutputError(f"{self.name}: a pipe or device must be wav, not {self.output_format.container}")
                stream = self._files.enter_context(open(target, "wb"))
                self._sink = self._raw_writer(stream, seekable=False)
                return
            self._part = self._files.enter_context(temporary(target))
            if self.output_format.container in ("wav", "w64"):
                stream = self._files.enter_context(open(self._part, "xb"))
                self._sink = self._raw_writer(stream, seekable=True)
            else:
                self._sink = encoder = self._encoder(self._part)
                self._files.callback(encoder.abort)

    def _encoder(self, part: Path) -> SoundFileEncoder | MediaEncoder:
        if codec_of(self.output_format) is None:
            return SoundFileEncoder(part, self.output_format, self.metadata, self.name)
        holds_video = self.output_format.container in VIDEO_CONTAINERS
        if not holds_video or self.source is None or not has_video(self.source):
            return MediaEncoder(part, self.output_format, self.metadata, self.name)
        video = VideoSource(self.source, self.audio_stream)
        try:
            return MediaEncoder(part, self.output_format, self.metadata, self.name, video)
        except BaseException:
            video.close()
            raise

    def _raw_writer(self, stream: BinaryIO, seekable: bool) -> WavWriter:
        form, wave64 = self.output_format, self.output_format.container == "w64"
        bits = BITS.get(form.subtype, 32)
        mask = self.metadata.channel_mask
        wav_format = WavFormat(
            form.sample_rate,
            form.channels,
            bits,
            form.subtype == "FLOAT",
            channel_mask=mask if mask.bit_count() <= form.channels else 0,
        )
        chunks = (write_w64_chunks if wave64 else write_chunks)(self.metadata, form.sample_rate, bits, form.channels)
        return WavWriter(stream, wav_format, seekable, chunks, w64_header if wave64 else header)

    def write(self, block: NDArray[np.float32]) -> None:
        """Append a block (C, T), full scale 1.0."""
        if self._spool is None:
            self._encode(self.gate(block))
            return
        self.gate.measure(block)
        with self._named_errors():
            self._spool.write(np.ascontiguousarray(block.T).tobytes())

    def _encode(self, samples: NDArray[np.float32] | NDArray[np.int32]) -> None:
        with self._named_errors():
            if self._sink is not None:
                self._sink.write(samples)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # the reader of a pipe has closed it: not an error of the target
            raise
        except OSError as error:
            raise OutputError(f"{self.name}: cannot be written: {error.strerror}") from error

    def finish(self, gain: float = 1.0, gains: GainCurve | None = None) -> None:
        """Complete the file on the disk, under its temporary name.

        Args:
            gain: Factor of spooled samples.
            gains: Returns further factors (T,) of spooled samples, for the first of them and their number T.
        """
        with self._named_errors():
            if self._spool is not None:
                self._spool.seek(0)
                width = 4 * self.output_format.channels
                while data := self._spool.read(width << 14):
                    block = np.frombuffer(data, np.float32).reshape(-1, self.output_format.channels).T
                    block = block * np.float32(gain)
                    if gains is not None:
                        block *= gains(self.gate.frames, block.shape[1])
                    self.energy += float(np.square(block, dtype=np.float64).sum())
                    self._encode(self.gate(block))
            if self._sink is not None:
                self._sink.close()
        if self._part is not None:
            with self._named_errors():
                append_metadata(self._part, self.output_format.container, self.metadata, self.output_format.channels)
                flush(self._part)

    def commit(self) -> None:
        """Rename the finished file to its target."""
        with self._named_errors():
            if self._part is not None:
                place(self._part, Path(self.target), self.exclusive)
            self._files.close()


def writable() -> list[str]:
    """Return the formats that the installed libraries can write."""
    formats = [OutputFormat(name, subtypes[0], 48000, 1) for name, subtypes in FORMATS.items()]
    return [known.container for known in formats if has_encoder(known) or can_write(known)]
