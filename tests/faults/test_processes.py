"""Faults 73 to 86 and 91: kills, signals, pipes, terminals, and memory that runs out."""

from __future__ import annotations

import io
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fork_server
import numpy as np
import pytest
import soundfile
import torch
from conftest import HANG_S, noise, tone, until
from hostile import ENVIRONMENT, RATE, audiosr, chunk, fmt, measured, need, riff, samples, sparse
from running import COMMAND

from audiosr_cli.audio.decoders.wav import WavReader
from audiosr_cli.audio.formats import OutputFormat
from audiosr_cli.audio.resample import resampled_length
from audiosr_cli.audio.wav import WavFormat, header
from audiosr_cli.audio.write import Gate
from audiosr_cli.errors import SampleError

SEED = 73
MANY_MIB = 50  # by which memory may differ between a short recording and a long one


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", samples(RATE).T, RATE)
    return tmp_path / "a.wav"


def endless(rate: int = 8000) -> bytes:
    """Build the beginning of a WAV of unknown length."""
    return riff(chunk(b"fmt ", fmt(rate=rate)), chunk(b"data", b"", 0xFFFFFFFF))


def started(*arguments: object, **streams: object) -> subprocess.Popen[bytes]:
    command = [*COMMAND, *map(str, arguments)]
    return fork_server.popen(command, env=ENVIRONMENT, **({"stderr": subprocess.PIPE} | streams))


def wait_for(there: object, process: subprocess.Popen[bytes]) -> None:
    """Wait until ``there()`` is true or the process has exited; fail after a while."""
    deadline = time.monotonic() + HANG_S
    while not there() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow  # 40 kills
