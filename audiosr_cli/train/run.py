"""Run a training, from its config to the best weights in its folder."""

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
from audiosr_cli.train.batch_size import BatchSizeTrials, best_batch_size, load_batch_size, save_batch_size
from audiosr_cli.train.config import RunConfig, read_config
from audiosr_cli.train.heads import ModelWithHeads, losses_with_heads
from audiosr_cli.train.log import EventCallback, Log
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.memory import free_memory, with_batch_size
from audiosr_cli.train.ranks import Ranks, join
from audiosr_cli.train.recordings import load_recordings
from audiosr_cli.train.resuming import training_settings
from audiosr_cli.train.session import Deadline, Exporter, Session, snapshot
from audiosr_cli.train.tasks import TASKS, Recordings, SpeechAndRest
from audiosr_cli.train.warm_start import warm_start


@dataclass(frozen=True)
class TrainCall:
    """The options of one training call.

    Attributes:
        data: Folder that contains the config's folders.
        minutes: Budget over all resumes, in place of the config's.
        resume: Whether to continue a run in the output folder.
        device: cpu or cuda.
        init: Name of a bundled model, or path of a checkpoint, to start from.
        export: Folder or .safetensors file for a copy of the best weights.
        tensorboard: Whether to write curves for TensorBoard.
        until: Deadline in seconds from the start of the process, in place of the budget.
        export_every: Seconds between exports of the current weights to the folder ``export``, in place of the best.
        part_bytes: Largest file of such an export; larger weights are split.
        batch_size: Overrides the config's; 0 measures which is fastest.

    Raises:
        UsageError: If options contradict each other.
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
            raise UsageError("--until and --minutes both set the budget; use only one of them")
        if self.until is not None and not math.isfinite(self.until):
            raise UsageError(f"--until {self.until}: must be a finite number of seconds")
        if self.export_every is not None and (self.export is None or self.export.suffix == ".safetensors"):
            raise UsageError("--export-every needs --export with a folder")
        if self.export is not None and self.export.exists():
            if self.export.suffix == ".safetensors" and self.export.is_dir():
                raise UsageError(f"--export {self.export}: is a folder; remove it, or use a name without .safetensors")
            if self.export.suffix != ".safetensors" and not self.export.is_dir():
                raise UsageError(f"--export {self.export}: is a file; use a folder or a .safetensors file")

    def session(self) -> Session:
        """Create the deadline and the exporter of this process."""
        exporter = None
        if self.export is not None and self.export_every is not None:
            exporter = Exporter(self.export, self.export_every, self.part_bytes)
        return Session(None if self.until is None else Deadline(self.until), exporter)


def train(config_path: Path, out: Path, on_event: EventCallback, call: TrainCall) -> Path:
    """Train a model. Under torchrun, all processes train together.

    Args:
        config_path: TOML file of the run.
        out: Folder for config.toml, two state files, metrics.jsonl and the best weights.
        on_event: Receives events: see ``log.Log``.
        call: Options.

    Returns:
        The path of the best weights.

    Raises:
        UsageError: If the config is wrong, or ``out`` contains a run and ``call.resume`` is false.
        TrainingError: If the data cannot be used, or training fails.
    """
    config = read_config(config_path)
    if call.minutes is not None:
        config = replace(config, loop=replace(config.loop, minutes=call.minutes, steps=0))
    if call.until is not None:
        config = replace(config, loop=replace(config.loop, steps=0))
    if call.batch_size:
        config = replace(config, task=with_batch_size(config.task, call.batch_size))
    session = call.session()
    if checkpoint.exists(out) and not call.resume:
        raise UsageError(f"{out}: already contains a run; use --resume to continue it, or another --out")
    torch.manual_seed(config.loop.seed)
    model = build(config.architecture, config.training_model)
    deployed = build(config.architecture, config.model)
    deployed.spec = replace(deployed.spec, rest=isinstance(config.task, SpeechAndRest))
    _check_crop(model, config.task.crop_s)
    with join(call.device) as ranks:
        log = Log(on_event, ranks.is_leader)
        if call.init is not None and not checkpoint.exists(out):  # a state contains all weights
            warm_start(model, config.task, call.init, log)
        _train(config, model, deployed, config_path, out, log, call, ranks, session)
    best = out / f"{config.model.spec.name}.safetensors"
    if not ranks.is_leader:
        return best
    if call.export is not None and session.exporter:
        return call.export / best.name
    if not best.exists():  # no time for a validation, no finite score, or the file was removed
        raise TrainingError(f"{out}: contains no validated weights yet; continue the run with --resume")
    return best if call.export is None else export(best, call.export)


def _train(
    config: RunConfig,
    model: Model,
    deployed: Model,
    config_path: Path,
    out: Path,
    log: Log,
    call: TrainCall,
    ranks: Ranks,
    session: Session,
) -> None:
    recordings = load_recordings(config, call.data, ranks, log)
    _try_rehearsal(config, model, deployed, recordings, ranks)
    note = _provenance(config, config_path, ranks) | ({"init": call.init} if call.init else {})
    identity = repr((config.architecture, config.model, config.training_model, type(config.task).__name__))
    loop = replace(config.loop, compile=config.loop.compile and _can_compile(log))
    out.mkdir(parents=True, exist_ok=True)
    settings = training_settings(config, recordings, ranks.world)
    trainer = Trainer(model, deployed, config.task, loop, out, ranks, log, note, identity, settings, session)
    warnings = trainer.load() if checkpoint.exists(out) else []
    if ranks.is_leader:
        sweep(out)
        _copy_config(config_path, out)
    ranks.wait()
    log.open(out, trainer.progress.step, call.tensorboard)
    for text in warnings:
        log.warn(trainer.progress.step, text)
    snapshot(trainer)  # so that weights exist even if this process is killed
    if call.batch_size == 0:
        measure = BatchSizeTrials(model, deployed, config.task, loop, recordings, ranks.device, session.trial_s())
        trainer.task = with_batch_size(config.task, _find_batch_size(measure, session, out, log, ranks))
    trainer.run(recordings)


def _provenance(config: RunConfig, config_path: Path, ranks: Ranks) -> dict[str, Any]:
    """Return the metadata that is stored with the weights: the model card, and how they were trained."""
    return {
        **{key: value for key, value in asdict(config.card).items() if value},
        "config": config_path.name,
        "folders": list(config.data.train),
        "training_task": next(name for name, task in TASKS.items() if isinstance(config.task, task)),
        "command": shlex.join(["audiosr", *sys.argv[1:]]),
        "machine": _machine(ranks.device),
        "commit": commit(),
        "version": __version__,
    }


def _find_batch_size(measure: BatchSizeTrials, session: Session, out: Path, log: Log, ranks: Ranks) -> int:
    """Measure which batch size is fastest, unless an earlier process of the run did so under the same conditions."""
    if ranks.world > 1:
        raise UsageError("--batch-size auto: works in a single process only; use a number with torchrun")
    machine, settings = _machine(ranks.device), measure.settings()
    saved = load_batch_size(out, machine, settings)
    size, speeds = saved or best_batch_size(measure, measure.task.batch_size)
    if saved is None:
        save_batch_size(out, machine, settings, size, speeds)
        rounded = {tried: round(speed, 3) for tried, speed in sorted(speeds.items())}
        log.write({"event": "batch_size", "batch_size": size, "audio_hours_per_minute": rounded})
    if session.deadline is not None:
        session.deadline.durations["step"] = size * measure.task.crop_s / 60 / speeds[size]
    return size


def _try_rehearsal(config: RunConfig, model: Model, deployed: Model, recordings: Recordings, ranks: Ranks) -> None:
    """Rehearse a step. If there is too little memory, training will try smaller batches."""
    try:
        _rehearse(config, model, deployed, recordings, ranks)
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    free_memory(ranks.device)  # not in the handler, as its traceback references the tensors


def _rehearse(config: RunConfig, model: Model, deployed: Model, recordings: Recordings, ranks: Ranks) -> None:
    """Compute the loss of one batch, so that errors show before anything is written. Raises UsageError."""
    try:
        deployed.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise UsageError("[model.training] changes the shapes of the weights; it must keep those of [model]") from error
    batch = config.task.batch(recordings, torch.Generator().manual_seed(0), ranks)
    rehearsed = copy.deepcopy(model).to(ranks.device).train()  # running statistics change
    heads = config.task.heads(rehearsed)
    try:
        with torch.no_grad():
            if heads:
                losses_with_heads(config.task, heads, ModelWithHeads(rehearsed, heads.to(ranks.device)), batch)
            else:
                config.task.losses(rehearsed, batch)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = f"{error}".splitlines()[0]
        raise UsageError(f"[task] crop_s = {config.task.crop_s}: the loss cannot be computed: {reason}") from error


def _can_compile(log: Log) -> bool:
    """Return whether the C++ compiler that torch.compile needs exists; warn if not."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        log.warn(0, f"[loop] compile = true: no C++ compiler {compiler}; training continues without compiling")
        return False
    return True


