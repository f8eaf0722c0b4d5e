"""Do one measurement in a process of its own: ``python -m audiosr_cli.bench.worker JOB``; both JOB and answer are JSON.

A job's ``action`` is "time" (process ``source``, after ``warm`` if it is given), "count" (the candidate's FLOPs) or
"rate" (this machine's FLOPs a second). A command is timed from reading to writing a recording, without its start-up.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiosr_cli.streaming.options import Options
    from audiosr_cli.streaming.pipeline import Pipeline

    Run = Callable[[str], object]  # processes the recording at a path

_CUTOFF = 0.9  # of half the sample rate: cutoff for which FLOPs are counted


def main() -> None:
    """Do the job in the first argument, and print the answer in one line."""
    job = json.loads(sys.argv[1])
    begin = time.perf_counter()
    import torch

    torch_s = time.perf_counter() - begin
    from audiosr_cli.runtime.device import pick_device

    job["device"] = pick_device(job["device"])
    torch.manual_seed(0)
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    with TemporaryDirectory() as folder, torch.inference_mode(job["action"] == "time"):
        answer = {"time": measure_time, "count": count_flops, "rate": measure_rate}[job["action"]](job, Path(folder))
    print(json.dumps(answer | {"torch_s": torch_s}))


def measure_time(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Measure wall and CPU time of one pass over ``source``."""
    run = _runner(job, folder)
    if job["warm"]:
        run(job["warm"])
    wall, cpu = time.perf_counter(), time.process_time()
    run(job["source"])
    bf16 = job["kind"] != "peer" and _options(job).bf16
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "bf16": bf16}


def measure_rate(job: dict[str, Any], _: Path) -> dict[str, Any]:
    """Measure the highest rate of multiplications on this machine."""
    import torch

    from audiosr_cli.bench.flops import machine_gflops

    kinds = {"float32": torch.float32, "bf16": torch.bfloat16}
    return {name: machine_gflops(kind, job["device"]) for name, kind in kinds.items()} | {
        "threads": torch.get_num_threads()
    }


def count_flops(job: dict[str, Any], _: Path) -> dict[str, Any]:
    """Count billions of FLOPs per second of audio; None if they cannot be counted."""
    from audiosr_cli.bench.flops import chain_gflop, peer_gflop
    from audiosr_cli.bench.peers import PEERS

    if job["kind"] == "peer":
        peer = PEERS[job["name"]]
        return {"gflop_per_s": peer_gflop(peer.make(job["device"]), peer.rate, job["device"])}
    if job["kind"] == "model":
        from audiosr_cli.checkpoints.store import load_model

        return {"gflop_per_s": chain_gflop([load_model(job["name"], job["device"])], job["device"])}
    models = _pipeline(job).chain(job["rate"], _CUTOFF * job["rate"] / 2)
    return {"gflop_per_s": chain_gflop(models, job["device"])}


def _runner(job: dict[str, Any], folder: Path) -> Run:
    """Load the candidate, and return how to run it."""
    if job["kind"] == "peer":
        return _peer(job)
    from audiosr_cli.runtime.memory import keep_freed_memory

    keep_freed_memory()
    return _command(job, folder) if job["kind"] == "command" else _model(job)


def _options(job: dict[str, Any]) -> Options:
    from audiosr_cli.pipelines import default_options
    from audiosr_cli.runtime.device import pick_bf16

    options = default_options(job["device"])
    threads, bf16 = job["threads"] or options.threads, pick_bf16(job["precision"], job["device"])
    return replace(options, batch=job["batch"], threads=threads, bf16=bf16)


def _pipeline(job: dict[str, Any]) -> Pipeline:
    """Build the pipeline of a command with its default options."""
    from audiosr_cli.pipelines import SeparateOptions, SeparateSROptions, UpsampleOptions

    commands = {command.command: command() for command in (SeparateOptions, SeparateSROptions, UpsampleOptions)}
    return commands[job["name"]].pipeline(_options(job))


def _command(job: dict[str, Any], folder: Path) -> Run:
    pipeline = _pipeline(job)
    targets = [folder / f"{name}.wav" for name in pipeline.outputs]
    return lambda path: pipeline.write(path, targets)


def _model(job: dict[str, Any]) -> Run:
    """Return how to run a single model, with resampling and speaker order but without writing."""
    from audiosr_cli.audio.read import AudioReader
    from audiosr_cli.checkpoints.loading import load_speaker_encoder
    from audiosr_cli.checkpoints.store import load_model
    from audiosr_cli.runtime.threads import thread_pool
    from audiosr_cli.streaming.stages import Stage, embedder, stream

    model, options = load_model(job["name"], job["device"]), _options(job)
    embed = embedder(load_speaker_encoder(), model.spec.out_rate) if model.spec.speakers > 1 else None

    def run(path: str) -> None:
        with AudioReader(path) as reader, thread_pool(options.threads) as executor:
            stage = Stage(model, reader.sample_rate, model.spec.out_rate, reader.channels, options, embed, executor)
            for _ in stream(reader.blocks(), [stage]):
                pass

    return run


def _peer(job: dict[str, Any]) -> Run:
    """Return how to run a peer, on the mean of the channels at its own sample rate."""
    import torch

    from audiosr_cli.audio.read import read_mono
    from audiosr_cli.bench.peers import PEERS

    peer = PEERS[job["name"]]
    forward = peer.make(job["device"])

    def run(path: str) -> None:
        wave, _, _ = read_mono(Path(path), peer.rate)
        x = torch.from_numpy(wave).expand(1, 1, -1).to(job["device"])
        forward(x)
        if job["device"] == "cuda":
            torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main()
