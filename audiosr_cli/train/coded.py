"""Copies of training recordings that went through lossy codecs: coded once, into a cache file."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiosr_cli.audio.coding import CODINGS, code, has_coding
from audiosr_cli.errors import UsageError
from audiosr_cli.files.atomic import atomic_path
from audiosr_cli.train.checks import within
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.data import cache_errors

# Longest part of a recording that is coded, in seconds; the rest of a copy is that of the recording.
_LONGEST_S = 60.0
# Width in Hz of the bands in which a copy is compared with its recording, and the loss in dB at which its content ends.
_BAND_HZ, _END_DB = 250.0, 6.0
# Samples of a frame of that comparison.
_N_FFT = 2048
_SEED = 20261127


@dataclass(frozen=True)
class CodedCopies:
    """Which training recordings get a copy that went through a lossy codec.

    Copies are made once, by PyAV, at random sample rates and bit rates, and cached beside the decoded recordings.

    Attributes:
        share: Share of the training recordings that get one.
        codecs: The codecs, each as likely: mp3, aac, opus, amr_nb, g722, mulaw.
    """

    share: float = 0.0
    codecs: tuple[str, ...] = ("mp3", "aac", "opus", "amr_nb", "g722", "mulaw")

    def __post_init__(self) -> None:
        within(self, 0, 1, "share")
        if unknown := [name for name in self.codecs if name not in CODINGS]:
            raise UsageError(f"codecs = {list(self.codecs)}: {unknown[0]!r} is unknown; known: {', '.join(CODINGS)}")
        if not self.codecs:
            raise UsageError("codecs = []: name at least one; use share = 0 for no copies")


def load_coded(corpus: Corpus, config: CodedCopies, cache: Path) -> Corpus:
    """Code recordings of ``corpus``, unless ``cache`` has them already.

    Args:
        corpus: The training recordings.
        config: How many, and which codecs.
        cache: Folder that keeps the copies.

    Returns:
        A corpus with the same recordings in the same order, of which ``samples`` and ``starts`` are the copies'.
        ``bandwidth`` is how far the copy resembles its recording in Hz, and 0 for recordings without a copy.

    Raises:
        UsageError: If an encoder is missing.
        TrainingError: If the cache cannot be written.
    """
    for name in config.codecs:
        if not has_coding(name):
            raise UsageError(
                f"[data.coded] codecs: no encoder for {name}; install audiosr-cli[media], or leave it out of codecs"
            )
    key = hashlib.sha256(json.dumps(["1", corpus.sample_rate, config.share, config.codecs]).encode())
    for part in (corpus.lengths, corpus.level):
        key.update(part.numpy().tobytes())
    store = cache / f"{key.hexdigest()[:24]}.coded.s16"
    index = store.with_suffix(".json")
    with cache_errors(cache, "coded recordings"):
        if not (index.exists() and store.exists()):
            cache.mkdir(parents=True, exist_ok=True)
            _code_all(corpus, config, store, index)
        entries = json.loads(index.read_text(encoding="utf-8"))
    samples = torch.from_file(str(store), shared=False, size=store.stat().st_size // 2, dtype=torch.int16)
    return replace(
        corpus,
        samples=samples,
        starts=torch.tensor(entries["starts"]),
        bandwidth=torch.tensor(entries["bandwidth"], dtype=torch.float32),
    )


def _code_all(corpus: Corpus, config: CodedCopies, store: Path, index: Path) -> None:
    """Write all copies end to end to ``store``, and their places and bandwidths to ``index``."""
    generator = np.random.default_rng(_SEED)
    count = len(corpus.lengths)
    jobs: list[tuple[int, str, int, int]] = []
    for k in np.flatnonzero(generator.random(count) < config.share).tolist():
        name = str(generator.choice(config.codecs))
        coding = CODINGS[name]
        jobs.append((k, name, int(generator.choice(coding.rates)), int(generator.choice(coding.bit_rates))))
    starts, bandwidth, written = [0] * count, [0.0] * count, 0
    with atomic_path(store) as part, open(part, "wb") as stream, ThreadPoolExecutor(os.cpu_count()) as pool:
        stream.write(bytes(2))  # a mapped file must not be empty
        written += 1
        chunk = 8 * (os.cpu_count() or 1)
        for first in range(0, len(jobs), chunk):  # bounds the memory
            some = jobs[first : first + chunk]
            for (k, *_), (copy, hz) in zip(some, pool.map(lambda job: _copy(corpus, *job), some), strict=True):
                stream.write(copy.tobytes())
                starts[k], bandwidth[k] = written, hz
                written += len(copy)
    with atomic_path(index) as part:
        part.write_text(json.dumps({"starts": starts, "bandwidth": bandwidth}), encoding="utf-8")


def _copy(corpus: Corpus, k: int, name: str, rate: int, bit_rate: int) -> tuple[NDArray[np.int16], float]:
    """Code recording ``k``: the copy, as long as the recording, and its bandwidth in Hz."""
    start, length = int(corpus.starts[k]), int(corpus.lengths[k])
    samples: NDArray[np.int16] = corpus.samples[start : start + length].cpu().numpy()
    some = samples[: round(_LONGEST_S * corpus.sample_rate)].astype(np.float32) / np.float32(32768)
    coded = code(some, corpus.sample_rate, name, rate, bit_rate)
    copy = samples.copy()
    copy[: len(coded)] = np.rint(np.clip(coded, -1, 32767 / 32768) * 32768)
    return copy, resemblance_hz(coded, some, corpus.sample_rate)


def resemblance_hz(copy: NDArray[Any], original: NDArray[Any], sample_rate: int) -> float:
    """Return the frequency in Hz up to which ``copy`` has what ``original`` (T,) has, on the long-term mean.

    It is the upper end of the last band of 250 Hz that has lost less than 6 dB.
    """
    ours, true = (_mean_power(wave) for wave in (copy, original))
    bins = max(1, round(_BAND_HZ * _N_FFT / sample_rate))
    bands = len(true) // bins
    level = [power[: bands * bins].reshape(bands, bins).sum(1) for power in (ours, true)]
    alike = np.flatnonzero(level[0] >= level[1] * 10 ** (-_END_DB / 10))
    return float((alike[-1] + 1) * bins * sample_rate / _N_FFT) if len(alike) else 0.0


def _mean_power(wave: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean power spectrum of frames that overlap by half: (F,)."""
    padded = np.pad(wave.astype(np.float64), (0, max(0, _N_FFT - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[:: _N_FFT // 2]
    power: NDArray[np.float64] = np.square(np.abs(np.fft.rfft(frames * np.hanning(_N_FFT)))).mean(0)
    return power + 1e-12  # rounding to 16 bits has more
