"""Whether this installation is well: versions, devices, what the processor can do, models, a second of work."""

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
from audiosr_cli.audio.read import codecs
from audiosr_cli.audio.write import FORMATS, writable
from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.errors import AudioSRError
from audiosr_cli.pipelines import CommandOptions, SeparateOptions, SeparateSROptions, UpsampleOptions, default_options
from audiosr_cli.runtime.device import pick_threads

_RATE = 16000
_FLAGS = {"AVX2": "avx2", "AVX-512": "avx512f", "AVX-512 bf16": "avx512_bf16", "AMX bf16": "amx_bf16"}
_COMMANDS: tuple[CommandOptions, ...] = (SeparateOptions(), UpsampleOptions(cutoff_hz=4000.0), SeparateSROptions())


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``fine`` False where something has to be done about it."""

    group: str
    name: str
    value: str
    fine: bool = True


def examine() -> Iterator[Finding]:
    """Look at everything, the quick things first."""
    yield Finding("version", "audiosr", __version__)
    yield Finding("version", "python", platform.python_version())
    for name in ("torch", "numpy", "soundfile", "soxr", "safetensors"):
        yield Finding("version", name, version(name))
    library, formats = codecs()
    yield Finding("version", "libsndfile", library)
    yield Finding("formats", "written", ", ".join(writable()), writable() == list(FORMATS))
    yield Finding("formats", "read", ", ".join(formats))
    yield from _devices()
    yield from map(_model, catalogue.entries())
    yield from map(_test_run, _COMMANDS)


def _devices() -> Iterator[Finding]:
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("device", "cuda", ", ".join(cards) or "none")
    flags = _cpu_flags()
    yield Finding("device", "cpu", ", ".join(name for name, flag in _FLAGS.items() if flag in flags) or "no vectors")
    yield Finding("device", "torch's kernels", torch.backends.cpu.get_cpu_capability())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("device", "threads", f"{pick_threads()} by default, {cores} cores")


def _cpu_flags() -> set[str]:
    """What Linux says the processor can do; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line.split() for line in lines if line.startswith("flags")), []))


def _model(name: str) -> Finding:
    try:
        store.load_model(name)
    except AudioSRError as error:
        return Finding("model", name, str(error), fine=False)
    return Finding("model", name, "whole")


def _test_run(command: CommandOptions) -> Finding:
    """A second of noise through a task, on the device that the commands take."""
    name, noise = command.command, np.random.default_rng(0).standard_normal(_RATE).astype(np.float32) / 10
    try:
        pipeline = command.pipeline(default_options("auto"))
        begun = time.monotonic()
        made = pipeline.array(noise, _RATE)
    except (AudioSRError, RuntimeError) as error:  # torch's word on a device that does not work
        return Finding("task", name, str(error), fine=False)
    frames = (pipeline.rate or _RATE) if np.isfinite(made).all() else 0
    fine = made.shape == (len(pipeline.outputs), 1, frames)
    elapsed = time.monotonic() - begun
    return Finding("task", name, f"a second took {elapsed:.2f} s" if fine else "what comes out is wrong", fine)
