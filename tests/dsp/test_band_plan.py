"""dsp/band_plan.py: from frames to stretches."""

from __future__ import annotations

import numpy as np
import pytest

from audiosr_cli.dsp.band_limits import NONE, WEAK
from audiosr_cli.dsp.band_plan import WIDE, Frames, label

LOW, HIGH = 40, 64  # walls at about 3.8 and 7.6 kHz
N = NONE


def frames(*parts: tuple[int, int, float], loud: int = 100) -> Frames:
    """Frames in runs: how many, their wall, and how loud the bands above 9 kHz are, in dB over a floor of 20."""
    cover, levels = [], []
    for count, wall, above in parts:
        cover += [wall] * count
        middle = loud if wall in (N, HIGH, HIGH + WEAK) and above >= 30 else 20
        levels += [[loud] * 6 + [middle] * 3 + [20 + above] * 4] * count
    return Frames(np.array(cover, np.uint8), np.array(levels, np.uint8))


def labelled(found: Frames) -> list[tuple[int, int]]:
    """The labels as runs: length and label."""
    labels = label(found).tolist()
    runs: list[tuple[int, int]] = []
    for value in labels:
        count = runs.pop()[0] if runs and runs[-1][1] == value else 0
        runs.append((count + 1, value))
    return runs


def test_frames_without_a_wall_and_with_content_are_wide() -> None:
    assert labelled(frames((50, N, 40), (60, LOW, 0), (50, N, 40))) == [(50, WIDE), (60, LOW), (50, WIDE)]


def test_gaps_without_content_above_belong_to_what_surrounds_them() -> None:
    assert labelled(frames((50, N, 40), (30, LOW, 0), (40, N, 0), (30, LOW, 0))) == [(50, WIDE), (100, LOW)]


@pytest.mark.parametrize(("count", "runs"), [(6, 2), (7, 4)])
def test_content_for_a_third_of_a_second_ends_a_stretch(count: int, runs: int) -> None:
    found = labelled(frames((50, N, 40), (30, LOW, 0), (count, N, 40), (30, LOW, 0)))
    assert len(found) == runs


def test_content_is_what_exceeds_the_frames_with_a_wall_by_10_db() -> None:
    assert len(labelled(frames((50, N, 40), (30, LOW, 15), (30, N, 24), (30, LOW, 15)))) == 2
    assert len(labelled(frames((50, N, 40), (30, LOW, 15), (30, N, 26), (30, LOW, 15)))) == 4


def test_a_signal_without_wide_frames_has_one_label() -> None:
    assert labelled(frames((100, LOW, 0), (22, N, 40), (100, LOW, 0))) == [(222, LOW)]
    assert len(labelled(frames((100, LOW, 0), (23, N, 40), (100, LOW, 0)))) == 3


def test_walls_need_a_second_and_weak_ones_a_clear_one() -> None:
    assert labelled(frames((50, N, 40), (27, LOW, 0))) == [(77, WIDE)]
    assert labelled(frames((50, N, 40), (60, LOW + WEAK, 0))) == [(110, WIDE)]
    both = frames((50, N, 40), (28, LOW, 0), (50, N, 40), (28, LOW + WEAK, 0))
    assert labelled(both) == [(50, WIDE), (28, LOW), (50, WIDE), (28, LOW)]


def test_walls_that_are_nearly_the_same_are_one() -> None:
    found = labelled(frames((50, N, 40), (30, LOW, 0), (20, LOW + 4, 0), (20, LOW - 4, 0)))
    assert found == [(50, WIDE), (70, LOW)]
    assert len(labelled(frames((50, N, 40), (30, LOW, 0), (30, LOW + 9, 0)))) == 3


def test_between_two_walls_the_higher_one_wins() -> None:
    found = labelled(frames((50, N, 40), (30, LOW, 0), (10, N, 0), (30, HIGH, 0)))
    assert found == [(50, WIDE), (30, LOW), (40, HIGH)]


def test_quiet_tails_have_no_wall() -> None:
    loud, tail = frames((100, N, 40)), frames((60, LOW, 0), loud=75)
    both = Frames(np.concatenate([loud.cover, tail.cover]), np.concatenate([loud.bands, tail.bands]))
    assert labelled(both) == [(160, WIDE)]


def test_short_stretches_are_left_alone() -> None:
    found = frames((50, N, 40), (40, LOW, 0), (50, N, 40), (19, LOW, 0), (50, N, 40))
    assert labelled(found) == [(50, WIDE), (40, LOW), (119, WIDE)]


def test_no_frames_have_no_labels() -> None:
    assert label(Frames(np.zeros(0, np.uint8), np.zeros((0, 1), np.uint8))).tolist() == []
