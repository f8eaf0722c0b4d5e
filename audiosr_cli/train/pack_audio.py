"""Recordings for a kit: how each is encoded so that all fits, and which come first where not all does."""

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

from audiosr_cli.audio.encode import OPUS_RATES, Codec, bandwidth, encode
from audiosr_cli.audio.read import read_mono
from audiosr_cli.errors import InputError
from audiosr_cli.files.atomic import atomic_path

# From the best to the lowest quality: bit/s of Opus at 16 kHz, quality of Vorbis. White noise through Opus at 24 kbit/s
# keeps its band of 8 kHz (through Vorbis at 0.3 it ends at 17 kHz); below 16 kbit/s encoders begin to cut it.
LADDER = ((96_000, 0.7), (64_000, 0.6), (48_000, 0.5), (40_000, 0.45), (32_000, 0.4), (24_000, 0.3))
_FILL = 0.98  # of the room, by sizes that were predicted
_GAIN = 0.8  # of its bytes: a file is encoded only if it gets so small; most are lossy already, and twice is worse
_NOISE_SHARE = 0.05  # of the room; every recording of noise is another, as every speaker is
_CALIBRATION_FILES, _CALIBRATION_S = 4, 6.0


@dataclass(frozen=True)
class Source:
    """A recording to pack: where it is, where it goes below ``data``, and what its training needs.

    ``rate`` (Hz) is what it is encoded at, ``own_rate`` what it has; ``band_hz`` is where its content ends, below
    ``least_hz`` a config leaves it out. ``speaker`` is who speaks, or what kind of noise it is.
    """

    path: Path
    relative: str
    size: int
    seconds: float
    own_rate: int
    rate: int
    band_hz: float
    least_hz: float
    speaker: str
    folder: str
    is_noise: bool = False

    @property
    def codec_name(self) -> str:
        """Opus where it takes the rate."""
        return "opus" if self.rate in OPUS_RATES else "vorbis"


@dataclass(frozen=True)
class Packed:
    """What became of a source: ``content`` is the file that goes into the kit as ``relative``."""

    source: Source
    content: Path
    relative: str
    size: int
    band_hz: float


def codec_for(source: Source, rung: int) -> Codec:
    """Return how ``source`` is encoded at a rung of the ladder; Vorbis at least so well that its band counts."""
    bits, quality = LADDER[rung]
    if source.codec_name == "opus":
        return Codec("opus", bits * source.rate / 16_000)
    for _, better in reversed(LADDER[: rung + 1]):
        quality = better
        if bandwidth(Codec("vorbis", better), source.rate) >= min(source.least_hz, source.band_hz, source.rate / 2):
            break
    return Codec("vorbis", quality)


