"""A batch in several processes: each has its own models and takes a recording when it is free.

    parent                       worker (spawned, one pipe each)
      │  ◀── Ready ──────────────  models loaded
      │  ─── Item ──────────────▶
      │  ◀── Started ────────────  waits, so that a manifest knows of outputs before they are there
      │  ─── True ──────────────▶
      │  ◀── Advanced … Outcome ─
      │  ─── None ──────────────▶  nothing left: ends

Which process takes a recording makes no difference to a sample.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from audiosr_cli.batch.inputs import Item
from audiosr_cli.batch.run import Advanced, Event, Listener, Noted, Outcome, Plan, Started, work
from audiosr_cli.errors import AudioSRError
from audiosr_cli.files.atomic import owner, sweep
from audiosr_cli.pipelines import PipelineConfig
from audiosr_cli.runtime.memory import is_out_of_memory, keep_freed_memory
from audiosr_cli.streaming.pipeline import Pipeline

_PAUSE_S = 0.5  # between two messages of how far a recording is
_PATIENCE_S = 10.0  # for a worker that was asked to end


@dataclass(frozen=True)
class Ready:
    """A worker's models are loaded. ``owner`` tells which temporary files are its own."""

    owner: str = field(default_factory=owner)


@dataclass(kw_only=True)
class Worker:
    """What its parent knows of a worker: what it works on, and where that leaves temporary files."""

    pipe: Any  # multiprocessing's Connection, which differs by system, or something like it
    item: Item | None = None
    folders: set[Path] = field(default_factory=set)


@dataclass(kw_only=True)
class _Process(Worker):
    process: SpawnProcess


def run(
    items: Sequence[Item], config: PipelineConfig, plan: Plan, jobs: int, listen: Listener
) -> Generator[Outcome, None, None]:
    """Work through ``items`` in ``jobs`` processes; outcomes come as they are ready.

    A worker that is killed costs the recording it was at, and another takes its place. One that ends before it has
    its models is missing from then on, which ``listen`` hears. Close the iterator to end them all. Raises AudioSRError
    where no worker gets its models loaded.
    """
    waiting = deque(items)
    workers: list[_Process] = []
    try:
        workers += [_start(config, plan) for _ in range(min(jobs, len(waiting)))]
        while workers:
            for pipe in connection.wait([worker.pipe for worker in workers]):
                worker = next(worker for worker in workers if worker.pipe is pipe)
                message = _received(worker)
                if message is None:
                    workers.remove(worker)
                    if worker.item is not None:
                        yield _lost(worker)
                        workers += [_start(config, plan)] if waiting else []
                    elif waiting:
                        _miss(worker, len(workers), listen)
                elif isinstance(message, Outcome):
                    yield message
                    hand_next(worker, waiting)
                else:
                    heed(worker, message, waiting, listen)
    finally:
        _end(workers)


def _start(config: PipelineConfig, plan: Plan) -> _Process:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, config, plan), daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a worker inherits that while it loads
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Process(process=process, pipe=ours)


def _received(worker: Worker) -> object:
    """The next message, None where the worker has ended."""
    try:
        message: object = worker.pipe.recv()
    except (EOFError, OSError):
        return None
    return message


def heed(worker: Worker, message: object, waiting: deque[Item], listen: Listener) -> None:
    """Answer what ``worker`` says of its way. Raises AudioSRError where it says that it cannot work."""
    if isinstance(message, AudioSRError):
        raise message
    if isinstance(message, Ready):
        hand_next(worker, waiting)
    elif isinstance(message, Started):
        worker.folders = {Path(target).parent for target in message.targets}
        listen(message)
        _send(worker, True)
    elif isinstance(message, Advanced):
        listen(message)


def hand_next(worker: Worker, waiting: deque[Item]) -> None:
    """The next recording is for ``worker``; where nothing waits, it ends."""
    worker.item = waiting.popleft() if waiting else None
    _send(worker, worker.item)


def _send(worker: Worker, message: object) -> None:
    with suppress(OSError):  # it has ended, which the next message from it tells
        worker.pipe.send(message)


def _lost(worker: _Process) -> Outcome:
    """What a worker that is no more was at, as an error; its temporary files are removed."""
    assert worker.item is not None
    said = _end_of(worker)
    for folder in worker.folders:
        sweep(folder)
    return Outcome(worker.item, error=AudioSRError(f"{worker.item.source}: its worker {said}; run it again"))


def _miss(worker: _Process, left: int, listen: Listener) -> None:
    """Tell of a worker that ended before it took its first recording. Raises AudioSRError where none is ``left``."""
    if not left:
        raise AudioSRError(f"no worker gets ready: the last one {_end_of(worker)}; try fewer --jobs")
    listen(Noted(f"a worker {_end_of(worker)} before it had its models; --jobs {left} from here on"))


def _end_of(worker: _Process) -> str:
    worker.process.join(_PATIENCE_S)
    code = worker.process.exitcode or 0
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _end(workers: Sequence[_Process]) -> None:
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + _PATIENCE_S
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
    for folder in {folder for worker in workers for folder in worker.folders}:
        sweep(folder)


def _serve(pipe: Any, config: PipelineConfig, plan: Plan) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):  # the parent is gone
        serve(pipe, config, plan)


def serve(pipe: Any, config: PipelineConfig, plan: Plan) -> None:
    """Load models, and work through what comes by ``pipe`` until None does."""
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        pipeline = _loaded(config)
        pipe.send(Ready())
        while (item := pipe.recv()) is not None:
            pipe.send(work(item, pipeline, plan, _telling(pipe)))
    except AudioSRError as error:
        pipe.send(error)


def _loaded(config: PipelineConfig) -> Pipeline:
    """With its models; a process that has no memory for them ends, as others may have theirs."""
    try:
        return config.build()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SystemExit(1) from error


def _telling(pipe: Any) -> Listener:
    """A listener that passes on what it hears, progress not too often."""
    told = 0.0

    def listen(event: Event) -> None:
        nonlocal told
        if isinstance(event, Started):
            pipe.send(event)
            pipe.recv()
        elif time.monotonic() - told >= _PAUSE_S:
            told = time.monotonic()
            pipe.send(event)

    return listen


def _outlive_nobody() -> None:
    """End this process when its parent is gone, however that went."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # the parent's, behind one for the whole group, must not interrupt that
    raise SystemExit(128 + number)  # unwinds, so that temporary files go
