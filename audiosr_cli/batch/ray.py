"""A batch on a Ray cluster: the workers of ``jobs`` as actors, each with a GPU, or a CPU where there is none.

What a process gets by its pipe, an actor gets by calls: ``tell`` puts a message in, ``hear`` waits for the next one.
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
from audiosr_cli.batch.processes import Ready, Worker, hand_next, heed, serve
from audiosr_cli.batch.run import Listener, Outcome, Plan, Started
from audiosr_cli.errors import AudioSRError, UsageError
from audiosr_cli.files.atomic import discard
from audiosr_cli.files.fingerprint import absolute
from audiosr_cli.pipelines import PipelineConfig
from audiosr_cli.streaming.pipeline import Pipeline

_TRIES = 3  # of a recording whose workers die
_PATIENCE_S = 10.0  # for a cluster that is to answer, and for workers that are to end


@contextmanager
def connected(address: str, jobs: int | None, device: str) -> Iterator[Cluster]:
    """The cluster at ``address`` (HOST:PORT, auto, or local for a new one), whose workers compute on ``device``.

    Raises UsageError where none answers, or where it has not what is asked for.
    """
    ray._private.worker._worker_logs_enabled = False  # what it says of dead workers would go to standard output
    before = signal.getsignal(signal.SIGTERM)  # Ray's own handler ends with another exit code
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    how = {"num_cpus": jobs or cores, "include_dashboard": False} if address == "local" else {}
    try:
        _check(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **how)
    except (RayError, RuntimeError, ValueError, OSError) as error:
        said = (str(error).splitlines() or [""])[0].rstrip(".")
        raise UsageError(f"--ray {address}: no cluster answers ({said}); HOST:PORT, auto or local is wanted") from error
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        yield _offer(address, jobs, device)
    except SystemExit as stop:  # Ray makes its code 1 wherever it waits; we leave this way by SIGTERM only
        raise SystemExit(128 + signal.SIGTERM) from stop
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Raise OSError or ValueError where nothing answers; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()


def _offer(address: str, jobs: int | None, device: str) -> Cluster:
    cpus, gpus = (int(ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
    if device == "cuda" and not gpus:
        raise UsageError(f"--device cuda: no node of --ray {address} has a GPU; use --device cpu or auto")
    device = "cuda" if gpus and device != "cpu" else "cpu"
    count = gpus if device == "cuda" else cpus
    if not count:
        raise UsageError(f"--ray {address}: no node has a CPU to give")
    return Cluster(device, min(count, jobs or count))


@dataclass(frozen=True)
class Cluster:
    """A cluster that we are connected to: at most ``count`` workers, one for each ``device``."""

    device: str
    count: int

    def described(self, config: PipelineConfig) -> Pipeline:
        """What its workers will have, for questions about outputs and models: here, where perhaps no GPU is."""
        return replace(config, options=replace(config.options, device="cpu", bf16=False)).build()

    def run(
        self, items: Sequence[Item], config: PipelineConfig, plan: Plan, listen: Listener
    ) -> Generator[Outcome, None, None]:
        """As ``jobs.run``, but the recording of a worker that dies gets another worker, twice."""
        waiting = deque(items)
        workers: list[_Hired] = []
        try:
            workers += [self._hire(config, plan) for _ in range(min(self.count, len(waiting)))]
            while waiting or any(worker.item for worker in workers):
                worker = _first_heard(workers)
                try:
                    message = worker.pipe.recv()
                except RayError as error:
                    workers.remove(worker)
                    worker.tidy()
                    if worker.item is not None and worker.tries < _TRIES:
                        workers.append(self._replace(worker, config))
                    elif worker.item is not None:
                        yield _lost(worker.item, error)
                        workers += [self._hire(config, plan)] if waiting else []
                    elif not workers:
                        raise AudioSRError(f"no worker gets ready: the last one ended by {_reason(error)}") from error
                else:
                    if isinstance(message, Outcome):
                        yield worker.judged(message)
                        hand_next(worker, waiting)
                    else:
                        worker.heed(message, waiting, listen)
                    if worker.item is None:  # there is nothing left for it; its share may be wanted for another one
                        workers.remove(worker)
                        _end([worker])
        finally:
            _end(workers)

    def _hire(self, config: PipelineConfig, plan: Plan, **known: Any) -> _Hired:
        share = {"num_cpus": 0, "num_gpus": 1} if self.device == "cuda" else {"num_cpus": 1}
        hired = ray.remote(Actor).options(**share, max_restarts=0, max_concurrency=2, scheduling_strategy="SPREAD")
        actor = hired.remote(str(Path.cwd()), config, plan)
        return _Hired(pipe=_Line(actor), actor=actor, plan=plan, **known)

    def _replace(self, dead: _Hired, config: PipelineConfig) -> _Hired:
        """Another worker for the recording, which may replace what the dead one has written of its outputs."""
        plan = replace(dead.plan, own=dead.plan.own | dead.begun)
        return self._hire(config, plan, item=dead.item, begun=dead.begun, tries=dead.tries + 1)


class Actor:
    """What Ray runs: a worker in a thread, in the folder that paths of the call are relative to."""

    def __init__(self, folder: str, config: PipelineConfig, plan: Plan) -> None:
        self._told: SimpleQueue[object] = SimpleQueue()
        self._said: SimpleQueue[object] = SimpleQueue()
        self._life = ThreadPoolExecutor(1).submit(self._live, folder, config, plan)
        self._life.add_done_callback(lambda _: self._said.put(None))

    def _live(self, folder: str, config: PipelineConfig, plan: Plan) -> None:
        try:
            os.chdir(folder)
        except OSError as error:
            where = f"{folder} on {os.uname().nodename}"
            self._said.put(AudioSRError(f"{where}: {error.strerror}; nodes of --ray need the same paths"))
            return
        serve(SimpleNamespace(send=self._said.put, recv=self._told.get), config, plan)

    def tell(self, message: object) -> None:
        """Pass ``message`` to the worker."""
        self._told.put(message)

    def hear(self) -> object:
        """The worker's next message; None, or what broke it, where it has ended."""
        message = self._said.get()
        return self._life.result() if message is None else message


