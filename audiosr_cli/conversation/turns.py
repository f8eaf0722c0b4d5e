"""Turns of speakers, from the levels of their tracks.

A track that a separator wrote is never quite silent while others speak: it holds what leaked from them. So a speaker
speaks where their track is loud enough, for them and beside the other tracks. The level of a speaker is the active
speech level of ITU-T P.56: the mean power of the moments that are less than a margin below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.config import at_least, check
from audiosr_cli.conversation.activity import FRAMES_PER_S

# dB that lie between the active speech level and the threshold of activity, in ITU-T P.56.
_P56_MARGIN_DB = 15.9
# Power below which there is no speech, as a fraction of full scale squared: -100 dB.
_QUIETEST = 1e-10
# Steps in which the active speech level is approached; each shrinks its error.
_P56_STEPS = 30


@dataclass(frozen=True)
class Turn:
    """A stretch of time in which somebody speaks.

    Attributes:
        speaker: Name of the speaker, which is that of the output: ``speaker1``.
        start_s: Seconds from the beginning of the outputs.
        end_s: Seconds from the beginning of the outputs.
        level_db: RMS of the speaker's track in dBFS.
    """

    speaker: str
    start_s: float
    end_s: float
    level_db: float


@dataclass(frozen=True)
class TurnConfig:
    """How turns are found. The decibels were chosen on conversations of held-out speakers (tools/score_turns.py).

    Attributes:
        start_db: How far below a speaker's own level they may be where a turn starts.
        end_db: How far below it they may become within a turn.
        leakage_db: How far below the loudest other track a track may be where a turn starts.
        leakage_end_db: How far below it a track may become within a turn.
        smooth_s: Seconds over which levels are averaged.
        pause_s: Shorter pauses are part of a turn.
        turn_s: Shorter turns are left out.
        margin_s: Seconds that are added before and after a turn.

    Raises:
        UsageError: If a value is negative, or margins of two turns could overlap.
    """

    start_db: float = 20.0
    end_db: float = 30.0
    leakage_db: float = 2.0
    leakage_end_db: float = 4.0
    smooth_s: float = 0.25
    pause_s: float = 0.5
    turn_s: float = 0.3
    margin_s: float = 0.05

    def __post_init__(self) -> None:
        at_least(self, 0, *vars(self))
        check(2 * self.margin_s <= self.pause_s, f"margin_s = {self.margin_s:g}: must be at most half of pause_s")


def find_turns(levels: NDArray[np.floating], names: Sequence[str], config: TurnConfig | None = None) -> list[Turn]:
    """Find the turns of all speakers.

    Args:
        levels: (S, frames) in dBFS, 100 frames a second, as ``ActivityMeter`` measures them.
        names: Of the speakers, one for each track.
        config: Thresholds; None for the default ones.

    Returns:
        Turns in the order of their starts. Those of different speakers may overlap.
    """
    config = config or TurnConfig()
    power = _smooth(10 ** (np.asarray(levels, np.float64) / 10), round(config.smooth_s * FRAMES_PER_S))
    turns = list[Turn]()
    for i, name in enumerate(names):
        others = np.delete(power, i, axis=0).max(0, initial=0.0)
        for start, end in _stretches(_active(power[i], others, config), config):
            level_db = float(10 * np.log10(np.mean(10 ** (np.asarray(levels[i, start:end], np.float64) / 10))))
            turns.append(Turn(name, start / FRAMES_PER_S, end / FRAMES_PER_S, round(level_db, 1)))
    return sorted(turns, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker))


def active_level(power: NDArray[np.floating]) -> float:
    """Compute the active speech level of ITU-T P.56 from frames of a signal.

    Args:
        power: (frames,), of full scale squared.

    Returns:
        The mean power of the frames that are at most 15.9 dB below it; 0 for silence.
    """
    level = float(power.max(initial=0.0))
    for _ in range(_P56_STEPS):
        loud = power[power >= level * 10 ** (-_P56_MARGIN_DB / 10)]
        level = float(loud.mean()) if len(loud) else 0.0
    return level


def _smooth(power: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """Average over ``frames`` frames around each, fewer at the ends: (S, frames)."""
    if frames < 2 or not power.shape[1]:
        return power
    total = np.cumsum(np.pad(power, ((0, 0), (1, 0))), axis=1)
    first = np.maximum(np.arange(power.shape[1]) - frames // 2, 0)
    last = np.minimum(np.arange(power.shape[1]) + (frames - frames // 2), power.shape[1])
    smooth: NDArray[np.float64] = np.maximum((total[:, last] - total[:, first]) / (last - first), 0.0)
    return smooth


def _active(power: NDArray[np.float64], others: NDArray[np.float64], config: TurnConfig) -> NDArray[np.bool_]:
    """Decide for each frame whether a speaker speaks, with hysteresis."""
    level = active_level(power)

    def above(own_db: float, leakage_db: float) -> NDArray[np.bool_]:
        loud = power > max(level * 10 ** (-own_db / 10), _QUIETEST)
        decided: NDArray[np.bool_] = loud & (power > others * 10 ** (-leakage_db / 10))
        return decided

    start, stay = above(config.start_db, config.leakage_db), above(config.end_db, config.leakage_end_db)
    edges = np.flatnonzero(np.diff(stay, prepend=False, append=False))
    active = np.zeros(len(power), np.bool_)
    for first, end in edges.reshape(-1, 2):  # a stretch counts if a turn starts anywhere in it
        active[first:end] = start[first:end].any()
    return active


def _stretches(active: NDArray[np.bool_], config: TurnConfig) -> list[tuple[int, int]]:
    """Turn decisions for frames into stretches [start, end) in frames: pauses filled, short ones left out."""
    pause, shortest, margin = (round(x * FRAMES_PER_S) for x in (config.pause_s, config.turn_s, config.margin_s))
    stretches = list[tuple[int, int]]()
    for start, end in np.flatnonzero(np.diff(active, prepend=False, append=False)).reshape(-1, 2).tolist():
        if stretches and start - stretches[-1][1] < pause:
            stretches[-1] = stretches[-1][0], end
        else:
            stretches.append((start, end))
    return [
        (max(0, start - margin), min(len(active), end + margin)) for start, end in stretches if end - start >= shortest
    ]
