"""bench/diarization.py: errors of turns whose errors are known."""

from __future__ import annotations

import pytest

from audiosr_cli.bench.diarization import diarization_error
from audiosr_cli.conversation.turns import Turn


def turns(*rows: tuple[str, float, float]) -> list[Turn]:
    return [Turn(name, start, end, 0.0) for name, start, end in rows]


TRUE = turns(("a", 0, 4), ("b", 4, 8), ("a", 7, 10))  # 11 s of speech, 1 s of it at once


def test_the_same_turns_under_other_names_have_no_error() -> None:
    error = diarization_error(TRUE, turns(("x", 7, 10), ("x", 0, 4), ("y", 4, 8)), 0)
    assert (error.der, error.jer) == (0, 0)


def test_missed_added_and_confused_time_is_told_apart() -> None:
    found = turns(("x", 0, 4), ("x", 4, 5), ("y", 5, 8), ("x", 8, 12))  # b's first second is a's, a's overlap missing
    error = diarization_error(TRUE, found, 0)
    assert (error.missed, error.false_alarm, error.confusion) == pytest.approx((1 / 11, 2 / 11, 1 / 11))
    assert error.der == pytest.approx(4 / 11)
    assert error.jer == pytest.approx(((1 - 6 / 10) + (1 - 3 / 4)) / 2)


def test_what_lies_within_the_collar_of_a_true_turn_does_not_count() -> None:
    late = turns(("x", 0.2, 4.2), ("y", 4.2, 8.2), ("x", 6.8, 10.2))
    assert diarization_error(TRUE, late, 0.25).der == 0
    assert diarization_error(TRUE, late, 0).der > 0
    assert diarization_error(turns(("a", 1, 3)), turns(("x", 1, 2)), 0.25).missed == pytest.approx(0.75 / 1.5)


def test_too_many_and_too_few_speakers() -> None:
    assert diarization_error(TRUE, [], 0).missed == 1
    assert diarization_error(TRUE, [*TRUE, *turns(("c", 0, 1))], 0).false_alarm == pytest.approx(1 / 11)
