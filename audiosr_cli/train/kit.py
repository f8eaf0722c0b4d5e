"""Running a kit: its configs one after the other within a time limit, and a table of what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiosr_cli.errors import AudioSRError, TrainingError, UsageError
from audiosr_cli.files.atomic import atomic_path
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.train.log import Report
from audiosr_cli.train.session import process_age

_MANIFEST, REPORT = "MANIFEST.json", "report.json"
_END_S = 1.0  # for the report, and the end of the process

Row = dict[str, Any]


@dataclass(frozen=True)
class KitCall:
    """How a kit is run.

    Attributes:
        folder: The kit.
        output: Where weights and the report go.
        work: Where states and decoded recordings stay, so that a later call goes on.
        seconds: When all has to be over, from the start of this process on.
        names: Which runs; all if empty.
        device: ``cpu`` or ``cuda``.
        export_every: Seconds from one writing of the weights to the next.
        part_bytes: Largest size of a file of weights.
        batch_size: Overrides the configs'; 0 measures which is fastest, None takes theirs.

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

    Returns:
        Name, config and init of the runs that are called ``names``, in their order; of all if there are no names.

    Raises:
        TrainingError: If a file is missing or damaged.
        UsageError: If there is no run of such a name.

    """
    try:
        known = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        files, runs = known["files"], {run["name"]: run for run in known["runs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder / _MANIFEST}: cannot be read: pack the kit and copy it here again") from error
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            raise TrainingError(f"{path}: is missing from the kit; copy it here again")
        if sha256(path) != digest:
            raise TrainingError(f"{path}: is damaged (another SHA-256 than when it was packed); copy it here again")
    selected = [Path(name).stem for name in names] or list(runs)
    if unknown := [name for name in selected if name not in runs]:
        raise UsageError(f"no run {unknown[0]!r} in this kit; it has: {', '.join(runs)}")
    return [runs[name] for name in selected]


def run_kit(call: KitCall, report: Report) -> list[Row]:
    """Train all runs of a kit, each with an equal share of the time that is left; a failure does not end the others.

    Returns:
        A row for each run, for ``table``. The same are in ``report.json`` in the output folder.

    Raises:
        TrainingError: If the kit is damaged.
        UsageError: If there is no run of a name that was asked for.

    """
    from audiosr_cli.train.run import Call, train

    runs, rows = read_kit(call.folder, call.names), list[Row]()
    for i, run in enumerate(runs):
        now = process_age()
        until = now + (call.seconds - _END_S - now) / (len(runs) - i)
        out, begun = call.work / "runs" / run["name"], _rows_of(call.work / "runs" / run["name"])
        run_call = Call(
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
            train(call.folder / run["config"], out, report, run_call)
        except (AudioSRError, RuntimeError, MemoryError, OSError) as caught:  # the next run may do better
            error = str(caught) or type(caught).__name__  # a MemoryError says nothing
            report({"event": "failed", "run": run["name"], "error": error})
        finally:  # after an interruption, too
            rows.append(_summary(run["name"], out, begun) | ({"error": error} if error else {}))
            _write(call.output, rows)
    return rows


def _init(folder: Path, init: str | None) -> str | None:
    """Initial weights: a path into the kit, or a bundled model's name."""
    return str(folder / init) if init and init.startswith("init/") else init


def _rows_of(out: Path) -> list[Row]:
    """The rows of a run's log so far, as far as they say where it was."""
    try:
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:  # a kill cut it
            continue
    return [row for row in rows if row.get("event") in ("train", "valid")]


def _summary(name: str, out: Path, before: Sequence[Row]) -> Row:
    """What a run did in this call: speed, and scores. ``before`` are the rows of its log when it began."""
    rows = _rows_of(out)
    summary: Row = {"run": name, **_batch_size(out)}
    if not rows:
        return summary
    old = [row for row in rows if row in before]
    first, last = (old or rows)[-1 if old else 0], rows[-1]
    minutes = last["minutes"] - first["minutes"]
    steps, hours = last["step"] - first["step"], last["hours_heard"] - first["hours_heard"]
    summary |= {"steps": last["step"], "minutes": last["minutes"], "hours": last["hours_heard"]}
    if minutes > 0:
        summary |= {"steps_per_s": round(steps / minutes / 60, 3), "hours_per_minute": round(hours / minutes, 4)}
    figures = [row for row in rows if row["event"] == "valid"]
    if figures:
        figure = next(key for key in figures[-1] if key not in ("event", "step", "minutes", "hours_heard"))
        start = [row for row in figures if row["step"] <= first["step"]] or figures
        summary |= {"figure": figure, "first": start[-1][figure], "last": figures[-1][figure]}
        summary |= {"best": max(row[figure] for row in figures)}
    return summary


def _batch_size(out: Path) -> Row:
    try:
        known = json.loads((out / "batch_size.json").read_text(encoding="utf-8"))
        return {key: known[key] for key in ("machine", "batch_size")} | {"tried": known["hours_per_minute"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(output: Path, rows: Sequence[Row]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with atomic_path(output / REPORT) as part:
        part.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")


def table(rows: Sequence[Row]) -> str:
    """Format the rows of ``run_kit`` as two tables: how fast each run was, and how good."""
    cells: list[tuple[str, Callable[[Row], Any]]] = [
        ("run", lambda row: row["run"]),
        ("batch", lambda row: row.get("batch_size", "")),
        ("steps/s", lambda row: row.get("steps_per_s", "")),
        ("hours/min", lambda row: row.get("hours_per_minute", "")),
        ("steps", lambda row: row.get("steps", 0)),
        ("hours", lambda row: row.get("hours", 0)),
        ("minutes", lambda row: row.get("minutes", 0)),
    ]
    scores: list[tuple[str, Callable[[Row], Any]]] = [
        ("run", lambda row: row["run"]),
        ("score", lambda row: row.get("figure", "")),
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
