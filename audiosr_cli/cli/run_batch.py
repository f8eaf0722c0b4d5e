"""Run a processing command: check the call, load the models, process every input and report the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from audiosr_cli.cli import listing, progress
from audiosr_cli.cli.console import print_message
from audiosr_cli.cli.options import Shared
from audiosr_cli.cli.summary import Summary, has_table
from audiosr_cli.errors import UsageError

if TYPE_CHECKING:
    from audiosr_cli.batch.folders import FolderWalk
    from audiosr_cli.batch.inputs import Item
    from audiosr_cli.batch.naming import Naming
    from audiosr_cli.batch.ray import Cluster
    from audiosr_cli.batch.run import Event, Existing, Outcome, OutputPlan
    from audiosr_cli.pipelines import CommandOptions, PipelineConfig
    from audiosr_cli.streaming.options import Channels, Options
    from audiosr_cli.streaming.pipeline import Pipeline

_PROCESS_FILES = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")  # such a name is another file, or none, in a worker


def run_batch(inputs: Sequence[str] | None, command: CommandOptions, template: str, shared: Shared) -> None:
    """Process ``inputs`` with the pipeline of ``command``, and exit with the batch's exit code if it is not 0.

    Args:
        inputs: What the user named; see ``batch.inputs.collect``.
        command: The command's own options.
        template: File name of the outputs, unless ``--template`` is given.
        shared: The options of every processing command.

    Raises:
        AudioSRError: If the call is invalid or the models cannot be loaded. Nothing is written then.
    """
    from audiosr_cli.batch import naming, run
    from audiosr_cli.batch.inputs import collect, select_shard
    from audiosr_cli.pipelines import PipelineConfig
    from audiosr_cli.runtime.memory import keep_freed_memory

    _check_call(shared)
    _check_countable(command, shared)
    names = naming.Naming(shared.output, shared.template or template, shared.container)
    _check_subtype(shared.subtype, names.output_container)
    walk = _folder_walk(command, names, shared)
    items = collect(inputs or [], shared.files_from, shared.null, walk)
    if shared.spectrogram is not None:
        _check_spectrogram(shared, items)
    keep_freed_memory()
    if shared.jobs is not None or shared.ray is not None:
        _check_workers(shared, items)
    with _cluster(shared) as cluster:
        config = PipelineConfig(command, _options(shared, cluster, len(items)))
        pipeline = config.build() if cluster is None else cluster.build_on_cpu(config)
        items = naming.distinguish(items, names, pipeline.files, pipeline.rate or 0)
        naming.check(items, names, pipeline.files, pipeline.rate or 0)
        plan = _output_plan(names, shared).protecting(items)
        if shared.shard is not None:
            items = select_shard(items, shared.shard)
        listing.print_left_out(walk, shared)
        if shared.dry_run:
            _dry_run(items, pipeline, config, plan, shared)
            return
        run.remove_leftovers(items, names, pipeline.files, pipeline.rate or 0)
        _run(items, pipeline, config, plan, shared, cluster)


def _folder_walk(command: CommandOptions, naming: Naming, shared: Shared) -> FolderWalk:
    from audiosr_cli.batch.folders import EarlierOutputs, FolderWalk
    from audiosr_cli.batch.manifest import outputs_of

    listed = outputs_of(Path(shared.manifest)) if shared.manifest is not None else {}
    return FolderWalk(EarlierOutputs(command.command, naming.folder, listed))


def _cluster(shared: Shared) -> AbstractContextManager[Cluster | None]:
    """Connect to the cluster of ``--ray``, if it is given."""
    if shared.ray is None:
        return nullcontext()
    try:
        from audiosr_cli.batch import ray
    except ImportError as error:
        raise UsageError(f"--ray {shared.ray}: Ray is not installed; pip install 'audiosr-cli[ray]'") from error
    return ray.connect(shared.ray, shared.jobs, shared.device)


def _options(shared: Shared, cluster: Cluster | None, recordings: int) -> Options:
    from audiosr_cli.runtime.device import pick_bf16, pick_device, pick_threads
    from audiosr_cli.streaming.options import Options

    device = pick_device(shared.device) if cluster is None else cluster.device
    processes = max(1, min(shared.jobs or 1, recordings))
    threads = shared.threads or (max(1, pick_threads() // processes) if cluster is None else 1)
    return Options(
        device=device,
        batch=shared.batch,
        clip=shared.clip,
        channels=cast("Channels", shared.channels if shared.channels in ("each", "mix") else int(shared.channels)),
        strict=shared.strict,
        nonfinite=shared.nonfinite,
        bf16=pick_bf16(shared.precision, device),
        threads=threads,
        provenance=not shared.no_provenance,
        start_s=shared.start,
        end_s=shared.end,
        audio_stream=shared.audio_stream,
    )


def _check_call(shared: Shared) -> None:
    if shared.fail + shared.overwrite + shared.skip > 1:
        raise UsageError("--fail, --overwrite and --skip exclude each other; give one of them")
    if shared.as_json and shared.output == "-":
        raise UsageError("--json and -o - both write to standard output; give -o a file")
    if shared.print0 and (shared.as_json or shared.output == "-"):
        other = "--json" if shared.as_json else "-o -"
        raise UsageError(f"--print0 and {other} both write to standard output; leave one of them out")
    if shared.resume and not shared.manifest:
        raise UsageError("--resume needs a manifest; give --manifest FILE, too")


def _check_countable(command: CommandOptions, shared: Shared) -> None:
    """Refuse standard output where the number of outputs is known only when a recording has been read."""
    if shared.output == "-" and getattr(command, "speakers", None) == "auto":
        raise UsageError(
            "-o - takes one output, but --speakers auto may find several speakers; give -o a folder, or the number of "
            "speakers"
        )


def _check_spectrogram(shared: Shared, items: Sequence[Item]) -> None:
    from audiosr_cli.audio import spectrogram

    spectrogram.check(Path(shared.spectrogram or ""))
    if len(items) != 1 or shared.output == "-":
        raise UsageError("--spectrogram needs exactly one recording, and outputs that are files")


def _check_subtype(subtype: str | None, container: str) -> None:
    """Refuse a sample format before work begins where no output could have it."""
    from audiosr_cli.audio.formats import FORMATS

    if subtype is not None and subtype not in FORMATS[container]:
        allowed = ", ".join(name.removeprefix("PCM_").lower() for name in FORMATS[container])
        raise UsageError(
            f"--subtype {subtype.removeprefix('PCM_').lower()}: {container} cannot hold it", f"use {allowed}"
        )


def _check_workers(shared: Shared, items: Sequence[Item]) -> None:
    option, value = ("--jobs", shared.jobs) if shared.ray is None else ("--ray", shared.ray)
    private = next(
        (item.source for item in items if item.source == "-" or item.source.startswith(_PROCESS_FILES)), None
    )
    if value != 1 and private is not None and (len(items) > 1 or shared.ray is not None):
        name = "standard input" if private == "-" else private
        raise UsageError(f"{option} {value}: cannot be combined with {name}; leave {option} out")
    if shared.ray is not None and shared.output == "-":
        raise UsageError(f"--ray {value}: cannot be combined with standard output; give -o a file")


def _output_plan(naming: Naming, shared: Shared) -> OutputPlan:
    from audiosr_cli.audio.formats import parse_bitrate
    from audiosr_cli.batch.run import OutputPlan

    return OutputPlan(
        naming,
        _existing(shared),
        shared.subtype,
        None if shared.bitrate is None else parse_bitrate(shared.bitrate, naming.output_container),
        forecasts=not shared.quiet,
        keep_time=shared.keep_time,
    )


def _existing(shared: Shared) -> Existing:
    return "overwrite" if shared.overwrite else "skip" if shared.skip else "fail"


def _run(
    items: list[Item],
    pipeline: Pipeline,
    config: PipelineConfig,
    plan: OutputPlan,
    shared: Shared,
    cluster: Cluster | None,
) -> None:
    from audiosr_cli.batch.run import Outcome

    summary = Summary()
    with ExitStack() as stack:
        observers = [summary, *progress.make_observers(shared, len(items))]
        complete: set[Item] = set()
        if shared.manifest is not None:
            plan, complete = _open_manifest(stack, observers, items, pipeline, config, plan, shared)
        for observer in observers:
            stack.enter_context(observer)
        remaining = [item for item in items if item not in complete]
        on_event = progress.dispatch_to(observers)
        if cluster is None:
            outcomes = _process(remaining, pipeline, config, plan, shared.jobs, on_event)
        else:
            outcomes = cluster.run(remaining, config, plan, on_event)
        outcomes = stack.enter_context(closing(outcomes))
        for outcome in chain((Outcome(item) for item in items if item in complete), outcomes):
            for observer in observers:
                observer.on_outcome(outcome)
            if shared.spectrogram is not None and outcome.report is not None:
                progress.draw_spectrograms(outcome, shared, Path(shared.spectrogram))
    summary.print(has_table(shared, len(items)))
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def _open_manifest(
    stack: ExitStack,
    observers: list[progress.Observer],
    items: Sequence[Item],
    pipeline: Pipeline,
    config: PipelineConfig,
    plan: OutputPlan,
    shared: Shared,
) -> tuple[OutputPlan, set[Item]]:
    """Open the manifest as the first of ``observers``; return the plan, and with --resume the complete items."""
    from audiosr_cli.batch.manifest import Manifest, settings_of

    path = Path(shared.manifest or "")
    manifest = stack.enter_context(closing(Manifest(path, settings_of(config, plan), plan.input_inodes)))
    observers.insert(0, progress.ManifestObserver(manifest, pipeline))
    plan = replace(plan, fingerprints=True)
    if not shared.resume:
        return plan, set()
    plan = replace(plan, own_outputs=manifest.own_outputs)
    return plan, {item for item in items if manifest.is_complete(item, plan, pipeline)}


def _process(
    items: Sequence[Item],
    pipeline: Pipeline,
    config: PipelineConfig,
    plan: OutputPlan,
    jobs: int | None,
    on_event: Callable[[Event], None],
) -> Generator[Outcome, None, None]:
    from audiosr_cli.batch import run

    if jobs is None or min(jobs, len(items)) < 2:
        return run.run(items, pipeline, plan, on_event)
    from audiosr_cli.batch import processes

    return processes.run(items, config, plan, jobs, on_event)


def _dry_run(
    items: Sequence[Item], pipeline: Pipeline, config: PipelineConfig, plan: OutputPlan, shared: Shared
) -> None:
    """Print what would be written, and what would fail."""
    from audiosr_cli.batch.run import dry_run

    summary = Summary()
    with ExitStack() as stack:
        complete: set[Item] = set()
        if shared.resume and Path(shared.manifest or "").is_file():
            plan, complete = _open_manifest(stack, [], items, pipeline, config, plan, shared)
        at_most = len(pipeline.alternatives) > 1
        for item in items:
            outcome, targets = dry_run(item, pipeline, plan)
            listing.print_planned(outcome, [] if item in complete else list(map(str, targets)), shared, at_most)
            summary.on_outcome(outcome)
    if at_most and not shared.as_json and not shared.quiet:
        print_message("these are all files that may be written: speakers are counted when a recording is processed")
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)
