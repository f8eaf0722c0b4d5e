"""The runs of a kit: their configs, what they start from, and the recordings that they need."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from audiosr_cli import parts, weights
from audiosr_cli.audio.encode import probe
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
        found = []
        for item in fields(DataConfig):
            value = getattr(self.config.data, item.name)
            if isinstance(value, tuple) and (item.name in _ENCODED) == encoded:
                found += [entry for entry in value if isinstance(entry, str)]
        return found


def read_runs(configs: Sequence[Path], init: Sequence[str]) -> list[Run]:
    """Read and check the configs of a kit. Raises UsageError, TrainingError and ModelError."""
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
        written = [made.state_dict().values() for made in (model, run.config.task.partner) if made is not None]
        counts += [1 + sum(2 * value.numel() for value in values) // PART_BYTES for values in written]
    if (files := sum(counts) + max(counts) + 1) > MOST_FILES:
        raise UsageError(
            f"the weights of these runs can be {files} files of {PART_BYTES >> 20} MiB at a time, "
            f"more than the {MOST_FILES} that a kit writes; use fewer configs or smaller models"
        )


def add_weights(kit: KitFolder, runs: Sequence[Run]) -> list[dict[str, str | None]]:
    """Add the configs and the weights that they need; returns name, config and init of each run, as in the kit."""
    bundled, given, known = {}, dict[str, str](), []
    for run in runs:
        separator = getattr(run.config.task, "separator", None)
        for name in filter(None, (run.init, separator)):
            if name in weights.catalogue():
                bundled[name] = weights.catalogue()[name]
            elif name == separator:
                if Path(name).is_absolute() or ".." in Path(name).parts:
                    raise UsageError(f"[task] separator = {name!r}: must be a bundled model or lie below this folder")
                kit.add(name, _content(name))
            elif name not in given:
                given[name] = f"init/{run.path.stem}.safetensors"
                kit.add(given[name], _content(name))
        config = f"configs/{run.path.name}"
        kit.add(config, run.text().encode())
        known.append({"name": run.path.stem, "config": config, "init": given.get(run.init or "", run.init)})
    for entry in bundled.values():
        kit.add(f"code/weights/{entry['file']}", weights.folder() / entry["file"])
    kit.add("code/weights/catalogue.json", json.dumps(bundled, indent=2).encode())
    return known


def _content(name: str) -> Path | bytes:
    path = weights.find(name)[0]
    return parts.read(path) if parts.exists(path) else path


def fixed_recordings(runs: Sequence[Run], data: Path) -> list[Path]:
    """All that goes along as it is: validation, real rooms."""
    folders = sorted({folder for run in runs for folder in run.folders(encoded=False)})
    return sorted({path for folder in folder_paths(data, folders) for path in audio_files(folder)})


def sources(runs: Sequence[Run], data: Path, tables: dict[str, Table]) -> tuple[list[Source], list[str]]:
    """What may be encoded and left out, and the files that cannot be read, with the reason."""
    fixed = set(fixed_recordings(runs, data))
    rates, least, where, voices = dict[Path, int](), dict[Path, float](), dict[Path, str](), set[Path]()
    for run in runs:
        settings, rate = run.config.data, run.config.training_model.spec.out_rate
        for folder in run.folders(encoded=True):
            lowest = max(settings.min_bandwidth_hz if folder in settings.train else 0.0, 1.0)
            for path in audio_files(folder_paths(data, [folder])[0]):
                if path not in fixed and tables[run.table].bandwidth.get(path.resolve(), lowest) >= lowest:
                    rates[path] = max(rate, rates.get(path, 0))
                    least[path] = max(lowest, least.get(path, 0.0))
                    where.setdefault(path, folder)
                    voices |= {path} if folder in settings.train else set()
    found, skipped = [], []
    for path, rate in sorted(rates.items()):
        try:
            facts = source(path, data, tables.values(), rate, least[path], where[path])
            found.append(replace(facts, is_noise=path not in voices))
        except InputError as error:
            skipped.append(str(error))
    return found, skipped


def source(
    path: Path, data: Path, tables: Iterable[Table], rate: int | None = None, least_hz: float = 0.0, folder: str = ""
) -> Source:
    """Look at a recording, which is to be encoded at ``rate`` Hz at most. Raises InputError where it cannot be read."""
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
