"""Faults 87 to 90, 92 and 103: killed workers, concurrent runs, and what --resume processes again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from conftest import EXAMPLES, HANG_S, until
from running import PLAIN, audiosr, contents, endless, inside, parts, recording, recordings, start, workers


def statuses(manifest: Path) -> list[tuple[str, str]]:
    """List inputs and their final statuses in the order of the manifest."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines() if line.endswith("}")]
    return [(Path(row["input"]).name, row["status"]) for row in rows if row["status"] != "started"]


def test_087_a_killed_worker_fails_only_its_recording(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", 4)
    with endless(tmp_path / "endless.wav"):
        arguments = (tmp_path / "endless.wav", folder, "-o", tmp_path / "out", "--jobs", 2, "--json")
        process = start(*PLAIN, *arguments)
        until(lambda: parts(tmp_path / "out"))
        until(lambda: len(list((tmp_path / "out").glob("*_16000.wav"))) == 4)  # the others: what is left is endless
        busy = int(parts(tmp_path / "out")[0].name.split("-")[1])
        assert busy in workers(process.pid)
        os.kill(busy, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=HANG_S)
    assert process.returncode == 3
    assert b"endless.wav: its worker was killed by signal 9; run it again\n" in stderr
    assert b"Traceback" not in stderr
    ends = [json.loads(line)["event"] for line in stdout.splitlines()]
    assert (ends.count("done"), ends.count("failed")) == (4, 1)
    assert sorted(contents(tmp_path / "out")) == [f"00{i}_16000.wav" for i in range(4)]


def test_087_another_worker_takes_the_place_of_a_killed_one(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", 3)
    with endless(tmp_path / "a.wav"), endless(tmp_path / "b.wav"):
        process = start(*PLAIN, tmp_path / "a.wav", tmp_path / "b.wav", folder, "-o", tmp_path / "out", "--jobs", 2)
        for part in until(lambda: found if len(found := parts(tmp_path / "out")) == 2 else []):
            os.kill(int(part.name.split("-")[1]), signal.SIGKILL)
        _, stderr = process.communicate(timeout=HANG_S)
    assert (process.returncode, stderr.count(b"killed by signal 9")) == (3, 2)
    assert sorted(contents(tmp_path / "out")) == [f"00{i}_16000.wav" for i in range(3)]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_087_signals_stop_workers_and_remove_temporary_files(number: int, code: int, tmp_path: Path) -> None:
    """The signal goes to the whole group, as from a terminal."""
    with endless(tmp_path / "a.wav"), endless(tmp_path / "b.wav"):
        arguments = (tmp_path / "a.wav", tmp_path / "b.wav", "-o", tmp_path / "out", "--jobs", 2)
        process = start(*PLAIN, *arguments, start_new_session=True)
        until(lambda: len(parts(tmp_path / "out")) == 2)
        children = workers(process.pid)
        os.killpg(process.pid, number)
        stdout, stderr = process.communicate(timeout=HANG_S)
    assert (process.returncode, stdout, b"Traceback" in stderr) == (code, b"", False), stderr
    assert len(children) == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert contents(tmp_path / "out") == {}


def test_087_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    with endless(tmp_path / "a.wav"), endless(tmp_path / "b.wav"):
        process = start(*PLAIN, tmp_path / "a.wav", tmp_path / "b.wav", "-o", tmp_path / "out", "--jobs", 2)
        until(lambda: len(parts(tmp_path / "out")) == 2)
        children = workers(process.pid)
        process.kill()
        process.communicate(timeout=HANG_S)
        until(lambda: not any(alive(child) for child in children))


def alive(process: int) -> bool:
    """Check whether a process is running."""
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def test_088_two_runs_into_one_folder(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", 30, 40_000)
    assert inside(*PLAIN, folder, "-o", tmp_path / "alone").returncode == 0
    runs = [start(*PLAIN, folder, "-o", tmp_path / "both", "--overwrite") for _ in range(2)]
    for run in runs:
        _, stderr = run.communicate(timeout=HANG_S)
        assert run.returncode == 0, stderr
    assert contents(tmp_path / "both") == contents(tmp_path / "alone")


def test_089_resume_after_a_kill_skips_only_complete_recordings(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", 8, 4000)
    manifest, out = tmp_path / "run.jsonl", tmp_path / "out"
    arguments = (*PLAIN, folder, "-o", out, "--manifest", manifest)
    first, last = [[folder / f"{i:03}.wav" for i in numbers] for numbers in (range(4), range(4, 8))]
    with endless(tmp_path / "endless.wav"):
        process = start(*PLAIN, *first, tmp_path / "endless.wav", *last, "-o", out, "--manifest", manifest)
        until(lambda: parts(out) and len(statuses(manifest)) == 4)
        process.kill()
        process.communicate(timeout=HANG_S)
    proven = {path.name for path in first}
    assert {name for name, _ in statuses(manifest)} == proven
    (out / "001_16000.wav").write_bytes((out / "001_16000.wav").read_bytes()[:-1] + b"x")  # same size
    (out / "002_16000.wav").unlink()
    recording(folder / "000.wav", 4000, 99)  # same size, other time
    before = manifest.stat().st_size
    done = inside(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    with manifest.open() as stream:
        stream.seek(before)
        again = [Path(row["input"]).name for row in map(json.loads, stream) if row["status"] == "done"]
    everything = {f"{i:03}.wav" for i in range(8)}
    assert sorted(again) == sorted((everything - proven) | {"000.wav", "001.wav", "002.wav"})
    assert inside(*PLAIN, folder, "-o", tmp_path / "clean").returncode == 0
    assert contents(out) == contents(tmp_path / "clean")


def test_089_a_touched_input_with_the_same_content_is_complete(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", 2)
    arguments = (*PLAIN, folder, "-o", tmp_path / "out", "--manifest", tmp_path / "m", "--resume")
    assert inside(*arguments).returncode == 0
    os.utime(folder / "000.wav", (1, 1))
    done = inside(*arguments)
    assert (done.returncode, done.stderr.count(b"skipped"), done.stdout) == (0, 2, b"")


def test_089_outputs_that_the_manifest_does_not_know_are_not_replaced(tmp_path: Path) -> None:
    """The manifest does not list them."""
    folder = recordings(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "000_16000.wav").write_bytes(b"of somebody else")
    done = inside(*PLAIN, folder, "-o", tmp_path / "out", "--manifest", tmp_path / "m", "--resume")
    assert (done.returncode, b"already exists" in done.stderr) == (3, True)
    done = inside(*PLAIN, folder, "-o", tmp_path / "out", "--manifest", tmp_path / "m", "--resume")
    assert (done.returncode, b"already exists" in done.stderr) == (3, True)
    assert (tmp_path / "out" / "000_16000.wav").read_bytes() == b"of somebody else"


def test_090_another_option_is_processed_again(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", 2)
    arguments = [*PLAIN, folder, "-o", tmp_path / "out", "--manifest", tmp_path / "m", "--template", "{stem}.wav"]
    assert inside(*arguments).returncode == 0
    for more in (("--subtype", "float"), ("--channels", "mix"), ("--rate", "24000")):
        done = inside(*arguments, *more, "--resume")
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
    assert soundfile.info(tmp_path / "out" / "000.wav").samplerate == 24000
    assert inside(*arguments, "--rate", "24000", "--resume").stdout == b""


def test_090_another_model_is_processed_again(tmp_path: Path) -> None:
    """Even under the same name and path."""
    recording(tmp_path / "a.wav", 4000)
    weights = EXAMPLES.parent / "weights"
    arguments = ("upsample", tmp_path / "a.wav", "--model", tmp_path / "m.safetensors", "--cutoff", 3000)
    arguments = (*arguments, "-o", tmp_path / "out", "--manifest", tmp_path / "m", "--resume")
    (tmp_path / "m.safetensors").write_bytes((weights / "spectral_bwe.safetensors").read_bytes())
    assert inside(*arguments).stdout.count(b"\n") == 1
    assert inside(*arguments).stdout == b""
    (tmp_path / "m.safetensors").write_bytes((weights / "audio_unet.safetensors").read_bytes())
    done = inside(*arguments)
    assert (done.returncode, done.stdout.count(b"\n")) == (0, 1), done.stderr


def test_092_any_number_of_jobs_writes_the_same_bytes(tmp_path: Path) -> None:
    """And any number of threads, as each operator uses one."""
    folder, outputs = recordings(tmp_path / "in", 2, 12_000), []
    environment, threads = os.environ | {"OMP_NUM_THREADS": "3"}, torch.get_num_threads()
    for number, how in enumerate([("--threads", 1), ("--jobs", 2), ("--threads", 3)]):
        call = ("separate", folder, "-o", out := tmp_path / str(number), "--subtype", "float", *how)
        torch.set_num_threads(3)
        try:
            done = audiosr(*call, env=environment) if how[0] == "--jobs" else inside(*call)
        finally:
            torch.set_num_threads(threads)
        assert done.returncode == 0, done.stderr
        outputs.append(contents(out))
    assert len(outputs[0]) == 4
    assert all(one == outputs[0] for one in outputs)


def test_103_an_incomplete_line_is_ignored_and_its_recording_processed_again(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "in", 3)
    manifest = tmp_path / "run.jsonl"
    arguments = (*PLAIN, folder, "-o", tmp_path / "out", "--manifest", manifest)
    assert inside(*arguments).returncode == 0
    data, before = manifest.read_bytes(), contents(tmp_path / "out")
    last = data.rstrip(b"\n").rindex(b"\n") + 1
    garbage = b'{"input": 3, "outputs": [], "status": []}\n\xff\xfe\nnull\n[]\n'
    for left in (data[: last + (len(data) - last) // 2], data[:last] + b"\n", data[:last] + garbage):
        manifest.write_bytes(left)
        done = inside(*arguments, "--resume")
        assert (done.returncode, done.stdout.decode()) == (0, f"{tmp_path}/out/002_16000.wav\n"), done.stderr
        assert contents(tmp_path / "out") == before
        rows: list[dict[str, Any]] = [json.loads(line) for line in manifest.read_bytes().splitlines()[-2:]]
        assert [row["status"] for row in rows] == ["started", "done"]
    assert inside(*arguments, "--resume").stdout == b""
