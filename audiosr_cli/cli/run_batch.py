"""A processing command's way: check the call, load the models, run every input, tell what became of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from audiosr_cli.cli import progress
from audiosr_cli.cli.options import Shared
from audiosr_cli.errors import UsageError

if TYPE_CHECKING:
    from audiosr_cli.batch.inputs import Item
    from audiosr_cli.batch.ray import Cluster
    from audiosr_cli.batch.run import Event, Existing, Outcome, Plan
    from audiosr_cli.pipelines import CommandOptions, PipelineConfig
    from audiosr_cli.streaming.options import Channels, Options
    from audiosr_cli.streaming.pipeline import Pipeline

_OWN_FILES = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")  # the same name is another file, or none, in each process


def run_batch(
    inputs: Sequence[str] | None,
    command: CommandOptions,
    template: str,
    shared: Shared,
) -> None:
    """Run ``inputs`` through the pipeline of ``command``, and set the exit code."""
    from audiosr_cli.audio import spectrogram
    from audiosr_cli.batch import naming, run
    from audiosr_cli.batch.inputs import collect, share
    from audiosr_cli.pipelines import PipelineConfig
    from audiosr_cli.runtime.memory import keep_freed_memory

    _check_call(shared)
    names = naming.Naming(shared.output, shared.template or template, shared.container)
    items = collect(inputs or [], shared.files_from, shared.null)
    if shared.spectrogram is not None:
        spectrogram.check(Path(shared.spectrogram))
        if len(items) != 1 or shared.output == "-":
            raise UsageError("--spectrogram shows one recording, and what files it became")
    keep_freed_memory()
    if shared.jobs is not None or shared.ray is not None:
        _check_jobs(shared, items)
    with _cluster(shared) as cluster:
        config = PipelineConfig(command, _options(shared, cluster, len(items)))
        pipeline = config.build() if cluster is None else cluster.described(config)
        naming.check(items, names, pipeline.outputs, pipeline.rate or 0)
        plan = run.Plan(names, _existing(shared), shared.subtype, foretells=not shared.quiet).guarding(items)
        if shared.shard is not None:
            items = share(items, shared.shard)
        if shared.dry_run:
            _rehearse(items, pipeline, config, plan, shared)
            return
        run.tidy(items, names, pipeline.outputs, pipeline.rate or 0)
        _run(items, pipeline, config, plan, shared, cluster)


def _cluster(shared: Shared) -> AbstractContextManager[Cluster | None]:
    """The cluster of ``--ray``, if that is asked for."""
    if shared.ray is None:
        return nullcontext()
    try:
        from audiosr_cli.batch import ray
    except ImportError as error:
        raise UsageError(f"--ray {shared.ray} works with Ray: pip install 'audiosr-cli[ray]'") from error
    return ray.connected(shared.ray, shared.jobs, shared.device)


def _options(shared: Shared, cluster: Cluster | None, recordings: int) -> Options:
    from audiosr_cli.runtime.device import pick_bf16, pick_device, pick_threads
    from audiosr_cli.streaming.options import Options

    device = pick_device(shared.device) if cluster is None else cluster.device
    processes = max(1, min(shared.jobs or 1, recordings))
    threads = shared.threads or (max(1, pick_threads() // processes) if cluster is None else 1)
    return Options(
        device,
        shared.batch,
        shared.clip,
        _channels(shared.channels),
        shared.strict,
        shared.nonfinite,
        pick_bf16(shared.precision, device),
        threads,
    )


def _check_call(shared: Shared) -> None:
    if shared.fail + shared.overwrite + shared.skip > 1:
        raise UsageError("--fail, --overwrite and --skip exclude each other")
    if shared.as_json and shared.output == "-":
        raise UsageError("--json and -o - both want standard output; give -o a file")
    if shared.resume and not shared.manifest:
        raise UsageError("--resume goes by a manifest; give --manifest FILE, too")


def _check_jobs(shared: Shared, items: Sequence[Item]) -> None:
    option, given = ("--jobs", shared.jobs) if shared.ray is None else ("--ray", shared.ray)
    own = next((item.source for item in items if item.source == "-" or item.source.startswith(_OWN_FILES)), None)
    if given != 1 and own is not None:
        name = "standard input" if own == "-" else own
        raise UsageError(f"{option} {given}: {name} reaches no other process; leave {option} out")
    if shared.ray is not None and shared.output == "-":
        raise UsageError(f"--ray {given}: nothing comes from there on standard output; give -o a file")


def _existing(shared: Shared) -> Existing:
    return "overwrite" if shared.overwrite else "skip" if shared.skip else "fail"


def _channels(text: str) -> Channels:
    if text in ("each", "mix"):
        return "mix" if text == "mix" else "each"
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--channels {text}: each, mix or a channel's number (from 1 on) are possible")
    return int(text)


def _run(
    items: list[Item], pipeline: Pipeline, config: PipelineConfig, plan: Plan, shared: Shared, cluster: Cluster | None
) -> None:
    from audiosr_cli.batch.run import Outcome

    summary = progress.Summary()
    with ExitStack() as stack:
        parts = [summary, *progress.listeners(shared, len(items))]
        proven: set[Item] = set()
        if shared.manifest is not None:
            plan, proven = _with_manifest(stack, parts, items, pipeline, config, plan, shared)
        for part in parts:
            stack.enter_context(part)
        rest = [item for item in items if item not in proven]
        listen = progress.to_all(parts)
        if cluster is None:
            outcomes = _outcomes(rest, pipeline, config, plan, shared.jobs, listen)
        else:
            outcomes = cluster.run(rest, config, plan, listen)
        run = stack.enter_context(closing(outcomes))
        for outcome in chain((Outcome(item) for item in items if item in proven), run):
            for part in parts:
                part.ended(outcome)
            if shared.spectrogram is not None and outcome.report is not None:
                progress.draw(outcome, Path(shared.spectrogram))
    summary.tell(progress.has_table(shared, len(items)))
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def _with_manifest(
    stack: ExitStack,
    parts: list[progress.Listener],
    items: Sequence[Item],
    pipeline: Pipeline,
    config: PipelineConfig,
    plan: Plan,
    shared: Shared,
) -> tuple[Plan, set[Item]]:
    """Have the manifest hear everything, first; what it proves to be done already is returned, under --resume."""
    from audiosr_cli.batch.manifest import Manifest, settings_of

    path = Path(shared.manifest or "")
    manifest = stack.enter_context(closing(Manifest(path, settings_of(config, plan), plan.inputs)))
    parts.insert(0, progress.Kept(manifest, pipeline))
    plan = replace(plan, fingerprints=True)
    if not shared.resume:
        return plan, set()
    plan = replace(plan, own=manifest.own)
    return plan, {item for item in items if manifest.verified(item, plan, pipeline)}


def _outcomes(
    items: Sequence[Item],
    pipeline: Pipeline,
    config: PipelineConfig,
    plan: Plan,
    jobs: int | None,
    listen: Callable[[Event], None],
) -> Generator[Outcome, None, None]:
    from audiosr_cli.batch import run

    if jobs is None or min(jobs, len(items)) < 2:
        return run.run(items, pipeline, plan, listen)
    from audiosr_cli.batch import processes as processes

    return processes.run(items, config, plan, jobs, listen)


def _rehearse(items: Sequence[Item], pipeline: Pipeline, config: PipelineConfig, plan: Plan, shared: Shared) -> None:
    """Print what would be written, and what could not be."""
    from audiosr_cli.batch.run import rehearse

    summary = progress.Summary()
    with ExitStack() as stack:
        proven: set[Item] = set()
        if shared.resume and Path(shared.manifest or "").is_file():
            plan, proven = _with_manifest(stack, [], items, pipeline, config, plan, shared)
        for item in items:
            outcome, targets = rehearse(item, pipeline, plan)
            progress.tell_plan(outcome, [] if item in proven else list(map(str, targets)), shared)
            summary.ended(outcome)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)
