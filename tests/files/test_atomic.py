"""files/atomic.py: temporary files, renaming, and removal of files left by killed processes."""

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


def test_sweep_removes_files_of_killed_processes_only(tmp_path: Path) -> None:
    code = "import os, sys; from audiosr_cli.files.atomic import atomic_path; from pathlib import Path\n"
    code += "with atomic_path(Path(sys.argv[1], 'a')) as part: part.touch(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    (left,) = tmp_path.iterdir()
    owner, token = left.name.split("-")[1:]
    elsewhere = tmp_path / f".audiosr-{owner}-{'0' * 14}.part"  # a process on another machine
    own, other = tmp_path / f".audiosr-{os.getpid()}-{token}", tmp_path / f".audiosr-x-{token}"
    for path in (elsewhere, own, other):
        path.touch()
    sweep(tmp_path)
    assert {*tmp_path.iterdir()} == {elsewhere, own, other}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see zombies")
def test_sweep_treats_zombies_as_dead(tmp_path: Path) -> None:
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


def test_sweep_skips_files_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_sweep_skips_files_of_other_containers(tmp_path: Path) -> None:
    """Process 1 of another PID namespace is another process than ours."""
    command = ["unshare", "-rpf", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespaces here (unshare -rpf)")
    code = "from audiosr_cli.files.atomic import _host; print(_host())"
    done = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout) == 7
    assert done.stdout.strip() != atomic._host()


def test_atomic_path_renames_at_the_end_and_needs_the_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x") as part:
        part.write_text("new")
        assert part.parent == tmp_path
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_text() == "new"
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(tmp_path / "y"):
        pass  # the file was not written
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_content_is_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a power cut leaves neither an incomplete file nor the old name."""
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
def test_an_exclusive_target_is_never_replaced(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    (tmp_path / "part").write_text("new")
    (tmp_path / "a").write_text("of another process")
    with pytest.raises(OutputError, match="was created while processing"):
        place(tmp_path / "part", tmp_path / "a", exclusive=True)
    place(tmp_path / "part", tmp_path / "b", exclusive=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "of another process", "b": "new"}
