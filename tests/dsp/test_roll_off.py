"""dsp/roll_off.py: filters that are the same in every frame are found, and falls that are not are none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from audiosr_cli.dsp.roll_off import CELLS_PER_OCTAVE, RollOff, noise_floor, roll_offs

CELLS, FRAMES = 120, 40
Array = NDArray[np.float64]


def butterworth(cutoff: float, order: int) -> Array:
    """Return the loss in dB in each cell."""
    return 10 * np.log10(1 + 2.0 ** (2 * order * (np.arange(CELLS) - cutoff) / CELLS_PER_OCTAVE))


def frames(seed: int = 0) -> Array:
    """Return levels in dB (FRAMES, CELLS) that fall by 6 dB an octave, with a random walk of their own each."""
    draw = np.random.default_rng(seed)
    walk = np.cumsum(0.3 * draw.standard_normal((FRAMES, CELLS)), axis=1) + draw.standard_normal((FRAMES, CELLS))
    return walk - 0.25 * np.arange(CELLS)


def found(levels: Array, wall: int | None = None) -> list[RollOff]:
    power = 10 ** (levels / 10)
    return roll_offs(10 * np.log10(power.mean(0)), power, wall)


@pytest.mark.parametrize("order", [4, 6, 10])
@pytest.mark.parametrize("cutoff", [30, 60, 90])
def test_finds_the_cutoff_of_a_butterworth_filter(cutoff: int, order: int) -> None:
    assert [r.position for r in found(frames() - butterworth(cutoff, order))] == pytest.approx([cutoff], abs=2)


@pytest.mark.parametrize("octave_db", [6, 12, 24, 36])
def test_finds_nothing_in_a_steady_fall(octave_db: int) -> None:
    for seed in range(3):
        assert found(frames(seed) - (octave_db - 6) / CELLS_PER_OCTAVE * np.arange(CELLS)) == []


def test_finds_the_lower_one_of_two_filters_first() -> None:
    positions = [r.position for r in found(frames() - butterworth(40, 6) - butterworth(100, 13))]
    assert positions[0] == pytest.approx(40, abs=2)


def test_a_fall_into_a_noise_floor_is_compared_above_it_only() -> None:
    filtered = frames() - butterworth(50, 8)
    noise = 10 * np.log10(np.random.default_rng(1).chisquare(40, (FRAMES, CELLS)) / 40) - 40
    levels = 10 * np.log10(10 ** (filtered / 10) + 10 ** (noise / 10))
    assert [r.position for r in found(levels)] == pytest.approx([50], abs=3)


@pytest.mark.parametrize("wall", [None, 80])
def test_a_wall_is_not_explained_by_a_gentle_slope_below_it(wall: int | None) -> None:
    levels = frames()
    levels[:, 80:] -= 60
    assert all(r.position > 76 for r in found(levels, wall))


def test_steepness_tells_converters_from_analogue_filters() -> None:
    assert [r.is_steep for r in found(frames() - butterworth(60, 40))] == [True]
    assert [r.is_steep for r in found(frames() - butterworth(60, 6))] == [False]


def test_a_grid_of_a_few_cells_has_no_filter() -> None:
    assert roll_offs(np.zeros(14), np.ones((3, 14))) == []


def test_the_noise_floor_is_the_level_of_the_quietest_cells() -> None:
    assert noise_floor(np.array([-20.0] * 50 + [-90.0] * 10)) == -90
