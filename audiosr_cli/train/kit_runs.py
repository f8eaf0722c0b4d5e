"""The runs of a kit: their configs, what they start from, and the recordings that they need."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from audiosr_cli.audio.encode import probe
from audiosr_cli.checkpoints import catalogue, parts
from audiosr_cli.errors import InputError, UsageError
from audiosr_cli.models import build
from audiosr_cli.train.config import DataConfig, RunConfig, read_config
from audiosr_cli.train.data import Table, folder_paths, read_table
from audiosr_cli.train.data import audio_files as audio_files
from audiosr_cli.train.kit_folder import KitFolder
from audiosr_cli.train.log import Log
from audiosr_cli.train.pack_audio import Source
from audiosr_cli.train.warm_start import warm_start

MOST_FILES, PART_BYTES = 8, 15 << 20  # that a kit writes into its output folder
_TABLE = "kit.csv"  # for configs that name none
_ENCODED = ("train", "noise")  # folders whose recordings may be encoded and left out; all others go along as they are


@dataclass(frozen=True)
class Run:
    """One config of a kit, and the weights that it starts from: a bundled model's name, or where they are here."""

    path: Path
    config: RunConfig
    init: str | None

    @property
    def table(self) -> str:
        """The table below the data folder; every run of a kit has one."""
        return self.config.data.table or _TABLE

    def read_table(self, data: Path) -> Table:
        """What the config's own table says; nothing where it names none."""
        return read_table(data / self.config.data.table) if self.config.data.table else Table({}, {})

    def text(self) -> str:
        """The config as it goes into the kit: with a table, which says where the band of encoded recordings ends.

        Raises UsageError where the table cannot be put in.
        """
        text = self.path.read_text(encoding="utf-8")
        if self.config.data.table:
            return text
        text = re.sub(r"^(\s*\[\s*data\s*\][^\n]*)$", rf'\1\ntable = "{_TABLE}"', text, count=1, flags=re.MULTILINE)
        if tomllib.loads(text)["data"].get("table") != _TABLE:
            raise UsageError(f'{self.path}: write [data] as a section of its own, with table = "{_TABLE}" in it')
        return text

    def folders(self, encoded: bool) -> list[str]:
        """The folders whose recordings may be encoded and left out, or those of all others."""
        selected = []
        for item in fields(DataConfig):
            value = getattr(self.config.data, item.name)
            if isinstance(value, tuple) and (item.name in _ENCODED) == encoded:
                selected += [entry for entry in value if isinstance(entry, str)]
        return selected


def read_runs(configs: Sequence[Path], init: Sequence[str]) -> list[Run]:
    """Read and check the configs of a kit.

    Args:
        configs: TOML files.
        init: Initial weights, one for all configs or one for each, ``none`` for fresh ones; may be empty.

    Returns:
        The runs, in the order of ``configs``.

    Raises:
        UsageError: If ``init`` does not match ``configs``, two runs share a name, or a config is wrong.
        TrainingError: If a config cannot be read.
        ModelError: If initial weights do not fit.
    """
    if len(init) not in (0, 1, len(configs)):
        raise UsageError(f"--init: {len(init)} times for {len(configs)} configs; give it once, or once for each")
    names = list(init) * (len(configs) if len(init) == 1 else 1) or ["none"] * len(configs)
    runs = [
        Run(path, read_config(path), None if name == "none" else name)
        for path, name in zip(configs, names, strict=True)
    ]
    for kind, values in (
        ("file name", [run.path.stem for run in runs]),
        ("[model] name", [run.config.model.spec.name for run in runs]),
    ):
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise UsageError(f"two configs have the {kind} {twice[0]!r}: their outputs would replace each other")
    for run in runs:
        _check_places(run)
    _check_files(runs)
    return runs


def _check_places(run: Run) -> None:
    """Raise UsageError where a folder or the table is not below the data folder, as all is in a kit."""
    for place in (run.table, *run.folders(encoded=True), *run.folders(encoded=False)):
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise UsageError(f"{run.path}: [data] {place!r}: has to lie below --data, as everything does in a kit")


def _check_files(runs: Sequence[Run]) -> None:
    """Raise ModelError where initial weights do not fit, UsageError where the trained ones are too many files.

    While a set of parts replaces another there are both, and there is a report.
    """
    counts = []
    for run in runs:
        model = build(run.config.architecture, run.config.training_model)
        if run.init:
            warm_start(model, run.config.task, run.init, Log(lambda _: None, leads=False))
        state_values = [
            network.state_dict().values() for network in (model, run.config.task.partner) if network is not None
        ]
        counts += [1 + sum(2 * value.numel() for value in values) // PART_BYTES for values in state_values]
    if (files := sum(counts) + max(counts) + 1) > MOST_FILES:
        raise UsageError(
            f"the weights of these runs can be {files} files of {PART_BYTES >> 20} MiB at a time, "
            f"more than the {MOST_FILES} that a kit writes; use fewer configs or smaller models"
        )


def add_weights(kit: KitFolder, runs: Sequence[Run]) -> list[dict[str, str | None]]:
    """Add the configs and the weights that they need.

    Args:
        kit: The kit to add to.
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
                    raise UsageError(f"[task] separator = {name!r}: must be a bundled model or lie below this folder")
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


def fixed_recordings(runs: Sequence[Run], data: Path) -> list[Path]:
    """Return all recordings that are copied as they are: those to validate on, and measured rooms."""
    folders = sorted({folder for run in runs for folder in run.folders(encoded=False)})
    return sorted({path for folder in folder_paths(data, folders) for path in audio_files(folder)})


def sources(runs: Sequence[Run], data: Path, tables: dict[str, Table]) -> tuple[list[Source], list[str]]:
    """Look at all recordings that may be encoded or left out.

    Args:
        runs: The runs of a kit.
        data: The folder that the configs' folders lie in.
        tables: Each run's table by its path below ``data``.

    Returns:
        The recordings that can be read, and a line for each that cannot.

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
    path: Path, data: Path, tables: Iterable[Table], rate: int | None = None, least_hz: float = 0.0, folder: str = ""
) -> Source:
    """Look at a recording.

    Args:
        path: The file.
        data: A folder above it.
        tables: What is known of recordings.
        rate: Highest sample rate in Hz to encode at; the file's own where None.
        least_hz: A config leaves the recording out where its band ends below.
        folder: The folder of a config that it belongs to.

    Returns:
        What packing needs to know.

    Raises:
        InputError: If the file cannot be read.
    """
    own, seconds = probe(path)
    rate = own if rate is None else min(own, rate)
    known = next((table for table in tables if path.resolve() in table.bandwidth), Table({}, {}))
    speakers = (table.speakers[path.resolve()] for table in tables if path.resolve() in table.speakers)
    relative = path.relative_to(data)
    return Source(
        path=path,
        relative=relative.as_posix(),
        size=path.stat().st_size,
        seconds=seconds,
        own_rate=own,
        rate=rate,
        band_hz=known.band(path, own, own),
        least_hz=least_hz,
        speaker=next(speakers, "") or relative.parent.as_posix(),
        folder=folder,
    )
