"""Process a batch in several worker processes: each loads its own models and takes a recording when it is free.

    parent                                 worker (spawned, one pipe each)
      │  ◀── Ready ────────────────────────  models loaded
      │  ─── Item ────────────────────────▶
      │  ◀── RecordingStarted ─────────────  waits until a manifest has recorded the outputs
      │  ─── True ────────────────────────▶
      │  ◀── RecordingProgress … Outcome ──
      │  ─── None ────────────────────────▶  nothing left: exits

The outputs do not depend on which process handles which recording.
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
from typing import Any

import torch

from audiosr_cli.batch.inputs import Item
from audiosr_cli.batch.run import (
    BatchNotice,
    CountingProgress,
    Event,
    EventHandler,
    Outcome,
    OutputPlan,
    RecordingProgress,
    RecordingStarted,
    process_item,
)
from audiosr_cli.errors import AudioSRError
from audiosr_cli.files.atomic import file_of, owner, sweep
from audiosr_cli.pipelines import PipelineConfig
from audiosr_cli.runtime.memory import is_out_of_memory, keep_freed_memory
from audiosr_cli.runtime.signals import FROM_TERMINAL, exit_on_termination
from audiosr_cli.streaming.pipeline import Pipeline

_PROGRESS_INTERVAL_S = 0.5  # between two progress messages of a worker
_EXIT_TIMEOUT_S = 10.0  # for a worker that was asked to exit


@dataclass(frozen=True)
class Ready:
    """A worker has loaded its models. ``owner`` identifies its temporary files."""

    owner: str = field(default_factory=owner)


@dataclass(kw_only=True)
class Worker:
    """What the parent knows of a worker.

    Attributes:
        pipe: Connection to the worker, or an object with the same ``send`` and ``recv``.
        item: The recording that it works on.
        folders: Where it may leave temporary files.
    """

    pipe: Any  # the type of multiprocessing's connections differs between systems
    item: Item | None = None
    folders: set[Path] = field(default_factory=set)


@dataclass(kw_only=True)
class _Process(Worker):
    process: SpawnProcess


def run(
    items: Sequence[Item], config: PipelineConfig, plan: OutputPlan, jobs: int, on_event: EventHandler
) -> Generator[Outcome, None, None]:
    """Process ``items`` in ``jobs`` worker processes.

    If a worker is killed, the recording it was working on fails and another worker takes its place. A worker that
    exits before it has loaded its models is not replaced, which ``on_event`` reports. Close the generator to stop
    all workers.

    Yields:
        An outcome as soon as each recording is finished.

    Raises:
        AudioSRError: If no worker can load its models.
    """
    waiting = deque(items)
    workers: list[_Process] = []
    try:
        workers += [_start(config, plan) for _ in range(min(jobs, len(waiting)))]
        while workers:
            for pipe in connection.wait([worker.pipe for worker in workers]):
                worker = next(worker for worker in workers if worker.pipe is pipe)
                message = _receive(worker)
                if message is None:
                    workers.remove(worker)
                    if worker.item is not None:
                        yield _fail_lost_item(worker)
                        workers += [_start(config, plan)] if waiting else []
                    elif waiting:
                        _report_missing(worker, len(workers), on_event)
                elif isinstance(message, Outcome):
                    yield message
                    assign_next(worker, waiting)
                else:
                    handle_message(worker, message, waiting, on_event)
    finally:
        _stop(workers)


def _start(config: PipelineConfig, plan: OutputPlan) -> _Process:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker_main, args=(theirs, config, plan), daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_TERMINAL)  # inherited by the worker while it loads
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Process(process=process, pipe=ours)


def _receive(worker: Worker) -> object:
    """Receive the next message of a worker; None if it has exited."""
    try:
        message: object = worker.pipe.recv()
    except (EOFError, OSError):
        return None
    return message


def handle_message(worker: Worker, message: object, waiting: deque[Item], on_event: EventHandler) -> None:
    """Answer a message of ``worker`` that is not an outcome.

    Raises:
        AudioSRError: If the message is an error: the worker cannot work.
    """
    if isinstance(message, AudioSRError):
        raise message
    if isinstance(message, Ready):
        assign_next(worker, waiting)
    elif isinstance(message, RecordingStarted):
        worker.folders = {file_of(Path(target)).parent for target in message.targets}
        on_event(message)
        _send(worker, True)
    elif isinstance(message, CountingProgress | RecordingProgress):
        on_event(message)


def assign_next(worker: Worker, waiting: deque[Item]) -> None:
    """Give ``worker`` the next recording; if none is waiting, it exits."""
    worker.item = waiting.popleft() if waiting else None
    _send(worker, worker.item)


def _send(worker: Worker, message: object) -> None:
    with suppress(OSError):  # it has exited, which its next message shows
        worker.pipe.send(message)


def _fail_lost_item(worker: _Process) -> Outcome:
    """Return the failed outcome of a dead worker's recording, and remove its temporary files."""
    assert worker.item is not None
    reason = _exit_reason(worker)
    for folder in worker.folders:
        sweep(folder)
    return Outcome(worker.item, error=AudioSRError(f"{worker.item.source}: its worker {reason}; run it again"))


def _report_missing(worker: _Process, left: int, on_event: EventHandler) -> None:
    """Report a worker that exited before its first recording. Raises AudioSRError if none is ``left``."""
    if not left:
        raise AudioSRError(f"no worker could load its models: the last one {_exit_reason(worker)}; use fewer --jobs")
    message = f"a worker {_exit_reason(worker)} before its models were loaded; continuing with --jobs {left}"
    on_event(BatchNotice(message))


def _exit_reason(worker: _Process) -> str:
    worker.process.join(_EXIT_TIMEOUT_S)
    code = worker.process.exitcode or 0
    return f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"


def _stop(workers: Sequence[_Process]) -> None:
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + _EXIT_TIMEOUT_S
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
    for folder in {folder for worker in workers for folder in worker.folders}:
        sweep(folder)


def _worker_main(pipe: Any, config: PipelineConfig, plan: OutputPlan) -> None:
    """Run a worker process."""
    for number in FROM_TERMINAL:
        signal.signal(number, signal.SIG_IGN)  # it reaches the parent, which stops its workers
    exit_on_termination()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):  # the parent is gone
        serve(pipe, config, plan)


def serve(pipe: Any, config: PipelineConfig, plan: OutputPlan) -> None:
    """Load the models, and process recordings from ``pipe`` until None arrives."""
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        pipeline = _load(config)
        pipe.send(Ready())
        while (item := pipe.recv()) is not None:
            pipe.send(process_item(item, pipeline, plan, _forwarding(pipe)))
    except AudioSRError as error:
        pipe.send(error)


def _load(config: PipelineConfig) -> Pipeline:
    """Load the models; exit if there is too little memory, as other workers may have theirs loaded."""
    try:
        return config.build()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SystemExit(1) from error


def _forwarding(pipe: Any) -> EventHandler:
    """Return a handler that sends events to the parent, progress at most twice a second."""
    last_sent = 0.0

    def on_event(event: Event) -> None:
        nonlocal last_sent
        if isinstance(event, RecordingStarted):
            pipe.send(event)
            pipe.recv()
        elif time.monotonic() - last_sent >= _PROGRESS_INTERVAL_S:
            last_sent = time.monotonic()
            pipe.send(event)

    return on_event


def _exit_with_parent() -> None:
    """Terminate this process when its parent is gone, even if it was killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
