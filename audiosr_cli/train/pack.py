"""Pack a kit: everything that runs need, in one folder of limited size, for a machine without network."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from audiosr_cli import __version__
from audiosr_cli.errors import AudioSRError, TrainingError, UsageError
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.runtime.provenance import commit
from audiosr_cli.train.data import MetadataTable
from audiosr_cli.train.kit_folder import OVERHEAD, KitFolder, write_manifest
from audiosr_cli.train.kit_runs import PackedRun, add_weights, fixed_recordings, read_runs, source, sources
from audiosr_cli.train.log import EventCallback
from audiosr_cli.train.pack_audio import (
    LADDER,
    Packed,
    Sizes,
    Source,
    choose_rung,
    encoded,
    in_order,
    place,
    renamed,
    unchanged,
)

_MIB = 1 << 20


def pack(
    configs: Sequence[Path], data: Path, target: Path, limit: int, init: Sequence[str], on_event: EventCallback
) -> None:
    """Pack a kit: everything that the runs of ``configs`` need.

    Recordings that do not fit are copied unchanged to a second folder beside it, whose name ends in ``-rest``. Both
    folders appear only when they are complete. After an interruption, the same call continues.

    Args:
        configs: The runs' TOML files.
        data: Folder that contains the configs' folders.
        target: Folder of the kit; must be empty if it exists.
        limit: Largest size of the kit as a tar archive, in bytes.
        init: Initial weights, one for all configs or one for each, ``none`` for random ones; may be empty.
        on_event: Receives the events skipped and packed.

    Raises:
        UsageError: If the target exists, or the limit is too small.
        TrainingError: If data are missing.
        ModelError: If initial weights do not fit.
    """
    rest = target.with_name(f"{target.name}-rest")
    for path in (target, rest):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path}: exists already; remove it, or pack into another folder")
    runs = read_runs(configs, init)
    stage = target.with_name(f".{target.name}.packing")
    for name in ("kit", "rest"):
        shutil.rmtree(stage / name, ignore_errors=True)
    (stage / "encoded").mkdir(parents=True, exist_ok=True)
    try:
        skipped, packed = _pack(runs, data, target, rest, stage, limit)
    except AudioSRError:  # unlike after an interruption, the same call would fail again
        shutil.rmtree(stage, ignore_errors=True)
        raise
    shutil.rmtree(stage)
    for line in skipped:
        on_event({"event": "skipped", "file": line})
    on_event({"event": "packed", **packed})


def _pack(
    runs: Sequence[PackedRun], data: Path, target: Path, rest: Path, stage: Path, limit: int
) -> tuple[list[str], dict[str, Any]]:
    """Pack in the folder ``stage``, then move the results; return the unreadable files and a summary."""
    tables = {run.table: run.read_table(data) for run in runs}
    kit = KitFolder(stage / "kit", limit, len(tables))
    manifest = {"format": 1, "audiosr": __version__, "commit": commit(), "runs": _add_fixed(kit, runs, data, tables)}
    left_out, summary, skipped = _add_recordings(kit, runs, data, tables, stage)
    _add_tables(kit, tables, left_out, stage / "rest")
    if kit.size > limit:
        raise TrainingError(f"{target}: would have {kit.size} bytes, more than the limit of {limit}; raise --pack-mib")
    write_manifest(kit.folder, manifest | {"data": summary}, kit.files)
    if left_out:
        _publish_rest(stage / "rest", rest, kit, manifest | {"data": summary})
    os.replace(kit.folder, target)
    return skipped, {"mib": round(kit.size / _MIB, 2), "files": len(kit.files) + 1, **summary}


def _publish_rest(stage: Path, rest: Path, kit: KitFolder, manifest: dict[str, Any]) -> None:
    """Write the manifest of the recordings that were left out, which includes the kit's files, and move them."""
    paths = sorted(path for path in stage.rglob("*") if path.is_file())
    others = {path.relative_to(stage).as_posix(): sha256(path) for path in paths}
    write_manifest(stage, manifest, kit.files | others)
    os.replace(stage, rest)


