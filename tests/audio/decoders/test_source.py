"""audio/decoders/source.py: bytes from files and pipes, whose beginning can be read twice, in constant memory."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from encoded_files import mux, signal

from audiosr_cli.audio.decoders.source import ByteSource
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.wav import WavFormat, header


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def fed(pipe: Path, content: bytes) -> threading.Thread:
    feeder = threading.Thread(target=pipe.write_bytes, args=(content,))
    feeder.start()
    return feeder


def test_the_head_of_a_pipe_can_be_read_twice(pipe: Path) -> None:
    content = np.random.default_rng(0).bytes(200_000)
    feeder = fed(pipe, content)
    source = ByteSource(pipe)
    assert source.head(100_000) == content[:100_000]
    assert source.read(50_000) + source.read(100_000) == content[:100_000]  # what is there, before the pipe is read
    source.rewind()
    source.commit()
    assert source.read(60_000) == content[:60_000]
    rest = b"".join(iter(lambda: source.read(7_000), b""))
    assert rest == content[60_000:]
    feeder.join()
    source.close()


def test_a_pipe_becomes_a_file_from_its_first_byte(pipe: Path) -> None:
    content = np.random.default_rng(0).bytes(200_000)
    feeder = fed(pipe, content)
    source = ByteSource(pipe)
    source.head(1000)
    source.read(300)
    assert source.file().read() == content
    feeder.join()
    source.close()


def long_mp3(tmp_path: Path) -> bytes:
    mux(
        tmp_path / "a.mp3",
        signal(16000, 1, 8),
        16000,
        "libmp3lame",
        options={"write_xing": "0", "id3v2_version": "0"},
        bit_rate=160000,
    )
    return (tmp_path / "a.mp3").read_bytes() * 15


@pytest.mark.parametrize(("kind", "piped"), [("wav", False), ("wav", True), ("mp3", True)])
def test_memory_does_not_grow_with_the_length(kind: str, piped: bool, tmp_path: Path, pipe: Path) -> None:
    content = header(WavFormat(16000, 1, 16), 1 << 23) + bytes(1 << 24) if kind == "wav" else long_mp3(tmp_path)
    path = tmp_path / "long"
    path.write_bytes(content)
    feeder = fed(pipe, content) if piped else None
    tracemalloc.start()
    with AudioReader(pipe if piped else path) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) > 1_500_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if feeder is not None:
        feeder.join()
    assert peak < len(content) / 2
