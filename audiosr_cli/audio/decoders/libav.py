"""FFmpeg's libraries through PyAV: what the decoders share. PyAV is imported when it is needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.decoders.promised import following_file, lacks_index, missing_bytes
from audiosr_cli.audio.wav import MAX_CHANNELS
from audiosr_cli.errors import InputError

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# The most samples of one channel in a frame: the longest of a real format (APE, extra high) has 1.2 million.
_MAX_SAMPLES = 1 << 22
_SAFE_PLANES = 7  # of more, PyAV 18.1 reads pointers behind the last one, and crashes
# Reads at the end of the file, one after the other, by which a demuxer shows that it will never stop.
_MAX_EMPTY_READS = 10_000
# Bytes that a demuxer may read, as a multiple of the file's size and in all: indexes and interleaved streams are read
# out of order, but a loop of offsets would go on for ever.
_MAX_PASSES, _FREE_BYTES = 40, 1 << 28
_BUFFER_BYTES = 1 << 13  # small, so that an Ogg page that is missing is noticed near its place
_MAX_STREAMS = 1000  # of a file; FFmpeg's own default
_DEFAULT = 1  # AV_DISPOSITION_DEFAULT
# The demuxers that may be used. Those that open other files or addresses (playlists, concat, SDP, image sequences),
# that execute scripts or drive devices are not among them, nor are the obscure ones.
_DEMUXERS = (
    "aac,ac3,ac4,aea,aiff,aix,amr,amrnb,amrwb,ape,apc,aptx,aptx_hd,asf,asf_o,au,avi,avr,bonk,caf,dfpwm,dsf,dss,dts,"
    "dtshd,dv,eac3,flac,flv,g722,g723_1,g726,g726le,g729,gsm,gxf,iff,ilbc,ircam,ivf,iamf,kux,laf,lc3,live_flv,loas,"
    "matroska,webm,mlp,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mpegtsvideo,mxf,nc,nistsphere,nsv,nut,nuv,ogg,"
    "oma,osq,paf,pva,pvf,qcp,qoa,rka,rm,rso,sbc,sds,shn,sln,smjpeg,sox,spdif,svx,swf,tak,truehd,tta,ty,vivo,voc,vqf,"
    "w64,wav,wavarc,wsd,wtv,wv,xwma"
)
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
_LOSSY = {
    "mp1": "MPEG_LAYER_I",
    "mp2": "MPEG_LAYER_II",
    "mp3": "MPEG_LAYER_III",
    "pcm_mulaw": "ULAW",
    "pcm_alaw": "ALAW",
}
_LOSSLESS = {"alac", "ape", "flac", "mlp", "osq", "shorten", "tak", "truehd", "tta", "wavpack", "als", "bonk", "rka"}


def is_available() -> bool:
    """Return whether PyAV can be imported."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def require(name: str) -> None:
    """Raise InputError, for the recording called ``name``, unless PyAV is installed."""
    if not is_available():
        raise InputError(f"{name}: this format needs PyAV, which is not installed; install it with: pip install av")


@functools.cache
def errors() -> tuple[type[Exception], ...]:
    """Return all classes of errors by which PyAV reports what a file has done to it."""
    import av

    # ValueError: names, layouts and formats that PyAV does not know; NotImplementedError and KeyError likewise.
    return av.error.FFmpegError, ValueError, OverflowError, MemoryError, NotImplementedError, LookupError, EOFError


def decoder_options(codec: str = "") -> dict[str, str]:
    """Return the options of a decoder: frames of bounded size, checksums checked, one thread."""
    # AC-3's decoder conceals what its checksum shows to be damaged; "explode" makes it an error.
    detect = "crccheck+explode" if codec in ("ac3", "eac3", "ac3_fixed") else "crccheck"
    return {"max_samples": str(_MAX_SAMPLES), "err_detect": detect, "threads": "1"}


def create_decoder(codec: str) -> AudioCodecContext:
    """Create a decoder that needs no container.

    Args:
        codec: FFmpeg's name of the decoder.
    """
    import av

    context = av.CodecContext.create(codec, "r")
    context.options = decoder_options()
    return context  # type: ignore[return-value]


