"""Faults 54 to 72: names, links, folders, disks, and inputs that change."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import fork_server
import pytest
import soundfile
from conftest import HANG_S, until
from running import COMMAND, PLAIN, audiosr, contents, endless, inside, parts, recording, start

NOBODY = 65534


def in_a_namespace(script: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script that may mount file systems in its own namespace."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here (unshare -rm)")
    command = ["unshare", "-rm", "bash", "-c", script]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG_S)
    assert b"Traceback" not in done.stderr
    return done


def one_line(done: subprocess.CompletedProcess[bytes], *messages: str) -> None:
    """Check that the error is one line that contains all ``messages``."""
    line = done.stderr.decode()
    assert line.count("\n") == 1, line
    assert all(word in line for word in messages), line


def test_054_spaces_quotes_newlines_dashes(tmp_path: Path) -> None:
    names = ['it\'s "two"\nlines\tand\\', "-n", "--help"]
    for name in names:
        recording(tmp_path / f"{name}.wav")
    done = audiosr(*PLAIN, "--", *(f"{name}.wav" for name in names), cwd=tmp_path)
    assert (done.returncode, done.stdout.decode()) == (0, "".join(f"{name}_16000.wav\n" for name in names)), done.stderr
    assert all(soundfile.info(tmp_path / f"{name}_16000.wav").frames == 1600 for name in names)


def test_054_errors_stay_one_line(tmp_path: Path) -> None:
    done = inside(*PLAIN, "two\nlines.wav", cwd=tmp_path)
    assert done.returncode == 1
    one_line(done, r"two\nlines.wav: cannot be opened")


@pytest.mark.parametrize("jobs", [pytest.param([], marks=pytest.mark.slow), ["--jobs", "2"]])
def test_055_emoji_and_cjk_in_the_c_locale(jobs: list[str], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("🎧", "会議", "ø"):
        recording(tmp_path / "in" / f"{name}.wav")
    environment = os.environ | {"LC_ALL": "C", "LANG": "C"}
    done = audiosr(*PLAIN, "in", "-o", "out", "--manifest", "m", *jobs, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert set(contents(tmp_path / "out")) == {"🎧_16000.wav", "会議_16000.wav", "ø_16000.wav"}
    assert "out/会議_16000.wav" in done.stdout.decode()


def test_056_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    name, out = os.fsencode(tmp_path) + b"/\xff.wav", os.fsencode(tmp_path / "out")
    recording(name)
    done = audiosr(*PLAIN, name, "-o", out, env=os.environ | {"LC_ALL": "C"})
    assert (done.returncode, done.stdout) == (0, out + b"/\xff_16000.wav\n")
    listed = audiosr(*PLAIN, "--files-from", "-", "-o", out, "--overwrite", "--json", input=name + b"\n")
    assert listed.returncode == 0, listed.stderr
    Path(tmp_path, "list").write_bytes(name + b"\0")
    resumed = audiosr(*PLAIN, f"@{tmp_path}/list", "-0", "-o", out, "--overwrite", "--manifest", tmp_path / "m")
    assert (resumed.returncode, resumed.stdout) == (0, out + b"/\xff_16000.wav\n")
    lost = audiosr(*PLAIN, os.fsencode(tmp_path) + b"/\xfe.wav")
    one_line(lost, r"/\udcfe.wav: cannot be opened")


def test_057_a_name_of_255_bytes_is_shortened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for last in "ab":
        recording(tmp_path / "in" / f"{'x' * 250}{last}.wav")
    arguments = (*PLAIN, tmp_path / "in", "-o", tmp_path / "out")
    first, again = inside(*arguments), inside(*arguments, "--skip")
    assert first.returncode == again.returncode == 0, first.stderr
    names = [os.path.basename(line) for line in first.stdout.splitlines()]  # noqa: PTH119
    assert again.stdout == b""
    assert len(set(names)) == 2
    assert all(len(name) == 255 and name.endswith(b"_16000.wav") for name in names)


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("a.wav", "../{stem}.wav"),
        ("a.wav", "/{stem}.wav"),
        ("...wav", "{stem}/{rate}.wav"),
        ("ab.wav", "{stem:/>4}.wav"),
    ],
)
def test_058_templates_that_lead_out_are_refused(name: str, template: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    recording(tmp_path / "in" / name)
    done = inside(*PLAIN, tmp_path / "in" / name, "-o", tmp_path / "out", "--template", template)
    assert done.returncode == 2
    one_line(done, "--template", "must stay inside the output folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("how", ["itself", "hard link", "symlink", "output file"])
def test_059_never_onto_an_input(how: str, tmp_path: Path) -> None:
    recording(tmp_path / "a.wav")
    before = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "out").mkdir()
    arguments = ["-o", tmp_path / "out", "--template", "{stem}.wav"]
    if how == "itself":
        arguments[1] = tmp_path
    elif how == "hard link":
        (tmp_path / "out" / "a.wav").hardlink_to(tmp_path / "a.wav")
    elif how == "symlink":
        (tmp_path / "out" / "a.wav").symlink_to(tmp_path / "a.wav")
    else:
        arguments = ["-o", tmp_path / "out" / ".." / "a.wav"]
    done = inside(*PLAIN, tmp_path / "a.wav", "--overwrite", *arguments)
    assert done.returncode == 1
    one_line(done, "a.wav: is an input of this call; choose another name or folder")
    assert (tmp_path / "a.wav").read_bytes() == before


def test_060_two_inputs_for_one_output_are_found_before_work(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        (tmp_path / name).mkdir()
        recording(tmp_path / name / ("a.wav" if name != "3" else "A.wav"))
    done = inside(*PLAIN, "3/A.wav", "1/a.wav", "2/a.wav", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2
    one_line(done, "1/a.wav and 2/a.wav would both be written to out/a_16000.wav; use --template or -o")
    assert not (tmp_path / "out").exists()
    assert inside(*PLAIN, "1/a.wav", "1/a.wav", cwd=tmp_path).returncode == 2
    assert inside(*PLAIN, "3/A.wav", "1/a.wav", "-o", "out", cwd=tmp_path).returncode == 0


def test_061_links_are_not_followed_out_of_the_output_folder(tmp_path: Path) -> None:
    for folder in ("in/sub", "out", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        recording(tmp_path / "in" / f"{name}.wav")
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "out" / "a_16000.wav").symlink_to(tmp_path / "victim")
    (tmp_path / "out" / "b_16000.wav").symlink_to(tmp_path / "not there")
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    kept = inside(*PLAIN, "in", "-o", "out", cwd=tmp_path)
    assert (kept.returncode, kept.stderr.count(b"already exists")) == (1, 2), kept.stderr
    done = inside(*PLAIN, "in", "-o", "out", "--overwrite", cwd=tmp_path)
    for name in ("a_16000", "b_16000", "sub/c_16000"):
        assert f"out/{name}.wav: a symlink leads out of the output folder".encode() in done.stderr
    assert done.returncode == 1
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "not there").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_061_links_are_followed_inside_and_where_the_user_names_them(tmp_path: Path) -> None:
    (tmp_path / "out" / "old").mkdir(parents=True)
    recording(tmp_path / "a.wav")
    (tmp_path / "out" / "a_16000.wav").symlink_to("old/a.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "out" / "old" / "b.wav")
    for output in ("out", "link.wav"):
        assert inside(*PLAIN, "a.wav", "-o", output, "--overwrite", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / "a_16000.wav").is_symlink()
    assert (tmp_path / "link.wav").is_symlink()
    assert {path.name for path in (tmp_path / "out" / "old").iterdir()} == {"a.wav", "b.wav"}
    assert len({*contents(tmp_path / "out").values()}) == 1


def test_062_loops_of_symlinks(tmp_path: Path) -> None:
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    done = inside(*PLAIN, "loop.wav", cwd=tmp_path)
    assert done.returncode == 1
    one_line(done, "loop.wav: cannot be opened: Too many levels of symbolic links")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    recording(tmp_path / "in" / "a.wav")
    (tmp_path / "in" / "deep" / "up").symlink_to(tmp_path / "in")
    done = inside(*PLAIN, "in", cwd=tmp_path)
    assert done.returncode == 1
    one_line(done, "in/deep/up: a symlink leads back to a folder above it; remove it")
    (tmp_path / "out").symlink_to("out")
    done = inside(*PLAIN, "in/a.wav", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    one_line(done, "out: cannot be created")


def test_063_output_folders_are_made(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav")
    assert inside(*PLAIN, "a.wav", "-o", "x/y/z", cwd=tmp_path).stdout == b"x/y/z/a_16000.wav\n"
    assert inside(*PLAIN, "a.wav", "-o", "v/w.wav", cwd=tmp_path).stdout == b"v/w.wav\n"


def test_064_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav")
    (tmp_path / "file").write_text("text")
    done = inside(*PLAIN, "a.wav", "-o", "file", cwd=tmp_path)
    assert done.returncode == 2
    one_line(done, "-o file: exists and is not a folder")
    done = inside(*PLAIN, "a.wav", "-o", "file/below", cwd=tmp_path)
    assert done.returncode == 1
    one_line(done, "file/below: cannot be created: Not a directory")


def test_065_a_disk_that_is_read_only(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav")
    (tmp_path / "out").mkdir()
    command = shlex.join([*COMMAND, *PLAIN, str(tmp_path / "a.wav"), "-o", str(tmp_path / "out")])
    done = in_a_namespace(f"mount -t tmpfs -o ro none {shlex.quote(str(tmp_path / 'out'))} && {command}")
    assert done.returncode == 1
    one_line(done, "out/a_16000.wav: cannot be written: Read-only file system")


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_066_a_disk_that_fills_up(ending: str, tmp_path: Path) -> None:
    """It fails long before the end, the old file stays, and the batch continues."""
    out = tmp_path / "out"
    out.mkdir()
    recording(tmp_path / "a.wav", 200_000)
    recording(tmp_path / "b.wav", 100)
    names = [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    command = shlex.join([*COMMAND, *PLAIN, *names, "-o", str(out), "--format", ending, "--overwrite"])
    script = f"""
        mount -t tmpfs -o size=100k none {shlex.quote(str(out))} && cd {shlex.quote(str(out))} || exit 99
        echo old > a_16000.{ending}
        {command}
        code=$?
        ls -A
        cat a_16000.{ending}
        exit $code"""
    done = in_a_namespace(script)
    assert done.returncode == 3, done.stderr
    assert f"out/a_16000.{ending}: cannot be written: No space left on device\n" in done.stderr.decode()
    assert done.stdout.decode().split() == [f"{out}/b_16000.{ending}", f"a_16000.{ending}", f"b_16000.{ending}", "old"]


@pytest.mark.parametrize("missing", [1, 2000])
def test_067_a_disk_that_fills_up_at_the_end(missing: int, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the last bytes do not fit. See test_write.py for formats."""
    recording(tmp_path / "a.wav")
    assert inside(*PLAIN, "a.wav", "-o", "whole", "--format", "flac", cwd=tmp_path).returncode == 0
    size = (tmp_path / "whole" / "a_16000.flac").stat().st_size
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_16000.flac").write_bytes(b"old")
    code = "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size - missing},) * 2)\n"
    code += "runpy.run_module('audiosr_cli', run_name='__main__')"
    arguments = [*PLAIN, "a.wav", "-o", "out", "--format", "flac", "--overwrite"]
    command = [sys.executable, "-c", code, *arguments]
    done = fork_server.run(command, cwd=tmp_path, capture_output=True, timeout=HANG_S)
    assert done.returncode == 1, done.stderr
    assert re.search(rb"out/a_16000\.flac: (cannot be|was not) written", done.stderr), done.stderr
    assert contents(tmp_path / "out") == {"a_16000.flac": b"old"}


