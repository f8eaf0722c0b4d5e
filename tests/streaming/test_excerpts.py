"""streaming/excerpts.py: which parts of files, pipes and arrays are looked at."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noise

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.streaming.excerpts import excerpt, open_excerpt, parts
from audiosr_cli.streaming.options import Options, Samples

RATE = 8000


def test_short_files_are_analysed_as_a_whole_and_long_ones_in_parts_spread_over_them() -> None:
    assert parts(100, 10, 180, 20) == [range(1800)]
    assert parts(None, 10, 180, 20) == [range(1800)]
    chosen = parts(36000, 10, 180, 20)
    assert [len(part) for part in chosen] == [200] * 9
    assert (chosen[0].start, chosen[4].start, chosen[-1].stop) == (0, 17900, 36000)
    chosen = parts(1801, 10, 180, 20)
    assert all(first.stop <= second.start for first, second in pairwise(chosen))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_excerpt_is_what_lies_within_its_parts(size: int) -> None:
    signal = np.arange(100, dtype=np.float32)[None]
    blocks = (signal[:, start : start + size] for start in range(0, 100, size))
    got = np.concatenate(list(excerpt(blocks, [range(5, 20), range(20, 22), range(60, 75)])), axis=1)
    assert got[0].tolist() == [*range(5, 22), *range(60, 75)]


def test_nothing_is_read_behind_the_last_part() -> None:
    def blocks() -> Iterator[Samples]:
        yield np.zeros((1, 10), np.float32)
        raise AssertionError

    assert sum(block.shape[1] for block in excerpt(blocks(), [range(10)])) == 10


def looked_at(reader: AudioReader | ArrayReader, options: Options | None = None, reach_s: float = 100.0) -> Samples:
    """What is looked at of a recording: at most 2 s in parts of 0.5 s, 1 s of a pipe."""
    options = options or Options()
    reader.trim(options.start_s, options.end_s)
    with open_excerpt(reader, options, 2.0, 0.5, 1.0, reach_s) as (blocks, _):
        return np.concatenate(list(blocks), axis=1)


def test_a_file_an_array_and_a_pipe_can_be_read_from_their_beginning_afterwards(tmp_path: Path) -> None:
    signal, stream = noise(8 * RATE), io.BytesIO()
    soundfile.write(stream, signal.T, RATE, "FLOAT", format="WAV")
    (tmp_path / "a.wav").write_bytes(stream.getvalue())
    spread = np.concatenate([signal[:, start : start + 4000] for start in (0, 20000, 40000, 60000)], axis=1)
    with AudioReader(tmp_path / "a.wav") as file, AudioReader(stream.getvalue()) as pipe:
        for reader, expected in (
            (file, spread),
            (ArrayReader(signal, RATE), spread),
            (pipe, signal[:, :RATE]),
        ):
            np.testing.assert_array_equal(looked_at(reader), expected)
            np.testing.assert_array_equal(np.concatenate(list(reader.blocks()), axis=1), signal)


def test_what_lies_behind_the_reach_is_not_looked_at() -> None:
    signal = noise(8 * RATE)
    looked = looked_at(ArrayReader(signal, RATE), Options(start_s=1.0), reach_s=4.0)
    starts = (round(RATE + i * 28000 / 3) for i in range(4))
    np.testing.assert_array_equal(looked, np.concatenate([signal[:, at : at + 4000] for at in starts], axis=1))
