"""Process a batch on a Ray cluster: the workers of ``processes`` as actors, each with a GPU, or a CPU without one.

What a process receives through its pipe, an actor receives by calls: ``put`` delivers a message, ``get`` waits for the
next one.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import ray
import ray._private.worker
from ray.exceptions import RayError

from audiosr_cli.batch.inputs import Item
from audiosr_cli.batch.processes import Ready, Worker, assign_next, handle_message, serve
from audiosr_cli.batch.run import EventHandler, Outcome, OutputPlan, RecordingStarted
from audiosr_cli.errors import AudioSRError, UsageError
from audiosr_cli.files.atomic import discard
from audiosr_cli.files.fingerprint import absolute
from audiosr_cli.pipelines import PipelineConfig
from audiosr_cli.runtime.signals import received
from audiosr_cli.streaming.pipeline import Pipeline

_MAX_ATTEMPTS = 3  # for a recording whose workers die
_TIMEOUT_S = 10.0  # for a cluster to answer, and for workers to exit


@contextmanager
def connect(address: str, jobs: int | None, device: str) -> Iterator[Cluster]:
    """Connect to a Ray cluster for the duration of the context.

    Args:
        address: ``HOST:PORT`` or ``auto`` for a running cluster, ``local`` to start one.
        jobs: Largest number of workers; None for one on each GPU or CPU.
        device: "auto", "cpu" or "cuda".

    Raises:
        UsageError: If no cluster answers, or it lacks the device.
    """
    ray._private.worker._worker_logs_enabled = False  # reports of dead workers would go to standard output
    before = signal.getsignal(signal.SIGTERM)  # Ray's own handler exits with another code
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    arguments = {"num_cpus": jobs or cores, "include_dashboard": False} if address == "local" else {}
    try:
        _check_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **arguments)
    except (RayError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise UsageError(
            f"--ray {address}: no cluster answers ({reason}); expected HOST:PORT, auto or local"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        yield _allocate(address, jobs, device)
    except SystemExit as stop:  # Ray turns its code into 1 wherever it waits
        raise SystemExit(128 + (received() or signal.SIGTERM)) from stop
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError or ValueError if nothing answers at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S).close()


def _allocate(address: str, jobs: int | None, device: str) -> Cluster:
    cpus, gpus = (int(ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
    if device.startswith("cuda:"):
        raise UsageError(f"--device {device}: Ray gives each worker of --ray {address} its GPU; use --device cuda")
    if device == "cuda" and not gpus:
        raise UsageError(f"--device cuda: no node of --ray {address} has a GPU; use --device cpu or auto")
    device = "cuda" if gpus and device != "cpu" else "cpu"
    count = gpus if device == "cuda" else cpus
    if not count:
        raise UsageError(f"--ray {address}: no node offers a CPU or GPU; start one with ray start --num-cpus N")
    return Cluster(device, min(count, jobs or count))


@dataclass(frozen=True)
class Cluster:
    """A connected cluster that runs at most ``count`` workers, each on a ``device`` of its own."""

    device: str
    count: int

    def build_on_cpu(self, config: PipelineConfig) -> Pipeline:
        """Build the workers' pipeline on the CPU, to ask it for outputs and models: this machine may have no GPU."""
        return replace(config, options=replace(config.options, device="cpu", bf16=False)).build()

    def run(
        self, items: Sequence[Item], config: PipelineConfig, plan: OutputPlan, on_event: EventHandler
    ) -> Generator[Outcome, None, None]:
        """Process ``items`` as ``processes.run`` does, but try a recording whose worker dies on up to two others."""
        waiting = deque(items)
        workers: list[_RemoteWorker] = []
        try:
            workers += [self._start(config, plan) for _ in range(min(self.count, len(waiting)))]
            while waiting or any(worker.item for worker in workers):
                worker = _wait_for_message(workers)
                try:
                    message = worker.pipe.recv()
                except RayError as error:
                    workers.remove(worker)
                    worker.remove_leftovers()
                    if worker.item is not None and worker.attempt < _MAX_ATTEMPTS:
                        workers.append(self._retry(worker, config))
                    elif worker.item is not None:
                        yield _fail_lost_item(worker.item, error)
                        workers += [self._start(config, plan)] if waiting else []
                    elif not workers:
                        reason = _exit_reason(error)
                        raise AudioSRError(f"no worker could load its models: the last one died of {reason}") from error
                else:
                    if isinstance(message, Outcome):
                        yield worker.finish(message)
                        assign_next(worker, waiting)
                    else:
                        worker.handle_message(message, waiting, on_event)
                    if worker.item is None:  # nothing is left for it; another one may need its resources
                        workers.remove(worker)
                        _stop([worker])
        finally:
            _stop(workers)

    def _start(self, config: PipelineConfig, plan: OutputPlan, **state: Any) -> _RemoteWorker:
        resources = {"num_cpus": 0, "num_gpus": 1} if self.device == "cuda" else {"num_cpus": 1}
        remote = ray.remote(Actor).options(**resources, max_restarts=0, max_concurrency=2, scheduling_strategy="SPREAD")
        actor = remote.remote(str(Path.cwd()), config, plan)
        return _RemoteWorker(pipe=_ActorPipe(actor), actor=actor, plan=plan, **state)

    def _retry(self, dead: _RemoteWorker, config: PipelineConfig) -> _RemoteWorker:
        """Start another worker for the same recording; it may replace the outputs that the dead one started."""
        plan = replace(dead.plan, own_outputs=dead.plan.own_outputs | dead.started_outputs)
        return self._start(config, plan, item=dead.item, started_outputs=dead.started_outputs, attempt=dead.attempt + 1)