def make_packet(data: bytes) -> Any:
    """Return ``data`` as a packet."""
    import av

    return av.Packet(data)


def _interleaved(frame: AudioFrame) -> AudioFrame:
    """Return a frame with all channels in one plane."""
    import av

    (packed,) = av.AudioResampler(format=frame.format.packed.name).resample(frame)
    return packed


def samples_of(frame: AudioFrame) -> NDArray[np.float32]:
    """Return the samples of a frame: (C, T) float32, full scale 1.0.

    Raises:
        ValueError: If its format or its number of channels is none of audio.
    """
    channels = frame.layout.nb_channels
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"{channels} channels")
    if frame.format.is_planar and channels > _SAFE_PLANES:
        frame = _interleaved(frame)
    kind = _DTYPES[frame.format.name.removesuffix("p")]  # KeyError for others, which is in errors()
    planes = frame.planes
    if frame.format.is_planar:
        rows = [np.frombuffer(planes[i], kind, frame.samples) for i in range(channels)]  # type: ignore[call-overload]
        wave = np.stack(rows)
    else:
        flat = np.frombuffer(planes[0], kind, frame.samples * channels)  # type: ignore[call-overload]
        wave = flat.reshape(-1, channels).T.copy()
    if wave.dtype == np.uint8:
        wave = (wave.astype(np.float32) - np.float32(128)) / np.float32(128)
    elif wave.dtype.kind == "i":
        wave = wave.astype(np.float32) / np.float32(2 ** (8 * wave.dtype.itemsize - 1))
    return np.ascontiguousarray(wave, np.float32)


