"""dsp/band_limits.py: walls of the short-time spectrum."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import noise
from voices import talk

from audiosr_cli.dsp.band_limits import (
    BAND,
    NONE,
    WEAK,
    WINDOW,
    FrameSpectra,
    bands,
    cell_bounds,
    covered,
    first_band_above,
    wall_cells,
    walls,
)

RATE = 48000


def power(wave: np.ndarray, sample_rate: int = RATE) -> np.ndarray:
    """The cells of all whole frames of ``wave`` (1, T): (L, 1 + cells)."""
    spectra = FrameSpectra(sample_rate)
    return spectra.measure(wave[:, : wave.shape[1] // spectra.size * spectra.size])[0]


def test_cells_hold_the_power_of_the_signal() -> None:
    wave = noise(RATE, 1, 0.1)
    cells = power(wave).mean(0)
    bounds = cell_bounds(RATE)
    assert len(cells) == len(bounds)  # one below the first bound
    assert cells.sum() == pytest.approx(0.01 * bounds[-1] / 24000, rel=0.1)  # white, up to the last bound
    assert 10 * np.log10(cells[-1] / cells[-1 - 24]) == pytest.approx(3, abs=1)  # a cell is twice as wide


@pytest.mark.parametrize("cutoff", [3400, 5000, 8000, 12000])
def test_a_wall_is_found_in_its_cell(cutoff: float) -> None:
    cell, fall = walls(power(talk(2.0, cutoff) + noise(2 * RATE, 1, 1e-5)))
    assert fall.min() > 15
    assert np.abs(np.log2(cell_bounds(RATE)[cell + 1] / cutoff)).max() < 2 / 24


def test_full_band_sound_has_no_wall() -> None:
    assert walls(power(talk(4.0)))[1].max() < 8
    assert (covered(power(talk(4.0))) == NONE).all()


def test_only_frames_with_content_are_covered() -> None:
    wave = talk(3.0, 4000)
    wave[:, RATE : RATE * 3 // 2] = 0
    cover = covered(power(wave + noise(wave.shape[1], 1, 1e-5)))
    frame_s = FrameSpectra(RATE).frame_s
    pause = slice(round(1.1 / frame_s), round(1.4 / frame_s))
    assert (cover[pause] == NONE).all()
    assert (cover[: round(0.9 / frame_s)] != NONE).mean() > 0.5


def test_the_lower_of_two_walls_covers_a_frame() -> None:
    """Windows that reach into the wider voice have its wall, but the frames of the other one keep their own."""
    wave = np.concatenate([talk(2.0, 4000), talk(2.0, 8000)], axis=1)
    cover = covered(power(wave + noise(wave.shape[1], 1, 1e-5)))
    edges = [np.searchsorted(cell_bounds(RATE), hz) for hz in (5000, 9000)]
    first, second = np.array_split(cover, 2)
    assert set(first[first != NONE] <= edges[0]) == {True}
    assert edges[0] < np.median(second[second != NONE]) <= edges[1]


def test_walls_in_noise_are_weak() -> None:
    clean = talk(2.0, 4000)
    assert (covered(power(clean + noise(2 * RATE, 1, 1e-5))) < WEAK).mean() > 0.5
    noisy = covered(power(clean + noise(2 * RATE, 1, 3e-3)))
    assert (noisy[noisy != NONE] >= WEAK).all()
    assert (noisy != NONE).any()


def test_bands_are_the_cells_in_decibels() -> None:
    cells = np.zeros((1, 1 + 5 * BAND // 2), np.float32)
    cells[0, 0], cells[0, 1], cells[0, 1 + BAND], cells[0, -1] = 1.0, 0.1, 0.01, 0.001
    assert bands(cells).tolist() == [[127, 117, 107, 97]]


def test_the_bands_above_a_wall_do_not_reach_down_to_it() -> None:
    for cell in wall_cells(90):
        band = first_band_above(int(cell) + 1)
        assert BAND * (band - 1) > cell + 2
        assert BAND * (band - 2) <= cell + 2


def test_less_than_a_window_has_no_wall() -> None:
    size = FrameSpectra(RATE).size
    assert (covered(power(talk(1.0, 4000)[:, : size * (WINDOW - 1)])) == NONE).all()


@pytest.mark.parametrize(("rate", "walls_"), [(8000, 0), (16000, 1), (48000, 1)])
def test_low_rates_have_no_room_for_a_wall(rate: int, walls_: int) -> None:
    assert bool(len(wall_cells(len(cell_bounds(rate)) - 1))) == bool(walls_)
