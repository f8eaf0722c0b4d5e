"""Folders of recordings as a corpus: decoded once, kept in a memory-mapped file that their content names."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audiosr_cli.audio.read import SUFFIXES, read_mono
from audiosr_cli.errors import InputError, OutputError, TrainingError, UsageError
from audiosr_cli.files.atomic import atomic_path
from audiosr_cli.train.corpus import Corpus

_PASSED = 0.94  # of half a file's rate: where resamplers that made it begin to fade out
_SPEAKER_COLUMNS = ("speaker", "speaker_or_class")  # of a table, the first one that is filled in


@dataclass(frozen=True)
class Table:
    """What a CSV says of recordings: by resolved path, who speaks and how far the band goes (Hz)."""

    speakers: dict[Path, str]
    bandwidth: dict[Path, float]

    def band(self, path: Path, own_rate: int, sample_rate: int) -> float:
        """Where the content of a file at ``own_rate`` ends when it is at ``sample_rate``, in Hz.

        The roll-off of the resampler that made it is no target: a model of many cutoffs would learn the dip.
        """
        passed = sample_rate / 2 if own_rate >= sample_rate else _PASSED * own_rate / 2
        return min(self.bandwidth.get(path.resolve(), passed), passed)


def read_table(path: Path) -> Table:
    """A CSV with the columns path (from the CSV's folder on), and speaker, bandwidth_hz or both.

    ``speaker_or_class`` is another name for the column ``speaker``, for tables that list music and noise as well.

    Raises TrainingError where it cannot be read, UsageError where the columns are missing.
    """
    speakers, bandwidth = {}, {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            columns = set(rows.fieldnames or ())
            if "path" not in columns or not columns & {*_SPEAKER_COLUMNS, "bandwidth_hz"}:
                raise UsageError(f"{path}: wants the columns path, and speaker or bandwidth_hz")
            for number, row in enumerate(rows, 2):
                at = (path.parent / (row["path"] or "")).resolve()
                if speaker := next((row[name] for name in _SPEAKER_COLUMNS if row.get(name)), None):
                    speakers[at] = speaker
                if row.get("bandwidth_hz"):
                    try:
                        bandwidth[at] = float(row["bandwidth_hz"])
                    except ValueError as error:
                        raise UsageError(f"{path}, line {number}: bandwidth_hz {row['bandwidth_hz']!r}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: cannot be read as CSV: {error}") from error
    return Table(speakers, bandwidth)


def load_corpus(
    folders: Sequence[Path],
    sample_rate: int,
    cache: Path,
    table: Table | None = None,
    min_bandwidth: float = 0.0,
    shares: Sequence[float] = (),
    balance: float = 0.0,
    min_seconds: float = 0.0,
) -> Corpus:
    """All audio files under ``folders`` at ``sample_rate``, mono; the speaker is the parent folder.

    ``table`` may name other speakers, and where the content of a file ends (else, and at most, where a file at a
    lower rate begins to fade out); files below ``min_bandwidth`` (Hz) are left out, and those without any band.
    ``shares`` weighs the folders against each other; without it, every speaker of them all is as likely. Within a
    folder, or among all without ``shares``, a speaker of n seconds is drawn in proportion to n ** ``balance``.
    Recordings shorter than ``min_seconds`` are left out. What is decoded stays under ``cache``, named by content.
    Raises TrainingError where nothing is there.
    """
    table = table or Table({}, {})
    found = _find(folders, table, max(min_bandwidth, 1.0))
    pack = _Pack.of([path for path, _ in found], sample_rate, cache)
    kept, skipped = _usable(found, pack, min_seconds * sample_rate)
    damaged = [f"{path}: {text}" for path, _, piece in kept for text in piece.get("damage", ())]
    who = [(i, table.speakers.get(path.resolve()) or str(path.parent)) for path, i, _ in kept]
    people = {person: k for k, person in enumerate(sorted({name for _, name in who}))}
    order = sorted(range(len(kept)), key=lambda k: (people[who[k][1]], kept[k][0]))
    pieces = [kept[k][2] for k in order]
    recordings = [(people[name], i, piece["length"]) for (i, name), (_, _, piece) in zip(who, kept, strict=True)]
    return Corpus(
        sample_rate=sample_rate,
        samples=pack.samples(),
        starts=torch.tensor([piece["start"] for piece in pieces]),
        lengths=torch.tensor([piece["length"] for piece in pieces]),
        speakers=torch.tensor([people[who[k][1]] for k in order]),
        bandwidth=torch.tensor([table.band(kept[k][0], kept[k][2]["sample_rate"], sample_rate) for k in order]),
        level=torch.tensor([piece["level"] for piece in pieces]),
        chance=_chance(recordings, shares, len(folders), balance),
        names=[str(kept[k][0]) for k in order],
        skipped=skipped,
        damaged=damaged,
    )


def _find(folders: Sequence[Path], table: Table, lowest: float) -> list[tuple[Path, int]]:
    """Audio files whose band ends at ``lowest`` Hz or above, each with its folder's index. Raises TrainingError."""
    found = [(path, i) for i, folder in enumerate(folders) for path in audio_files(folder)]
    found = [(path, i) for path, i in found if table.bandwidth.get(path.resolve(), lowest) >= lowest]
    if not found:
        raise TrainingError(f"no audio files under {', '.join(map(str, folders))}")
    return found


def _usable(
    found: list[tuple[Path, int]], pack: _Pack, shortest: float
) -> tuple[list[tuple[Path, int, dict[str, Any]]], list[str]]:
    """Files that were read and have ``shortest`` samples or more, with their pieces; why others were not read.

    Raises TrainingError where none is left.
    """
    pieces = [(path, i, pack.piece(path)) for path, i in found]
    skipped = [f"{path}: {piece['error']}" for path, _, piece in pieces if "error" in piece]
    if len(skipped) == len(found):
        raise TrainingError(f"none of {len(found)} files could be read; the first: {skipped[0]}")
    usable = [item for item in pieces if "error" not in item[2] and item[2]["length"] >= shortest]
    if not usable:
        raise TrainingError("[data] min_seconds: every recording is shorter; lower it")
    return usable, skipped


def audio_files(folder: Path) -> list[Path]:
    """All audio files below ``folder``, links to other folders included, each of those once."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(place, name)) not in seen]  # noqa: PTH118
        found += [Path(place, name) for name in names if Path(name).suffix.lower() in SUFFIXES]
    return sorted(path for path in found if path.is_file())


def _chance(
    recordings: Sequence[tuple[int, int, int]], shares: Sequence[float], folders: int, balance: float
) -> torch.Tensor:
    """How likely each speaker is drawn (P,), from (speaker, folder, samples) of every recording.

    A speaker of several folders has the sum of what each gives. Raises UsageError and TrainingError on ``shares``
    that do not fit the folders.
    """
    if shares and (len(shares) != folders or min(shares) < 0 or not sum(shares) > 0):
        raise UsageError(f"[data] shares = {list(shares)}: one number of 0 or more for each of {folders} folders")
    speaker, folder, samples = torch.tensor(recordings).unbind(1)  # (recordings,) each
    chance = torch.zeros(int(speaker.max()) + 1, dtype=torch.float64)
    for number, share in enumerate(shares or (1.0,)):
        here = (folder == number) | (not shares)
        total = torch.zeros_like(chance).index_add(0, speaker[here], samples[here].double())
        weight = total.pow(balance) * (total > 0)
        chance += share / sum(shares or (1.0,)) * weight / weight.sum().clamp_min(1e-9)
    if not (chance > 0).any():
        raise TrainingError("the folders with a share above 0 hold no audio files")
    return chance.float()


@dataclass(frozen=True)
class _Pack:
    """Decoded files in one memory-mapped file of int16: where each lies, by the digest of its content."""

    store: Path
    pieces: dict[str, dict[str, Any]]  # {start, length, sample_rate, level} or {error}
    digests: dict[Path, str]

    @classmethod
    def of(cls, files: list[Path], sample_rate: int, cache: Path) -> _Pack:
        """The pack of these files, decoded now unless ``cache`` has it; TrainingError where it cannot be kept there."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            digests = dict(zip(files, pool.map(_digest, files), strict=True))
        once = {digest: path for path, digest in sorted(digests.items(), reverse=True)}
        key = hashlib.sha256("\n".join(["1", str(sample_rate), *sorted(once)]).encode()).hexdigest()[:24]
        store = cache / f"{key}.s16"
        index = store.with_suffix(".json")
        try:
            if not (index.exists() and store.exists()):
                cache.mkdir(parents=True, exist_ok=True)
                _decode(once, sample_rate, store, index)
            return cls(store, json.loads(index.read_text(encoding="utf-8")), digests)
        except (OSError, OutputError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise TrainingError(
                f"{cache}: decoded recordings cannot be kept there ({reason}); set $AUDIOSR_CACHE to a folder that "
                "can be written"
            ) from error

    def piece(self, path: Path) -> dict[str, Any]:
        return self.pieces[self.digests[path]]

    def samples(self) -> torch.Tensor:
        return torch.from_file(str(self.store), shared=False, size=self.store.stat().st_size // 2, dtype=torch.int16)


def _digest(path: Path) -> str:
    """The content's digest; that of the name where it cannot be read, which decoding will report."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]
    except OSError:
        return f"unreadable {path}"


def _decode(files: dict[str, Path], sample_rate: int, store: Path, index: Path) -> None:
    """Write all files end to end to ``store`` in the order of their digests, and where each lies to ``index``."""
    pieces, start = {}, 0
    with atomic_path(store) as part, open(part, "wb") as stream, ThreadPoolExecutor(os.cpu_count()) as pool:
        order, few = sorted(files.items()), 2 * (os.cpu_count() or 1)
        for some in (order[i : i + few] for i in range(0, len(order), few)):  # no more than these wait in memory
            made = pool.map(lambda item: _read(item[1], sample_rate), some)
            for (digest, _), (samples, facts) in zip(some, made, strict=True):
                stream.write(samples.tobytes())
                pieces[digest] = facts if "error" in facts else facts | {"start": start}
                start += len(samples)
    with atomic_path(index) as part:
        part.write_text(json.dumps(pieces), encoding="utf-8")


def _read(path: Path, sample_rate: int) -> tuple[np.ndarray[Any, np.dtype[np.int16]], dict[str, Any]]:
    """A recording as int16, and its facts; nothing and the reason where it cannot be read."""
    try:
        wave, own_rate, warnings = read_mono(path, sample_rate)
    except InputError as error:
        return np.zeros(0, np.int16), {"error": str(error).removeprefix(f"{path}: ")}
    if not np.isfinite(wave).all():
        return np.zeros(0, np.int16), {"error": "holds samples that are not finite"}
    samples = np.rint(np.clip(wave, -1, 32767 / 32768) * 32768).astype(np.int16)
    if not samples.any():
        return np.zeros(0, np.int16), {"error": "is empty or silent throughout"}
    level = float(np.sqrt(np.dot(wave, wave) / len(wave)))
    facts = {"length": len(samples), "sample_rate": own_rate, "level": level}
    return samples, facts | ({"damage": [text.removeprefix(f"{path}: ") for text in warnings]} if warnings else {})


def folder_paths(data: Path, folders: Iterable[str]) -> list[Path]:
    """``folders`` below ``data``. Raises TrainingError where one is missing."""
    paths = [data / folder for folder in folders]
    if missing := [path for path in paths if not path.is_dir()]:
        raise TrainingError(f"{missing[0]}: no such folder; --data names the folder that holds it")
    return paths
