"""Audio output: one gate before every encoder, and atomic files of all formats."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiosr_cli.audio.wav import WavFormat, WavWriter
from audiosr_cli.errors import OutputError, SampleError
from audiosr_cli.files.atomic import flush, place, temporary

ClipPolicy = Literal["warn", "rescale", "error"]

# The sample types of each format; the first one is the default.
FORMATS: dict[str, tuple[str, ...]] = {
    "wav": ("PCM_16", "PCM_24", "PCM_32", "FLOAT"),
    "flac": ("PCM_16", "PCM_24"),
    "w64": ("PCM_16", "PCM_24", "PCM_32", "FLOAT"),
    "aiff": ("PCM_16", "PCM_24", "PCM_32", "FLOAT"),
    "caf": ("PCM_16", "PCM_24", "PCM_32", "FLOAT"),
    "ogg": ("VORBIS",),
    "opus": ("OPUS",),
    "mp3": ("MPEG_LAYER_III",),
}
_SUFFIXES = {"wave": "wav", "oga": "ogg", "aif": "aiff"}
_BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_WIDER = {"DOUBLE": "FLOAT", "FLOAT": "PCM_24", "PCM_32": "PCM_24"}  # the nearest one if a format lacks a sample type
_ENCODER_FRAMES = 1 << 16  # one very long Vorbis write overflows libsndfile's stack
_SYSTEM_ERROR = 2  # libsndfile's code for any error of the operating system
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


@dataclass(frozen=True)
class OutputFormat:
    """The file format of an output.

    Attributes:
        container: A key of `FORMATS`.
        subtype: The sample type, such as "PCM_16".
        sample_rate: Hz.
        channels: Number of channels.
    """

    container: str
    subtype: str
    sample_rate: int
    channels: int


def choose_format(
    container: str, subtype: str | None, input_subtype: str, sample_rate: int, channels: int
) -> OutputFormat:
    """Choose the format of an output.

    Args:
        container: A key of `FORMATS`, or another suffix for one of them.
        subtype: The sample type; "16", "24" and "32" are short for PCM. None keeps the input's, or the nearest one that
            the format has; lossy and 8-bit input becomes 16 bit.
        input_subtype: The input's sample type.
        sample_rate: Hz.
        channels: Number of channels.

    Returns:
        The format.

    Raises:
        OutputError: If the format is unknown or cannot hold the output.
    """
    container = _SUFFIXES.get(container.lower(), container.lower())
    if container not in FORMATS:
        raise OutputError(f"unknown output format {container!r}; must be one of {', '.join(FORMATS)}")
    allowed = FORMATS[container]
    if subtype is not None:
        chosen = subtype.upper()
        chosen = {"16": "PCM_16", "24": "PCM_24", "32": "PCM_32"}.get(chosen, chosen)
        if chosen not in allowed:
            raise OutputError(f"{container} cannot hold {subtype}; must be one of {', '.join(allowed)}")
    else:
        chosen = input_subtype
        while chosen not in allowed and chosen in _WIDER:
            chosen = _WIDER[chosen]
        chosen = chosen if chosen in allowed else allowed[0]
    if container == "mp3" and (channels > 2 or sample_rate > 48000):
        raise OutputError(
            f"mp3 is limited to 2 channels and 48000 Hz, not {channels} at {sample_rate} Hz; use wav or flac"
        )
    if container == "flac" and (channels > 8 or sample_rate > 384000):
        raise OutputError(f"flac is limited to 8 channels and 384000 Hz, not {channels} at {sample_rate} Hz; use wav")
    if container == "opus" and sample_rate not in _OPUS_RATES:
        rates = ", ".join(map(str, _OPUS_RATES))
        raise OutputError(f"opus supports sample rates of {rates} Hz, not {sample_rate}; use another format")
    return OutputFormat(container, chosen, sample_rate, channels)


def writable() -> list[str]:
    """Return the formats that the installed libsndfile can write."""
    return [name for name, (subtype, *_) in FORMATS.items() if soundfile.check_format(_libsndfile_name(name), subtype)]


def _libsndfile_name(container: str) -> str:
    return {"opus": "OGG"}.get(container, container.upper())


def container_of(path: Path) -> str | None:
    """Return the output format that the suffix of ``path`` stands for, or None."""
    suffix = path.suffix.lstrip(".").lower()
    suffix = _SUFFIXES.get(suffix, suffix)
    return suffix if suffix in FORMATS else None


class Gate:
    """Check, clip and quantise samples before an encoder.

    The output is integers for PCM (in units of the last bit), else floats. Float files keep samples above full scale;
    for all others they are clipped and counted.

    Args:
        output_format: The format of the output.
        clip: What happens to samples above full scale.
        name: For errors.
    """

    def __init__(self, output_format: OutputFormat, clip: ClipPolicy, name: str) -> None:
        self.bits = _BITS.get(output_format.subtype)
        self.keeps_overs = output_format.subtype == "FLOAT"
        self.sample_rate, self.clip, self.name = output_format.sample_rate, clip, name
        self.rescales = clip == "rescale" and not self.keeps_overs
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
        if not self.rescales:  # otherwise it was measured before it was spooled
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
    keeps the loudest of all outputs in range. ``target`` appears at ``commit``; leaving the context without it removes
    what was written.

    Args:
        target: A path, or ``-`` for standard output.
        output_format: The format.
        clip: What happens to samples above full scale.
        exclusive: Fail if ``target`` exists at ``commit``; otherwise replace it.

    Raises:
        OutputError: If the target cannot be written.
        SampleError: If samples are not finite, or above full scale with ``clip="error"``.
    """

    def __init__(
        self, target: str | Path, output_format: OutputFormat, clip: ClipPolicy = "warn", exclusive: bool = False
    ) -> None:
        self.target, self.output_format, self.exclusive = target, output_format, exclusive
        self.name = "standard output" if str(target) == "-" else str(target)
        self.gate = Gate(output_format, clip, self.name)
        self._files = ExitStack()  # temporary and open files
        self._spool: BinaryIO | None = None
        self._sink: WavWriter | soundfile.SoundFile | None = None
        self._part: Path | None = None

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._files.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._sink, soundfile.SoundFile):
            self._sink.close()
        with self._named_errors():
            self._files.close()

    def _open(self) -> None:
        if self.gate.rescales:
            folder = None if str(self.target) == "-" else Path(self.target).parent
            with self._named_errors():  # beside the target, as /tmp is often memory
                self._spool = self._files.enter_context(tempfile.TemporaryFile(dir=folder))
        if str(self.target) == "-":
            if self.output_format.container != "wav":
                raise OutputError(f"standard output must be wav, not {self.output_format.container}")
            with self._named_errors():
                self._sink = WavWriter(sys.stdout.buffer, self._wav_format(), seekable=False)
            return
        target = Path(self.target)
        with self._named_errors():
            if target.exists() and not stat.S_ISREG(target.stat().st_mode):
                if self.output_format.container != "wav":
                    raise OutputError(f"{self.name}: a pipe or device must be wav, not {self.output_format.container}")
                stream = self._files.enter_context(open(target, "wb"))
                self._sink = WavWriter(stream, self._wav_format(), seekable=False)
                return
            self._part = self._files.enter_context(temporary(target))
            if self.output_format.container == "wav":
                stream = self._files.enter_context(open(self._part, "xb"))
                self._sink = WavWriter(stream, self._wav_format(), seekable=True)
            else:
                self._sink = self._sound_file(self._part)

    def _wav_format(self) -> WavFormat:
        bits = _BITS.get(self.output_format.subtype, 32)
        return WavFormat(
            self.output_format.sample_rate, self.output_format.channels, bits, self.output_format.subtype == "FLOAT"
        )

    def _sound_file(self, part: Path) -> soundfile.SoundFile:
        output_format = self.output_format
        name = _libsndfile_name(output_format.container)
        extra = {"compression_level": 0.0, "bitrate_mode": "CONSTANT"} if output_format.container == "mp3" else {}
        try:
            return soundfile.SoundFile(
                os.fsencode(part),
                "x",
                output_format.sample_rate,
                output_format.channels,
                output_format.subtype,
                format=name,
                **extra,
            )
        except (soundfile.LibsndfileError, TypeError) as error:
            raise OutputError(f"{self.name}: cannot be written as {output_format.container}: {error}") from error

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
            if isinstance(self._sink, WavWriter):
                self._sink.write(samples)
            elif self._sink is not None:
                if self.gate.bits is not None:  # libsndfile takes integers left-justified in 32 bits
                    samples = samples.astype(np.int32) << (32 - self.gate.bits)
                for i in range(0, samples.shape[1], _ENCODER_FRAMES):
                    self._sink.write(samples[:, i : i + _ENCODER_FRAMES].T)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # the reader of a pipe has closed it: not an error of the target
            raise
        except OSError as error:
            raise OutputError(f"{self.name}: cannot be written: {error.strerror}") from error
        except soundfile.LibsndfileError as error:
            reason = error.error_string.rstrip(".")
            hint = "; is the disk full?" if error.code == _SYSTEM_ERROR else ""
            raise OutputError(f"{self.name}: cannot be written: {reason}{hint}") from error

    def finish(self, gain: float = 1.0) -> None:
        """Complete the file on the disk, under its temporary name; spooled samples are multiplied by ``gain``."""
        with self._named_errors():
            if self._spool is not None:
                self._spool.seek(0)
                width = 4 * self.output_format.channels
                while data := self._spool.read(width << 14):
                    block = np.frombuffer(data, np.float32).reshape(-1, self.output_format.channels).T
                    self._encode(self.gate(block * np.float32(gain)))
            if self._sink is not None:
                self._sink.close()
        if isinstance(self._sink, soundfile.SoundFile):
            self._check_written()
        if self._part is not None:
            with self._named_errors():
                flush(self._part)

    def _check_written(self) -> None:
        """Read an encoded file back: libsndfile reports no error if the disk fills up while it closes the file."""
        frames = 0
        try:
            with soundfile.SoundFile(os.fsencode(cast(Path, self._part))) as file:
                while count := len(file.read(_ENCODER_FRAMES, dtype="int16", always_2d=True)):
                    frames += count
        except (soundfile.LibsndfileError, ValueError):
            frames = -1
        if frames < self.gate.frames:
            raise OutputError(f"{self.name}: was not written completely; is the disk full?")

    def commit(self) -> None:
        """Rename the finished file to its target."""
        with self._named_errors():
            if self._part is not None:
                place(self._part, Path(self.target), self.exclusive)
            self._files.close()
