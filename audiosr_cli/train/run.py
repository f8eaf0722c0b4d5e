"""One training run, from its TOML to the best weights in its folder."""

from __future__ import annotations

import copy
import os
import platform
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from audiosr_cli import __version__
from audiosr_cli.audio.atomic import atomic_path, sweep
from audiosr_cli.errors import ModelError, TrainingError, UsageError
from audiosr_cli.models import Model, build
from audiosr_cli.models.spectral_unet import SpectralUNet, SpectralUNetConfig
from audiosr_cli.provenance import commit
from audiosr_cli.train import checkpoint
from audiosr_cli.train.config import RunConfig, read_config
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.data import Table, folder_paths, load_corpus, read_table
from audiosr_cli.train.heads import Assisted, losses_with_heads
from audiosr_cli.train.log import Log, Report
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.measured_rooms import MeasuredRooms, load_rooms
from audiosr_cli.train.ranks import Ranks, join
from audiosr_cli.train.resize import grow
from audiosr_cli.train.resuming import training_settings
from audiosr_cli.train.tasks import Recordings, Separation, Task


@dataclass(frozen=True)
class Call:
    """What the command line adds to a config.

    ``minutes`` overrides the config's budget; ``init`` is a bundled model or checkpoint to start from;
    ``export`` is where a copy of the best weights goes in the end.
    """

    data: Path = Path()
    minutes: float | None = None
    resume: bool = False
    device: str = "cpu"
    init: str | None = None
    export: Path | None = None
    tensorboard: bool = False


def cache_folder() -> Path:
    """Where decoded corpora are kept: ``$AUDIOSR_CACHE``, else audiosr in the user's cache folder.

    Raises TrainingError where the user has no home.
    """
    if chosen := os.environ.get("AUDIOSR_CACHE"):
        return Path(chosen)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "audiosr"
    try:
        return Path.home() / ".cache" / "audiosr"
    except RuntimeError as error:  # neither $HOME nor an entry in the list of users, as in some containers
        raise TrainingError(
            "no home folder to keep decoded recordings in ($HOME is not set); set $AUDIOSR_CACHE to a folder that can "
            "be written"
        ) from error


def train(config_path: Path, out: Path, report: Report, call: Call) -> Path:
    """Train what ``config_path`` describes on folders below ``call.data``; returns the best weights' path.

    ``out`` receives config.toml, two rotating states, metrics.jsonl and the best weights as a checkpoint for
    every command. Under torchrun all processes train together. Raises UsageError where ``out`` holds a run
    already and ``resume`` is not asked for, TrainingError on data that cannot be trained on.
    """
    config = read_config(config_path)
    if call.minutes is not None:
        config = replace(config, loop=replace(config.loop, minutes=call.minutes, steps=0))
    if checkpoint.exists(out) and not call.resume:
        raise UsageError(f"{out}: holds a run already; use --resume to go on with it, or another --out")
    torch.manual_seed(config.loop.seed)
    model = build(config.architecture, config.training_model)
    deployed = build(config.architecture, config.model)
    _check_crop(model, config.task.crop_s)
    with join(call.device) as ranks:
        log = Log(report, ranks.leads)
        if call.init is not None:
            _warm_start(model, config.task, call.init, log)
        _train(config, model, deployed, config_path, out, log, call, ranks)
    best = out / f"{config.model.spec.name}.safetensors"
    return best if call.export is None or not ranks.leads else export(best, call.export)


