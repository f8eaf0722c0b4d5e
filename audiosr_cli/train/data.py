"""Load folders of recordings as a corpus: decoded once into a memory-mapped cache file named by their content."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audiosr_cli.audio.read import SUFFIXES, read_mono
from audiosr_cli.errors import InputError, OutputError, TrainingError, UsageError
from audiosr_cli.files.atomic import atomic_path
from audiosr_cli.files.hidden import is_hidden
from audiosr_cli.train.corpus import FULL_BAND, Corpus

# Share of the Nyquist frequency up to which common resamplers pass content unchanged.
_PASS_BAND = 0.94
# Columns of a metadata table that name the speaker; the first one with a value counts.
_SPEAKER_COLUMNS = ("speaker", "speaker_or_class")


@dataclass(frozen=True)
class MetadataTable:
    """Metadata of recordings from a CSV: speaker and bandwidth (Hz) by resolved path."""

    speakers: dict[Path, str]
    bandwidth: dict[Path, float]

    def bandwidth_of(self, path: Path, own_rate: int, sample_rate: int) -> float:
        """Return the bandwidth in Hz of a file at ``own_rate`` after resampling to ``sample_rate``.

        For a file at a lower rate, the roll-off of the resampler does not count: a model for many cutoffs would learn
        the dip.
        """
        limit = sample_rate / 2 if own_rate >= sample_rate else _PASS_BAND * own_rate / 2
        return min(self.bandwidth.get(path.resolve(), limit), limit)


def read_table(path: Path) -> MetadataTable:
    """Read a CSV with the column ``path`` (relative to the CSV's folder), and ``speaker``, ``bandwidth_hz`` or both.

    ``speaker_or_class`` is another name for the column ``speaker``, for tables that also list music and noise.

    Args:
        path: The CSV file.

    Returns:
        The metadata.

    Raises:
        TrainingError: If the file cannot be read.
        UsageError: If columns are missing or a bandwidth is not a number.
    """
    speakers, bandwidth = {}, {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            columns = set(rows.fieldnames or ())
            if "path" not in columns or not columns & {*_SPEAKER_COLUMNS, "bandwidth_hz"}:
                raise UsageError(f"{path}: needs the column path, and speaker or bandwidth_hz")
            for number, row in enumerate(rows, 2):
                file = (path.parent / (row["path"] or "")).resolve()
                if speaker := next((row[name] for name in _SPEAKER_COLUMNS if row.get(name)), None):
                    speakers[file] = speaker
                if row.get("bandwidth_hz"):
                    try:
                        bandwidth[file] = float(row["bandwidth_hz"])
                    except ValueError as error:
                        raise UsageError(
                            f"{path}, line {number}: bandwidth_hz = {row['bandwidth_hz']!r}: must be a number of Hz"
                        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: cannot be read as CSV: {error}") from error
    return MetadataTable(speakers, bandwidth)


def load_corpus(
    folders: Sequence[Path],
    sample_rate: int,
    cache: Path,
    table: MetadataTable | None = None,
    min_bandwidth: float = 0.0,
    shares: Sequence[float] = (),
    balance: float = 0.0,
    min_seconds: float = 0.0,
    full_band_share: float = 0.0,
) -> Corpus:
    """Load all audio files under ``folders`` as mono; the parent folder of a file is its speaker.

    Args:
        folders: Folders of recordings, at any depth.
        sample_rate: Hz of the corpus.
        cache: Folder that keeps decoded recordings, named by their content.
        table: Speakers and bandwidths that replace the folders' names and the files' rates.
        min_bandwidth: Files with a lower bandwidth in ``table`` (Hz) are left out.
        shares: Probability of each folder, up to a factor; without it all speakers are equally likely.
        balance: Within a folder, a speaker with n seconds is drawn in proportion to n ** balance.
        min_seconds: Shorter recordings are left out.
        full_band_share: Of the draws from each folder, the share of speakers most of whose audio reaches 95 %
            of the Nyquist frequency, where a folder has such speakers and others; 0 does not tell them apart.

    Returns:
        The corpus. Files that cannot be read are listed in it.

    Raises:
        TrainingError: If there is no usable file, or the cache cannot be written.
        UsageError: If ``shares`` do not match ``folders``.
    """
    table = table or MetadataTable({}, {})
    files = _find(folders, table, max(min_bandwidth, 1.0))
    decoded = _DecodedFiles.of([path for path, _ in files], sample_rate, cache)
    usable, skipped = _usable(files, decoded, min_seconds * sample_rate)
    damaged = [f"{path}: {text}" for path, _, entry in usable for text in entry.get("damage", ())]
    names = [table.speakers.get(path.resolve()) or str(path.parent) for path, _, _ in usable]
    indices = {name: index for index, name in enumerate(sorted(set(names)))}
    order = sorted(range(len(usable)), key=lambda k: (indices[names[k]], usable[k][0]))
    entries = [usable[k][2] for k in order]
    bandwidth = [table.bandwidth_of(path, entry["sample_rate"], sample_rate) for path, _, entry in usable]
    recordings = [
        (indices[name], folder, entry["length"], hz >= FULL_BAND * sample_rate / 2)
        for name, (_, folder, entry), hz in zip(names, usable, bandwidth, strict=True)
    ]
    return Corpus(
        sample_rate=sample_rate,
        samples=decoded.samples(),
        starts=torch.tensor([entry["start"] for entry in entries]),
        lengths=torch.tensor([entry["length"] for entry in entries]),
        speakers=torch.tensor([indices[names[k]] for k in order]),
        bandwidth=torch.tensor([bandwidth[k] for k in order]),
        level=torch.tensor([entry["level"] for entry in entries]),
        speaker_probs=_speaker_probs(recordings, shares, len(folders), balance, full_band_share),
        names=[str(usable[k][0]) for k in order],
        skipped=skipped,
        damaged=damaged,
    )


def _find(folders: Sequence[Path], table: MetadataTable, lowest: float) -> list[tuple[Path, int]]:
    """Find audio files with a bandwidth of at least ``lowest`` Hz, each with its folder's index."""
    files = [(path, i) for i, folder in enumerate(folders) for path in audio_files(folder)]
    files = [(path, i) for path, i in files if table.bandwidth.get(path.resolve(), lowest) >= lowest]
    if not files:
        raise TrainingError(f"no audio files under {', '.join(map(str, folders))}")
    return files


def _usable(
    files: list[tuple[Path, int]], decoded: _DecodedFiles, min_samples: float
) -> tuple[list[tuple[Path, int, dict[str, Any]]], list[str]]:
    """Return the readable files with at least ``min_samples``, with their entries, and why others are not readable."""
    entries = [(path, i, decoded.entry(path)) for path, i in files]
    skipped = [f"{path}: {entry['error']}" for path, _, entry in entries if "error" in entry]
    if len(skipped) == len(files):
        raise TrainingError(f"none of {len(files)} files could be read; the first: {skipped[0]}")
    usable = [item for item in entries if "error" not in item[2] and item[2]["length"] >= min_samples]
    if not usable:
        raise TrainingError("[data] min_seconds: every recording is shorter; lower it")
    return usable, skipped


def audio_files(folder: Path) -> list[Path]:
    """List all audio files below ``folder`` but hidden ones, following links to other folders, each of those once."""
    files, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [
            name for name in folders if not is_hidden(name) and os.path.realpath(Path(place, name)) not in seen
        ]
        files += [Path(place, name) for name in names if Path(name).suffix.lower() in SUFFIXES and not is_hidden(name)]
    return sorted(path for path in files if path.is_file())


def _speaker_probs(
    recordings: Sequence[tuple[int, int, int, bool]],
    shares: Sequence[float],
    folders: int,
    balance: float,
    full_band_share: float = 0.0,
) -> torch.Tensor:
    """Compute each speaker's probability (P,) from (speaker, folder, samples, full band) of every recording.

    A speaker with recordings in several folders has the sum of the probabilities there.
    """
    if shares and (len(shares) != folders or min(shares) < 0 or not sum(shares) > 0):
        raise UsageError(f"[data] shares = {list(shares)}: needs one number of 0 or more for each of {folders} folders")
    speaker, folder, samples, full = torch.tensor(recordings).unbind(1)  # (recordings,) each
    probs = torch.zeros(int(speaker.max()) + 1, dtype=torch.float64)
    for number, share in enumerate(shares or (1.0,)):
        here = (folder == number) | (not shares)
        total = torch.zeros_like(probs).index_add(0, speaker[here], samples[here].double())
        weight = total.pow(balance) * (total > 0)
        if full_band_share:
            full_total = torch.zeros_like(probs).index_add(0, speaker[here], (samples * full)[here].double())
            weight = _shared(weight, full_total >= total / 2, full_band_share)
        probs += share / sum(shares or (1.0,)) * weight / weight.sum().clamp_min(1e-9)
    if not (probs > 0).any():
        raise TrainingError("[data] shares: the folders with a share above 0 contain no audio files")
    return probs.float()


def _shared(weight: torch.Tensor, chosen: torch.Tensor, share: float) -> torch.Tensor:
    """Scale the ``chosen`` ones of ``weight`` (P,) to ``share`` of their sum, unless all or none of them are chosen."""
    inside, outside = weight[chosen].sum(), weight[~chosen].sum()
    if not inside or not outside:
        return weight
    return weight * torch.where(chosen, share / inside, (1 - share) / outside)


@contextmanager
def cache_errors(cache: Path, what: str) -> Iterator[None]:
    """Raise a TrainingError that names ``cache`` if ``what`` cannot be written there."""
    try:
        yield
    except (OSError, OutputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TrainingError(
            f"{cache}: {what} cannot be written there ({reason}); set $AUDIOSR_CACHE to a writable folder"
        ) from error


@dataclass(frozen=True)
class _DecodedFiles:
    """Decoded recordings in one memory-mapped file of int16, with an entry for each content digest."""

    store: Path
    entries: dict[str, dict[str, Any]]  # {start, length, sample_rate, level} or {error}
    digests: dict[Path, str]

    @classmethod
    def of(cls, files: list[Path], sample_rate: int, cache: Path) -> _DecodedFiles:
        """Decode ``files``, unless ``cache`` has them already."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            digests = dict(zip(files, pool.map(_digest, files), strict=True))
        by_digest = {digest: path for path, digest in sorted(digests.items(), reverse=True)}
        key = hashlib.sha256("\n".join(["1", str(sample_rate), *sorted(by_digest)]).encode()).hexdigest()[:24]
        store = cache / f"{key}.s16"
        index = store.with_suffix(".json")
        with cache_errors(cache, "decoded recordings"):
            if not (index.exists() and store.exists()):
                cache.mkdir(parents=True, exist_ok=True)
                _decode(by_digest, sample_rate, store, index)
            return cls(store, json.loads(index.read_text(encoding="utf-8")), digests)

    def entry(self, path: Path) -> dict[str, Any]:
        return self.entries[self.digests[path]]

    def samples(self) -> torch.Tensor:
        return torch.from_file(str(self.store), shared=False, size=self.store.stat().st_size // 2, dtype=torch.int16)


def _digest(path: Path) -> str:
    """Return the digest of the content, or of the name if the file cannot be read, which decoding will report."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]
    except OSError:
        return f"unreadable {path}"


def _decode(files: dict[str, Path], sample_rate: int, store: Path, index: Path) -> None:
    """Write all files end to end to ``store``, in the order of their digests, and their entries to ``index``."""
    entries, start = {}, 0
    with atomic_path(store) as part, open(part, "wb") as stream, ThreadPoolExecutor(os.cpu_count()) as pool:
        order, chunk_size = sorted(files.items()), 2 * (os.cpu_count() or 1)
        for chunk in (order[i : i + chunk_size] for i in range(0, len(order), chunk_size)):  # bounds the memory
            decoded = pool.map(lambda item: _read(item[1], sample_rate), chunk)
            for (digest, _), (samples, facts) in zip(chunk, decoded, strict=True):
                stream.write(samples.tobytes())
                entries[digest] = facts if "error" in facts else facts | {"start": start}
                start += len(samples)
    with atomic_path(index) as part:
        part.write_text(json.dumps(entries), encoding="utf-8")


def _read(path: Path, sample_rate: int) -> tuple[np.ndarray[Any, np.dtype[np.int16]], dict[str, Any]]:
    """Read a recording as int16 with its entry; an empty array and the reason if that fails."""
    try:
        wave, own_rate, warnings = read_mono(path, sample_rate)
    except InputError as error:
        return np.zeros(0, np.int16), {"error": str(error).removeprefix(f"{path}: ")}
    if not np.isfinite(wave).all():
        return np.zeros(0, np.int16), {"error": "contains samples that are not finite"}
    samples = np.rint(np.clip(wave, -1, 32767 / 32768) * 32768).astype(np.int16)
    if not samples.any():
        return np.zeros(0, np.int16), {"error": "is empty or silent"}
    level = float(np.sqrt(np.dot(wave, wave) / len(wave)))
    facts = {"length": len(samples), "sample_rate": own_rate, "level": level}
    return samples, facts | ({"damage": [text.removeprefix(f"{path}: ") for text in warnings]} if warnings else {})


def folder_paths(data: Path, folders: Iterable[str]) -> list[Path]:
    """Return the paths of ``folders`` below ``data``. Raises TrainingError if one is missing."""
    paths = [data / folder for folder in folders]
    if missing := [path for path in paths if not path.is_dir()]:
        raise TrainingError(f"{missing[0]}: no such folder; set --data to the folder that contains it")
    return paths
