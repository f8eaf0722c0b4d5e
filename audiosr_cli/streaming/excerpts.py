"""Parts of a recording that are looked at before it is processed: spread over a file, or the beginning of a pipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.streaming.options import Options, Samples


class Excerpt(NamedTuple):
    """Parts of an open recording.

    Attributes:
        blocks: (C, T), one after the other.
        ranges: The frames of the recording that they are, as far as it has them.
    """

    blocks: Iterator[Samples]
    ranges: Sequence[range]


@contextmanager
def open_excerpt(
    reader: AudioReader | ArrayReader,
    options: Options,
    max_seconds: float,
    part_seconds: float,
    pipe_seconds: float,
    reach_seconds: float = math.inf,
) -> Iterator[Excerpt]:
    """Open parts of a recording, all of whose samples can still be read afterwards.

    Args:
        reader: The recording, trimmed. A file is opened a second time; the beginning of a pipe is kept.
        options: How it is processed.
        max_seconds: In all, of a file or an array.
        part_seconds: Of each part, if the recording is longer than that.
        pipe_seconds: From the beginning of a pipe.
        reach_seconds: What lies behind these is not looked at.

    Raises:
        InputError: If the recording cannot be read.
    """
    rate = reader.sample_rate
    frames = options.count_frames(reader.frames, rate)
    within = frames if frames is None or frames < reach_seconds * rate else math.ceil(reach_seconds * rate)
    ranges = parts(within, rate, max_seconds, part_seconds)
    if not isinstance(reader, AudioReader):
        yield Excerpt(excerpt(reader.peek(max_seconds if len(ranges) == 1 else math.inf), ranges), ranges)
    elif reader.path is None:
        ranges = [range(math.ceil(pipe_seconds * rate))]
        yield Excerpt(excerpt(reader.peek(pipe_seconds), ranges), ranges)
    else:
        with AudioReader(reader.path, reader.audio_stream) as again:
            again.trim(options.start_s, options.end_s)
            yield Excerpt(excerpt(again.blocks(), ranges), ranges)


def parts(frames: int | None, sample_rate: int, max_seconds: float, part_seconds: float) -> Sequence[range]:
    """Choose parts of a recording.

    Args:
        frames: Of the recording; None if that is unknown.
        sample_rate: Hz.
        max_seconds: Of all parts together.
        part_seconds: Of each.

    Returns:
        Ranges of frames in their order: all of a short recording, the beginning if the length is unknown.
    """
    limit, size = round(max_seconds * sample_rate), round(part_seconds * sample_rate)
    if frames is None or frames <= limit:
        return [range(limit)]
    count = max(2, limit // size)
    starts = (round(i * (frames - size) / (count - 1)) for i in range(count))
    return [range(start, start + size) for start in starts]


def excerpt(blocks: Iterable[Samples], ranges: Sequence[range]) -> Iterator[Samples]:
    """Yield what lies within the ``ranges`` of frames, from blocks (C, T); do not read on behind them."""
    at = 0
    for block in blocks:
        end = at + block.shape[1]
        for part in ranges:
            if max(at, part.start) < min(end, part.stop):
                yield block[:, max(0, part.start - at) : part.stop - at]
        at = end
        if at >= ranges[-1].stop:
            return
