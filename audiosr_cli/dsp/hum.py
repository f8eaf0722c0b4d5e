"""Sound that is not speech but breaks separators: DC, rumble below the voice, and mains hum with its harmonics.

Both filters are streams of exact length and without delay of the signal: what they return is the input minus an
estimate of the interference, sample by sample. So the removed part is the difference of input and output. The results
do not depend on the sizes of the blocks, as all work is done on windows at fixed positions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Spectrum = NDArray[np.float64]

# The low cut: voices have nothing below about 75 Hz, and a transition of 30 Hz costs 100 ms of context on both sides.
LOW_CUT_HZ = 65.0  # 6 dB down
_TRANSITION_HZ = 30.0
_STOPBAND_DB = 60.0
_CHUNK = 1 << 14  # samples filtered at once
# The low cut acts where what lies below it has at least this share of the power of the rest (-6 dB), in the average of
# the last chunks. Recordings of voices hold less, separators are trained on that, and lose by the cut: 0.4 dB in rooms
# (docs/experiments/separation.md).
_LEAST_SHARE = 0.25
_AVERAGE_DECAY = 0.97  # of a chunk: half a minute at 16 kHz

MAINS_HZ = (50.0, 60.0)
# Mains deviate by 0.4 % at most, but tapes run up to half a percent fast or slow.
_MAINS_DEVIATION = 0.005
_HUM_LIMIT_HZ = 1000.0  # harmonics above lie far below speech
_ANALYSIS_HZ = 2560  # sample rate at which hum is looked for
_WINDOW_S = 4.0  # a voice does not hold its pitch within a quarter of a hertz for so long
_SHORTEST_S = 2.0  # windows with less signal, at the ends of a recording, are left alone
# A tone must stand out of its neighbourhood by so much: in windows of speech the greatest of a few bins lies about
# 10 dB above the median. See tests/dsp/test_hum.py for what that takes from clean speech.
_DETECTION_DB = 20.0
_HARMONIC_DB = 8.0  # the same for further harmonics, once there is hum
_NEIGHBOURHOOD_HZ = (4.0, 14.0)  # on both sides
_TONE_WIDTH_HZ = 0.5
_PASSES = 2  # the second one removes what is left by the inexact frequencies of the first


class InterferenceFilter:
    """Remove hum, then DC and rumble, and keep what is removed.

    Args:
        sample_rate: Hz.
        channels: Channels C.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._hum, self._low_cut = HumFilter(sample_rate, channels), LowCut(sample_rate, channels)
        self._pending = np.zeros((channels, 0), np.float32)  # input whose output is not ready

    @property
    def mains_hz(self) -> float | None:
        """Return the mains frequency in Hz whose hum was removed; None without hum."""
        return self._hum.mains_hz

    def push(self, block: Samples, last: bool = False) -> tuple[Samples, Samples]:
        """Filter a block.

        Args:
            block: (C, T) float32.
            last: Whether this is the last block: all remaining output is returned.

        Returns:
            The output that is ready, and what was removed from the input: twice (C, T'); their sum is the input.
        """
        self._pending = np.concatenate([self._pending, block], axis=1)
        output = self._low_cut.push(self._hum.push(block, last), last)
        removed = self._pending[:, : output.shape[1]] - output
        self._pending = self._pending[:, output.shape[1] :]
        return output, removed


