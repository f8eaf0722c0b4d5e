"""Processes that run the command without importing torch again: forks of a server that has imported it.

A fork has its own process number, signals, streams, folder and environment, as a new process does. It differs where
something depends on the start of the interpreter or of a library, so ``can_fork`` leaves those calls to real processes;
with AUDIOSR_TEST_FORK=0, as in `make test-all`, all of them are real.
"""

from __future__ import annotations

import atexit
import gc
import inspect
import io
import os
import pickle
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

# Variables that the interpreter or a library reads when it starts, by their first letters: those of the server hold.
_EARLY = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC", "GLIBC", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ATEN_")
_EARLY += ("ONEDNN_", "DNNL_", "CUDA_", "AUDIOSR_NUMBA")
# Options of ``subprocess.Popen`` that a fork obeys.
_OPTIONS = {"stdin", "stdout", "stderr", "cwd", "env", "text", "start_new_session"}
_NUMBER = 4  # bytes of a process number or exit status


def can_fork(command: Sequence[object], options: Mapping[str, Any]) -> bool:
    """Return whether a fork of the server can run ``command`` as ``subprocess.Popen(command, **options)`` would."""
    if sys.platform != "linux" or os.environ.get("AUDIOSR_TEST_FORK") == "0" or not set(options) <= _OPTIONS:
        return False
    if command[0] != sys.executable or (command[1] != "-c" and tuple(command[1:3]) != ("-m", "audiosr_cli")):
        return False
    environment = os.environ if options.get("env") is None else options["env"]
    return _early(environment) == _server()[1]


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith(_EARLY)}


@cache
def _server() -> tuple[str, dict[str, str]]:
    """Start the server of this process; return the path of its socket, and its early variables."""
    folder = tempfile.TemporaryDirectory(prefix="fork-")
    path = f"{folder.name}/socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    command = [sys.executable, __file__, str(listener.fileno())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
    listener.close()

    def stop() -> None:
        process.communicate()  # ends at the end of its input
        folder.cleanup()

    atexit.register(stop)
    return path, _early(os.environ)


