"""files/atomic.py: temporary files, how they get their names, and what becomes of those that do not."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audiosr_cli.errors import OutputError
from audiosr_cli.files import atomic
from audiosr_cli.files.atomic import atomic_path, place, sweep


def test_sweep_removes_what_killed_processes_left(tmp_path: Path) -> None:
    code = "import os, sys; from audiosr_cli.files.atomic import atomic_path; from pathlib import Path\n"
    code += "with atomic_path(Path(sys.argv[1], 'a')) as part: part.touch(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    (left,) = tmp_path.iterdir()
    owner, token = left.name.split("-")[1:]
    elsewhere = tmp_path / f".audiosr-{owner}-{'0' * 14}.part"  # of a process of another machine
    own, other = tmp_path / f".audiosr-{os.getpid()}-{token}", tmp_path / f".audiosr-x-{token}"
    for path in (elsewhere, own, other):
        path.touch()
    sweep(tmp_path)
    assert {*tmp_path.iterdir()} == {elsewhere, own, other}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="zombies are told by /proc")
def test_sweep_takes_zombies_for_dead(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    with atomic_path(tmp_path / "a") as part:
        part.touch()
        left = tmp_path / part.name.replace(str(os.getpid()), str(process.pid))
        left.touch()
        while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            time.sleep(0.01)
        sweep(tmp_path)
        assert not left.exists()
    process.wait()


def test_sweep_leaves_what_it_may_not_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / f".audiosr-{dead.pid}-{atomic._host()}00000000.part"
    left.touch()

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    sweep(tmp_path)
    assert left.exists()
    monkeypatch.undo()
    sweep(tmp_path)
    assert not left.exists()


def test_sweep_leaves_what_other_containers_are_at(tmp_path: Path) -> None:
    """Process 1 of another PID namespace is not ours, and may be alive where ours are not."""
    command = ["unshare", "-rpf", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespaces here (unshare -rpf)")
    code = "from audiosr_cli.files.atomic import _host; print(_host())"
    done = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout) == 7
    assert done.stdout.strip() != atomic._host()


def test_atomic_path(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x") as part:
        part.write_text("new")
        assert part.parent == tmp_path
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_text() == "new"
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(tmp_path / "y"):
        pass  # nobody made the file
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_a_name_is_given_to_what_the_disk_holds_and_is_held_by_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a rename before its content, nor one that a power cut undoes."""
    sync, rename, steps = os.fsync, os.replace, list[tuple[str, int]]()

    def synced(descriptor: int) -> None:
        steps.append(("sync", os.fstat(descriptor).st_ino))
        sync(descriptor)

    def renamed(part: Path, target: Path) -> None:
        steps.append(("name", part.stat().st_ino))
        rename(part, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    with atomic_path(tmp_path / "a") as part:
        part.write_text("new")
    file, folder = (tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino
    assert steps == [("sync", file), ("name", file), ("sync", folder)]


@pytest.mark.parametrize("links", [True, False])
def test_a_fresh_name_is_taken_from_nobody(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    (tmp_path / "part").write_text("new")
    (tmp_path / "a").write_text("of somebody else")
    with pytest.raises(OutputError, match="came to be there meanwhile"):
        place(tmp_path / "part", tmp_path / "a", exclusive=True)
    place(tmp_path / "part", tmp_path / "b", exclusive=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "of somebody else", "b": "new"}