def _add_fixed(
    kit: KitFolder, runs: Sequence[PackedRun], data: Path, tables: dict[str, MetadataTable]
) -> list[dict[str, str | None]]:
    """Add everything that is required. Raises UsageError if that exceeds the limit."""
    sizes = {"bare": kit.size}
    kit.add_code()
    sizes["code"] = kit.size
    described = add_weights(kit, runs)
    sizes["weights and configs"] = kit.size
    for path in fixed_recordings(runs, data):
        facts = source(path, data, tables.values())
        kit.add_recording(unchanged(facts))
    sizes["validation recordings"] = kit.size
    if kit.room < 0:
        each = [f"{name} {(sizes[name] - sizes[before]) / _MIB:.2f}" for before, name in pairwise(sizes)]
        raise UsageError(
            f"--pack-mib {kit.limit / _MIB:g}: leaves no room for training recordings; required: {', '.join(each)} MiB"
        )
    return described


def _add_recordings(
    kit: KitFolder, runs: Sequence[PackedRun], data: Path, tables: dict[str, MetadataTable], stage: Path
) -> tuple[list[Packed], dict[str, Any], list[str]]:
    """Fill the kit with recordings and put the others into the stage's folder ``rest``.

    Returns:
        The recordings left out, a summary, and the files that could not be read.
    """
    candidates, skipped = sources(runs, data, tables)
    sizes = Sizes(candidates, stage / "encoded")
    rung = choose_rung(candidates, sizes, kit.room, OVERHEAD)
    predicted = {
        candidate: float(candidate.size) if rung is None else sizes.predict(candidate, rung) for candidate in candidates
    }
    included, left_out, names = list[Source](), list[Packed](), set(kit.rows)

    def fits(candidate: Source) -> bool:
        return predicted[candidate] < kit.room

    for candidate, packed in encoded(in_order(candidates, predicted, kit.room), rung, sizes, stage / "encoded", fits):
        if isinstance(packed, str):
            skipped.append(packed)
            continue
        packed = renamed(packed or unchanged(candidate), names)
        if packed.relative in names or not kit.fits(packed):
            left_out.append(unchanged(candidate))
            continue
        names.add(packed.relative)
        kit.add_recording(packed)
        included.append(candidate)
    for packed in left_out:
        place(packed, stage / "rest" / "data" / packed.relative)
    _check_folders(kit, runs)
    return left_out, _summary(candidates, included, rung), skipped


def _check_folders(kit: KitFolder, runs: Sequence[PackedRun]) -> None:
    """Raise UsageError if one of a run's folders has no recording in the kit."""
    for run in runs:
        for folder in run.folders(encoded=True):
            if not any(Path(relative).is_relative_to(folder) for relative in kit.rows):
                raise UsageError(f"--pack-mib {kit.limit / _MIB:g}: too small for any recording of {folder}; raise it")


def _summary(candidates: Sequence[Source], included: Sequence[Source], rung: int | None) -> dict[str, Any]:
    """Summarise the recordings in the kit, and all recordings."""

    def hours(recordings: Sequence[Source]) -> dict[str, float]:
        seconds = defaultdict[str, float](float)
        for recording in recordings:
            seconds[recording.folder] += recording.seconds
        return {folder: round(value / 3600, 2) for folder, value in sorted(seconds.items())}

    return {
        "quality": "unchanged" if rung is None else f"Opus {LADDER[rung][0] // 1000} kbit/s, Vorbis {LADDER[rung][1]}",
        "recordings": len(included),
        "recordings_of_all": len(candidates),
        "speakers": len({recording.speaker for recording in included if not recording.is_noise}),
        "speakers_of_all": len({recording.speaker for recording in candidates if not recording.is_noise}),
        "hours": hours(included),
        "hours_of_all": hours(candidates),
    }


def _add_tables(kit: KitFolder, tables: dict[str, MetadataTable], left_out: Sequence[Packed], rest: Path) -> None:
    """Write the metadata tables: in the kit for its recordings, in ``rest`` for all recordings."""
    more = {packed.relative: (packed.source.speaker, packed.bandwidth_hz) for packed in left_out}
    kit.reserved = 0
    for name, table in tables.items():
        kit.add(f"data/{name}", _table_text(name, kit.rows, bool(table.speakers)).encode())
        if left_out:
            path = rest / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_table_text(name, kit.rows | more, bool(table.speakers)), encoding="utf-8")


def _table_text(name: str, rows: dict[str, tuple[str, float]], with_speakers: bool) -> str:
    """Format a metadata table as CSV, with paths relative to its own folder."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["path", "bandwidth_hz", *(["speaker"] if with_speakers else [])])
    for path, (speaker, bandwidth_hz) in sorted(rows.items()):
        relative = os.path.relpath(path, Path(name).parent)
        table.writerow([relative, f"{bandwidth_hz:g}", *([speaker] if with_speakers else [])])
    return stream.getvalue()
