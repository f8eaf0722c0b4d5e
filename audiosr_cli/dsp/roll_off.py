"""Gentle low-pass filters: where a spectrum bends as an analogue filter bends it, and as sound by itself does not.

The mean level of a recording, in dB over cells of 1/24 octave, is a random walk with the filter's response added. For
each response (Butterworth and Chebyshev filters of many orders) at each cutoff, generalised least squares tell how much
better the walk explains what is left when that response is taken off than what is there (the log-likelihood ratio).

A filter is the same in every frame, a voice is not: where the levels of this recording vary from frame to frame,
their mean says little, so that the covariance of the frames is part of the covariance of the walk.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CELLS_PER_OCTAVE", "RollOff", "noise_floor", "roll_offs"]

Array = NDArray[np.float64]

CELLS_PER_OCTAVE = 24
# All values below were chosen on the training split of the data (November 2026, 722 cases of 35 recordings).
# Orders of the filters that are compared. Those of Chebyshev filters, with 0.5 dB of ripple, stand for elliptic ones,
# too; the last ones for resamplers.
_BUTTERWORTH, _CHEBYSHEV = (3, 4, 5, 6, 8, 10, 13), (4, 6, 8, 10, 14)
_RIPPLE = 10**0.05 - 1
_STEEP = 10  # order of a Chebyshev filter from which it may as well be that of a converter
# Candidate cutoffs in a cell, and cells below the lowest and above the highest one.
_POSITIONS, _CELLS_BELOW, _CELLS_ABOVE = 2, 12, 2
# Loss in dB down to which a response is compared: further down are stop bands, other filters and noise.
_DEEPEST_DB = 45.0
# Steps of the walk: their mean in dB a cell, their variance, their correlation in neighbouring cells and beyond
# (tapered to nothing over so many cells), and the share of the frames' covariance that is added.
_MEAN_STEP_DB, _VARIANCE, _NEIGHBOURS, _PERSISTENCE, _TAPER = -0.25, 1.07, -0.1, 0.06, 60
_FRAMES_SHARE = 0.1
# dB above the noise floor from which a cell of a frame counts, and up to which a cell of the mean is hidden in it.
_ACTIVE_DB, _HIDDEN_DB = 6.0, 4.0
# Frames that have to hold two cells for the mean of their steps to be taken; the step of the mean power otherwise.
_LEAST_FRAMES = 4
# dB by which the mean of a cell may exceed the level that 80 % of the frames reach: noise floors are stationary.
_STATIONARY_DB = 6.0
# Cells below a wall from which it may be part of the response; what begins lower down has to show below the wall, too,
# as gentle responses explain a part of each wall.
_FLANK = 3
# Least loss in dB of a response where it ends: in the noise floor, and elsewhere.
_LEAST_LOSS_IN_FLOOR_DB, _LEAST_LOSS_DB = 10.0, 14.0
# dB by which the level behind a response may exceed what it predicts.
_REBOUND_DB = 12.0
# Least log-likelihood ratio, and that of responses that have lost less than so many dB where they end. Full-band
# recordings had up to 4.6.
_EVIDENCE, _SHALLOW_EVIDENCE, _SHALLOW_DB = 6.0, 9.0, 20.0
# The same below a wall: codecs that keep little of the highest octave had up to 7.
_EVIDENCE_BELOW_WALL = 10.0
# Least share of the loss that nine of ten frames show: a gentle response also explains a part of a wall above it. Only
# frames count that below the cutoff are at most so many dB below the mean power.
_LEAST_SHARE, _LOUD_DB = 0.3, 10.0
# Log-likelihood ratio from which a response is accepted that only the mean shows, if there is no other.
_CERTAIN = 15.0
# Straightness from which a fall is no bend, but steep all along.
_MOST_STRAIGHTNESS = 0.7
# Least cells in which one filter is taken for a part of the next one if its ratio is below this share of the other's.
_BESIDE, _LEAST_RATIO = 12, 2 / 3
# Log-likelihood ratio by which a maximum stands out from a higher one, and cells over which it is averaged.
_PROMINENCE, _SPREAD = 3.0, 4


class _Responses(NamedTuple):
    """The responses of all filters (K) at all cutoffs (J)."""

    positions: Array  # (J,) of the cutoffs, in cells
    loss: Array  # (J, K, N) in dB
    deepest: NDArray[np.intp]  # (J, K), the cell in which each response has lost enough


class RollOff(NamedTuple):
    """A low-pass filter that a recording may have passed.

    Attributes:
        position: Of its cutoff, in cells; 0 is the centre of the first one. The cutoff of a Butterworth filter is where
            it has lost 3 dB, of a Chebyshev filter where its ripple ends.
        end: The last cell that tells of it.
        is_steep: Whether it is about as steep as those of converters.
        ratio: Log-likelihood ratio.
        needed: What that has to be.
        share: Share of its loss that nine of ten frames show.
        straightness: Fall in the half octave below the cutoff, divided by that above it, both in dB a cell.
    """

    position: float
    end: int
    is_steep: bool
    ratio: float
    needed: float
    share: float
    straightness: float


def noise_floor(level: Array) -> float:
    """Return the level (dB) of the quietest cells of ``level`` (N,) in dB."""
    return float(np.median(np.sort(level)[: max(3, len(level) // 12)]))


def roll_offs(level: Array, power: Array, wall: int | None = None) -> list[RollOff]:
    """Find the low-pass filters that a recording has passed.

    Args:
        level: (N,) mean level of each cell in dB.
        power: (L, N) power of the cells in L frames.
        wall: The cell in which the spectrum is cut off; None if there is none.

    Returns:
        The filters, by their cutoffs in ascending order.
    """
    if len(level) <= _CELLS_BELOW + _CELLS_ABOVE:
        return []
    frames = 10 * np.log10(power + 1e-20)
    responses = _responses(len(level))
    end = _ends(level, frames, responses, len(level))
    ratio = _log_likelihood_ratio(level, frames, responses, end)
    if wall is not None:
        below = _ends(level, frames, responses, wall)
        ratio = np.minimum(ratio, _log_likelihood_ratio(level, frames, responses, below))
    found = [_roll_off(level, frames, responses, end, ratio, j) for j in _maxima(ratio.max(1))]
    if wall is not None:
        found = [r for r in found if r.position >= wall - _FLANK or r.ratio > _EVIDENCE_BELOW_WALL]
    found = [r for r in found if r.straightness < _MOST_STRAIGHTNESS]
    accepted = [r for r in found if r.ratio > r.needed and r.share > _LEAST_SHARE and not _is_beside(r, found)]
    if not accepted and found:
        best = max(found, key=lambda r: r.ratio)
        accepted = [best] * (best.ratio > _CERTAIN)
    return accepted


def _is_beside(roll_off: RollOff, others: list[RollOff]) -> bool:
    """Tell whether a much stronger one lies just above, or within what is explained."""
    reach = max(roll_off.position + _BESIDE, roll_off.end + 1)
    above = [r.ratio for r in others if roll_off.position < r.position <= reach]
    return _LEAST_RATIO * max(above, default=0.0) > roll_off.ratio


def _roll_off(
    level: Array, frames: Array, responses: _Responses, end: NDArray[np.intp], ratio: Array, j: int
) -> RollOff:
    """Describe the best response at the ``j``-th cutoff; its position is the mean of those around it."""
    k = int(ratio[j].argmax())
    loss = responses.loss[j, k, : end[j, k] + 1]
    around = slice(max(0, j - _SPREAD * _POSITIONS), j + _SPREAD * _POSITIONS + 1)
    weights = np.exp(np.clip(ratio[around] - ratio[j, k], -50, 0)).sum(1)
    return RollOff(
        position=float(weights @ responses.positions[around] / weights.sum()),
        end=int(end[j, k]),
        is_steep=k >= len(_BUTTERWORTH) + _CHEBYSHEV.index(_STEEP),
        ratio=float(ratio[j, k]),
        needed=_EVIDENCE if loss[-1] > _SHALLOW_DB else _SHALLOW_EVIDENCE,
        share=_share_of_frames(level, frames, loss, int(responses.positions[j])),
        straightness=_straightness(level, int(responses.positions[j]), int(end[j, k])),
    )


@lru_cache(maxsize=4)
def _responses(cells: int) -> _Responses:
    positions = np.arange(_CELLS_BELOW * _POSITIONS, (cells - _CELLS_ABOVE) * _POSITIONS) / _POSITIONS
    x = 2.0 ** ((np.arange(cells) - positions[:, None]) / CELLS_PER_OCTAVE)
    squares = [x ** (2 * order) for order in _BUTTERWORTH]
    inside, outside = np.arccos(np.minimum(x, 1)), np.arccosh(np.maximum(x, 1))
    for order in _CHEBYSHEV:  # the polynomials of the first kind
        polynomial = np.where(x <= 1, np.cos(order * inside), np.cosh(np.minimum(order * outside, 100)))
        squares.append(_RIPPLE * polynomial**2)
    loss = 10 * np.log10(1 + np.stack(squares, axis=1))
    deep = loss > _DEEPEST_DB
    return _Responses(positions, loss, np.where(deep.any(2), deep.argmax(2), cells - 1))


def _ends(level: Array, frames: Array, responses: _Responses, wall: int) -> NDArray[np.intp]:
    """Find the last cell that tells of each response: (J, K); 0 if the response is impossible."""
    cells = len(level)
    active = (frames > noise_floor(level) + _ACTIVE_DB).any(1)
    lasting = np.quantile(frames[active] if active.any() else frames, 0.2, axis=0)
    stationary = np.convolve(np.pad(level - lasting, 2, mode="edge"), np.ones(5) / 5, mode="valid") < _STATIONARY_DB
    hidden = (level <= noise_floor(level) + _HIDDEN_DB) & stationary
    following = np.where(hidden, np.arange(cells), cells - 1)
    following = np.minimum.accumulate(following[::-1])[::-1]  # the next hidden cell, or the last one
    start = responses.positions.astype(int)
    following = following[start]
    following[start < wall - _FLANK] = np.minimum(following[start < wall - _FLANK], wall - 1)
    end = np.minimum(following[:, None], responses.deepest)
    loss = np.take_along_axis(responses.loss, end[..., None], 2)[..., 0]
    before = np.convolve(level, np.ones(5) / 5)[start]  # of the cell and the four below
    above = np.append(np.maximum.accumulate(level[::-1])[::-1], -np.inf)[end + 1]  # the highest level behind the end
    possible = (end > start[:, None] + 1) & (above <= before[:, None] - loss + _REBOUND_DB)
    possible &= loss > np.where(hidden[end], _LEAST_LOSS_IN_FLOOR_DB, _LEAST_LOSS_DB)
    return np.where(possible, end, 0)


def _log_likelihood_ratio(level: Array, frames: Array, responses: _Responses, end: NDArray[np.intp]) -> Array:
    """Compare each response up to its end with none: (J, K). The scale of the walk is unknown."""
    counts = frames > noise_floor(level) + _ACTIVE_DB
    both = counts[:, 1:] & counts[:, :-1]
    differences, weight = np.diff(frames, axis=1), np.maximum(both.sum(0), _LEAST_FRAMES)
    mean = np.where(both, differences, 0).sum(0) / weight
    steps = np.where(both.sum(0) >= _LEAST_FRAMES, mean, np.diff(level))
    whiten = _whitener(np.where(both, differences - steps, 0) / np.sqrt(weight))
    white = whiten @ (steps - _MEAN_STEP_DB)
    # The whitener is triangular: the first steps are whitened as if there were no others.
    none = np.cumsum(white**2)
    left = np.cumsum((white + np.diff(responses.loss, axis=2) @ whiten.T) ** 2, axis=2)
    last = np.maximum(end, 1) - 1
    error = np.take_along_axis(left, last[..., None], 2)[..., 0]
    return np.where(end > 0, 0.5 * end * np.log((none[last] + 1e-9) / (error + 1e-9)), -np.inf)


def _whitener(deviations: Array) -> Array:
    """Return the inverse Cholesky factor of the covariance of the steps, from the frames' deviations (L, N - 1)."""
    lags = np.arange(deviations.shape[1])
    correlation = _PERSISTENCE * np.cos(np.pi / 2 * np.minimum(lags / _TAPER, 1)) ** 2
    correlation[:2] = _VARIANCE, _NEIGHBOURS
    walk = correlation[np.abs(lags[:, None] - lags)]
    return np.linalg.inv(np.linalg.cholesky(walk + _FRAMES_SHARE * deviations.T @ deviations))