class _Line:
    """An actor as if it were at the other end of a pipe; ``coming`` is Ray's promise of its next message."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.coming = actor.hear.remote()

    def send(self, message: object) -> None:
        self._actor.tell.remote(message)

    def recv(self) -> object:
        message: object = ray.get(self.coming)
        self.coming = self._actor.hear.remote()
        return message


@dataclass(kw_only=True)
class _Hired(Worker):
    """An actor at its ``tries``-th recording of the same name, of which ``begun`` are the outputs."""

    actor: Any
    plan: Plan
    begun: frozenset[str] = frozenset()
    tries: int = 1
    owner: str = ""

    def heed(self, message: object, waiting: deque[Item], listen: Listener) -> None:
        """As ``jobs.heed``; a recording that is begun anew has been told of."""
        if isinstance(message, Ready):
            self.owner = message.owner
        if isinstance(message, Ready) and self.item is not None:
            self.pipe.send(self.item)
            return
        told = bool(self.begun)
        if isinstance(message, Started):
            self.begun = frozenset(absolute(target) for target in message.targets)
        heed(self, message, waiting, (lambda _: None) if told and isinstance(message, Started) else listen)

    def judged(self, outcome: Outcome) -> Outcome:
        """What became of the recording, which is no longer ours."""
        if self.tries > 1 and outcome.report is not None:
            outcome.report.warnings.append(f"its worker died, and another one did it: attempt {self.tries}")
        self.begun, self.tries = frozenset(), 1
        return outcome

    def tidy(self) -> None:
        """Remove its temporary files, as it is dead."""
        for folder in self.folders if self.owner else ():
            discard(folder, self.owner)


def _first_heard(workers: Sequence[_Hired]) -> _Hired:
    (ready, *_), _ = ray.wait([worker.pipe.coming for worker in workers])
    return next(worker for worker in workers if worker.pipe.coming == ready)


def _lost(item: Item, error: RayError) -> Outcome:
    said = f"{item.source}: {_TRIES} workers died at it, the last one by {_reason(error)}; run it again"
    return Outcome(item, error=AudioSRError(said))


def _reason(error: RayError) -> str:
    cause = getattr(error, "cause", None)
    return type(error).__name__ if cause is None else f"{type(cause).__name__}: {cause}"


def _end(workers: Sequence[_Hired]) -> None:
    for worker in workers:
        ray.kill(worker.actor)
    if workers:
        ray.wait([worker.pipe.coming for worker in workers], num_returns=len(workers), timeout=_PATIENCE_S)
    for worker in workers:
        worker.tidy()
