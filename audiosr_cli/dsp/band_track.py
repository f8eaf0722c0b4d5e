"""Measure in one pass, in memory that hardly grows, what the stretches of a signal are decided from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.dsp.band_limits import NONE, WEAK, bands, cell_bounds, covered
from audiosr_cli.dsp.band_plan import SAME_CELLS, WIDE, Frames, label
from audiosr_cli.dsp.bandwidth import BandMeter

Floats = NDArray[np.float32]

# Seconds at each end of an excerpt over which it fades, as the steps between excerpts would be broadband clicks.
_FADE_S = 0.02
# Cells from its wall, each 1/24 octave wide, within which the cutoff of the mean spectrum is believed: the wall of a
# gentle filter is where a second of speech is lost in the noise, and its cutoff above that.
_TRUSTED_CELLS = 9
# Frames of an excerpt that decide whether it is band-limited: all but those of pauses, and so many at least.
_DECIDING_FRAMES = 8


class BandTrack:
    """What is measured of one or several channels together. It needs about 350 bytes a second of the signal.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._cover, self._bands = list[NDArray[np.uint8]](), list[NDArray[np.uint8]]()
        self._previous: tuple[Floats, Floats] | None = None  # power and samples of the window before
        self._before: NDArray[np.uint8] | None = None  # its covered frames so far
        self._meters = dict[int, tuple[BandMeter, list[int]]]()

    def push(self, power: Floats, samples: Floats) -> None:
        """Add a window, of fewer frames only if it is the last.

        Args:
            power: (L, 1 + cells), see `FrameSpectra`.
            samples: (C, T) of the same frames.
        """
        self._bands.append(bands(power))
        if self._previous is None or self._before is None:
            self._previous, self._before = (power, samples), covered(power)
            return
        both = covered(np.concatenate([self._previous[0], power]))
        first, second = both[: len(self._before)], both[len(self._before) :]
        self._finish(np.minimum(self._before, first))
        self._previous, self._before = (power, samples), second

    def _finish(self, cover: NDArray[np.uint8]) -> None:
        """Store the covered frames of the window before, and add it to the long-term spectrum of its wall."""
        assert self._previous is not None
        self._cover.append(cover)
        walls = cover[cover != NONE] % WEAK
        if len(walls) == 0:
            wall = WIDE
        elif len(walls) >= _DECIDING_FRAMES and walls.max() - walls.min() <= SAME_CELLS:
            wall = int(np.median(walls))
        else:
            return
        meter, count = self._meters.setdefault(wall, (BandMeter(self.sample_rate), [0]))
        count[0] += 1
        samples = self._previous[1]
        fade = np.ones(samples.shape[1], np.float32)
        length = min(round(_FADE_S * self.sample_rate), samples.shape[1] // 2)
        fade[:length] = np.linspace(0, 1, length)
        fade[len(fade) - length :] = fade[:length][::-1]
        meter.push(samples * fade)

    def labels(self) -> NDArray[np.uint8]:
        """Label the frames of the whole signal, see `band_plan.label`; call it once, at the end."""
        if self._before is not None:
            self._finish(self._before)
            self._before = None
        cover = [np.concatenate(self._cover)] if self._cover else [np.zeros(0, np.uint8)]
        return label(Frames(cover[0], np.concatenate(self._bands) if self._bands else np.zeros((0, 1), np.uint8)))

    def cutoff(self, wall: int) -> float | None:
        """Return the cutoff in Hz of the stretches with a label; None if they are silent, or too short to tell."""
        bounds = cell_bounds(self.sample_rate)
        if wall == WIDE:
            return self._meters[WIDE][0].cutoff() if WIDE in self._meters else None
        near = [pair for other, pair in self._meters.items() if other and abs(other - wall) <= SAME_CELLS]
        measured = max(near, key=lambda pair: pair[1][0])[0].cutoff() if near else None
        low, high = (bounds[np.clip(wall + cells, 0, len(bounds) - 1)] for cells in (-_TRUSTED_CELLS, _TRUSTED_CELLS))
        return measured if measured is not None and low <= measured <= high else float(bounds[wall])