class Fork(subprocess.Popen[Any]):
    """A ``subprocess.Popen`` whose process is a fork of the server, for calls that ``can_fork`` allows.

    Attributes:
        peak_mib: Peak memory in MiB when the process has ended, with what it shares with the server.
    """

    peak_mib = 0.0

    def _execute_child(self, *arguments: Any) -> None:
        names = list(inspect.signature(subprocess.Popen._execute_child).parameters)[1:]  # type: ignore[attr-defined]
        call = dict(zip(names, arguments, strict=True))
        streams = [call[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self._connection, self.pid = _request(
            _server()[0],
            [os.fsencode(part) for part in call["args"][1:]],
            [number if stream == -1 else stream for number, stream in enumerate(streams)],
            dict(os.environ if call["env"] is None else call["env"]),
            os.fsencode(call["cwd"] or "."),
            call["start_new_session"],
        )
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(call[name] for name in ends))  # type: ignore[attr-defined]

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if flags & os.WNOHANG and not select.select([self._connection], [], [], 0)[0]:
            return 0, 0
        status = int.from_bytes(_receive(self._connection, _NUMBER))
        self.peak_mib = int.from_bytes(_receive(self._connection, _NUMBER)) / 1024
        self._connection.close()
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._child_created:
            number, status = self._try_wait(os.WNOHANG)
            if number:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


def _request(
    path: str,
    arguments: list[bytes],
    streams: list[int],
    environment: dict[str, str],
    folder: bytes = b".",
    new_session: bool = False,
) -> tuple[socket.socket, int]:
    """Have the server at ``path`` fork; return the connection that reports the end of the fork, and its number."""
    request = {
        "arguments": arguments,
        "environment": environment,
        "folder": folder,
        "here": os.fsencode(Path.cwd()),
        "new_session": new_session,
    }
    data, connection = pickle.dumps(request), socket.socket(socket.AF_UNIX)
    connection.connect(path)
    socket.send_fds(connection, [len(data).to_bytes(_NUMBER)], streams)
    connection.sendall(data)
    return connection, int.from_bytes(_receive(connection, _NUMBER))


def shell_command() -> str:
    """Return the words that run the command in a shell: a fork where forks are used, with the shell's environment.

    A fork has the three standard streams only, so it cannot open the files of a process substitution.
    """
    if not can_fork([sys.executable, "-m", "audiosr_cli"], {}):
        return f"{sys.executable} -m audiosr_cli"
    return f"{sys.executable} -S -E {__file__} {_server()[0]} -m audiosr_cli"


def _client(path: str, *arguments: str) -> int:
    """Run the command in a fork with the streams of this process; return its exit code, as a shell would."""
    connection, _ = _request(path, [os.fsencode(part) for part in arguments], [0, 1, 2], dict(os.environ))
    code = os.waitstatus_to_exitcode(int.from_bytes(_receive(connection, 2 * _NUMBER)[:_NUMBER]))
    return code if code >= 0 else 128 - code


def popen(command: Sequence[object], **options: Any) -> subprocess.Popen[Any]:
    """Do what ``subprocess.Popen`` does, quicker where a fork of the server will do."""
    return (Fork if can_fork(command, options) else subprocess.Popen)(command, **options)  # type: ignore[call-overload]


def run(command: Sequence[object], timeout: float | None = None, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Do what ``subprocess.run`` does, likewise."""
    if (content := options.pop("input", None)) is not None:
        options["stdin"] = subprocess.PIPE
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with popen(command, **options) as process:
        try:
            stdout, stderr = process.communicate(content, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, "the fork server has ended"
        data += more
    return data


def _serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork for every request; return the request in the fork, and None in the server at the end of its input."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # monitors are not waited for
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            return None
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            return _monitor(connection)
        connection.close()


def _monitor(connection: socket.socket) -> dict[str, Any]:
    """Fork once more; return the request in that fork, while this process waits for it and reports its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams = socket.recv_fds(connection, _NUMBER, 3)[:2]
    request: dict[str, Any] = pickle.loads(_receive(connection, int.from_bytes(size)))
    child = os.fork()
    if child == 0:
        connection.close()
        return request | {"streams": streams}
    for number in (0, 1, 2, *streams):
        os.close(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        connection.sendall(child.to_bytes(_NUMBER))
        _, status, usage = os.wait4(child, 0)
        connection.sendall(status.to_bytes(_NUMBER) + usage.ru_maxrss.to_bytes(_NUMBER))
    finally:
        os._exit(0)


def _become(request: dict[str, Any]) -> None:
    """Run what ``python *arguments`` would."""
    if request["new_session"]:
        os.setsid()
    for number, stream in enumerate(request["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    # As the interpreter opens them; file names on the command line may be any bytes.
    old = sys.stdout
    sys.stdin = open(0, encoding=old.encoding, closefd=False)
    sys.stdout = open(1, "w", encoding=old.encoding, errors=old.errors, closefd=False)
    sys.stderr = open(2, "w", buffering=1, encoding=old.encoding, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["here"])
    os.chdir(request["folder"])
    option, first, *rest = map(os.fsdecode, request["arguments"])
    sys.path[0] = str(Path.cwd()) if option == "-m" else ""
    if option == "-m":
        sys.argv = [first, *rest]
        runpy.run_module(first, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *rest]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(first, "<string>", "exec"), main.__dict__)


def _prepare() -> None:
    """Import what the commands import."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command does before it imports torch
    sys.path.pop(0)  # this folder
    for name in ("api", "batch.processes", "batch.run", "cli.main", "cli.run_batch"):
        import_module(f"audiosr_cli.{name}")
    import_module("torch._dynamo")  # which every optimizer imports
    sys.path.insert(0, "")
    gc.freeze()


if __name__ == "__main__":
    if not sys.argv[1].isdigit():
        sys.exit(_client(*sys.argv[1:]))
    sockets = socket.socket(fileno=int(sys.argv[1]))
    _prepare()
    if (wanted := _serve(sockets)) is not None:
        del sockets
        assert isinstance(sys.stdout, io.TextIOWrapper)
        _become(wanted)
