"""Run the trainings of a packed kit one after the other within a time limit, and tabulate their results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiosr_cli.errors import AudioSRError, TrainingError, UsageError
from audiosr_cli.files.atomic import atomic_path
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.files.parsing import parse_json
from audiosr_cli.train.log import EventCallback
from audiosr_cli.train.session import process_age

_MANIFEST, REPORT = "MANIFEST.json", "report.json"
# Seconds reserved for the report and the end of the process.
_END_S = 1.0

# The results of one run, or one row of its log.
Row = dict[str, Any]


@dataclass(frozen=True)
class KitCall:
    """The options of running a kit.

    Attributes:
        folder: The kit.
        output: Folder for weights and the report.
        work: Folder for states and decoded recordings, from which a later call continues.
        seconds: Deadline in seconds from the start of this process.
        names: Names of the runs; empty for all.
        device: cpu or cuda.
        export_every: Seconds between exports of the weights.
        part_bytes: Largest file of weights.
        batch_size: Overrides the configs'; 0 measures which is fastest, None uses theirs.
    """

    folder: Path
    output: Path
    work: Path
    seconds: float
    names: Sequence[str] = ()
    device: str = "cpu"
    export_every: float = 60.0
    part_bytes: int = 15 << 20
    batch_size: int | None = 0


def read_kit(folder: Path, names: Sequence[str] = ()) -> list[Row]:
    """Check that a kit is complete.

    Args:
        folder: The kit.
        names: Names of runs; empty for all.

    Returns:
        Name, config and init of each of these runs, in the order of ``names``.

    Raises:
        TrainingError: If a file is missing or damaged.
        UsageError: If the kit has no run of such a name.
    """
    try:
        manifest = parse_json((folder / _MANIFEST).read_text(encoding="utf-8"))
        files, runs = manifest["files"], {run["name"]: run for run in manifest["runs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{folder / _MANIFEST}: cannot be read; pack the kit again, or copy it here again"
        ) from error
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            raise TrainingError(f"{path}: is missing from the kit; copy it here again")
        if sha256(path) != digest:
            raise TrainingError(f"{path}: is damaged (its SHA-256 differs from the manifest); copy it here again")
    selected = [Path(name).stem for name in names] or list(runs)
    if unknown := [name for name in selected if name not in runs]:
        raise UsageError(f"no run {unknown[0]!r} in this kit; it has: {', '.join(runs)}")
    return [runs[name] for name in selected]


def run_kit(call: KitCall, on_event: EventCallback) -> list[Row]:
    """Train all runs of a kit, each with an equal share of the time that is left; a failure does not stop the others.

    Args:
        call: Options.
        on_event: Receives the events of the runs.

    Returns:
        A row for each run, for ``table``; also written to ``report.json`` in the output folder.

    Raises:
        TrainingError: If the kit is damaged.
        UsageError: If the kit has no run of a requested name.
    """
    from audiosr_cli.train.run import TrainCall, train

    runs, rows = read_kit(call.folder, call.names), list[Row]()
    for i, run in enumerate(runs):
        now = process_age()
        until = now + (call.seconds - _END_S - now) / (len(runs) - i)
        out = call.work / "runs" / run["name"]
        earlier = _rows_of(out)
        run_call = TrainCall(
            data=call.folder / "data",
            resume=True,
            device=call.device,
            init=_init(call.folder, run["init"]),
            export=call.output,
            until=until,
            export_every=call.export_every,
            part_bytes=call.part_bytes,
            batch_size=call.batch_size,
        )
        error = ""
        try:
            train(call.folder / run["config"], out, on_event, run_call)
        except (AudioSRError, RuntimeError, MemoryError, OSError) as caught:  # the next run may succeed
            error = str(caught) or type(caught).__name__  # a MemoryError has no text
            on_event({"event": "failed", "run": run["name"], "error": error})
        finally:  # also after an interruption
            rows.append(_summary(run["name"], out, earlier) | ({"error": error} if error else {}))
            _write(call.output, rows)
    return rows


def _init(folder: Path, init: str | None) -> str | None:
    """Return the initial weights: a path in the kit, or the name of a bundled model."""
    return str(folder / init) if init and init.startswith("init/") else init


def _rows_of(out: Path) -> list[Row]:
    """Return the train and valid rows of a run's log so far."""
    try:
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = parse_json(line)
        except ValueError:  # cut by a kill
            continue
        if "hours_heard" in row:  # written before version 0.2
            row["audio_hours"] = row.pop("hours_heard")
        rows.append(row)
    return [row for row in rows if row.get("event") in ("train", "valid")]


def _summary(name: str, out: Path, before: Sequence[Row]) -> Row:
    """Summarise speed and scores of a run in this call. ``before`` are the rows of its log before this call."""
    rows = _rows_of(out)
    summary: Row = {"run": name, **_batch_size(out)}
    if not rows:
        return summary
    old = [row for row in rows if row in before]
    first, last = (old or rows)[-1 if old else 0], rows[-1]
    minutes = last["minutes"] - first["minutes"]
    steps, hours = last["step"] - first["step"], last["audio_hours"] - first["audio_hours"]
    summary |= {"steps": last["step"], "minutes": last["minutes"], "hours": last["audio_hours"]}
    if minutes > 0:
        summary |= {"steps_per_s": round(steps / minutes / 60, 3), "audio_hours_per_minute": round(hours / minutes, 4)}
    validations = [row for row in rows if row["event"] == "valid"]
    if validations:
        metric = next(key for key in validations[-1] if key not in ("event", "step", "minutes", "audio_hours"))
        start = [row for row in validations if row["step"] <= first["step"]] or validations
        summary |= {"metric": metric, "first": start[-1][metric], "last": validations[-1][metric]}
        summary |= {"best": max(row[metric] for row in validations)}
    return summary


def _batch_size(out: Path) -> Row:
    from audiosr_cli.train.batch_size import throughput_of

    try:
        saved = parse_json((out / "batch_size.json").read_text(encoding="utf-8"))
        return {key: saved[key] for key in ("machine", "batch_size")} | {"tried": throughput_of(saved)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(output: Path, rows: Sequence[Row]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with atomic_path(output / REPORT) as part:
        part.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")


def table(rows: Sequence[Row]) -> str:
    """Format the rows of ``run_kit`` as two tables: the speed and the scores of each run."""
    cells: list[tuple[str, Callable[[Row], Any]]] = [
        ("run", lambda row: row["run"]),
        ("batch", lambda row: row.get("batch_size", "")),
        ("steps/s", lambda row: row.get("steps_per_s", "")),
        ("hours/min", lambda row: row.get("audio_hours_per_minute", "")),
        ("steps", lambda row: row.get("steps", 0)),
        ("hours", lambda row: row.get("hours", 0)),
        ("minutes", lambda row: row.get("minutes", 0)),
    ]
    scores: list[tuple[str, Callable[[Row], Any]]] = [
        ("run", lambda row: row["run"]),
        ("score", lambda row: row.get("metric", "")),
        ("at start", lambda row: row.get("first", "")),
        ("now", lambda row: row.get("last", "")),
        ("best", lambda row: row.get("best", "")),
        ("error", lambda row: row.get("error", "")),
    ]
    return f"{_grid(cells, rows)}\n\n{_grid(scores, rows)}"


def _grid(columns: Sequence[tuple[str, Callable[[Row], Any]]], rows: Sequence[Row]) -> str:
    cells = [[name for name, _ in columns], *[[str(value(row)) for _, value in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)