def export(best: Path, target: Path) -> Path:
    """Copy a run's best weights.

    Args:
        best: The run's best weights.
        target: A folder or a .safetensors file.

    Returns:
        The path of the copy.

    Raises:
        TrainingError: If there are no weights yet.
        ModelError: If they are damaged.
    """
    from audiosr_cli.checkpoints.store import load_model

    if not best.exists():  # the file was removed
        raise TrainingError(f"{best.parent}: contains no validated weights yet")
    load_model(str(best))  # checks that they are complete and finite
    path = target if target.suffix == ".safetensors" else target / best.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        shutil.copyfile(best, part)
    return path


def _copy_config(config_path: Path, out: Path) -> None:
    copy_path = out / "config.toml"
    if config_path.resolve() != copy_path.resolve():
        shutil.copyfile(config_path, copy_path)


def _check_crop(model: Model, crop_s: float) -> None:
    """Raise UsageError unless the network accepts crops of ``crop_s`` seconds."""
    spec, length = model.spec, round(crop_s * model.spec.in_rate)
    try:
        with torch.no_grad():
            output_length = model.eval()(torch.zeros(1, spec.inputs * spec.channels, length)).shape[-1]
    except (AssertionError, RuntimeError):
        output_length = 0
    if not output_length:
        hint = f"more than {2 * spec.context / spec.in_rate:.3f} s" if spec.context else "whole bottleneck samples"
        raise UsageError(f"[task] crop_s = {crop_s}: {length} samples do not fit this network; it needs {hint}")


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
