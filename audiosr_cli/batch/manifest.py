"""A log of a batch: one JSON object a line, appended as recordings start and finish.

``status`` is started (outputs are about to be written), done or failed. A recording's last line counts.
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
from audiosr_cli.batch.run import Outcome, OutputPlan, RecordingStarted
from audiosr_cli.errors import OutputError
from audiosr_cli.files.atomic import sync
from audiosr_cli.files.fingerprint import Fingerprint, absolute
from audiosr_cli.files.parsing import parse_json
from audiosr_cli.pipelines import PipelineConfig
from audiosr_cli.streaming.pipeline import Pipeline


class Manifest:
    """A manifest file that is open for reading and appending; it is created if it does not exist.

    Lines that are not complete JSON objects are ignored, as a killed run may leave one.

    Args:
        path: The file.
        settings: Everything that determines the outputs of this call; see ``settings_of``.
        input_inodes: Device and inode of the inputs, which are refused as a manifest.

    Raises:
        OutputError: If the file cannot be read or written, is an input, or is not a manifest.
    """

    def __init__(self, path: Path, settings: dict[str, Any], input_inodes: Container[tuple[int, int]] = ()) -> None:
        self.path = path
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # as they are read back from a file
        self._entries: dict[str, dict[str, Any]] = {}  # the last one of each input
        self._own_outputs: set[str] = set()
        try:
            self._stream = open(path, "ab+", buffering=0)
            try:
                self._read(input_inodes)
            except BaseException:
                self._stream.close()
                raise
        except OSError as error:
            raise OutputError(f"{path}: the manifest cannot be opened: {error.strerror}") from error

    def _read(self, input_inodes: Container[tuple[int, int]]) -> None:
        status = os.fstat(self._stream.fileno())
        if (status.st_dev, status.st_ino) in input_inodes:
            raise OutputError(f"{self.path}: is an input of this call; give --manifest another file")
        self._stream.seek(0)
        data = self._stream.read()
        for line in data.split(b"\n"):
            if (entry := _parse(line)) is not None:
                self._entries[entry["input"]] = entry
                self._own_outputs |= {output["path"] for output in entry["outputs"]}
        if data and not self._entries:
            raise OutputError(f"{self.path}: exists and is not a manifest; give --manifest another file")
        if data and not data.endswith(b"\n"):  # a run was killed while it wrote
            self._write(b"\n")

    @property
    def own_outputs(self) -> frozenset[str]:
        """Absolute paths of outputs that runs with this manifest have started, and may replace."""
        return frozenset(self._own_outputs)

    def is_complete(self, item: Item, plan: OutputPlan, pipeline: Pipeline) -> bool:
        """Check that ``item`` is done: same input, settings and models, and its outputs are unchanged."""
        entry = self._entries.get(absolute(item.source))
        if entry is None or entry["status"] != "done" or item.source == "-" or not entry.get("outputs"):
            return False
        if (entry.get("settings"), entry.get("models")) != (self.settings, pipeline.checkpoints):
            return False
        try:
            outputs = [Fingerprint(**output) for output in entry["outputs"]]
            source = Fingerprint(entry["input"], entry["size"], entry["mtime_ns"], entry["sha256"])
            rate = pipeline.rate or entry["sample_rate"]
            possible = [plan.naming.targets(item, names, rate) for names in pipeline.alternatives]
            paths = [output.path for output in outputs]
            same_names = any([absolute(target) for target in targets] == paths for targets in possible)
            return same_names and source.probably_matches() and all(output.matches() for output in outputs)
        except (KeyError, TypeError, OSError):  # an entry of another version, or a file that is gone
            return False

    def write_started(self, event: RecordingStarted) -> None:
        """Append the outputs that are about to be written."""
        outputs = [{"path": absolute(target)} for target in event.targets if target != "-"]
        self._append({"status": "started", "input": _name(event.item), "outputs": outputs})

    def write_outcome(self, outcome: Outcome, pipeline: Pipeline) -> None:
        """Append the outcome of a recording."""
        row: dict[str, Any] = {"status": outcome.status, "input": _name(outcome.item)}
        if outcome.input_fingerprint is not None:
            row |= {key: value for key, value in asdict(outcome.input_fingerprint).items() if key != "path"}
        row["outputs"] = [asdict(output) for output in outcome.output_fingerprints]
        if outcome.error is not None:
            row["error"] = str(outcome.error)
        if outcome.report is not None:
            seconds, elapsed = outcome.report.frames_in / outcome.report.rate_in, outcome.report.elapsed_s
            row |= {"sample_rate": outcome.report.rate_out, "seconds": seconds, "elapsed_s": elapsed}
            row |= {"speed": seconds / max(elapsed, 1e-9), "warnings": outcome.report.warnings}
            if outcome.report.kind is not None:
                row |= {"kind": outcome.report.kind, "kind_confidence": outcome.report.kind_confidence}
            if outcome.report.stretches:
                row["stretches"] = [asdict(stretch) for stretch in outcome.report.stretches]
            if outcome.report.speakers is not None:
                row |= {"speakers": outcome.report.speakers, "speakers_confidence": outcome.report.speakers_confidence}
        self._append(row | {"settings": self.settings, "models": pipeline.checkpoints})

    def _append(self, row: dict[str, Any]) -> None:
        try:
            self._write(json.dumps(row).encode() + b"\n")
            sync(self._stream.fileno())
        except OSError as error:
            raise OutputError(f"{self.path}: the manifest cannot be written: {error.strerror}") from error

    def _write(self, data: bytes) -> None:
        """Write at the end of the file (O_APPEND), unbuffered."""
        if self._stream.write(data) != len(data):
            raise OutputError(f"{self.path}: the manifest was written in part only; check the space on the disk")

    def close(self) -> None:
        """Close the file; every line is on the disk already."""
        self._stream.close()


def settings_of(config: PipelineConfig, plan: OutputPlan) -> dict[str, Any]:
    """Collect what determines the outputs of a call: version, command, options and format."""
    options = {key: value for key, value in asdict(config.options).items() if key not in ("batch", "threads")}
    output: dict[str, Any] = {"format": plan.naming.output_container, "subtype": plan.subtype}
    if plan.bitrate is not None:
        output["bitrate"] = plan.bitrate
    return {
        "version": __version__,
        "command": config.command.command,
        **asdict(config.command),
        **options,
        **output,
    }


def outputs_of(path: Path) -> dict[str, str]:
    """List the outputs that a manifest names.

    Args:
        path: The manifest; a file that does not exist or cannot be read names none.

    Returns:
        Absolute paths, and the command that wrote each; empty if the manifest does not say.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
    except OSError:  # reported when it is opened
        return {}
    commands: dict[str, str] = {}
    for entry in filter(None, map(_parse, lines)):
        settings = entry.get("settings")
        command = settings.get("command") if isinstance(settings, dict) else None
        for output in entry["outputs"]:
            commands[output["path"]] = str(command or commands.get(output["path"], ""))
    return commands


def _name(item: Item) -> str:
    return "-" if item.source == "-" else absolute(item.source)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Parse a line; None if it is not a complete entry."""
    try:
        entry = parse_json(line)
        paths: Sequence[str] = [output["path"] for output in entry["outputs"]]
        valid = isinstance(entry["input"], str) and all(isinstance(path, str) for path in (*paths, entry["status"]))
    except (ValueError, KeyError, TypeError):
        return None
    return entry if valid else None
