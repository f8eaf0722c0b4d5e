"""audio/trim.py: the part of a recording between two times, to the sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noise

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.trim import Trim, frame_range
from audiosr_cli.errors import InputError

RATE = 1000
WAVE = np.arange(2 * 50, dtype=np.float32).reshape(2, 50)


def blocks(size: int) -> Iterator[np.ndarray]:
    for start in range(0, WAVE.shape[1], size):
        yield WAVE[:, start : start + size]


@pytest.mark.parametrize("size", [1, 7, 10, 49, 50, 100])
@pytest.mark.parametrize(("first", "last"), [(0, None), (0, 50), (0, 20), (13, None), (13, 14), (13, 41), (40, 99)])
def test_a_part_is_cut_out_whatever_the_blocks_are(size: int, first: int, last: int | None) -> None:
    trim = Trim(first / RATE, None if last is None else last / RATE, RATE, "x")
    cut = list(trim.cut(blocks(size)))
    assert all(block.shape[1] for block in cut)
    assert np.array_equal(np.concatenate(cut, axis=1), WAVE[:, first:last])


def test_nothing_is_read_behind_the_end() -> None:
    source = blocks(10)
    list(Trim(0.005, 0.02, RATE, "x").cut(source))
    assert next(source)[0, 0] == 20


def test_the_position_lasts_from_one_call_to_the_next() -> None:
    trim, source = Trim(0.005, 0.025, RATE, "x"), blocks(10)
    pieces = [next(trim.cut(source)), *trim.cut(source), *trim.cut(source)]
    assert np.array_equal(np.concatenate(pieces, axis=1), WAVE[:, 5:25])


def test_times_become_the_nearest_frames() -> None:
    assert frame_range(0.1, 0.3, 44100) == (4410, 13230)
    assert frame_range(1 / 3, 2 / 3, 44100) == (14700, 29400)
    assert frame_range(0.00124, 0.00126, 8000) == (10, 10)
    assert frame_range(None, None, 8000) == (0, None)


@pytest.mark.parametrize("start", [0.05, 0.06, 9])
def test_a_start_at_or_behind_the_end_is_an_error_with_the_length(start: float) -> None:
    with pytest.raises(InputError, match=f"^x: --start {start:g} s is not before its end; it is 0.050 s long$"):
        list(Trim(start, None, RATE, "x").cut(blocks(7)))
    with pytest.raises(InputError, match=f"start_s = {start:g} is not before its end; it is 0.050 s long$"):
        ArrayReader(WAVE, RATE).trim(start, None)


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "FLOAT"), ("flac", "PCM_16")])
def test_files_and_arrays_have_the_same_parts(suffix: str, subtype: str, tmp_path: Path) -> None:
    wave = np.round(noise(200_000, 2) * 32768) / 32768
    soundfile.write(tmp_path / f"a.{suffix}", wave.T, 8000, subtype)
    with AudioReader(tmp_path / f"a.{suffix}") as reader:
        reader.trim(3.0001, 20.00008)
        head = list(reader.peek(10.0))
        assert sum(block.shape[1] for block in head) >= 80_000
        whole = np.concatenate(list(reader.blocks()), axis=1)
        assert not reader.warnings
    array = ArrayReader(wave, 8000)
    array.trim(3.0001, 20.00008)
    again = np.concatenate(list(array.blocks(999)), axis=1)
    assert np.array_equal(np.concatenate(list(array.peek(10.0)), axis=1), again[:, :80_000])
    assert np.array_equal(whole, wave[:, 24_001:160_001])
    assert np.array_equal(again, whole)


def test_damage_behind_the_end_does_not_matter(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(8000).T, 8000)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:-4000])
    with AudioReader(tmp_path / "a.wav") as reader:
        reader.trim(None, 0.7)
        assert sum(block.shape[1] for block in reader.blocks()) == 5600
        assert not reader.warnings