class ByteInput:
    """What a demuxer reads: bytes from a pipe, bounded.

    Args:
        read: Called with a number of bytes, returns up to that many; none at the end.
        name: Of the recording.

    Attributes:
        missing: Bytes that the end of the file lacks according to its header.
        following: The magic of another file that follows it; empty if there is none.
    """

    missing, following = 0, ""

    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        self._read, self.recording = read, name
        self._empty = 0
        self.given_up = False  # after an error: what the demuxer still tries comes to nothing, and fast
        self.budget: int | None = None  # bytes that may still be read

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes. Raises InputError, once, if they cannot be read or the demuxer never ends."""
        if self.given_up:
            return b""
        try:
            data = self._read(count)
        except OSError as error:
            self.given_up = True
            raise InputError(f"{self.recording}: cannot be read: {error.strerror or error}") from error
        self._empty = 0 if data else self._empty + 1
        if self.budget is not None:
            self.budget -= len(data)
        if self._empty > _MAX_EMPTY_READS or (self.budget is not None and self.budget < 0):
            self.given_up = True
            raise InputError(f"{self.recording}: cannot be read as audio: it leads in circles; the file is damaged")
        return data


class FileInput(ByteInput):
    """What a demuxer reads: a file, in any order, bounded.

    Args:
        stream: The file.
        name: Of the recording.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        super().__init__(stream.read, name)
        self._stream = stream
        self.budget = _MAX_PASSES * stream.seek(0, 2) + _FREE_BYTES
        self.missing, self.following = missing_bytes(stream), following_file(stream)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position and return it, or -1 if there is no such position."""
        if self.given_up:
            return -1
        try:
            return self._stream.seek(offset, whence)
        except (OSError, ValueError, OverflowError):  # offsets of a damaged file
            return -1

    def lacks_index(self) -> bool:
        """Return whether it is an MP4 file without its index."""
        return lacks_index(self._stream)

    def tell(self) -> int:
        """Return the position."""
        return self._stream.tell()


def open_container(source: ByteInput, name: str, demuxer: str | None = None) -> InputContainer:
    """Open a container; nothing but its own bytes is ever opened.

    Args:
        source: Its bytes.
        name: Of the recording.
        demuxer: FFmpeg's name of the format; None leaves the choice to the content.

    Raises:
        InputError: If it cannot be opened.
    """
    import av

    options = {"protocol_whitelist": "none", "format_whitelist": _DEMUXERS}
    options |= {"max_streams": str(_MAX_STREAMS), **decoder_options()}
    try:
        return av.open(
            source, "r", demuxer, options, metadata_errors="replace", io_open=_refuse, buffer_size=_BUFFER_BYTES
        )
    except errors() as error:
        raise InputError(f"{name}: cannot be read as audio: {_reason(source, error)}") from error


def _reason(source: ByteInput, error: Exception) -> str:
    """Say why a container cannot be opened."""
    import av

    if isinstance(source, FileInput) and source.lacks_index():
        return "its index (the 'moov' box) is missing: the file is not complete, or its recorder was interrupted"
    if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError | av.error.EOFError):
        return "it is damaged, or of a format that is not supported"
    return getattr(error, "strerror", None) or str(error)


def _refuse(url: str, *_: object) -> Any:
    raise ValueError(f"{url}: a recording must not open other files")


def choose_stream(container: InputContainer, name: str, number: int | None) -> tuple[AudioStream, str]:
    """Choose a stream of sound.

    Args:
        container: The open container.
        name: Of the recording.
        number: Which one, counted from 1; None for the default one.

    Returns:
        The stream, and what to say about the choice, empty if there was none.

    Raises:
        InputError: If there is no such stream, or it cannot be decoded.
    """
    streams = list(container.streams.audio)
    if not streams:
        raise InputError(f"{name}: holds no sound (its format is {container.format.long_name})")
    if number is not None and number > len(streams):
        raise InputError(f"{name}: --audio-stream {number}: it has only {len(streams)}")
    chosen = pick_stream(streams, number)
    if chosen.codec_context is None:
        raise InputError(f"{name}: its sound cannot be decoded: FFmpeg's libraries have no decoder for its codec")
    if number is not None or len(streams) == 1:
        return chosen, ""
    listed = "; ".join(f"{i + 1}: {_describe(stream)}" for i, stream in enumerate(streams))
    return chosen, (
        f"{name}: has {len(streams)} audio streams ({listed}); stream {streams.index(chosen) + 1} is read, "
        "--audio-stream N picks another"
    )


def pick_stream(streams: Sequence[AudioStream], number: int | None) -> AudioStream:
    """Return a stream of sound: the one with this number, from 1 on, or the default one among those with a decoder."""
    if number is not None:
        return streams[number - 1]
    usable = [stream for stream in streams if stream.codec_context is not None]
    marked = [stream for stream in usable if stream.disposition & _DEFAULT]
    return (marked or usable or streams)[0]


def discard_others(container: InputContainer, chosen: AudioStream) -> None:
    """Spare the demuxer all streams but one."""
    from av.stream import Discard

    for stream in container.streams:
        if stream is not chosen:
            stream.discard = Discard.all


def _describe(stream: AudioStream) -> str:
    """Describe a stream by its language, title, codec and layout."""
    context = stream.codec_context
    parts = [stream.language or "", stream.metadata.get("title", "")]
    parts += ["undecodable"] if context is None else [context.name, context.layout.name]
    return ", ".join(part for part in parts if part)


def subtype_of(context: AudioCodecContext, wave: NDArray[np.float32] | None) -> str:
    """Return the name of the sample type: libsndfile's, or the codec's if it loses something.

    Args:
        context: The decoder.
        wave: The first samples (C, T), which tell 24 bits from 32; None if there are none.
    """
    codec = context.codec.canonical_name
    if codec.startswith("dsd_"):
        return "PCM_24"  # one bit at MHz, decimated by the decoder
    if codec not in _LOSSLESS and (not codec.startswith("pcm_") or codec in _LOSSY):
        return _LOSSY.get(codec, codec.upper())
    sample = context.format.name.removesuffix("p")
    if sample == "s32":
        units = np.zeros(1) if wave is None else np.abs(wave[:, :4096]).astype(np.float64) * 2**23
        return "PCM_24" if (units == np.rint(units)).all() else "PCM_32"
    return {"u8": "PCM_U8", "s16": "PCM_16", "flt": "FLOAT", "dbl": "DOUBLE"}.get(sample, "PCM_16")
