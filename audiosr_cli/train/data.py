"""A corpus in memory: decoded once, cached on disk, crops drawn from it as tensors."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiosr_cli.audio.read import SUFFIXES, read_mono
from audiosr_cli.audio.write import atomic_path
from audiosr_cli.errors import InputError, TrainingError


@dataclass
class Corpus:
    """Recordings of one rate laid end to end as int16, with where each lies and who speaks.

    ``samples`` (N,) int16; ``starts``, ``lengths``, ``speakers`` (R,) int64, one entry a recording;
    ``skipped`` names the files that could not be read, with the reason.
    """

    sample_rate: int
    samples: Tensor
    starts: Tensor
    lengths: Tensor
    speakers: Tensor
    names: list[str]
    skipped: list[str]

    @property
    def seconds(self) -> float:
        """Length of all recordings together."""
        return len(self.samples) / self.sample_rate

    def crops(self, recordings: Tensor, length: int, generator: torch.Generator, speed: float = 0.0) -> Tensor:
        """Random crops (B, length) float32 of the recordings (B,), by index.

        A recording shorter than the crop lies at a random place in zeros. ``speed`` is the largest
        relative change of speed and pitch, by linear interpolation.
        """
        count = len(recordings)
        rate = 1 + speed * (2 * torch.rand(count, 1, generator=generator, dtype=torch.float64) - 1)
        room = self.lengths[recordings, None] - length * rate
        first = room * torch.rand(count, 1, generator=generator, dtype=torch.float64)  # (B, 1); negative: zeros first
        position = first.floor() + rate * torch.arange(length, dtype=torch.float64)  # (B, T)
        below = position.floor()
        share = (position - below).float()
        now = self._at(recordings, below.long())
        return now if speed == 0 else now + share * (self._at(recordings, below.long() + 1) - now)

    def _at(self, recordings: Tensor, position: Tensor) -> Tensor:
        inside = (position >= 0) & (position < self.lengths[recordings, None])
        index = self.starts[recordings, None] + position
        values = self.samples[index.clamp(0, len(self.samples) - 1)].float() / 32768
        return values * inside

    def draw(self, count: int, generator: torch.Generator, speakers: int = 1) -> Tensor:
        """Recordings (count, speakers) by index, every row of distinct speakers, each speaker as likely.

        Raises TrainingError where the corpus has too few speakers.
        """
        people = int(self.speakers.max()) + 1
        if people < speakers:
            raise TrainingError(f"{people} speaker(s) found, {speakers} wanted in a mixture: one folder a speaker")
        who = torch.rand(count, people, generator=generator).topk(speakers, dim=1).indices  # (B, S)
        weight = (
            self.lengths.float()
            * torch.rand(count, speakers, len(self.lengths), generator=generator).log().neg().reciprocal()
        )
        weight = weight.masked_fill(self.speakers != who.unsqueeze(-1), -1)
        return weight.argmax(-1)  # (B, S)


def load_corpus(folders: Iterable[Path], sample_rate: int, cache: Path, min_bandwidth: float = 0.0) -> Corpus:
    """All audio files under ``folders`` at ``sample_rate``, mono; the speaker is the parent folder.

    A ``manifest.csv`` in a folder above may tell a file's ``bandwidth_hz``; files below
    ``min_bandwidth`` (Hz) are left out. Decoded audio is kept under ``cache``, keyed by names, sizes and
    times of the files. Raises TrainingError where nothing can be read.
    """
    files = sorted(
        path
        for folder in folders
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if min_bandwidth:
        known = _bandwidths(folders)
        files = [path for path in files if known.get(path.resolve(), float("inf")) >= min_bandwidth]
    if not files:
        raise TrainingError(f"no audio files under {', '.join(map(str, folders))}")
    stat = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(repr((sample_rate, stat)).encode()).hexdigest()[:24]
    store = cache / f"{key}.npz"
    if not store.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _decode(files, sample_rate, store)
    with np.load(store) as packed:
        lengths, kept = packed["lengths"], packed["kept"]
        samples, skipped = torch.from_numpy(packed["samples"]), [str(line) for line in packed["skipped"]]
    if not len(kept):
        raise TrainingError(f"none of {len(files)} files could be read; the first: {skipped[0]}")
    names = [str(files[i]) for i in kept]
    people = {person: i for i, person in enumerate(sorted({str(files[i].parent) for i in kept}))}
    return Corpus(
        sample_rate=sample_rate,
        samples=samples,
        starts=torch.from_numpy(np.cumsum(lengths) - lengths),
        lengths=torch.from_numpy(lengths),
        speakers=torch.tensor([people[str(files[i].parent)] for i in kept]),
        names=names,
        skipped=skipped,
    )


def _decode(files: list[Path], sample_rate: int, store: Path) -> None:
    pieces, kept, skipped = [], [], []
    for i, path in enumerate(files):
        try:
            wave = read_mono(path, sample_rate)
        except InputError as error:
            skipped.append(str(error))
            continue
        if len(wave):
            pieces.append(np.rint(np.clip(wave, -1, 32767 / 32768) * 32768).astype(np.int16))
            kept.append(i)
    with atomic_path(store) as part, open(part, "wb") as stream:
        np.savez(
            stream,
            samples=np.concatenate(pieces) if pieces else np.zeros(0, np.int16),
            lengths=np.array([len(piece) for piece in pieces], np.int64),
            kept=np.array(kept, np.int64),
            skipped=np.array(skipped, dtype=str),
        )


def _bandwidths(folders: Iterable[Path]) -> dict[Path, float]:
    """What the manifests above ``folders`` say of each file's bandwidth, in Hz."""
    found = {}
    for above in {parent for folder in folders for parent in (Path(folder).resolve(), *Path(folder).resolve().parents)}:
        manifest = above / "manifest.csv"
        if manifest.is_file() and os.access(manifest, os.R_OK):
            with manifest.open(newline="", encoding="utf-8") as rows:
                for row in csv.DictReader(rows):
                    if row.get("path") and row.get("bandwidth_hz"):
                        found[above / row["path"]] = float(row["bandwidth_hz"])
    return found
