"""Lossy coding in memory: what is left of a waveform after an encoder and its decoder, in place and in length."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.resample import Resampler
from audiosr_cli.errors import UsageError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

# Samples a call of an encoder whose frames have no fixed length.
_FRAMES = 1024
# Longest delay of an encoder and decoder that is searched for, in seconds.
_LONGEST_DELAY_S = 0.15
# Share of the mean magnitude below which a frequency counts less than the others.
_REGULARISATION = 1e-3
# Seconds of the waveform that are compared for it.
_COMPARED_S = 10.0


@dataclass(frozen=True)
class Coding:
    """A lossy codec and how people use it.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        muxer: FFmpeg's name of the container; empty if packets are decoded one by one.
        sample_format: FFmpeg's name of the encoder's sample format.
        rates: Sample rates in Hz, from which one is drawn.
        bit_rates: Bits a second of one channel, likewise; 0 if the codec has one only.
    """

    encoder: str
    muxer: str
    sample_format: str
    rates: tuple[int, ...]
    bit_rates: tuple[int, ...]


CODINGS = {
    "mp3": Coding("libmp3lame", "mp3", "fltp", (44100, 48000), (32000, 40000, 48000, 64000, 80000, 96000)),
    "aac": Coding("aac", "adts", "fltp", (44100, 48000), (32000, 48000, 64000, 96000)),
    "opus": Coding("libopus", "ogg", "flt", (48000,), (8000, 12000, 16000, 24000, 32000, 48000)),
    "amr_nb": Coding("libopencore_amrnb", "amr", "s16", (8000,), (4750, 5900, 7950, 12200)),
    "g722": Coding("g722", "wav", "s16", (16000,), (0,)),
    "mulaw": Coding("pcm_mulaw", "wav", "s16", (8000,), (0,)),
}


def has_coding(name: str) -> bool:
    """Return whether PyAV is installed and its FFmpeg has the encoder of CODINGS[``name``]."""
    try:
        import av
    except ImportError:
        return False
    return CODINGS[name].encoder in av.codecs_available and CODINGS[name].muxer in av.formats_available


def code(wave: NDArray[np.float32], sample_rate: int, name: str, rate: int, bit_rate: int) -> NDArray[np.float32]:
    """Encode and decode a mono waveform.

    The delay of the codec is measured and removed. A waveform shorter than a few frames may come back as zeros.

    Args:
        wave: (T,), full scale 1.
        sample_rate: Hz.
        name: A key of CODINGS.
        rate: Sample rate of the encoder in Hz.
        bit_rate: Bits a second; 0 for the codec's own.

    Returns:
        (T,) at ``sample_rate``.

    Raises:
        UsageError: If PyAV is missing, or the encoder refuses these values.
    """
    import av

    coding = CODINGS[name]
    narrow = _resampled(wave, sample_rate, rate)
    try:
        decoded, decoded_rate = _round_trip(narrow, coding, rate, bit_rate)
    except av.FFmpegError as error:
        raise UsageError(f"codec {name} at {rate} Hz and {bit_rate} bit/s: cannot encode ({error})") from error
    return _aligned(_resampled(decoded, decoded_rate, sample_rate), wave, sample_rate)


def _resampled(wave: NDArray[np.float32], before: int, after: int) -> NDArray[np.float32]:
    block = np.ascontiguousarray(wave[None], np.float32)
    output: NDArray[np.float32] = Resampler(before, after, 1).push(block, last=True)[0]
    return output


def _round_trip(wave: NDArray[np.float32], coding: Coding, rate: int, bit_rate: int) -> tuple[NDArray[np.float32], int]:
    """Encode into memory and decode that: the waveform, and its rate, which is 48 kHz after Opus."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=coding.muxer) as output:
        stream: Any = output.add_stream(coding.encoder, rate=rate)
        stream.layout, stream.format = "mono", coding.sample_format
        if bit_rate:
            stream.bit_rate = bit_rate
        stream.open()
        size = stream.codec_context.frame_size or _FRAMES
        for first in range(0, len(wave) + size, size):  # one frame more, for the delay
            output.mux(stream.encode(_frame(wave[first : first + size], size, coding.sample_format, rate, first)))
        output.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer, "r") as source:
        to_float = av.AudioResampler(format="fltp", layout="mono")
        frames = [part for frame in source.decode(audio=0) for part in to_float.resample(frame)]
        decoded_rate = source.streams.audio[0].rate
    parts = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), decoded_rate


def _frame(samples: NDArray[np.float32], size: int, sample_format: str, rate: int, first: int) -> AudioFrame:
    """Return one frame for the encoder, zeros behind the end."""
    from av.audio.frame import AudioFrame

    padded = np.pad(samples, (0, size - len(samples)))[None]
    if sample_format == "s16":
        padded = np.rint(np.clip(padded, -1, 32767 / 32768) * 32768).astype(np.int16)
    frame = AudioFrame.from_ndarray(padded, format=sample_format, layout="mono")
    frame.sample_rate, frame.pts = rate, first
    return frame


def _aligned(wave: NDArray[np.float32], reference: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Shift ``wave`` to where it correlates best with ``reference``, and cut it to its length.

    Frequencies weigh the same (GCC-PHAT, Knapp & Carter 1976): some codecs shift the phase of the lowest ones, which
    are the strongest.
    """
    longest, compared = round(_LONGEST_DELAY_S * sample_rate), round(_COMPARED_S * sample_rate)
    own, other = (x[: compared + longest] for x in (wave, reference))
    size = 1 << (len(own) + len(other)).bit_length()
    cross = np.fft.rfft(own, size) * np.fft.rfft(other, size).conj()
    magnitude = np.abs(cross)
    products = np.fft.irfft(cross / (magnitude + _REGULARISATION * magnitude.mean() + 1e-20), size)
    near = np.concatenate([products[-longest:], products[: longest + 1]])
    delay = int(near.argmax()) - longest
    shifted = wave[delay:] if delay >= 0 else np.pad(wave, (-delay, 0))
    aligned = np.zeros(len(reference), np.float32)
    aligned[: len(shifted)] = shifted[: len(reference)]
    return aligned