class Actor:
    """What Ray runs on a node: a worker in a thread, in the folder that relative paths of the call refer to."""

    def __init__(self, folder: str, config: PipelineConfig, plan: OutputPlan) -> None:
        self._inbox: SimpleQueue[object] = SimpleQueue()
        self._outbox: SimpleQueue[object] = SimpleQueue()
        self._worker = ThreadPoolExecutor(1).submit(self._serve, folder, config, plan)
        self._worker.add_done_callback(lambda _: self._outbox.put(None))

    def _serve(self, folder: str, config: PipelineConfig, plan: OutputPlan) -> None:
        try:
            os.chdir(folder)
        except OSError as error:
            where = f"{folder} on {os.uname().nodename}"
            self._outbox.put(AudioSRError(f"{where}: {error.strerror}; all nodes of --ray need the same paths"))
            return
        serve(SimpleNamespace(send=self._outbox.put, recv=self._inbox.get), config, plan)

    def put(self, message: object) -> None:
        """Deliver ``message`` to the worker."""
        self._inbox.put(message)

    def get(self) -> object:
        """Wait for the worker's next message; None if it has exited. Raises its exception if it failed."""
        message = self._outbox.get()
        return self._worker.result() if message is None else message


class _ActorPipe:
    """An actor behind the interface of a pipe; ``pending`` is Ray's reference to its next message."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.pending = actor.get.remote()

    def send(self, message: object) -> None:
        self._actor.put.remote(message)

    def recv(self) -> object:
        message: object = ray.get(self.pending)
        self.pending = self._actor.get.remote()
        return message


@dataclass(kw_only=True)
class _RemoteWorker(Worker):
    """An actor that makes its ``attempt``-th try at a recording whose ``started_outputs`` may exist already."""

    actor: Any
    plan: OutputPlan
    started_outputs: frozenset[str] = frozenset()
    attempt: int = 1
    owner: str = ""

    def handle_message(self, message: object, waiting: deque[Item], on_event: EventHandler) -> None:
        """Answer a message as ``processes.handle_message`` does; a second start is not reported again."""
        if isinstance(message, Ready):
            self.owner = message.owner
        if isinstance(message, Ready) and self.item is not None:
            self.pipe.send(self.item)
            return
        repeated = bool(self.started_outputs) and isinstance(message, RecordingStarted)
        if isinstance(message, RecordingStarted):
            self.started_outputs = frozenset(absolute(target) for target in message.targets)
        handle_message(self, message, waiting, (lambda _: None) if repeated else on_event)

    def finish(self, outcome: Outcome) -> Outcome:
        """Complete the outcome of a recording, and forget the recording."""
        if self.attempt > 1 and outcome.report is not None:
            outcome.report.warnings.append(
                f"{outcome.item.source}: its worker died; another one succeeded at attempt {self.attempt}"
            )
        self.started_outputs, self.attempt = frozenset(), 1
        return outcome

    def remove_leftovers(self) -> None:
        """Remove the temporary files of this worker, which is dead."""
        for folder in self.folders if self.owner else ():
            discard(folder, self.owner)


def _wait_for_message(workers: Sequence[_RemoteWorker]) -> _RemoteWorker:
    (ready, *_), _ = ray.wait([worker.pipe.pending for worker in workers])
    return next(worker for worker in workers if worker.pipe.pending == ready)


def _fail_lost_item(item: Item, error: RayError) -> Outcome:
    message = f"{item.source}: {_MAX_ATTEMPTS} workers died, the last one of {_exit_reason(error)}; run it again"
    return Outcome(item, error=AudioSRError(message))


def _exit_reason(error: RayError) -> str:
    cause = getattr(error, "cause", None)
    return type(error).__name__ if cause is None else f"{type(cause).__name__}: {cause}"


def _stop(workers: Sequence[_RemoteWorker]) -> None:
    for worker in workers:
        ray.kill(worker.actor)
    if workers:
        ray.wait([worker.pipe.pending for worker in workers], num_returns=len(workers), timeout=_TIMEOUT_S)
    for worker in workers:
        worker.remove_leftovers()