def test_073_kill_9_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    """Two recordings are written to one file in turn, and each process is killed at a random moment."""
    target, names = tmp_path / "out" / "a.wav", [tmp_path / f"{i}.wav" for i in range(2)]
    whole = []
    for i, name in enumerate(names):
        soundfile.write(name, samples(400 * RATE, seed=i).T, RATE)
        options = ("upsample", name, "--model", "none", "--overwrite", "-o", target)
        target.parent.mkdir(exist_ok=True)
        assert audiosr(*options).code == 0
        whole.append(target.read_bytes())
    draw = random.Random(SEED)
    for i in range(40):
        process = started("upsample", names[i % 2], "--model", "none", "--overwrite", "-o", target)
        wait_for(lambda: list(target.parent.glob("*.part")), process)
        time.sleep(draw.uniform(0, 0.8))
        process.kill()
        process.communicate()
        assert target.read_bytes() in whole
        for left in target.parent.glob("*.part"):
            left.unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_073_074_075_a_signal_in_the_middle_leaves_no_half_file(number: int, tmp_path: Path) -> None:
    """The input is a pipe that never ends; an existing output is not changed."""
    (tmp_path / "a.wav").write_bytes(b"old")
    options = ("--cutoff", 4000, "--overwrite", "-o", tmp_path / "a.wav")
    process = started("upsample", "-", *options, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(endless() + samples(120_000).tobytes())
    process.stdin.flush()
    wait_for(lambda: any(path.stat().st_size > 1000 for path in tmp_path.iterdir()), process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=HANG_S)
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
    assert process.returncode == codes[number]
    assert b"Traceback" not in stderr
    assert (tmp_path / "a.wav").read_bytes() == b"old"
    left = [path.name for path in tmp_path.iterdir() if path.name != "a.wav"]
    assert left == [] if number != signal.SIGKILL else all(name.endswith(".part") for name in left)


_ENDLESS_WINDOWS = """
import pathlib, sys, threading
from audiosr_cli.cli.main import main
from audiosr_cli.models.spectral_bwe import SpectralBWE
started = pathlib.Path(sys.argv.pop(1))

def forward(*_, **__):
    started.touch()
    threading.Event().wait()

SpectralBWE.forward = forward
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("threads", [1, 2])
def test_074_a_signal_does_not_wait_for_windows(threads: int, number: int, code: int, tmp_path: Path) -> None:
    """Here the windows never end."""
    soundfile.write(tmp_path / "a.wav", samples(10 * RATE).T, RATE)
    options = ("--cutoff", 3000, "--threads", threads, "-o", tmp_path / "out")
    command = [sys.executable, "-c", _ENDLESS_WINDOWS, tmp_path / "started", "upsample", tmp_path / "a.wav", *options]
    process = fork_server.popen(list(map(str, command)), env=ENVIRONMENT, stderr=subprocess.PIPE)
    wait_for((tmp_path / "started").exists, process)
    assert list((tmp_path / "out").glob("*.part"))
    process.send_signal(number)
    _, stderr = process.communicate(timeout=HANG_S)
    assert (process.returncode, b"Traceback" in stderr) == (code, False)
    assert list((tmp_path / "out").iterdir()) == []


def test_076_a_reader_that_goes_away(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(200_000).T, 8000)
    command = f"{fork_server.shell_command()} upsample {tmp_path}/a.wav --model none -o -"
    line = f"{command} | head -c 100 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=HANG_S)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("output", ["-", "{folder}/b.wav"])
def test_077_standard_output_is_full(output: str, recording: Path) -> None:
    """Audio to standard output, and the name of a file, which exists nevertheless."""
    target = output.format(folder=recording.parent)
    with open("/dev/full", "wb") as full:
        process = started("upsample", recording, "--model", "none", "-o", target, stdout=full)
        _, stderr = process.communicate(timeout=HANG_S)
    assert (process.returncode, stderr) in (
        (1, b"audiosr: standard output: No space left on device\n"),
        (1, b"audiosr: standard output: cannot be written: No space left on device\n"),
    )


def test_078_a_terminal_where_audio_was_awaited() -> None:
    master, slave = pty.openpty()
    process = started("upsample", "-", "--model", "none", stdin=slave, stdout=subprocess.PIPE)
    _, stderr = process.communicate(timeout=HANG_S)
    os.close(slave)
    os.close(master)
    assert process.returncode == 2
    assert b"standard input, which is a terminal; pipe a recording into it" in stderr
    assert len(stderr.splitlines()) == 1


def test_079_no_audio_to_a_terminal(recording: Path) -> None:
    master, slave = pty.openpty()
    process = started("upsample", recording, "--model", "none", "-o", "-", stdout=slave)
    _, stderr = process.communicate(timeout=HANG_S)
    os.close(slave)
    os.set_blocking(master, False)
    with pytest.raises(OSError):  # nothing came
        os.read(master, 100)
    os.close(master)
    assert process.returncode == 2
    assert b"standard output, which is a terminal; redirect it" in stderr


@pytest.mark.parametrize(
    ("stream", "message"), [("<&-", "standard input is closed"), ("</dev/null", "standard input: is empty")]
)
def test_080_standard_input_closed_or_empty(stream: str, message: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m audiosr_cli" if stream == "<&-" else fork_server.shell_command()
    line = f"{command} upsample - --model none -o {tmp_path}/a.wav {stream}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=HANG_S, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"audiosr: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def activity(process: subprocess.Popen[bytes]) -> list[str]:
    """Read the context switches and CPU time of each thread, which do not change while all wait."""
    lines = []
    for thread in sorted(Path(f"/proc/{process.pid}/task").iterdir()):
        lines += [line for line in (thread / "status").read_text().splitlines() if "ctxt_switches" in line]
        lines += (thread / "stat").read_text().rpartition(")")[2].split()[11:13]
    return lines


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="what threads do is read from /proc")
def test_081_a_slow_producer(tmp_path: Path) -> None:
    """Output is written while the input pauses, and no thread polls for more."""
    process = started("upsample", "-", "--model", "none", "-o", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    held = memoryview(endless() + samples(200_000).tobytes())
    came = bytearray()

    def feed() -> None:
        for i in range(0, len(held), 1000):
            process.stdin.write(held[i : i + 1000])
        process.stdin.flush()

    feeder = threading.Thread(target=feed)
    feeder.start()

    def enough() -> bool:
        came.extend(process.stdout.read1(1 << 20) or b"")
        return len(came) > 6 * 2 * 120_000

    wait_for(enough, process)
    feeder.join(HANG_S)

    def waits() -> bool:
        before = activity(process)
        time.sleep(0.5)
        return activity(process) == before

    until(waits)  # as soon as what came is worked off
    os.set_blocking(process.stdout.fileno(), True)
    rest, _ = process.communicate(samples(1000).tobytes(), timeout=HANG_S)
    assert process.returncode == 0
    assert len((came + rest).partition(b"data" + b"\xff" * 4)[2]) == 6 * 2 * 201_000


def peak(folder: Path, seconds: int, *options: object) -> float:
    head = endless()
    path = sparse(folder / f"{seconds}.wav", head, len(head) + 2 * 8000 * seconds)
    done = measured(folder, *options, path)
    assert done.code == 0, done.stderr
    path.unlink()
    return done.peak


@pytest.mark.parametrize(
    ("command", "short", "long"),
    [
        (("upsample", "--model", "none", "-o", "/dev/null"), 60, 600),  # 600 s at 48 kHz are 115 MB as float32
        (("upsample", "--cutoff", 3000, "-o", "/dev/null"), 20, 60),
        (("separate", "--model", "spectral2_narrow", "--overwrite", "-o", "{folder}"), 20, 60),
        pytest.param(("upsample", "--model", "none", "-o", "/dev/null"), 60, 36_000, marks=pytest.mark.slow),
        pytest.param(("upsample", "--cutoff", 3000, "-o", "/dev/null"), 20, 3600, marks=pytest.mark.slow),
        pytest.param(
            ("separate", "--model", "spectral2_narrow", "--overwrite", "-o", "{folder}"),
            *(20, 3600),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_082_memory_does_not_grow_with_the_recording(
    command: tuple[object, ...], short: int, long: int, tmp_path: Path
) -> None:
    options = [str(word).format(folder=tmp_path) for word in command]
    assert peak(tmp_path, long, *options) < peak(tmp_path, short, *options) + MANY_MIB


def test_083_counters_of_64_bits() -> None:
    frames = 2**33 + 5
    assert resampled_length(frames, 8000, 48000) == 6 * frames
    assert WavReader(io.BytesIO(header(WavFormat(48000, 1, 16), frames)), "a.wav").frames == frames
    gate = Gate(OutputFormat("wav", "PCM_16", 48000, 1), "warn", "a.wav")
    gate.measured = gate.frames = frames
    gate(np.zeros((1, 10), np.float32))
    with pytest.raises(SampleError, match=f"sample {frames + 10} "):
        gate(np.full((1, 1), np.nan, np.float32))


@pytest.mark.slow  # reads 8 GiB
def test_083_a_position_beyond_2_to_the_31(tmp_path: Path) -> None:
    head = riff(chunk(b"fmt ", fmt(3, bits=32)), chunk(b"data", b"", 0xFFFFFFFF))
    at = 2**31 + 77
    sparse(tmp_path / "a.wav", head, len(head) + 4 * (at + 1), np.float32(np.nan).tobytes())
    done = audiosr("upsample", tmp_path / "a.wav", "--model", "none", "--rate", RATE, "-o", "/dev/null", timeout=3000)
    assert f"sample {at} " in done.message_about(tmp_path / "a.wav")


@pytest.mark.parametrize("mib", [300, 500, 740])
def test_084_too_little_address_space_to_begin(mib: int, recording: Path) -> None:
    need("prlimit", "--version")
    done = audiosr("separate", recording, before=("prlimit", f"--as={mib << 20}"))
    assert (done.code, done.stderr) == (
        1,
        f"audiosr: memory is limited to {mib} MiB (ulimit -v); raise the limit to at least 750 MiB\n",
    )


def test_084_too_little_address_space_for_one_of_two(recording: Path) -> None:
    """64 windows need too much memory; the recording with one window is processed."""
    need("prlimit", "--version")
    long = recording.with_name("long.wav")
    soundfile.write(long, samples(400 * RATE).T, RATE)
    options = ("--batch", 64, "--model", "spectral2", "-o", recording.parent / "out")
    done = audiosr("separate", long, recording, *options, before=("prlimit", f"--as={1200 << 20}"))
    assert done.code == 3, done.stderr
    assert "not enough memory; try --batch 1 --threads 1, or raise the limit (ulimit -v)" in done.message_about(long)
    assert sorted(path.name for path in (recording.parent / "out").iterdir()) == ["a_speaker1.wav", "a_speaker2.wav"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_085_cuda_out_of_memory(tmp_path: Path) -> None:
    """This process takes what there is; tests/test_stages.py has the same without a device."""
    soundfile.write(tmp_path / "a.wav", samples(400 * RATE).T, RATE)
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - (1200 << 20), dtype=torch.uint8, device="cuda")
    done = audiosr("separate", tmp_path / "a.wav", "--device", "cuda", "--batch", 256, "-o", tmp_path / "out")
    del taken
    assert done.code == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "not enough CUDA memory; continuing" in line]
    assert len(lines) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize("command", [("upsample", "a.wav"), ("train", "a.toml")])
def test_086_cuda_asked_for_and_absent(command: tuple[object, ...], tmp_path: Path) -> None:
    done = audiosr(*command, "--device", "cuda")
    assert (done.code, done.stderr) == (
        2,
        "audiosr: --device cuda: no CUDA device is available; use --device cpu or auto\n",
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_086_cuda_hidden(recording: Path) -> None:
    done = audiosr("upsample", recording, "--device", "cuda", environment={"CUDA_VISIBLE_DEVICES": ""})
    assert done.code == 2
    assert "no CUDA device is available" in done.stderr


def test_091_block_size_never_changes_a_sample(tmp_path: Path) -> None:
    """A file, and the same bytes through a pipe in odd pieces."""
    rate = 44100
    soundfile.write(tmp_path / "a.wav", tone(3 * rate, 300, rate, 2).T, rate, "FLOAT")
    options = ("upsample", "--cutoff", 3000, "--kind", "music", "-o", "-")  # a pipe is not read ahead for its kind
    whole = audiosr(*options, tmp_path / "a.wav")
    process = started(*options, "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    held, draw = (tmp_path / "a.wav").read_bytes(), random.Random(SEED)
    while held:
        count = draw.randrange(1, 9999)
        process.stdin.write(held[:count])
        process.stdin.flush()
        held = held[count:]
    made, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == whole.code == 0
    assert made == whole.stdout