class LowCut:
    """Remove loud DC and rumble from a stream with a linear-phase high-pass, 6 dB down at ``LOW_CUT_HZ``.

    Signals with as little below it as recordings of voices have pass unchanged. The signal is continued by its mirror
    image at both ends, so that an offset leaves no step there.

    Args:
        sample_rate: Hz.
        channels: Channels C.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        kernel = low_pass(sample_rate)
        self._reach = len(kernel) // 2
        self._fft_size = 1 << (_CHUNK + len(kernel) - 1).bit_length()
        self._response = np.fft.rfft(kernel, self._fft_size)
        self._buffer = np.zeros((channels, 0), np.float32)
        self._is_padded = False
        self._power = np.zeros((2, channels))  # averages below the cut and above it
        self._gain = np.full(channels, np.nan)  # at the end of the last chunk; 1 where the cut acts

    def push(self, block: Samples, last: bool = False) -> Samples:
        """Filter a block.

        Args:
            block: (C, T) float32.
            last: Whether this is the last block: all remaining output is returned.

        Returns:
            The output that is ready, (C, T').
        """
        self._buffer = np.concatenate([self._buffer, block], axis=1)
        reach, frames = self._reach, self._buffer.shape[1]
        if not self._is_padded and frames and (frames > reach or last):
            self._buffer = _mirror(self._buffer, reach, 0)
            self._is_padded = True
        if last and frames:
            self._buffer = _mirror(self._buffer, 0, reach)
        output = [np.zeros((len(block), 0), np.float32)]
        while self._is_padded and (ready := min(self._buffer.shape[1] - 2 * reach, _CHUNK)) > 0:
            if ready < _CHUNK and not last:
                break
            output.append(self._filter(self._buffer[:, : ready + 2 * reach]))
            self._buffer = self._buffer[:, ready:]
        return np.concatenate(output, axis=1)

    def _filter(self, window: Samples) -> Samples:
        """Filter (C, T + 2 * reach), and return the T samples that have context on both sides."""
        spectrum = np.fft.rfft(window.astype(np.float64), self._fft_size)
        low = np.fft.irfft(spectrum * self._response, self._fft_size)[:, 2 * self._reach : window.shape[1]]
        inner = window[:, self._reach : window.shape[1] - self._reach]
        self._power = _AVERAGE_DECAY * self._power + [np.square(wave).sum(1) for wave in (low, inner - low)]
        gain = (self._power[0] > _LEAST_SHARE * self._power[1]).astype(np.float64)
        first = np.where(np.isnan(self._gain), gain, self._gain)
        fade = first[:, None] + (gain - first)[:, None] * np.linspace(0, 1, low.shape[1])
        self._gain = gain
        output: Samples = (inner - fade * low).astype(np.float32)
        return output


def low_pass(sample_rate: int) -> Spectrum:
    """Return the taps of a linear-phase low-pass, 6 dB down at ``LOW_CUT_HZ``: a sinc under a Kaiser window."""
    beta = 0.1102 * (_STOPBAND_DB - 8.7)
    order = (_STOPBAND_DB - 8) / (2.285 * 2 * math.pi * _TRANSITION_HZ / sample_rate)  # Kaiser's estimate
    reach = math.ceil(order / 2)
    time = np.arange(-reach, reach + 1)
    taps: Spectrum = np.sinc(2 * LOW_CUT_HZ / sample_rate * time) * np.kaiser(2 * reach + 1, beta)
    taps /= taps.sum()
    return taps


def _mirror(block: Samples, before: int, after: int) -> Samples:
    """Continue a signal of at least one sample by its mirror image."""
    return np.pad(block, ((0, 0), (before, after)), "reflect" if block.shape[1] > 1 else "edge")


class HumFilter:
    """Remove mains hum from a stream: steady tones at the multiples of 50 or 60 Hz.

    Windows of 4 s, each half over the next, are searched for steady tones. Their amplitude, phase and exact frequency
    are estimated and the tones subtracted, faded from window to window. Windows without hum pass unchanged.

    Args:
        sample_rate: Hz.
        channels: Channels C.

    Attributes:
        mains_hz: The multiples of which frequency have been removed so far, 50 or 60; None without hum.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate = sample_rate
        self.mains_hz: float | None = None
        self._hop = round(_WINDOW_S * sample_rate / 2)
        self._buffer = np.zeros((channels, self._hop), np.float32)  # zeros before the first sample
        self._invalid = self._hop  # of the buffer, at its start
        self._before = self._buffer[:, :0]  # up to one hop of the signal before the buffer
        self._tail = np.zeros((channels, self._hop))  # the second half of the window before

    def push(self, block: Samples, last: bool = False) -> Samples:
        """Remove hum from a block.

        Args:
            block: (C, T) float32.
            last: Whether this is the last block: all remaining output is returned.

        Returns:
            The output that is ready, (C, T').
        """
        self._buffer = np.concatenate([self._buffer, block], axis=1)
        output = [np.zeros((len(block), 0), np.float32)]
        while self._buffer.shape[1] >= 2 * self._hop:
            output.append(self._advance(2 * self._hop))
        while last and self._buffer.shape[1]:
            output.append(self._advance(self._buffer.shape[1]))
        return np.concatenate(output, axis=1)

    def _advance(self, frames: int) -> Samples:
        """Estimate the hum in the next window, of which ``frames`` are there; return up to one hop of output."""
        hop, invalid = self._hop, self._invalid
        signals = self._buffer[:, invalid : min(frames, 2 * hop)]
        if frames < 2 * hop:  # the last windows also use the signal before them
            signals = np.concatenate([self._before, signals], axis=1)
        window = np.zeros((len(self._buffer), 2 * hop))
        for channel, signal in enumerate(signals.astype(np.float64)):
            hum = self._estimate(signal)[-(min(frames, 2 * hop) - invalid) :]
            window[channel, invalid : invalid + len(hum)] = hum
        window *= 0.5 - 0.5 * np.cos(np.pi * (np.arange(2 * hop) + 0.5) / hop)  # adds up to one at half its length
        removed, self._tail = self._tail + window[:, :hop], window[:, hop:]
        ready = min(frames, hop)
        output = (self._buffer[:, invalid:ready] - removed[:, invalid:ready]).astype(np.float32)
        self._before, self._buffer = self._buffer[:, invalid:ready], self._buffer[:, ready:]
        self._invalid = 0
        return output

    def _estimate(self, signal: Spectrum) -> Spectrum:
        """Estimate the hum in a signal (T,)."""
        hum = np.zeros(len(signal))
        if len(signal) < _SHORTEST_S * self.sample_rate:
            return hum
        low_band, low_rate = _decimate(signal, self.sample_rate)
        time = np.arange(len(signal)) / self.sample_rate
        for _ in range(_PASSES):
            spectrum = _Windowed(low_band, low_rate)
            mains, tones = max((_find_hum(spectrum, mains) for mains in MAINS_HZ), key=lambda hum: len(hum[1]))
            if not tones:
                break
            self.mains_hz = mains
            for frequency in tones:
                amplitude = spectrum.amplitude(frequency)
                low_band = low_band - _tone(amplitude, frequency, np.arange(len(low_band)) / low_rate)
                hum += _tone(amplitude, frequency, time)
        return hum


def _decimate(signal: Spectrum, sample_rate: int) -> tuple[Spectrum, float]:
    """Return the band of a signal (T,) that may hold hum, at a lower sample rate, and this rate in Hz."""
    size = round(len(signal) * _ANALYSIS_HZ / sample_rate)
    low = np.fft.irfft(np.fft.rfft(signal)[: size // 2 + 1], size) * (size / len(signal))
    return low, sample_rate * size / len(signal)


def _tone(amplitude: complex, frequency: float, time: Spectrum) -> Spectrum:
    """Return a sinusoid of a complex amplitude and a frequency in Hz at times in seconds."""
    tone: Spectrum = abs(amplitude) * np.cos(2 * np.pi * frequency * time + np.angle(amplitude))
    return tone


class _Windowed:
    """A signal (T,) under a Hann window, and its power at fine steps of frequency."""

    def __init__(self, signal: Spectrum, sample_rate: float) -> None:
        self.window = np.hanning(len(signal) + 2)[1:-1]
        self.signal, self.sample_rate = signal * self.window, sample_rate
        size = 1 << (2 * len(signal) - 1).bit_length()
        self.step_hz = sample_rate / size
        self.power = np.square(np.abs(np.fft.rfft(self.signal, size))) + 1e-30

    def band(self, low_hz: float, high_hz: float) -> slice:
        """Return the bins of a band."""
        return slice(max(0, math.ceil(low_hz / self.step_hz)), math.floor(high_hz / self.step_hz) + 1)

    def floor(self, frequency: float) -> float:
        """Return the median power of the neighbourhood of a frequency in Hz."""
        near, far = _NEIGHBOURHOOD_HZ
        sides = (self.band(frequency - far, frequency - near), self.band(frequency + near, frequency + far))
        return float(np.median(np.concatenate([self.power[side] for side in sides])))

    def peak(self, frequency: float) -> tuple[float, float]:
        """Return the exact frequency in Hz and the power of the strongest bin about ``frequency``."""
        band = self.band(frequency - _TONE_WIDTH_HZ, frequency + _TONE_WIDTH_HZ)
        at = band.start + int(np.argmax(self.power[band]))
        left, middle, right = np.log(self.power[at - 1 : at + 2])
        curvature = left - 2 * middle + right
        shift = 0.5 * (left - right) / curvature if curvature < 0 else 0.0  # of the vertex of a parabola
        return (at + float(np.clip(shift, -0.5, 0.5))) * self.step_hz, float(self.power[at])

    def amplitude(self, frequency: float) -> complex:
        """Return the complex amplitude of the sinusoid of this frequency in Hz that fits the signal best."""
        turns = np.exp(2j * np.pi * frequency / self.sample_rate * np.arange(len(self.signal)))
        return complex(2 * np.vdot(turns, self.signal) / self.window.sum())


def _find_hum(spectrum: _Windowed, mains: float) -> tuple[float, list[float]]:
    """Return ``mains`` in Hz, and the exact frequencies in Hz of the tones that are its multiples."""
    numbers = range(1, int(_HUM_LIMIT_HZ / mains) + 1)
    floors = {number: spectrum.floor(number * mains) for number in numbers}
    exact = _fit_mains(spectrum, mains, floors)
    peaks = {number: spectrum.peak(number * exact) for number in numbers}
    prominence_db = {number: 10 * math.log10(power / floors[number]) for number, (_, power) in peaks.items()}
    strong = {number for number in numbers if prominence_db[number] > _DETECTION_DB}
    # Voices are tonal, too, but none is steady at 50 or 60 Hz, or has harmonics that are 50 or 60 Hz apart.
    if 1 not in strong and not any(number + 1 in strong for number in strong):
        return mains, []
    exact = sum(peaks[number][0] for number in strong) / sum(strong)
    weak = {number for number in numbers if prominence_db[number] > _HARMONIC_DB} - strong
    return mains, [peaks[number][0] for number in strong] + [number * exact for number in weak]


def _fit_mains(spectrum: _Windowed, mains: float, floors: dict[int, float]) -> float:
    """Return the frequency in Hz near ``mains`` whose multiples stand out most."""
    steps = math.ceil(2 * _MAINS_DEVIATION * mains * len(floors) / spectrum.step_hz)
    candidates = mains * np.linspace(1 - _MAINS_DEVIATION, 1 + _MAINS_DEVIATION, 2 * steps + 1)
    score = np.zeros(len(candidates))
    for number, floor in floors.items():
        bins = np.rint(number * candidates / spectrum.step_hz).astype(np.intp)
        score += np.log(np.maximum(spectrum.power[bins] / floor, 1))
    return float(candidates[np.argmax(score)])
