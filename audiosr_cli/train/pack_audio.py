"""Recordings of a kit: how they are encoded to fit, and their priority if not all of them fit."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.read import read_mono
from audiosr_cli.audio.small_files import OPUS_RATES, Codec, bandwidth, encode
from audiosr_cli.errors import InputError
from audiosr_cli.files.atomic import atomic_path

# From the highest to the lowest quality: bit/s of Opus at 16 kHz, and quality of Vorbis. Opus at 24 kbit/s keeps the
# full bandwidth of 8 kHz for white noise (Vorbis at 0.3: 17 kHz); below 16 kbit/s encoders begin to cut it.
LADDER = ((96_000, 0.7), (64_000, 0.6), (48_000, 0.5), (40_000, 0.45), (32_000, 0.4), (24_000, 0.3))
# Share of the room that predicted sizes may fill.
_FILL = 0.98
# A file is encoded only if its size falls below this share: most are lossy already, and encoding twice costs quality.
_MIN_GAIN = 0.8
# Share of the room for noise before further recordings of speech.
_NOISE_SHARE = 0.05
# Recordings on which a codec's bit rate is measured, and seconds of each.
_CALIBRATION_FILES, _CALIBRATION_S = 4, 6.0


@dataclass(frozen=True)
class Source:
    """A recording to pack.

    Attributes:
        path: The file.
        relative: Its path below ``data``.
        size: Bytes.
        seconds: Duration.
        own_rate: Sample rate of the file in Hz.
        rate: Sample rate in Hz at which it is encoded.
        bandwidth_hz: Bandwidth in Hz.
        min_bandwidth_hz: Configs leave out the recording if its bandwidth is lower, in Hz.
        speaker: The speaker, or the kind of noise.
        folder: The folder of a config that contains it.
        is_noise: Whether it is noise.
    """

    path: Path
    relative: str
    size: int
    seconds: float
    own_rate: int
    rate: int
    bandwidth_hz: float
    min_bandwidth_hz: float
    speaker: str
    folder: str
    is_noise: bool = False

    @property
    def codec_name(self) -> str:
        """Opus if it supports the sample rate, else Vorbis."""
        return "opus" if self.rate in OPUS_RATES else "vorbis"


@dataclass(frozen=True)
class Packed:
    """A packed recording: the file ``content`` goes into the kit as ``relative``."""

    source: Source
    content: Path
    relative: str
    size: int
    bandwidth_hz: float


def codec_for(source: Source, rung: int) -> Codec:
    """Return the codec for ``source`` at a rung of the ladder; Vorbis only as low as configs accept its bandwidth."""
    bits, quality = LADDER[rung]
    if source.codec_name == "opus":
        return Codec("opus", bits * source.rate / 16_000)
    for _, better in reversed(LADDER[: rung + 1]):
        quality = better
        if bandwidth(Codec("vorbis", better), source.rate) >= min(
            source.min_bandwidth_hz, source.bandwidth_hz, source.rate / 2
        ):
            break
    return Codec("vorbis", quality)


class Sizes:
    """Predicts sizes from a codec's bytes per second and overhead, measured on a few recordings."""

    def __init__(self, sources: Sequence[Source], work: Path) -> None:
        self._sources, self._work = defaultdict[tuple[str, int], list[Source]](list), work
        for source in sources:
            self._sources[source.codec_name, source.rate].append(source)
        self._waves: dict[tuple[str, int], list[NDArray[np.float32]]] = {}
        self._measurements: dict[tuple[str, int, Codec], tuple[float, float]] = {}

    def predict(self, source: Source, rung: int) -> float:
        """Return the bytes of ``source`` at ``rung``; its own size if encoding gains too little."""
        overhead, rate = self._measured(source, codec_for(source, rung))
        size = overhead + rate * source.seconds
        return size if size < _MIN_GAIN * source.size else source.size

    def _measured(self, source: Source, codec: Codec) -> tuple[float, float]:
        key = (source.codec_name, source.rate)
        if (*key, codec) not in self._measurements:
            if key not in self._waves:
                self._waves[key] = _excerpts(self._sources[key], source.rate)
            path = self._work / f"calibration{codec.suffix}"
            overhead = encode(path, np.zeros(source.rate // 50, np.float32), source.rate, codec)
            sizes = [encode(path, wave, source.rate, codec) for wave in self._waves[key]]
            seconds = sum(len(wave) for wave in self._waves[key]) / source.rate
            path.unlink()
            rate = (sum(sizes) - overhead * len(sizes)) / max(seconds, 1e-9)
            self._measurements[*key, codec] = (overhead, rate)
        return self._measurements[*key, codec]


def _excerpts(sources: Sequence[Source], rate: int) -> list[NDArray[np.float32]]:
    waves = []
    for source in sources[:: max(1, len(sources) // _CALIBRATION_FILES)][:_CALIBRATION_FILES]:
        try:
            waves.append(read_mono(source.path, rate)[0][: round(_CALIBRATION_S * rate)])
        except InputError:
            continue
    return waves


def choose_rung(sources: Sequence[Source], sizes: Sizes, room: int, overhead: int) -> int | None:
    """Choose the highest quality at which all recordings fit.

    Args:
        sources: The recordings.
        sizes: Predicts their encoded sizes.
        room: Bytes.
        overhead: Bytes of each file besides its content.

    Returns:
        A rung of LADDER, the lowest if nothing fits; None to copy all files unchanged.
    """
    room -= overhead * len(sources)
    if sum(source.size for source in sources) <= room:
        return None
    for rung in range(len(LADDER)):
        if sum(sizes.predict(source, rung) for source in sources) <= _FILL * room:
            return rung
    return len(LADDER) - 1


def in_order(sources: Sequence[Source], bytes_of: dict[Source, float], room: float) -> list[Source]:
    """Sort so that every prefix of the list has as many speakers as possible, with balanced amounts.

    The order is: one recording of each folder, noise in a twentieth of the ``room`` (bytes), the shortest recording of
    each speaker, further recordings of the speakers with the least audio so far, and the rest of the noise.
    """
    keys: dict[Source, tuple[int, float, str]] = {}
    folders, total, noise = set(), defaultdict[str, float](float), 0.0
    for source in sorted(sources, key=lambda s: (bytes_of[s], s.relative)):
        if source.is_noise:
            noise += bytes_of[source]
            priority, rank = 1 if noise < _NOISE_SHARE * room else 4, bytes_of[source]
        else:
            priority = 3 if source.speaker in total else 2
            rank = total[source.speaker] = total[source.speaker] + bytes_of[source]
        keys[source] = (0 if source.folder not in folders else priority, rank, source.relative)
        folders.add(source.folder)
    return sorted(sources, key=keys.__getitem__)


def encoded(
    sources: Iterable[Source], rung: int | None, sizes: Sizes, work: Path, fits: Callable[[Source], bool]
) -> Iterator[tuple[Source, Packed | str | None]]:
    """Encode on all cores, in order; files that an earlier call left in ``work`` are used again.

    Args:
        sources: The recordings.
        rung: Rung of LADDER, or None to copy them unchanged.
        sizes: Predicts encoded sizes.
        work: Folder for encoded files.
        fits: Returns whether there is room for a recording; called as late as possible.

    Yields:
        Each source with its packed file, the reason why it cannot be read, or None if it does not fit.
    """
    queue, chunk_size = list(sources), 4 * (os.cpu_count() or 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for chunk in (queue[i : i + chunk_size] for i in range(0, len(queue), chunk_size)):
            fitting = [source for source in chunk if fits(source)]
            codecs = [None if rung is None else _codec(source, rung, sizes) for source in fitting]
            packed = dict(zip(fitting, pool.map(_encode, fitting, codecs, [work] * len(fitting)), strict=True))
            yield from ((source, packed.get(source)) for source in chunk)


def _codec(source: Source, rung: int, sizes: Sizes) -> Codec | None:
    """Return how to encode a recording, or None to copy it unchanged."""
    return None if sizes.predict(source, rung) >= source.size else codec_for(source, rung)


def _encode(source: Source, codec: Codec | None, work: Path) -> Packed | str:
    if codec is None:
        return unchanged(source)
    stat = source.path.stat()
    key = f"{source.path} {stat.st_size} {stat.st_mtime_ns} {source.rate} {codec}"
    path = work / (hashlib.sha256(key.encode()).hexdigest()[:32] + codec.suffix)
    if not path.exists():
        try:
            wave, _, _ = read_mono(source.path, source.rate)
        except InputError as error:
            return str(error)
        if not np.isfinite(wave).all() or not wave.any():
            return f"{source.path}: is silent, or contains samples that are not finite"
        with atomic_path(path) as part:
            encode(part, wave, source.rate, codec)
    if (size := path.stat().st_size) >= source.size:
        return unchanged(source)
    relative = str(Path(source.relative).with_suffix(codec.suffix))
    return Packed(
        source, path, relative, size, min(source.bandwidth_hz, source.rate / 2, bandwidth(codec, source.rate))
    )


def unchanged(source: Source) -> Packed:
    """Return ``source`` as a file that is copied unchanged."""
    return Packed(source, source.path, source.relative, source.size, source.bandwidth_hz)


def place(packed: Packed, target: Path) -> None:
    """Copy the content of ``packed`` to ``target``; a file encoded for the kit is hard-linked."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if packed.content == packed.source.path:
        shutil.copyfile(packed.content, target)
        return
    try:
        target.hardlink_to(packed.content)
    except OSError:
        shutil.copyfile(packed.content, target)


def renamed(packed: Packed, names: set[str]) -> Packed:
    """Return ``packed`` with a path that is not in ``names``, as recordings may differ in their suffix only."""
    if packed.relative not in names:
        return packed
    return replace(packed, relative=packed.source.relative + Path(packed.relative).suffix)