def test_068_no_permission(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav")
    (tmp_path / "a.wav").chmod(0o644)
    for place in (tmp_path, *list(tmp_path.parents)[:-2]):
        place.chmod(place.stat().st_mode | 0o055)
    recording(tmp_path / "secret.wav")
    (tmp_path / "secret.wav").chmod(0)
    (tmp_path / "locked").mkdir(mode=0o555)
    as_nobody = {"user": NOBODY} if os.getuid() == 0 else {}
    try:
        done = audiosr(*PLAIN, tmp_path / "a.wav", "-o", tmp_path / "locked", **as_nobody)
        hidden = audiosr(*PLAIN, tmp_path / "secret.wav", "-o", tmp_path / "locked", **as_nobody)
    except PermissionError:
        pytest.skip("another user cannot run this Python")
    if b"a_16000.wav" not in done.stderr:
        pytest.skip(f"another user cannot run this Python: {done.stderr.decode()}")
    assert done.returncode == hidden.returncode == 1
    one_line(done, "locked/a_16000.wav: cannot be written: Permission denied")
    one_line(hidden, "secret.wav: cannot be opened: Permission denied")


def test_069_outputs_that_exist_are_refused(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav")
    (tmp_path / "a_16000.wav").write_bytes(b"old")
    for more in ([], ["--fail"]):
        done = inside(*PLAIN, "a.wav", *more, cwd=tmp_path)
        assert done.returncode == 1
        one_line(done, "a_16000.wav: already exists; use --overwrite or --skip")
    skipped = inside(*PLAIN, "a.wav", "--skip", cwd=tmp_path)
    assert (skipped.returncode, (tmp_path / "a_16000.wav").read_bytes()) == (0, b"old")
    assert inside(*PLAIN, "a.wav", "--fail", "--skip", cwd=tmp_path).returncode == 2
    assert inside(*PLAIN, "a.wav", "--overwrite", cwd=tmp_path).returncode == 0
    assert soundfile.info(tmp_path / "a_16000.wav").frames == 1600


def test_070_fifos_and_process_substitution(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav", 100_000)
    assert inside(*PLAIN, "a.wav", cwd=tmp_path).returncode == 0
    wanted = soundfile.read(tmp_path / "a_16000.wav")[0]
    tool, fork = (f"{command} {shlex.join(PLAIN)}" for command in (shlex.join(COMMAND), fork_server.shell_command()))
    script = f"""
        mkfifo in out && cat a.wav > in &
        while ! [ -p out ]; do sleep 0.01; done
        cat out > through.wav &
        {fork} in -o out && wait
        {tool} <(cat a.wav) -o >(cat > written.wav) && wait $!"""
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    for name in ("through", "written"):
        with open(tmp_path / f"{name}.wav", "rb") as stream:
            assert (soundfile.read(stream)[0] == wanted).all()


@pytest.mark.parametrize("change", ["removed", "growing", "replaced"])
def test_071_an_input_that_changes_meanwhile_is_noticed(change: str, tmp_path: Path) -> None:
    source = tmp_path / "a.wav"
    recording(source, 8_000_000)
    process = start(*PLAIN, source, "-o", tmp_path / "out")
    until(lambda: parts(tmp_path / "out"))
    process.send_signal(signal.SIGSTOP)
    if change == "removed":
        source.unlink()
    elif change == "growing":
        with open(source, "ab") as stream:
            stream.write(b"more")
    else:
        recording(tmp_path / "new.wav", 300_000, 1)
        (tmp_path / "new.wav").rename(source)
    process.send_signal(signal.SIGCONT)
    _, stderr = process.communicate(timeout=HANG_S)
    assert process.returncode == 1
    message = "was removed while it was being read" if change == "removed" else "was modified while it was being read"
    assert f"a.wav: {message}" in stderr.decode()
    assert contents(tmp_path / "out") == {}


def test_072_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav")
    with endless(tmp_path / "endless.wav"), endless(tmp_path / "other.wav"):
        process = start(*PLAIN, tmp_path / "endless.wav", "-o", tmp_path / "out")
        until(lambda: parts(tmp_path / "out"))
        process.kill()
        process.communicate(timeout=HANG_S)
        assert len(contents(tmp_path / "out")) == 1
        alive = start(*PLAIN, tmp_path / "other.wav", "-o", tmp_path / "out")
        (left,) = parts(tmp_path / "out")
        until(lambda: (found := parts(tmp_path / "out")) and found != [left])
        assert inside(*PLAIN, tmp_path / "a.wav", "-o", tmp_path / "out").returncode == 0
        names = sorted(contents(tmp_path / "out"))
        alive.terminate()
        alive.communicate(timeout=HANG_S)
    assert len(names) == 2  # of the process that is alive, and the output
    assert "a_16000.wav" in names
    assert left.name not in names
