"""The runs of a kit: their configs, initial weights, and the recordings that they need."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from audiosr_cli.audio.small_files import probe
from audiosr_cli.checkpoints import catalogue, parts
from audiosr_cli.errors import InputError, UsageError
from audiosr_cli.models import build
from audiosr_cli.train.config import DataConfig, RunConfig, read_config
from audiosr_cli.train.data import MetadataTable, folder_paths, read_table
from audiosr_cli.train.data import audio_files as audio_files
from audiosr_cli.train.kit_folder import KitFolder
from audiosr_cli.train.log import Log
from audiosr_cli.train.pack_audio import Source
from audiosr_cli.train.warm_start import warm_start

# Files of weights that a kit writes into its output folder, at most, and their largest size in bytes.
MAX_FILES, PART_BYTES = 8, 15 << 20
# The metadata table for configs without one.
_TABLE = "kit.csv"
# Keys of [data] whose recordings may be encoded or left out; those of all others are copied.
_ENCODED = ("train", "noise")


@dataclass(frozen=True)
class PackedRun:
    """One config of a kit, and its initial weights: the name of a bundled model, or a path on this machine."""

    path: Path
    config: RunConfig
    init: str | None

    @property
    def table(self) -> str:
        """The path of the metadata table below the data folder; every run of a kit has one."""
        return self.config.data.table or _TABLE

    def read_table(self, data: Path) -> MetadataTable:
        """Read the config's metadata table; an empty one if it names none."""
        return read_table(data / self.config.data.table) if self.config.data.table else MetadataTable({}, {})

    def text(self) -> str:
        """Return the config for the kit, with a metadata table, which has the bandwidth of encoded recordings.

        Raises UsageError if the table cannot be inserted.
        """
        text = self.path.read_text(encoding="utf-8")
        if self.config.data.table:
            return text
        text = re.sub(r"^(\s*\[\s*data\s*\][^\n]*)$", rf'\1\ntable = "{_TABLE}"', text, count=1, flags=re.MULTILINE)
        if tomllib.loads(text)["data"].get("table") != _TABLE:
            raise UsageError(f'{self.path}: write [data] as a section of its own, with table = "{_TABLE}" in it')
        return text

    def folders(self, encoded: bool) -> list[str]:
        """Return the folders whose recordings may be encoded or left out, or all other folders."""
        selected = []
        for item in fields(DataConfig):
            value = getattr(self.config.data, item.name)
            if isinstance(value, tuple) and (item.name in _ENCODED) == encoded:
                selected += [entry for entry in value if isinstance(entry, str)]
        return selected


def read_runs(configs: Sequence[Path], init: Sequence[str]) -> list[PackedRun]:
    """Read and check the configs of a kit.

    Args:
        configs: TOML files.
        init: Initial weights, one for all configs or one for each, ``none`` for random ones; may be empty.

    Returns:
        The runs, in the order of ``configs``.

    Raises:
        UsageError: If ``init`` does not match ``configs``, two runs share a name, or a config is wrong.
        TrainingError: If a config cannot be read.
        ModelError: If initial weights do not fit.
    """
    if len(init) not in (0, 1, len(configs)):
        raise UsageError(
            f"--init: given {len(init)} times for {len(configs)} configs; give it once, or once for each config"
        )
    names = list(init) * (len(configs) if len(init) == 1 else 1) or ["none"] * len(configs)
    runs = [
        PackedRun(path, read_config(path), None if name == "none" else name)
        for path, name in zip(configs, names, strict=True)
    ]
    for kind, values in (
        ("file name", [run.path.stem for run in runs]),
        ("[model] name", [run.config.model.spec.name for run in runs]),
    ):
        if duplicates := sorted({value for value in values if values.count(value) > 1}):
            raise UsageError(
                f"two configs have the {kind} {duplicates[0]!r}: rename one, as outputs would be overwritten"
            )
    for run in runs:
        _check_places(run)
    _check_files(runs)
    return runs


def _check_places(run: PackedRun) -> None:
    """Raise UsageError if a folder or the table is not below the data folder, as everything in a kit is."""
    for place in (run.table, *run.folders(encoded=True), *run.folders(encoded=False)):
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise UsageError(f"{run.path}: [data] {place!r}: must be a path below --data to be packed")


