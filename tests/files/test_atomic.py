"""files/atomic.py: temporary files, renaming, and removal of files left by killed processes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from audiosr_cli.errors import OutputError
from audiosr_cli.files import atomic
from audiosr_cli.files.atomic import atomic_path, discard, place, sweep


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


def refuse(code: int) -> Callable[..., None]:
    """Return a function of the operating system that fails with ``code``."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


REFUSALS = [errno.EPERM, errno.EIO, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS]


@pytest.mark.parametrize("renames", [True, False])
@pytest.mark.parametrize("link_error", [0, *REFUSALS])
def test_an_exclusive_target_is_never_replaced(
    link_error: int, renames: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the file system says to links, and whether it can rename without replacing in one step."""
    if link_error:
        monkeypatch.setattr(Path, "hardlink_to", refuse(link_error))
    if not renames:
        monkeypatch.setattr(atomic, "_rename_without_replacing", refuse(errno.EINVAL))
    (tmp_path / "part").write_text("new")
    (tmp_path / "a").write_text("of another process")
    with pytest.raises(OutputError, match="was created while processing"):
        place(tmp_path / "part", tmp_path / "a", exclusive=True)
    place(tmp_path / "part", tmp_path / "b", exclusive=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "of another process", "b": "new"}


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is a call of Linux")
def test_without_links_renaming_and_not_replacing_are_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing is lost even if another process creates the target between a check and the renaming."""
    monkeypatch.setattr(Path, "hardlink_to", refuse(errno.EIO))
    monkeypatch.setattr(os, "replace", refuse(errno.EIO))
    (tmp_path / "part").write_text("new")
    place(tmp_path / "part", tmp_path / "a", exclusive=True)
    assert (tmp_path / "a").read_text() == "new"


def test_a_link_that_was_made_although_an_error_came_back_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS answers when it repeats a request whose first answer was lost."""
    link = os.link

    def link_and_fail(path: Path, part: Path) -> None:
        link(part, path)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(Path, "hardlink_to", link_and_fail)
    (tmp_path / "part").write_text("new")
    place(tmp_path / "part", tmp_path / "a", exclusive=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_folders_that_refuse_to_be_synced_keep_the_file(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network file systems, and drop boxes: folders that may be written to but not read."""
    work = getattr(os, call)

    def only_files(which: Any, *arguments: int) -> Any:
        is_folder = Path(which).is_dir() if call == "open" else stat.S_ISDIR(os.fstat(which).st_mode)
        return refuse(code)() if is_folder else work(which, *arguments)

    monkeypatch.setattr(os, call, only_files)
    with atomic_path(tmp_path / "a") as part:
        part.write_text("new")
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize(("code", "lost"), [(errno.EINVAL, False), (errno.EIO, True), (errno.ENOSPC, True)])
def test_content_that_was_not_synced_is_an_error_unless_the_file_system_cannot(
    code: int, lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", refuse(code))
    with (
        pytest.raises(OutputError, match="cannot be written") if lost else nullcontext(),
        atomic_path(tmp_path / "a") as part,
    ):
        part.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ([] if lost else ["a"])


def test_folders_that_cannot_be_listed_are_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", refuse(errno.EIO))
    sweep(tmp_path)
    discard(tmp_path, "1-000000")


def test_a_replaced_file_keeps_its_permissions_and_new_ones_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "old").touch(mode=0o600)
    before = os.umask(0o027)
    try:
        for name in ("old", "new"):
            with atomic_path(tmp_path / name) as part:
                part.write_text("new")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("old", "new")] == [0o600, 0o640]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_a_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    (tmp_path / "a").touch(mode=0o640)
    os.chown(tmp_path / "a", 1234, 2345)
    with atomic_path(tmp_path / "a") as part:
        part.write_text("new")
    status = (tmp_path / "a").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 2345, 0o640)


@pytest.mark.parametrize("exists", [True, False])
def test_a_symlink_is_written_through(exists: bool, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    if exists:
        (tmp_path / "there" / "a").write_text("old")
    (tmp_path / "link").symlink_to("there/a")
    with atomic_path(tmp_path / "link") as part:
        part.write_text("new")
        assert part.parent == tmp_path / "there"  # a rename does not leave its disk
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "a").read_text() == "new"
