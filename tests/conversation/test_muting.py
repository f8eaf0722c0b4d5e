"""conversation/muting.py: tracks are open in turns, and 40 dB down elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from audiosr_cli.conversation.muting import Muting
from audiosr_cli.conversation.turns import Turn

RATE = 8000


def gains(*turns: tuple[float, float], seconds: float = 4.0, block: int | None = None) -> np.ndarray:
    muting = Muting([Turn("speaker1", start, end, 0.0) for start, end in turns], RATE)
    frames = round(seconds * RATE)
    block = block or frames
    return np.concatenate([muting.gains(at, min(block, frames - at)) for at in range(0, frames, block)])


def test_a_track_is_open_in_turns_and_attenuated_elsewhere() -> None:
    curve = gains((1, 2), (3, 3.5))
    at = lambda seconds: curve[round(seconds * RATE)]  # noqa: E731
    assert [at(0), at(0.94), at(2.06), at(2.5), at(3.6), at(3.99)] == [pytest.approx(0.01, abs=1e-6)] * 6
    assert [at(1), at(1.5), at(2), at(3), at(3.5)] == [pytest.approx(1)] * 5
    assert 0.01 < at(0.97) < at(0.98) < 1


def test_fades_are_smooth_and_blocks_do_not_matter() -> None:
    curve = gains((1, 2))
    assert np.abs(np.diff(curve)).max() < 2 * np.pi / (4 * 0.05 * RATE)
    np.testing.assert_array_equal(curve, gains((1, 2), block=333))


def test_a_track_stays_open_between_turns_whose_fades_overlap() -> None:
    assert gains((1, 2), (2.06, 3))[RATE : 3 * RATE].min() == 1


def test_turns_at_the_ends_are_open_to_the_ends() -> None:
    curve = gains((0, 1), (3, 4))
    assert curve[0] == curve[-1] == 1


def test_without_turns_everything_is_muted() -> None:
    assert gains() == pytest.approx(0.01)
