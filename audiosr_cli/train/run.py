"""One training run, from its TOML to the best weights in its folder."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from audiosr_cli import __version__
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import Model, build
from audiosr_cli.train.config import read_config
from audiosr_cli.train.data import Corpus, load_corpus
from audiosr_cli.train.loop import Trainer


def cache_folder() -> Path:
    """Where decoded corpora are kept: ``$AUDIOSR_CACHE``, else audiosr in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("AUDIOSR_CACHE") or Path(home) / "audiosr")


def train(
    config_path: Path,
    data: Path,
    out: Path,
    report: Callable[[dict[str, Any]], None],
    minutes: float | None = None,
    resume: bool = False,
    device: str = "cpu",
) -> Path:
    """Train what ``config_path`` describes on folders below ``data``; returns the best weights' path.

    ``out`` receives config.toml, state.pt, metrics.jsonl and the best weights as a checkpoint for every
    command. ``minutes`` overrides the config's budget. Raises UsageError where ``out`` holds a run already
    and ``resume`` is not asked for, TrainingError on data that cannot be trained on.
    """
    config = read_config(config_path)
    loop = config.loop if minutes is None else replace(config.loop, minutes=minutes)
    if loop.minutes <= 0:
        raise UsageError(f"--minutes {loop.minutes}: must be above 0")
    torch.manual_seed(loop.seed)
    model = build(config.architecture, config.training_model)
    deployed = build(config.architecture, config.model)
    _check_crop(model, config.task.crop_s)
    train_set = _corpus(data, config.data.train, model.spec.out_rate, config.data.min_bandwidth_hz, report)
    valid_set = _corpus(data, config.data.valid, model.spec.out_rate, 0.0, report)
    note = {
        "config": config_path.name,
        "data": list(config.data.train),
        "machine": _machine(device),
        "commit": _commit(),
        "version": __version__,
    }
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(model, deployed, config.task, loop, out, torch.device(device), note)
    if trainer.state_path.exists():
        if not resume:
            raise UsageError(f"{out}: holds a run already; use --resume to go on with it, or another --out")
        trainer.load()
    kept = out / "config.toml"
    if config_path.resolve() != kept.resolve():
        shutil.copyfile(config_path, kept)
    trainer.run(train_set, valid_set, report)
    return out / f"{deployed.spec.name}.safetensors"


def _corpus(
    data: Path, folders: tuple[str, ...], sample_rate: int, bandwidth: float, report: Callable[[dict[str, Any]], None]
) -> Corpus:
    """The recordings below ``data``; what could not be read is reported by name, the rest by count."""
    paths = [data / folder for folder in folders]
    if missing := [path for path in paths if not path.is_dir()]:
        raise TrainingError(f"{missing[0]}: no such folder; --data names the folder that holds it")
    corpus = load_corpus(paths, sample_rate, cache_folder(), bandwidth)
    for line in corpus.skipped:
        report({"skipped": line})
    hours = round(corpus.seconds / 3600, 3)
    report({"hours": hours, "recordings": len(corpus.names), "skipped": len(corpus.skipped)})
    return corpus


def _check_crop(model: Model, crop_s: float) -> None:
    """Raise UsageError unless the network takes crops of that many seconds."""
    spec, length = model.spec, round(crop_s * model.spec.in_rate)
    try:
        with torch.no_grad():
            made = model(torch.zeros(1, spec.channels, length)).shape[-1]
    except (AssertionError, RuntimeError):
        made = 0
    if not made:
        hint = f"more than {2 * spec.context / spec.in_rate:.3f} s" if spec.context else "whole bottleneck samples"
        raise UsageError(f"[task] crop_s = {crop_s}: {length} samples do not fit this network; it wants {hint}")


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _commit() -> str:
    """The commit of the checkout this runs from, empty elsewhere."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "-C", here, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()