def _maxima(best: Array) -> list[int]:
    """Find the maxima of ``best`` (J,) that stand out from higher ones on both sides."""
    found = []
    for j in np.flatnonzero(best > _EVIDENCE):
        higher = np.flatnonzero(best > best[j])
        below, above = higher[higher < j], higher[higher > j]
        valleys = [best[i:j].min() for i in below[-1:]] + [best[j:i].min() for i in above[:1]]
        if all(best[j] - valley >= _PROMINENCE for valley in valleys):
            found.append(int(j))
    return found


def _share_of_frames(level: Array, frames: Array, loss: Array, start: int) -> float:
    """Return the share of the expected loss that nine of ten frames show."""
    cells = np.flatnonzero((loss > 8) & (loss < 30))
    if not len(cells):
        return 1.0
    expected = float(loss[cells].mean())
    below = slice(max(0, start - 8), start)
    before, behind = frames[:, below].mean(1), frames[:, cells].mean(1)
    loud = before > max(noise_floor(level) + _ACTIVE_DB + expected, level[below].mean() - _LOUD_DB)
    if loud.sum() < _LEAST_FRAMES:
        loud = before >= np.sort(before)[-min(_LEAST_FRAMES, len(before))]
    return float(np.quantile((before - behind)[loud], 0.1)) / expected


def _straightness(level: Array, start: int, end: int) -> float:
    """Divide the fall below a cutoff by the fall from there to the end of what tells of it."""
    half = CELLS_PER_OCTAVE // 2
    below, above = (level[start - half] - level[start]) / half, (level[start] - level[end]) / (end - start)
    return float(below / max(above, 1e-3))
