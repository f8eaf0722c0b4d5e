"""Headers and argument lists by chance: what is not understood is said, and nothing else happens.

AUDIOSR_FUZZ_EXAMPLES says how many are tried, of each kind.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import pytest
from hostile import WAV_FORMS, chunk, fmt, riff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from audiosr_cli.audio.decoders.wav import WavReader
from audiosr_cli.audio.wav import WavFormat, header
from audiosr_cli.cli import bench
from audiosr_cli.cli.main import app
from audiosr_cli.errors import AudioSRError, InputError

EXAMPLES = int(os.environ.get("AUDIOSR_FUZZ_EXAMPLES", "60"))
HURRIED = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES <= 60
)
BLOCK = 256  # frames
TAGS = [b"fmt ", b"data", b"LIST", b"ds64", b"JUNK", b"fact", b"RIFF", b"\0\0\0\0"]
NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]), st.integers(0, 2**32 - 1)
)


def read(content: bytes) -> None:
    """All of it in blocks that are bounded, or an InputError."""
    try:
        reader = WavReader(io.BytesIO(content), "a.wav")
        frames = 0
        while (block := reader.read(BLOCK)).shape[1]:
            assert block.shape[0] == reader.format.channels
            assert block.shape[1] <= BLOCK
            frames += block.shape[1]
            assert frames * reader.format.frame_bytes <= len(content)
        assert len(reader.warnings) <= 4
    except InputError as error:
        assert str(error).startswith("a.wav: ")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with some bytes changed, some fields of four bytes overwritten, and perhaps its end cut off."""
    form = WavFormat(draw(st.sampled_from([8000, 48000])), draw(st.integers(1, 3)), *draw(st.sampled_from(WAV_FORMS)))
    data = bytearray(header(form, draw(st.sampled_from([0, 1, 50, 2**31, None]))) + draw(st.binary(max_size=400)))
    for at, value in draw(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4)):
        data[at % len(data)] = value
    for at, number in draw(st.lists(st.tuples(st.integers(0, 80), NUMBERS), max_size=2)):
        data[at : at + 4] = struct.pack("<I", number)
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@st.composite
def assembled(draw: st.DrawFn) -> bytes:
    """Chunks in any order whose sizes lie."""
    parts = []
    for tag in draw(st.lists(st.sampled_from(TAGS), max_size=6)):
        held = draw(st.binary(max_size=60))
        if tag == b"fmt ":
            fields = draw(st.tuples(st.sampled_from([1, 3, 7, 0xFFFE]), *(st.integers(0, 2**16 - 1) for _ in range(2))))
            held = fmt(fields[0], fields[1] % 70, draw(NUMBERS), fields[2] % 70) + held
        parts.append(chunk(tag, held, draw(st.one_of(st.none(), NUMBERS))))
    data = riff(*parts)
    return draw(st.sampled_from([b"RIFF", b"RIFX", b"RF64"])) + data[4:]


@HURRIED
@given(st.one_of(mutated(), assembled(), st.binary(max_size=200).map(lambda tail: b"RIFF\0\0\0\0WAVE" + tail)))
def test_headers_by_chance(content: bytes) -> None:
    read(content)


OPTIONS = [
    *(
        "--output",
        "-o",
        "--template",
        "--format",
        "--subtype",
        "--clip",
        "--channels",
        "--device",
        "--batch",
        "--strict",
    ),
    *("--nonfinite", "--overwrite", "--skip", "--json", "--quiet", "-q", "--verbose", "-v", "--speakers", "-s"),
    *("--model", "--residual", "--rate", "--cutoff", "--steps", "--guidance", "--seed", "--restorer", "--upsampler"),
    *("--data", "--out", "--minutes", "--resume", "--init", "--export", "--synthetic", "--runs", "--models", "--help"),
]
VALUES = [
    *(
        "0",
        "1",
        "-1",
        "2",
        "nan",
        "inf",
        "1e12",
        "48000",
        "",
        "-",
        "--",
        "none",
        "wav",
        "xyz",
        "16",
        "mix",
        "error",
        "zero",
    ),
    *(
        "cpu",
        "cuda",
        "missing.wav",
        "/dev/null",
        "{stem}",
        "{",
        "{0}",
        "../{stem}",
        "audio_unet",
        "\0",
        "\udcff",
        "🎵",
    ),
]
COMMANDS = ["separate", "upsample", "separate-sr", "train", "bench", "models", "no-such"]


@st.composite
def calls(draw: st.DrawFn) -> list[str]:
    words = st.one_of(
        st.sampled_from(OPTIONS), st.sampled_from(VALUES), st.text(st.characters(exclude_characters="./~"), max_size=6)
    )
    return [draw(st.sampled_from(COMMANDS)), *draw(st.lists(words, max_size=7))]


@HURRIED
@given(calls())
def test_arguments_by_chance(arguments: list[str]) -> None:
    """In an empty folder, so that there is nothing to work on."""
    done = CliRunner().invoke(app, arguments, input=b"")
    error = done.exception
    if isinstance(error, AudioSRError):  # main() makes a line and a code of it
        assert error.exit_code in (1, 2)
        assert str(error).strip()
    else:
        assert error is None or isinstance(error, SystemExit), arguments
        assert done.exit_code in (0, 1, 2)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "_run", lambda *_: None)  # noise would be enough for it
