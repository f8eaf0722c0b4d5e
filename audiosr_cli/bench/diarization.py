"""Diarisation error: how far found turns are from true ones.

The diarisation error rate (DER; NIST, Rich Transcription) is the time that is missed, wrongly added or given to the
wrong speaker, as a share of all speech; overlaps count for each speaker. The Jaccard error rate (JER; DIHARD II, Ryant
et al. 2019) is the mean over speakers of one minus the intersection of true and found time over their union.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.conversation.turns import Turn

_FRAMES_PER_S = 100


@dataclass(frozen=True)
class DiarizationError:
    """Errors as shares: those of the first four of the true speech, summed over speakers.

    Attributes:
        der: Diarisation error rate, the sum of the next three.
        missed: Speech that no found turn covers.
        false_alarm: Found speech where nobody speaks, or where fewer speak.
        confusion: Speech that another speaker is given.
        jer: Jaccard error rate, without a collar.
    """

    der: float
    missed: float
    false_alarm: float
    confusion: float
    jer: float


def diarization_error(true: Sequence[Turn], found: Sequence[Turn], collar_s: float = 0.25) -> DiarizationError:
    """Compare turns; speakers are matched so that they have most time in common.

    Args:
        true: True turns, at least one. Times are rounded to 10 ms.
        found: Turns to score; their names need not be those of ``true``.
        collar_s: Seconds before and after each start and end of a true turn that do not count for the DER.

    Returns:
        The errors.
    """
    frames = max(_frame(turn.end_s) for turn in (*true, *found))
    reference, estimate = _matrix(true, frames), _matrix(found, frames)
    speakers = max(len(reference), len(estimate))
    reference, estimate = (np.pad(x, ((0, speakers - len(x)), (0, 0))) for x in (reference, estimate))
    common = reference.astype(np.float64) @ estimate.T.astype(np.float64)
    order = max(permutations(range(speakers)), key=lambda order: common[range(speakers), order].sum())
    estimate = estimate[list(order)]
    counts = _outside_collars(true, frames, collar_s)
    spoken, said = reference[:, counts].sum(0), estimate[:, counts].sum(0)
    correct = (reference & estimate)[:, counts].sum(0)
    missed = np.maximum(spoken - said, 0).sum() / spoken.sum()
    false_alarm = np.maximum(said - spoken, 0).sum() / spoken.sum()
    confusion = (np.minimum(spoken, said) - correct).sum() / spoken.sum()
    speaking = reference.any(1)
    shared, united = (reference & estimate).sum(1)[speaking], (reference | estimate).sum(1)[speaking]
    jer = float((1 - shared / united).mean())
    return DiarizationError(
        float(missed + false_alarm + confusion), float(missed), float(false_alarm), float(confusion), jer
    )


def _frame(seconds: float) -> int:
    return round(seconds * _FRAMES_PER_S)


def _matrix(turns: Sequence[Turn], frames: int) -> NDArray[np.bool_]:
    """Return who speaks in each frame, (speakers, frames)."""
    names = list(dict.fromkeys(turn.speaker for turn in turns))
    matrix = np.zeros((len(names), frames), np.bool_)
    for turn in turns:
        matrix[names.index(turn.speaker), _frame(turn.start_s) : _frame(turn.end_s)] = True
    return matrix


def _outside_collars(turns: Sequence[Turn], frames: int, collar_s: float) -> NDArray[np.bool_]:
    """Return the frames that are further than a collar from every start and end of a turn."""
    outside, collar = np.ones(frames, np.bool_), _frame(collar_s)
    for at in (_frame(seconds) for turn in turns for seconds in (turn.start_s, turn.end_s)):
        outside[max(0, at - collar) : at + collar] = False
    return outside
