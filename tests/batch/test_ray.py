"""Batches on a Ray cluster: same outputs as one process, and killed workers are replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile
from conftest import HANG_S, noise, until
from typer.testing import CliRunner

from audiosr_cli.cli.main import app
from audiosr_cli.errors import UsageError

COMMAND = [sys.executable, "-m", "audiosr_cli"]
PLAIN = ["upsample", "--model", "none", "--rate", "16000"]  # resamples, and loads no model
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def cluster() -> Iterator[str]:
    """Start two raylets with a CPU each; return their address."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'audiosr-cli[ray]'", exc_type=ImportError)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], text=True, **pipes) as process:
        assert process.stdout is not None
        yield next(line.strip() for line in process.stdout if line.strip()[-1:].isdecimal())
        process.communicate()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with cluster() as place:
        yield place


@pytest.fixture
def frail() -> Iterator[str]:
    """Start a cluster that may lose a node."""
    with cluster() as place:
        yield place


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write six recordings into ``in`` in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for i in range(6):
        soundfile.write(tmp_path / "in" / f"{i}.wav", noise(40_000, seed=i).T, 8000)
    return tmp_path


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [*COMMAND, *PLAIN, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True)


def held(path: Path, data: bytes) -> int:
    """Create a FIFO at ``path`` with the first half of ``data``, so that its reader waits; return its descriptor."""
    fifo = path.with_suffix(".fifo")
    os.mkfifo(fifo)
    descriptor = os.open(fifo, os.O_RDWR)
    os.write(descriptor, data[: len(data) // 2])
    fifo.replace(path)
    return descriptor


def parts(folder: Path, count: int) -> list[int]:
    """List the processes of ``count`` temporary files, once all other recordings are done; otherwise nothing."""
    found = [int(path.name.split("-")[1]) for path in sorted(folder.glob(".*.part"))]
    return found if len(found) == count and len(list(folder.glob("*.wav"))) == 6 - count else []


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_recording_whose_worker_is_killed_is_processed_by_another(folder: Path, address: str) -> None:
    assert CliRunner().invoke(app, [*PLAIN, "in", "-o", "plain"]).exit_code == 0
    whole = {path: path.read_bytes() for path in (folder / "in").iterdir()}
    killed, spared = folder / "in" / "4.wav", folder / "in" / "5.wav"
    descriptors = [held(path, whole[path]) for path in (killed, spared)]
    process = start("in", "-o", "out", "--ray", address, "--manifest", "run.jsonl")
    busy = until(lambda: parts(folder / "out", 2))
    assert len({parent(worker) for worker in busy}) == 2  # raylets
    (victim,) = (worker for worker in busy if holds(worker, killed))
    (folder / "whole.wav").write_bytes(whole[killed])
    (folder / "whole.wav").replace(killed)
    os.kill(victim, signal.SIGKILL)
    data = whole[spared][len(whole[spared]) // 2 :]
    os.write(descriptors[1], data)
    os.close(descriptors[1])
    stdout, stderr = process.communicate(timeout=HANG_S)
    os.close(descriptors[0])
    assert process.returncode == 0, stderr
    assert sorted(stdout.decode().splitlines()) == [f"out/{i}_16000.wav" for i in range(6)]
    assert stderr == b"audiosr: warning: in/4.wav: its worker died; another one succeeded at attempt 2\n"
    assert contents(folder / "out") == contents(folder / "plain")
    rows = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    for i in range(6):
        states = [row["status"] for row in rows if row["input"] == f"{folder}/in/{i}.wav"]
        assert states == ["started", "done"]


def holds(process: int, path: Path) -> bool:
    """Check whether the process has the file open."""
    return any(link.exists() and link.samefile(path) for link in Path(f"/proc/{process}/fd").iterdir())


def test_a_recording_fails_after_three_workers_died(folder: Path, address: str) -> None:
    path = folder / "in" / "5.wav"
    data = path.read_bytes()
    victim = 0
    descriptors = [held(path, data)]
    process = start("in", "-o", "out", "--ray", address, "--json")
    for _ in range(3):
        (victim,) = until(lambda last=victim: set(parts(folder / "out", 1)) - {last})
        descriptors.append(held(path, data))
        os.kill(victim, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=HANG_S)
    for descriptor in descriptors:
        os.close(descriptor)
    assert process.returncode == 3
    message = b"audiosr: in/5.wav: 3 workers died, the last one of ActorDiedError; run it again\n"
    assert stderr == message + b"audiosr: 1 of 6 recordings failed\n"
    events = [json.loads(line)["event"] for line in stdout.splitlines()]
    assert [events.count(event) for event in ("start", "done", "failed")] == [6, 5, 1]
    assert sorted(contents(folder / "out")) == [f"{i}_16000.wav" for i in range(5)]


def test_a_recording_of_a_lost_node_is_processed_by_another(folder: Path, frail: str) -> None:
    paths = [folder / "in" / name for name in ("4.wav", "5.wav")]
    whole = [path.read_bytes() for path in paths]
    descriptors = [held(path, data) for path, data in zip(paths, whole, strict=True)]
    process = start("in", "-o", "out", "--ray", frail)
    busy = until(lambda: parts(folder / "out", 2))
    (victim,) = (worker for worker in busy if b"--head" not in Path(f"/proc/{parent(worker)}/cmdline").read_bytes())
    (lost,) = until(lambda: [i for i in range(2) if holds(victim, paths[i])])
    (folder / "whole.wav").write_bytes(whole[lost])
    (folder / "whole.wav").replace(paths[lost])
    os.kill(parent(victim), signal.SIGKILL)
    os.write(descriptors[1 - lost], whole[1 - lost][len(whole[1 - lost]) // 2 :])
    for descriptor in descriptors:
        os.close(descriptor)
    stdout, stderr = process.communicate(timeout=HANG_S)
    assert (process.returncode, len(stdout.splitlines())) == (0, 6), stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_stop_workers_and_remove_temporary_files(number: int, code: int, folder: Path, address: str) -> None:
    paths = [folder / "in" / name for name in ("4.wav", "5.wav")]
    descriptors = [held(path, path.read_bytes()) for path in paths]
    process = start("in", "-o", "out", "--ray", address)
    busy = until(lambda: parts(folder / "out", 2))
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=HANG_S)
    for descriptor in descriptors:
        os.close(descriptor)
    assert (process.returncode, stderr) == (code, b"")
    assert sorted(contents(folder / "out")) == [f"{i}_16000.wav" for i in range(4)]
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in busy))


def test_a_local_cluster_reports_an_unreadable_recording(folder: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'audiosr-cli[ray]'", exc_type=ImportError)
    (folder / "in" / "5.wav").write_bytes(b"RIFF")
    process = start("in", "-o", "out", "--ray", "local", "--jobs", 2)
    stdout, stderr = process.communicate(timeout=HANG_S)
    assert process.returncode == 3
    assert sorted(stdout.decode().splitlines()) == [f"out/{i}_16000.wav" for i in range(5)]
    assert [line[:20] for line in stderr.splitlines()] == [b"audiosr: in/5.wav: t", b"audiosr: 1 of 6 reco"]


@pytest.mark.parametrize("place", ["127.0.0.1:1", "nonsense", "localhost:port"])
def test_unreachable_clusters_are_refused(place: str, folder: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'audiosr-cli[ray]'", exc_type=ImportError)
    done = CliRunner().invoke(app, [*PLAIN, "in", "--ray", place])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith(f"--ray {place}: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in"], "--ray local: Ray is not installed; pip install 'audiosr-cli[ray]'"),
        (["-", "in"], "--ray local: cannot be combined with standard input; leave --ray out"),
        (["in/1.wav", "-o", "-"], "--ray local: cannot be combined with standard output; give -o a file"),
    ],
)
def test_calls_that_ray_cannot_serve_are_refused(
    arguments: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "audiosr_cli.batch.ray", raising=False)
    monkeypatch.delattr("audiosr_cli.batch.ray", raising=False)
    done = CliRunner().invoke(app, [*PLAIN, *arguments, "--ray", "local"])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == message