class Sizes:
    """Predicts bytes: a codec's bytes a second and overhead, measured on some of the recordings."""

    def __init__(self, sources: Sequence[Source], work: Path) -> None:
        self._sources, self._work = defaultdict[tuple[str, int], list[Source]](list), work
        for source in sources:
            self._sources[source.codec_name, source.rate].append(source)
        self._waves: dict[tuple[str, int], list[NDArray[np.float32]]] = {}
        self._known: dict[tuple[str, int, Codec], tuple[float, float]] = {}

    def predict(self, source: Source, rung: int) -> float:
        """Return the bytes of ``source`` at ``rung``; those it has where encoding it would gain too little."""
        overhead, rate = self._measured(source, codec_for(source, rung))
        size = overhead + rate * source.seconds
        return size if size < _GAIN * source.size else source.size

    def _measured(self, source: Source, codec: Codec) -> tuple[float, float]:
        key = (source.codec_name, source.rate)
        if (*key, codec) not in self._known:
            if key not in self._waves:
                self._waves[key] = _excerpts(self._sources[key], source.rate)
            path = self._work / f"calibration{codec.suffix}"
            overhead = encode(path, np.zeros(source.rate // 50, np.float32), source.rate, codec)
            sizes = [encode(path, wave, source.rate, codec) for wave in self._waves[key]]
            seconds = sum(len(wave) for wave in self._waves[key]) / source.rate
            path.unlink()
            rate = (sum(sizes) - overhead * len(sizes)) / max(seconds, 1e-9)
            self._known[*key, codec] = (overhead, rate)
        return self._known[*key, codec]


def _excerpts(sources: Sequence[Source], rate: int) -> list[NDArray[np.float32]]:
    waves = []
    for source in sources[:: max(1, len(sources) // _CALIBRATION_FILES)][:_CALIBRATION_FILES]:
        try:
            waves.append(read_mono(source.path, rate)[0][: round(_CALIBRATION_S * rate)])
        except InputError:
            continue
    return waves


def choose_rung(sources: Sequence[Source], sizes: Sizes, room: int, overhead: int) -> int | None:
    """Return the best rung of the ladder at which all fits into ``room`` bytes, None for the files as they are.

    ``overhead`` are the bytes that every file costs beside its content. Where nothing fits it is the lowest rung.
    """
    room -= overhead * len(sources)
    if sum(source.size for source in sources) <= room:
        return None
    for rung in range(len(LADDER)):
        if sum(sizes.predict(source, rung) for source in sources) <= _FILL * room:
            return rung
    return len(LADDER) - 1


def in_order(sources: Sequence[Source], bytes_of: dict[Source, float], room: float) -> list[Source]:
    """Sort so that a prefix of the list, however short, has as many speakers as possible, and as evenly.

    One recording of each folder, then noise in a twentieth of the ``room`` (bytes), then the shortest recording of each
    speaker, then whatever is needed to bring all speakers forward alike, and at last the other noise.
    """
    keys: dict[Source, tuple[int, float, str]] = {}
    folders, total, noise = set(), defaultdict[str, float](float), 0.0
    for source in sorted(sources, key=lambda s: (bytes_of[s], s.relative)):
        if source.is_noise:
            noise += bytes_of[source]
            place, rank = 1 if noise < _NOISE_SHARE * room else 4, bytes_of[source]
        else:
            place = 3 if source.speaker in total else 2
            rank = total[source.speaker] = total[source.speaker] + bytes_of[source]
        keys[source] = (0 if source.folder not in folders else place, rank, source.relative)
        folders.add(source.folder)
    return sorted(sources, key=keys.__getitem__)


def encoded(
    sources: Iterable[Source], rung: int | None, sizes: Sizes, work: Path, fits: Callable[[Source], bool]
) -> Iterator[tuple[Source, Packed | str | None]]:
    """Encode on all cores, in order; what an earlier call left in ``work`` is not encoded again.

    Yields each source with its file below ``work``, with the reason why it cannot be read, or with None where ``fits``
    says, as late as possible, that there is no room for it.
    """
    jobs, chunk_size = list(sources), 4 * (os.cpu_count() or 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for chunk in (jobs[i : i + chunk_size] for i in range(0, len(jobs), chunk_size)):
            fitting = [source for source in chunk if fits(source)]
            plans = [None if rung is None else _plan(source, rung, sizes) for source in fitting]
            packed = dict(zip(fitting, pool.map(_encode, fitting, plans, [work] * len(fitting)), strict=True))
            yield from ((source, packed.get(source)) for source in chunk)


def _plan(source: Source, rung: int, sizes: Sizes) -> Codec | None:
    """How to encode, None where the file goes along as it is."""
    return None if sizes.predict(source, rung) >= source.size else codec_for(source, rung)


def _encode(source: Source, codec: Codec | None, work: Path) -> Packed | str:
    if codec is None:
        return unchanged(source)
    known = source.path.stat()
    key = f"{source.path} {known.st_size} {known.st_mtime_ns} {source.rate} {codec}"
    path = work / (hashlib.sha256(key.encode()).hexdigest()[:32] + codec.suffix)
    if not path.exists():
        try:
            wave, _, _ = read_mono(source.path, source.rate)
        except InputError as error:
            return str(error)
        if not np.isfinite(wave).all() or not wave.any():
            return f"{source.path}: is silent throughout, or holds samples that are not finite"
        with atomic_path(path) as part:
            encode(part, wave, source.rate, codec)
    if (size := path.stat().st_size) >= source.size:
        return unchanged(source)
    relative = str(Path(source.relative).with_suffix(codec.suffix))
    return Packed(source, path, relative, size, min(source.band_hz, source.rate / 2, bandwidth(codec, source.rate)))


def unchanged(source: Source) -> Packed:
    """Return ``source`` as a file that goes along as it is."""
    return Packed(source, source.path, source.relative, source.size, source.band_hz)


def place(packed: Packed, target: Path) -> None:
    """Put the content of ``packed`` at ``target``, as a link where it was encoded for the kit."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if packed.content == packed.source.path:
        shutil.copyfile(packed.content, target)
        return
    try:
        target.hardlink_to(packed.content)
    except OSError:
        shutil.copyfile(packed.content, target)


def renamed(packed: Packed, names: set[str]) -> Packed:
    """Return ``packed`` under a name that is not in ``names``: recordings may differ in their suffix alone."""
    if packed.relative not in names:
        return packed
    return replace(packed, relative=packed.source.relative + Path(packed.relative).suffix)
