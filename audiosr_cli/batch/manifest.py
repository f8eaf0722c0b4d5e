"""A file that knows what became of every recording: one JSON object a line, appended as they finish.

``status`` is begun (outputs are about to be written), done, failed or skipped. A recording's last line counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audiosr_cli import __version__
from audiosr_cli.batch.inputs import Item
from audiosr_cli.batch.run import Outcome, Plan, Started
from audiosr_cli.errors import OutputError
from audiosr_cli.files.fingerprint import Fingerprint, absolute
from audiosr_cli.pipelines import PipelineConfig
from audiosr_cli.streaming.pipeline import Pipeline


class Manifest:
    """The manifest at ``path``, made if it is not there. Raises OutputError where it cannot be read or written.

    ``settings`` is what shapes the samples of this call. Lines that are no whole JSON object are ignored; a file that
    has no others, or is one of ``inputs`` (device, inode), is none of ours and is refused.
    """

    def __init__(self, path: Path, settings: dict[str, Any], inputs: Container[tuple[int, int]] = ()) -> None:
        self.path = path
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # as they come back from a file
        self._last: dict[str, dict[str, Any]] = {}
        self._own: set[str] = set()
        try:
            self._stream = open(path, "ab+", buffering=0)
            try:
                self._read(inputs)
            except BaseException:
                self._stream.close()
                raise
        except OSError as error:
            raise OutputError(f"{path}: the manifest cannot be opened: {error.strerror}") from error

    def _read(self, inputs: Container[tuple[int, int]]) -> None:
        known = os.fstat(self._stream.fileno())
        if (known.st_dev, known.st_ino) in inputs:
            raise OutputError(f"{self.path}: is an input of this call, not a manifest; give --manifest another file")
        self._stream.seek(0)
        data = self._stream.read()
        for line in data.split(b"\n"):
            if (entry := _entry(line)) is not None:
                self._last[entry["input"]] = entry
                self._own |= {made["path"] for made in entry["outputs"]}
        if data and not self._last:
            raise OutputError(f"{self.path}: is there and no manifest; give --manifest another file")
        if data and not data.endswith(b"\n"):  # a run was killed while it wrote
            self._put(b"\n")

    @property
    def own(self) -> frozenset[str]:
        """Outputs (absolute) that runs with this manifest began, and may replace."""
        return frozenset(self._own)

    def verified(self, item: Item, plan: Plan, pipeline: Pipeline) -> bool:
        """Whether ``item`` is done: from that input, by these settings and models, and its outputs are whole."""
        entry = self._last.get(absolute(item.source))
        if entry is None or entry["status"] != "done" or item.source == "-" or not entry.get("outputs"):
            return False
        if (entry.get("settings"), entry.get("models")) != (self.settings, pipeline.checkpoints):
            return False
        try:
            made = [Fingerprint(**known) for known in entry["outputs"]]
            source = Fingerprint(entry["input"], entry["size"], entry["mtime_ns"], entry["sha256"])
            targets = plan.naming.targets(item, pipeline.outputs, pipeline.rate or entry["sample_rate"])
            named = [absolute(target) for target in targets] == [known.path for known in made]
            return named and source.probably_matches() and all(known.matches() for known in made)
        except (KeyError, TypeError, OSError):  # of another version, or gone
            return False

    def begin(self, event: Started) -> None:
        """Note the outputs that are about to be written."""
        outputs = [{"path": absolute(target)} for target in event.targets if target != "-"]
        self._append({"status": "begun", "input": _name(event.item), "outputs": outputs})

    def end(self, outcome: Outcome, pipeline: Pipeline) -> None:
        """Note what became of a recording."""
        row: dict[str, Any] = {"status": outcome.status, "input": _name(outcome.item)}
        if outcome.source is not None:
            row |= {key: value for key, value in asdict(outcome.source).items() if key != "path"}
        row["outputs"] = [asdict(made) for made in outcome.made]
        if outcome.error is not None:
            row["error"] = str(outcome.error)
        if outcome.report is not None:
            seconds, elapsed = outcome.report.frames_in / outcome.report.rate_in, outcome.report.elapsed_s
            row |= {"sample_rate": outcome.report.rate_out, "seconds": seconds, "elapsed_s": elapsed}
            row |= {"speed": seconds / max(elapsed, 1e-9), "warnings": outcome.report.warnings}
        self._append(row | {"settings": self.settings, "models": pipeline.checkpoints})

    def _append(self, row: dict[str, Any]) -> None:
        try:
            self._put(json.dumps(row).encode() + b"\n")
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise OutputError(f"{self.path}: the manifest cannot be written: {error.strerror}") from error

    def _put(self, data: bytes) -> None:
        """At once, and at the end: O_APPEND."""
        if self._stream.write(data) != len(data):
            raise OutputError(f"{self.path}: the manifest cannot be written whole; is there room on the disk?")

    def close(self) -> None:
        """Nothing is lost without it."""
        self._stream.close()


def settings_of(config: PipelineConfig, plan: Plan) -> dict[str, Any]:
    """What shapes the samples of a call, and what they are written as."""
    how = {key: value for key, value in asdict(config.options).items() if key not in ("batch", "threads")}
    form = {"format": plan.naming.chosen_container, "subtype": plan.subtype}
    return {"version": __version__, "command": config.command.command, **asdict(config.command), **how, **form}


def _name(item: Item) -> str:
    return "-" if item.source == "-" else absolute(item.source)


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
        paths: Sequence[str] = [made["path"] for made in entry["outputs"]]
        whole = isinstance(entry["input"], str) and all(isinstance(path, str) for path in (*paths, entry["status"]))
    except (ValueError, KeyError, TypeError):
        return None
    return entry if whole else None
