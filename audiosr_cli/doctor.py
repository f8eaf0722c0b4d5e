"""Check the installation: versions, devices, CPU features, bundled models, and one second of every command."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from audiosr_cli import __version__
from audiosr_cli.audio.formats import FORMATS
from audiosr_cli.audio.read import codecs
from audiosr_cli.audio.write import writable
from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.errors import AudioSRError
from audiosr_cli.pipelines import CommandOptions, SeparateOptions, SeparateSROptions, UpsampleOptions, default_options
from audiosr_cli.runtime.device import pick_threads

_RATE = 16000
_FLAGS = {"AVX2": "avx2", "AVX-512": "avx512f", "AVX-512 bf16": "avx512_bf16", "AMX bf16": "amx_bf16"}
_COMMANDS: tuple[CommandOptions, ...] = (SeparateOptions(), UpsampleOptions(cutoff_hz=4000.0), SeparateSROptions())


@dataclass(frozen=True)
class Finding:
    """Result of one check; ``ok`` is False if there is a problem."""

    group: str
    name: str
    value: str
    ok: bool = True


def examine() -> Iterator[Finding]:
    """Run all checks, the quick ones first."""
    yield Finding("version", "audiosr", __version__)
    yield Finding("version", "python", platform.python_version())
    for name in ("torch", "numpy", "soundfile", "soxr", "safetensors"):
        yield Finding("version", name, version(name))
    library, formats = codecs()
    yield Finding("version", "libsndfile", library)
    yield Finding("formats", "written", ", ".join(writable()), writable() == list(FORMATS))
    yield Finding("formats", "read", ", ".join(formats))
    yield from _devices()
    yield from map(_check_model, catalogue.entries())
    yield from map(_test_run, _COMMANDS)


def _devices() -> Iterator[Finding]:
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("device", "cuda", ", ".join(cards) or "none")
    features = [name for name, flag in _FLAGS.items() if flag in _cpu_flags()]
    yield Finding("device", "cpu", ", ".join(features) or "no vector extensions")
    yield Finding("device", "torch kernels", torch.backends.cpu.get_cpu_capability())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("device", "threads", f"{pick_threads()} by default, {cores} cores")


def _cpu_flags() -> set[str]:
    """Read the CPU's feature flags on Linux; an empty set elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line.split() for line in lines if line.startswith("flags")), []))


def _check_model(name: str) -> Finding:
    try:
        store.load_model(name)
    except AudioSRError as error:
        return Finding("model", name, str(error), ok=False)
    return Finding("model", name, "ok")


def _test_run(command: CommandOptions) -> Finding:
    """Process one second of noise with a command, on the default device."""
    name = command.command
    noise = np.random.default_rng(0).standard_normal(_RATE).astype(np.float32) / 10
    try:
        pipeline = command.pipeline(default_options("auto"))
        begin = time.monotonic()
        output = pipeline.array(noise, _RATE)
    except (AudioSRError, RuntimeError) as error:  # torch's error for a device that does not work
        return Finding("command", name, str(error), ok=False)
    frames = (pipeline.rate or _RATE) if np.isfinite(output).all() else 0
    ok = output.shape == (len(pipeline.outputs), 1, frames)
    elapsed = time.monotonic() - begin
    return Finding("command", name, f"one second of audio took {elapsed:.2f} s" if ok else "wrong output", ok)