def _check_files(runs: Sequence[PackedRun]) -> None:
    """Raise ModelError if initial weights do not fit, UsageError if the trained ones would be too many files.

    The count includes both the old and the new parts while one run's weights are replaced, and the report.
    """
    counts = []
    for run in runs:
        model = build(run.config.architecture, run.config.training_model)
        if run.init:
            warm_start(model, run.config.task, run.init, Log(lambda _: None, is_leader=False))
        state_values = [
            network.state_dict().values() for network in (model, run.config.task.joint_model) if network is not None
        ]
        counts += [1 + sum(2 * value.numel() for value in values) // PART_BYTES for values in state_values]
    if (files := sum(counts) + max(counts) + 1) > MAX_FILES:
        raise UsageError(
            f"the weights of these runs can be {files} files of {PART_BYTES >> 20} MiB at a time, "
            f"more than the limit of {MAX_FILES} of a kit; pack fewer configs or smaller models"
        )


def add_weights(kit: KitFolder, runs: Sequence[PackedRun]) -> list[dict[str, str | None]]:
    """Add the configs and the weights that they need.

    Args:
        kit: The kit.
        runs: Its runs.

    Returns:
        Name, config and init of each run, as paths in the kit.

    Raises:
        UsageError: If a config names weights outside the current folder.
    """
    bundled, copied, described = {}, dict[str, str](), []
    for run in runs:
        separator = getattr(run.config.task, "separator", None)
        for name in filter(None, (run.init, separator)):
            if name in catalogue.entries():
                bundled[name] = catalogue.entries()[name]
            elif name == separator:
                if Path(name).is_absolute() or ".." in Path(name).parts:
                    raise UsageError(
                        f"[task] separator = {name!r}: must be a bundled model or a path below the current folder"
                    )
                kit.add(name, _content(name))
            elif name not in copied:
                copied[name] = f"init/{run.path.stem}.safetensors"
                kit.add(copied[name], _content(name))
        config = f"configs/{run.path.name}"
        kit.add(config, run.text().encode())
        described.append({"name": run.path.stem, "config": config, "init": copied.get(run.init or "", run.init)})
    for entry in bundled.values():
        kit.add(f"code/weights/{entry['file']}", catalogue.folder() / entry["file"])
    kit.add("code/weights/catalogue.json", json.dumps(bundled, indent=2).encode())
    return described


def _content(name: str) -> Path | bytes:
    path = catalogue.find(name)[0]
    return parts.read(path) if parts.exists(path) else path


def fixed_recordings(runs: Sequence[PackedRun], data: Path) -> list[Path]:
    """Return all recordings that are copied unchanged: validation recordings and impulse responses."""
    folders = sorted({folder for run in runs for folder in run.folders(encoded=False)})
    return sorted({path for folder in folder_paths(data, folders) for path in audio_files(folder)})


def sources(runs: Sequence[PackedRun], data: Path, tables: dict[str, MetadataTable]) -> tuple[list[Source], list[str]]:
    """List all recordings that may be encoded or left out.

    Args:
        runs: The runs of a kit.
        data: Folder that contains the configs' folders.
        tables: The runs' metadata tables by their path below ``data``.

    Returns:
        The readable recordings, and one line for each unreadable one.

    Raises:
        TrainingError: If a folder does not exist.
    """
    fixed = set(fixed_recordings(runs, data))
    rates, lowest_hz, folder_of, speech = dict[Path, int](), dict[Path, float](), dict[Path, str](), set[Path]()
    for run in runs:
        settings, rate = run.config.data, run.config.training_model.spec.out_rate
        for folder in run.folders(encoded=True):
            lowest = max(settings.min_bandwidth_hz if folder in settings.train else 0.0, 1.0)
            for path in audio_files(folder_paths(data, [folder])[0]):
                if path not in fixed and tables[run.table].bandwidth.get(path.resolve(), lowest) >= lowest:
                    rates[path] = max(rate, rates.get(path, 0))
                    lowest_hz[path] = max(lowest, lowest_hz.get(path, 0.0))
                    folder_of.setdefault(path, folder)
                    speech |= {path} if folder in settings.train else set()
    readable, skipped = [], []
    for path, rate in sorted(rates.items()):
        try:
            facts = source(path, data, tables.values(), rate, lowest_hz[path], folder_of[path])
            readable.append(replace(facts, is_noise=path not in speech))
        except InputError as error:
            skipped.append(str(error))
    return readable, skipped


def source(
    path: Path,
    data: Path,
    tables: Iterable[MetadataTable],
    rate: int | None = None,
    min_bandwidth_hz: float = 0.0,
    folder: str = "",
) -> Source:
    """Probe a recording.

    Args:
        path: The file.
        data: A folder above it.
        tables: Metadata tables.
        rate: Highest sample rate in Hz to encode at; None for the file's own.
        min_bandwidth_hz: Configs leave out the recording if its bandwidth is lower, in Hz.
        folder: The folder of a config that contains it.

    Returns:
        The recording's metadata for packing.

    Raises:
        InputError: If the file cannot be read.
    """
    own, seconds = probe(path)
    rate = own if rate is None else min(own, rate)
    metadata = next((table for table in tables if path.resolve() in table.bandwidth), MetadataTable({}, {}))
    speakers = (table.speakers[path.resolve()] for table in tables if path.resolve() in table.speakers)
    relative = path.relative_to(data)
    return Source(
        path=path,
        relative=relative.as_posix(),
        size=path.stat().st_size,
        seconds=seconds,
        own_rate=own,
        rate=rate,
        bandwidth_hz=metadata.bandwidth_of(path, own, own),
        min_bandwidth_hz=min_bandwidth_hz,
        speaker=next(speakers, "") or relative.parent.as_posix(),
        folder=folder,
    )