def _train(
    config: RunConfig,
    model: Model,
    deployed: Model,
    config_path: Path,
    out: Path,
    log: Log,
    call: Call,
    ranks: Ranks,
) -> None:
    recordings = load_recordings(config, call.data, ranks, log)
    _rehearse(config, model, deployed, recordings, ranks)
    note = {
        **{key: value for key, value in asdict(config.card).items() if value},
        "config": config_path.name,
        "folders": list(config.data.train),
        "command": shlex.join(["audiosr", *sys.argv[1:]]),
        "machine": _machine(ranks.device),
        "commit": commit(),
        "version": __version__,
        **({"init": call.init} if call.init else {}),
    }
    identity = repr((config.architecture, config.model, config.training_model, type(config.task).__name__))
    loop = replace(config.loop, compile=config.loop.compile and _can_compile(log))
    out.mkdir(parents=True, exist_ok=True)
    settings = training_settings(config, recordings, ranks.world)
    trainer = Trainer(model, deployed, config.task, loop, out, ranks, log, note, identity, settings)
    warnings = trainer.load() if checkpoint.exists(out) else []
    if ranks.leads:
        sweep(out)
        _keep_config(config_path, out)
    ranks.wait()
    log.open(out, trainer.progress.step, call.tensorboard)
    for text in warnings:
        log.write({"event": "warning", "step": trainer.progress.step, "text": text})
    trainer.run(recordings)


def _rehearse(config: RunConfig, model: Model, deployed: Model, recordings: Recordings, ranks: Ranks) -> None:
    """Make a batch and its loss, so that what is amiss shows before anything is written. Raises UsageError."""
    try:
        deployed.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise UsageError(
            "[model.training] changes the shapes of the weights; they have to be those of [model]"
        ) from error
    batch = config.task.batch(recordings, torch.Generator().manual_seed(0), ranks)
    rehearsed = copy.deepcopy(model).to(ranks.device).train()  # its running statistics move
    heads = config.task.heads(rehearsed)
    try:
        with torch.no_grad():
            if heads:
                losses_with_heads(config.task, heads, Assisted(rehearsed, heads.to(ranks.device)), batch)
            else:
                config.task.losses(rehearsed, batch)
    except RuntimeError as error:
        reason = f"{error}".splitlines()[0]
        raise UsageError(f"[task] crop_s = {config.task.crop_s}: the loss cannot be computed: {reason}") from error


