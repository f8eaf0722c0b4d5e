"""One training run, from its TOML to the best weights in its folder."""

from __future__ import annotations

import copy
import math
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
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.files.atomic import atomic_path, sweep
from audiosr_cli.models import Model, build
from audiosr_cli.runtime.memory import is_out_of_memory
from audiosr_cli.runtime.provenance import commit
from audiosr_cli.train import checkpoint
from audiosr_cli.train.batch_size import Trials, best_batch_size, remember, remembered
from audiosr_cli.train.config import RunConfig, read_config
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.data import Table, folder_paths, load_corpus, read_table
from audiosr_cli.train.heads import Assisted, losses_with_heads
from audiosr_cli.train.log import Log, Report
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.measured_rooms import MeasuredRooms, load_rooms
from audiosr_cli.train.memory import free_memory, resized
from audiosr_cli.train.ranks import Ranks, join
from audiosr_cli.train.resuming import training_settings
from audiosr_cli.train.session import Deadline, Exporter, Session, snapshot
from audiosr_cli.train.tasks import Recordings
from audiosr_cli.train.warm_start import warm_start


@dataclass(frozen=True)
class Call:
    """What the command line adds to a config.

    ``minutes`` overrides the config's budget; ``init`` is a bundled model or checkpoint to start from;
    ``export`` is where a copy of the best weights goes in the end. ``until`` (seconds from the start of the process)
    is when everything has to be done, in place of the budget. With ``export_every`` (seconds) the folder ``export``
    has the current weights instead of the best ones, in files of at most ``part_bytes``. ``batch_size`` overrides the
    config's; 0 measures which is fastest.
    """

    data: Path = Path()
    minutes: float | None = None
    resume: bool = False
    device: str = "cpu"
    init: str | None = None
    export: Path | None = None
    tensorboard: bool = False
    until: float | None = None
    export_every: float | None = None
    part_bytes: int = 15 << 20
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.until is not None and self.minutes is not None:
            raise UsageError("--until and --minutes both set the budget; use one of them")
        if self.until is not None and not math.isfinite(self.until):
            raise UsageError(f"--until {self.until}: must be a number of seconds")
        if self.export_every is not None and (self.export is None or self.export.suffix == ".safetensors"):
            raise UsageError("--export-every needs --export with a folder")
        if self.export is not None and self.export.exists():
            if self.export.suffix == ".safetensors" and self.export.is_dir():
                raise UsageError(f"--export {self.export}: is a folder, but has the name of a file")
            if self.export.suffix != ".safetensors" and not self.export.is_dir():
                raise UsageError(f"--export {self.export}: is a file; a folder or a .safetensors file is wanted")

    def session(self) -> Session:
        """What this process adds to the run: its deadline, and where it writes weights meanwhile."""
        exporter = None
        if self.export is not None and self.export_every is not None:
            exporter = Exporter(self.export, self.export_every, self.part_bytes)
        return Session(None if self.until is None else Deadline(self.until), exporter)


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
    if call.until is not None:
        config = replace(config, loop=replace(config.loop, steps=0))
    if call.batch_size:
        config = replace(config, task=resized(config.task, call.batch_size))
    session = call.session()
    if checkpoint.exists(out) and not call.resume:
        raise UsageError(f"{out}: holds a run already; use --resume to go on with it, or another --out")
    torch.manual_seed(config.loop.seed)
    model = build(config.architecture, config.training_model)
    deployed = build(config.architecture, config.model)
    _check_crop(model, config.task.crop_s)
    with join(call.device) as ranks:
        log = Log(report, ranks.leads)
        if call.init is not None and not checkpoint.exists(out):  # a state has all the weights
            warm_start(model, config.task, call.init, log)
        _train(config, model, deployed, config_path, out, log, call, ranks, session)
    best = out / f"{config.model.spec.name}.safetensors"
    if not ranks.leads:
        return best
    if call.export is not None and session.exporter:
        return call.export / best.name
    if not best.exists():  # there was no time for a validation, no score was finite, or somebody took it away
        raise TrainingError(f"{out}: holds no validated weights yet; give it more time, with --resume")
    return best if call.export is None else export(best, call.export)


def _train(
    config: RunConfig,
    model: Model,
    deployed: Model,
    config_path: Path,
    out: Path,
    log: Log,
    call: Call,
    ranks: Ranks,
    session: Session,
) -> None:
    recordings = load_recordings(config, call.data, ranks, log)
    _try_rehearsal(config, model, deployed, recordings, ranks)
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
    trainer = Trainer(model, deployed, config.task, loop, out, ranks, log, note, identity, settings, session)
    warnings = trainer.load() if checkpoint.exists(out) else []
    if ranks.leads:
        sweep(out)
        _keep_config(config_path, out)
    ranks.wait()
    log.open(out, trainer.progress.step, call.tensorboard)
    for text in warnings:
        log.write({"event": "warning", "step": trainer.progress.step, "text": text})
    snapshot(trainer)  # so that there is a whole set of weights whenever this process ends
    if call.batch_size == 0:
        trials = Trials(model, deployed, config.task, loop, recordings, ranks.device, session.trial_s())
        trainer.task = resized(config.task, _find_batch_size(trials, session, out, log, ranks))
    trainer.run(recordings)


def _find_batch_size(trials: Trials, session: Session, out: Path, log: Log, ranks: Ranks) -> int:
    """Measure which batch size is fastest, unless an earlier sitting did so on this machine."""
    if ranks.world > 1:
        raise UsageError("--batch-size auto: measures in one process only; under torchrun give a number")
    machine = _machine(ranks.device)
    known = remembered(out, machine)
    size, speeds = known or best_batch_size(trials, trials.task.batch_size)
    if known is None:
        remember(out, machine, size, speeds)
        rounded = {tried: round(speed, 3) for tried, speed in sorted(speeds.items())}
        log.write({"event": "batch_size", "batch_size": size, "hours_per_minute": rounded})
    if session.deadline is not None:
        session.deadline.durations["step"] = size * trials.task.crop_s / 60 / speeds[size]
    return size


def _try_rehearsal(config: RunConfig, model: Model, deployed: Model, recordings: Recordings, ranks: Ranks) -> None:
    """Rehearse if there is enough memory; where CUDA has too little, training looks for batches that it is enough for.

    On a CPU that search would end with the kernel killing this process, or another one, so there it is a TrainingError.
    """
    try:
        _rehearse(config, model, deployed, recordings, ranks)
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if ranks.device.type == "cpu":
            size = config.task.batch_size
            raise TrainingError(f"not enough memory for a batch of {size}; use a smaller --batch-size") from error
    free_memory(ranks.device)


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
        if is_out_of_memory(error):
            raise
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
    from audiosr_cli.checkpoints.store import load_model

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
