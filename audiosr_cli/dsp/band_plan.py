"""From frames that end at a wall to stretches of a signal: who is band-limited, from when to when."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.dsp.band_limits import NONE, SILENT_DB, WEAK, first_band_above

# All thresholds were set by hand in November 2026, see docs/experiments/stretches.md. Lengths are in frames of 43 ms.

# How far below the loud frames of a signal (their 95th percentile) in dB content may be to count.
_QUIET_DB = 30.0
# The same for the frames that show that there is a wall: codecs cut the highs of tails, which decay.
_TAIL_DB = 20.0
# Walls within so many cells, each 1/24 octave wide, are the same.
SAME_CELLS = 4
# Frames that a wall needs in the whole signal, and the most walls that are told apart.
_LEAST_FRAMES, _MOST_WALLS = 28, 4
# A frame has content above a wall if the level there exceeds that of 95 % of the frames behind the wall by so much.
_CONTENT_DB = 10.0
# Frames with content above a wall that end a stretch: shorter ones are clicks.
_END_FRAMES = 7
# Frames with content above the wall that the rest of a signal needs, or it is band-limited as a whole.
_WIDE_FRAMES = 23

# Least frames of a stretch with a wall.
_SHORTEST_FRAMES = 20

WIDE = 0  # the label of frames that are not band-limited


@dataclass(frozen=True)
class Frames:
    """What was measured of a signal.

    Args:
        cover: (T,), see `band_limits.covered`.
        bands: (T, B), see `band_limits.bands`.
    """

    cover: NDArray[np.uint8]
    bands: NDArray[np.uint8]


def label(frames: Frames) -> NDArray[np.uint8]:
    """Label each frame with the wall of its stretch.

    Args:
        frames: Of the signal.

    Returns:
        (T,): 1 + the last cell below the wall; 0, ``WIDE``, for stretches without a wall. Frames in pauses have the
        label of what surrounds them. A signal with one wall throughout has its label in all frames.
    """
    level = _levels(frames.bands)
    loud = float(np.percentile(level, 95)) if len(level) else 0.0
    audible = level >= max(SILENT_DB, loud - _QUIET_DB)
    clear = np.where(level >= loud - _TAIL_DB, frames.cover, frames.cover | np.uint8(WEAK))
    cover = _merged(np.where(audible, clear, np.uint8(NONE)))
    labels = cover.copy()
    if not cover.any():
        return labels
    limits = {int(wall): _limit(frames, cover, int(wall)) for wall in np.unique(cover[cover > 0])}
    wide = 0
    for run in _runs(cover):
        if cover[run.start]:
            continue
        sides = [int(cover[i]) for i in (run.start - 1, run.stop) if 0 <= i < len(cover)]
        content = {wall: frames.bands[run, first_band_above(wall) :].max(1) > limits[wall] for wall in sides}
        if content[max(sides)].sum() >= _END_FRAMES:
            wide += int((content[max(sides)] & audible[run]).sum())
        elif content[min(sides)].sum() >= _END_FRAMES:
            labels[run] = max(sides)
        else:
            _share(labels, run)
    if wide < _WIDE_FRAMES:
        for run in _runs(labels):
            _share(labels, run)
    return _without_short(labels)


def _levels(bands: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the level of each frame in dBFS, (T,)."""
    powers = (10 ** ((np.arange(256) - 127) / 10)).astype(np.float32)
    total = np.zeros(len(bands), np.float32)
    for column in bands.T:  # one by one, as there are millions of frames in a day
        total += powers[column]
    return 10 * np.log10(total)


def _merged(cover: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give walls that are nearly the same the same number, 0 to frames without any, and remove those that are rare."""
    count = np.bincount(cover[cover < WEAK], minlength=WEAK)
    walls, merged = np.where(cover == NONE, 0, cover % WEAK), np.zeros_like(cover)
    for _ in range(_MOST_WALLS):
        near = np.convolve(count, np.ones(2 * SAME_CELLS + 1, int), "same")
        if near.max() < _LEAST_FRAMES:
            break
        first = max(1, int(near.argmax()) - SAME_CELLS)
        same = slice(first, int(near.argmax()) + SAME_CELLS + 1)
        merged[(walls >= same.start) & (walls < same.stop) & (merged == 0)] = first + int(count[same].argmax())
        count[same] = 0
    return merged


def _limit(frames: Frames, cover: NDArray[np.uint8], wall: int) -> float:
    """Return the level from which a frame has content above ``wall``, in the unit of ``bands``."""
    above = frames.bands[cover == wall, first_band_above(wall) :].max(1)
    return float(np.percentile(above, 95)) + _CONTENT_DB


def _runs(labels: NDArray[np.uint8]) -> list[slice]:
    """Cut ``labels`` where they change."""
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _share(labels: NDArray[np.uint8], run: slice) -> None:
    """Give a run without a wall the label beside it, the higher wall of two, which loses less."""
    sides = [int(labels[i]) for i in (run.start - 1, run.stop) if 0 <= i < len(labels)]
    if not labels[run.start] and sides:
        labels[run] = max(sides)


def _without_short(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give stretches with a wall that are too short the label beside them that loses least."""
    result = labels.copy()
    runs = _runs(labels)
    for run in runs if len(runs) > 1 else []:
        if labels[run.start] and run.stop - run.start < _SHORTEST_FRAMES:
            sides = [int(labels[i]) for i in (run.start - 1, run.stop) if 0 <= i < len(labels)]
            result[run] = WIDE if WIDE in sides else max(sides)
    return result
