"""conversation/turns.py: where somebody speaks, and where their track only holds what leaked from others."""

from __future__ import annotations

import numpy as np
import pytest

from audiosr_cli.conversation.turns import TurnConfig, active_level, find_turns
from audiosr_cli.errors import UsageError

SILENCE = -120.0


def track(*stretches: tuple[float, float]) -> np.ndarray:
    """Levels of a track: stretches of (seconds, dBFS)."""
    return np.concatenate([np.full(round(100 * seconds), level) for seconds, level in stretches])


def times(levels: list[np.ndarray], config: TurnConfig | None = None) -> list[tuple[str, float, float]]:
    names = [f"speaker{i + 1}" for i in range(len(levels))]
    return [(t.speaker, round(t.start_s, 2), round(t.end_s, 2)) for t in find_turns(np.stack(levels), names, config)]


def sharp(**values: float) -> TurnConfig:
    """No smoothing and no margins, so that times are those of the levels."""
    return TurnConfig(**{"smooth_s": 0.0, "margin_s": 0.0} | values)


def test_turns_are_where_a_track_is_loud_and_leakage_is_none() -> None:
    one = track((2, -20), (2, -38), (1, -21))
    two = track((2, -36), (2, -22), (1, -22))
    assert times([one, two], sharp()) == [("speaker1", 0, 2), ("speaker2", 2, 5), ("speaker1", 4, 5)]


def test_a_track_that_only_holds_leakage_has_no_turns() -> None:
    loud = track((3, -20), (1, SILENCE), (3, -24))
    assert times([loud, loud - 14], sharp()) == [("speaker1", 0, 3), ("speaker1", 4, 7)]


def test_levels_are_relative_to_each_speaker() -> None:
    """A quiet speaker is one, and their turns are those that the same recording has 40 dB louder."""
    one, two = track((2, -20), (2, SILENCE)), track((2, SILENCE), (2, -55))
    expected = [("speaker1", 0, 2), ("speaker2", 2, 4)]
    assert times([one, two], sharp()) == times([one - 40, two - 40], sharp()) == expected


def test_a_turn_goes_on_below_the_level_at_which_it_could_start() -> None:
    config = sharp(start_db=15, end_db=25, pause_s=0.1)
    assert times([track((1, -20), (1, -40), (1, -20), (1, -80), (1, -40))], config) == [("speaker1", 0, 3)]


def test_pauses_are_filled_and_short_turns_left_out() -> None:
    levels = [track((1, -20), (0.4, -90), (1, -20), (0.6, -90), (0.2, -20), (1, -90))]
    assert times(levels, sharp(pause_s=0.5, turn_s=0.3)) == [("speaker1", 0, 2.4)]
    assert times(levels, sharp(pause_s=0.3, turn_s=0.1)) == [
        ("speaker1", 0, 1),
        ("speaker1", 1.4, 2.4),
        ("speaker1", 3, 3.2),
    ]


def test_margins_stay_within_the_recording() -> None:
    levels = [track((1, -20), (1, -90), (1, -20))]
    config = TurnConfig(smooth_s=0, margin_s=0.2)
    assert times(levels, config) == [("speaker1", 0, 1.2), ("speaker1", 1.8, 3)]


def test_smoothing_bridges_the_gaps_between_syllables() -> None:
    syllables = track(*[(0.1, -20), (0.06, -70)] * 20)
    assert len(times([syllables], sharp(pause_s=0.0, turn_s=0.0))) == 20
    assert len(times([syllables], TurnConfig(smooth_s=0.25, pause_s=0.0, turn_s=0.0, margin_s=0.0))) == 1


def test_the_level_of_a_turn_is_its_power() -> None:
    (turn,) = find_turns(np.stack([track((1, -20), (1, -26))]), ["a"], sharp())
    assert turn.level_db == pytest.approx(10 * np.log10((0.01 + 10**-2.6) / 2), abs=0.05)


def test_silence_and_nothing_have_no_turns() -> None:
    assert times([track((3, SILENCE)), track((3, SILENCE))]) == []
    assert find_turns(np.zeros((2, 0)), ["a", "b"]) == []


def test_the_active_level_leaves_pauses_out() -> None:
    speech = 10 ** (track((10, -20), (5, -26), (30, -60)) / 10)
    assert 10 * np.log10(active_level(speech)) == pytest.approx(10 * np.log10((10 * 0.01 + 5 * 10**-2.6) / 15))
    assert active_level(np.zeros(5)) == 0


@pytest.mark.parametrize("values", [{"start_db": -1}, {"pause_s": float("nan")}, {"margin_s": 0.3}])
def test_impossible_values_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        TurnConfig(**values)