def _can_compile(log: Log) -> bool:
    """Whether torch.compile has the C++ compiler it wants; says so if not."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        text = f"compile = true: no {compiler} here; training goes on without"
        log.write({"event": "warning", "step": 0, "text": text})
        return False
    return True


def load_recordings(config: RunConfig, data: Path, ranks: Ranks, log: Log) -> Recordings:
    """All that a run draws from, on the device where it fits; what could not be read is reported by name."""
    table = read_table(data / config.data.table) if config.data.table else None
    rate = config.training_model.spec.out_rate

    wanted = config.data

    def load(folders: tuple[str, ...], **choice: Any) -> Corpus:
        return _load(folder_paths(data, folders), rate, table, choice, ranks, log)

    return Recordings(
        load(
            wanted.train,
            min_bandwidth=wanted.min_bandwidth_hz,
            shares=wanted.shares,
            balance=wanted.balance,
            min_seconds=wanted.min_seconds,
        ),
        load(wanted.valid),
        load(wanted.noise) if wanted.noise else None,
        _load_rooms(folder_paths(data, wanted.rir), rate, log) if wanted.rir else None,
        load(wanted.valid_noise) if wanted.valid_noise else None,
    )


def _load_rooms(folders: list[Path], rate: int, log: Log) -> MeasuredRooms:
    rooms = load_rooms(folders, rate)
    log.write({"event": "data", "folders": list(map(str, folders)), "rooms": len(rooms.responses)})
    return rooms


def _load(
    folders: list[Path], rate: int, table: Table | None, choice: dict[str, Any], ranks: Ranks, log: Log
) -> Corpus:
    """``choice``: what else ``load_corpus`` takes."""
    if not ranks.leads:
        ranks.wait()  # the leader decodes, the others find it done
    corpus = load_corpus(folders, rate, cache_folder(), table, **choice)
    if ranks.leads:
        ranks.wait()
    for line in corpus.skipped:
        log.write({"event": "skipped", "file": line})
    for line in corpus.damaged:
        log.write({"event": "damaged", "file": line})
    hours = round(corpus.seconds / 3600, 3)
    counts = {"recordings": len(corpus.names), "speakers": len(corpus.chance), "skipped": len(corpus.skipped)}
    log.write({"event": "data", "folders": list(map(str, folders)), "hours": hours, **counts})
    return corpus.to(ranks.device)


def export(best: Path, target: Path) -> Path:
    """Copy a run's best weights to ``target``, a folder or a .safetensors file; returns the file.

    Raises TrainingError where there are none yet.
    """
    from audiosr_cli.weights import load_model

    if not best.exists():  # somebody took it away
        raise TrainingError(f"{best.parent}: holds no validated weights yet")
    load_model(str(best))  # whole, finite, and of this version's models
    path = target if target.suffix == ".safetensors" else target / best.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        shutil.copyfile(best, part)
    return path


def _keep_config(config_path: Path, out: Path) -> None:
    kept = out / "config.toml"
    if config_path.resolve() != kept.resolve():
        shutil.copyfile(config_path, kept)


def _warm_start(model: Model, task: Task, name: str, log: Log) -> None:
    """Give ``model`` the weights of a bundled model or a checkpoint. Raises ModelError where they do not fit.

    A larger SpectralUNet grows from a smaller one; UsageError where ``task`` could not train what is new in it. Any
    other model of more sources takes what there is for the first ones; what is for the others starts fresh.
    """
    from audiosr_cli.weights import load_model

    trained = load_model(name)
    if isinstance(model, SpectralUNet) and isinstance(trained, SpectralUNet):
        try:
            grown = grow(trained, model.config)
        except ModelError as error:
            raise ModelError(f"--init {name}: {error}") from error
        if model.spec.sources > trained.spec.sources:
            _check_silent_sources(task, model.config)
        model.load_state_dict(grown.state_dict())
        before, after = (sum(weight.numel() for weight in each.parameters()) for each in (trained, model))
        if before != after:
            log.write({"event": "grown", "init": name, "parameters_before": before, "parameters": after})
        return
    _copy_weights(model, trained, name)


def _check_silent_sources(task: Task, config: SpectralUNetConfig) -> None:
    """Raise UsageError where new sources, which start silent, would stay so: SI-SNR of silence has no gradient.

    The level's error and the share of what the sources lack of the mixture do have one.
    """
    loss = task.loss if isinstance(task, Separation) else ""
    if loss in ("si_snr", "thresholded_si_snr") and config.consistency == "use":
        raise UsageError(
            f"[task] loss = {loss!r}: new sources start silent and would stay silent; use loss = 'si_snr_and_level'"
        )


def _copy_weights(model: Model, given: Model, name: str) -> None:
    own, theirs = model.state_dict(), given.state_dict()
    more = model.spec.sources > given.spec.sources
    for key in sorted(set(own) | set(theirs)):
        there = theirs[key].shape if key in theirs else None
        wanted = own[key].shape if key in own else None
        grows = more and there and wanted and there[0] < wanted[0] and there[1:] == wanted[1:]
        if there != wanted and not grows:
            text = f"{key!r} is {tuple(there or ()) or 'missing'} there, {tuple(wanted or ()) or 'missing'} here"
            raise ModelError(f"--init {name}: its weights do not fit this [model]: {text}")
    with torch.no_grad():
        for key, value in theirs.items():
            taken = own[key] if own[key].shape == value.shape else own[key][: len(value)]
            taken.copy_(value)


def _check_crop(model: Model, crop_s: float) -> None:
    """Raise UsageError unless the network takes crops of that many seconds."""
    spec, length = model.spec, round(crop_s * model.spec.in_rate)
    try:
        with torch.no_grad():
            made = model.eval()(torch.zeros(1, spec.inputs * spec.channels, length)).shape[-1]
    except (AssertionError, RuntimeError):
        made = 0
    if not made:
        hint = f"more than {2 * spec.context / spec.in_rate:.3f} s" if spec.context else "whole bottleneck samples"
        raise UsageError(f"[task] crop_s = {crop_s}: {length} samples do not fit this network; it wants {hint}")


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
