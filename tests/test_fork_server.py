"""tests/fork_server.py: a fork behaves as a new process does, and is not used where it would differ."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fork_server
import pytest

HELP = [sys.executable, "-m", "audiosr_cli", "--help"]


@pytest.fixture(autouse=True)
def forks() -> None:
    """Skip the tests where no forks are used."""
    if not fork_server.can_fork(HELP, {}):
        pytest.skip("no forks here, or they are switched off")


def python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    call = [sys.executable, "-c", code, *arguments]
    assert fork_server.can_fork(call, {key: options[key] for key in options.keys() & {"env", "cwd"}})
    return fork_server.run(call, timeout=60, **({"capture_output": True, "text": True} | options))


def test_a_fork_has_its_own_arguments_streams_folder_and_environment(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv, os.getcwd(), os.environ['AUDIOSR_CACHE'], sys.stdin.read()); "
    code += "print('error', file=sys.stderr); sys.exit(7)"
    done = python(code, "a", "b", cwd=tmp_path, env=os.environ | {"AUDIOSR_CACHE": "c"}, input="text")
    assert done.stdout == f"['-c', 'a', 'b'] {tmp_path} c text\n"
    assert (done.stderr, done.returncode) == ("error\n", 7)
    assert os.environ.get("AUDIOSR_CACHE") != "c"


def test_forks_do_not_share_what_they_change() -> None:
    code = "import audiosr_cli, os; print(hasattr(audiosr_cli, 'mark'), os.getpid()); audiosr_cli.mark = 1"
    first, second = (python(code).stdout.split() for _ in range(2))
    assert first[0] == second[0] == "False"
    assert len({first[1], second[1], str(os.getpid())}) == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_a_fork(number: int) -> None:
    process = fork_server.popen([sys.executable, "-c", "print(1, flush=True); input()"], stdin=-1, stdout=-1)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == -number


def test_the_peak_is_that_of_the_fork() -> None:
    peaks = []
    for size in (1, 200 << 20):
        with fork_server.Fork([sys.executable, "-c", f"bytearray({size})"]) as process:
            process.wait(60)
        peaks.append(process.peak_mib)
    assert 150 < peaks[1] - peaks[0] < 250  # some of what it shares with the server may never be mapped


def test_the_shell_gets_the_exit_code() -> None:
    done = subprocess.run(f"{fork_server.shell_command()} no-such", shell=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"No such command" in done.stderr


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (HELP, {"env": {"PATH": "/usr/bin"}}),
        (HELP, {"env": os.environ | {"OMP_NUM_THREADS": "7"}}),
        (HELP, {"env": os.environ | {"LC_ALL": "C"}}),
        (HELP, {"preexec_fn": print}),
        ([sys.executable, "script.py"], {}),
        (["prlimit", *HELP], {}),
    ],
    ids=["bare", "threads", "locale", "options", "script", "before"],
)
def test_what_depends_on_the_start_of_a_process_is_not_forked(command: list[str], options: dict[str, Any]) -> None:
    assert not fork_server.can_fork(command, options)


def test_forks_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOSR_TEST_FORK", "0")
    assert not fork_server.can_fork(HELP, {})
    assert fork_server.shell_command() == f"{sys.executable} -m audiosr_cli"
