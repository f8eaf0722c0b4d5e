"""How good the commands are on a folder of references, run as a user would run them and read back.

Separation: mixtures in ``FOLDER/mix/*.wav``, their sources under the same names in ``FOLDER/s1``, ``FOLDER/s2`` …
(the layout of WSJ0-2mix and LibriMix). Upsampling: full-band references in ``FOLDER/*.wav``, which are resampled down
and restored. Channels are averaged. Baselines are the mixture itself, and soxr.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.resample import Resampler
from audiosr_cli.audio.write import AudioWriter, OutputFormat
from audiosr_cli.bench.candidates import Failed, Setting, Subject
from audiosr_cli.bench.datasets import Quality
from audiosr_cli.bench.processes import audiosr, spend
from audiosr_cli.dsp.metrics import best_order, gain_db, lag, lsd, lsd_ssr_eval, sdr, si_sdr, snr
from audiosr_cli.errors import BenchError, InputError, UsageError

PARTED_HZ = 4000.0  # where tracks of separation at 8 kHz end: LSDs of separation are told below and above it
_BELOW = 0.9  # of the cutoff: what lies below that, resampling keeps
_HEARD_HZ = 16000  # PESQ's rate
_AS_FLOATS = ("--subtype", "float", "--channels", "mix")
_LEAST = 2048  # samples that an LSD needs
_RESEMBLES = 0.5  # correlation that an estimate needs to have a lag
_SILENT = 1e-10  # mean power: such a reference has no gain and no ratio

_Mixture = tuple[Tensor, Tensor, int]  # a mixture (T,), its sources (S, T), their rate in Hz


def separation(folder: Path, subjects: Sequence[Subject], setting: Setting) -> Iterator[Quality | Failed]:
    """How well ``subjects`` part ``folder``'s mixtures, after the mixture itself.

    Raises UsageError where references are missing or a subject parts another number of sources.
    """
    names = sorted(path.name for path in (folder / "mix").glob("*.wav"))
    speakers = len([path for path in folder.glob("s[0-9]*") if path.is_dir()])
    if not names:
        raise UsageError(f"--quality {folder}: mix/ holds no .wav")
    subjects = [replace(one, sources=speakers) if one.kind == "command" else one for one in subjects]
    for subject in subjects:
        if subject.sources != speakers:
            raise UsageError(f"--quality {folder}: has {speakers} sources; {subject.label} parts {subject.sources}")
    condition = f"{speakers} speakers"
    rows = []
    for name in names:  # one at a time, here and below: a set may be larger than memory
        mix, sources, rate = _mixture(folder, name, speakers)
        rows.append(parted(mix.expand_as(sources), sources, mix, rate))
    yield Quality("the mixture", condition, len(names), None, overall(rows))
    for subject in subjects:
        yield _separated(subject, folder, names, condition, setting)


def _separated(
    subject: Subject, folder: Path, names: Sequence[str], condition: str, setting: Setting
) -> Quality | Failed:
    """The figures of one subject on the mixtures of a set, by their ``names``."""
    target = setting.folder / f"{_plain(subject.name)}_tracks"
    try:
        spent = spend(audiosr(*subject.command(str(folder / "mix"), str(target), *_AS_FLOATS, *setting.options)))
    except BenchError as error:
        return Failed(subject.label, str(error))
    rows, seconds = [], 0.0
    for name in names:
        mix, sources, rate = _mixture(folder, name, subject.sources)
        seconds += len(mix) / rate
        tracks = [target / f"{Path(name).stem}_speaker{i + 1}.wav" for i in range(len(sources))]
        estimate = torch.stack([load(track)[0] for track in tracks])
        rows.append(parted(estimate[list(best_order(estimate, sources))], sources, mix, rate))
    return Quality(subject.label, condition, len(rows), spent.cpu_s / seconds, overall(rows))


def _plain(name: str) -> str:
    """A model's name as part of a file's."""
    return Path(name).stem


def _mixture(folder: Path, name: str, speakers: int) -> _Mixture:
    mix, rate = load(folder / "mix" / name)
    sources = [load(folder / f"s{i + 1}" / name) for i in range(speakers)]
    if any(found != rate or len(source) != len(mix) for source, found in sources):
        raise InputError(f"{folder}: {name} differs in rate or length from one of its sources")
    return mix, torch.stack([source for source, _ in sources]), rate


def upsampling(
    folder: Path, subjects: Sequence[Subject], rates: Sequence[int], setting: Setting
) -> Iterator[Quality | Failed]:
    """How well ``subjects`` restore ``folder``'s references from each of ``rates``, after soxr.

    Raises UsageError where references have different rates, or one that is not above all of ``rates``.
    """
    references = sorted(folder.glob("*.wav"))
    known = sorted({load(path)[1] for path in references})
    if len(known) > 1 or known[0] <= max(rates):
        raise UsageError(
            f"--quality {folder}: references at {', '.join(map(str, known))} Hz; one rate is wanted, "
            f"above the {max(rates)} Hz of --from"
        )
    baseline = Subject("model", "none", "soxr", "upsample", 0)
    for low in rates:
        narrow = setting.folder / f"from_{low}"
        narrow.mkdir()
        for path in references:
            save(narrow / path.name, resampled(load(path)[0], known[0], low), low)
        for subject in (baseline, *subjects):
            yield _restored(subject, narrow, low, references, known[0], setting)


def _restored(
    subject: Subject, narrow: Path, low: int, references: Sequence[Path], rate: int, setting: Setting
) -> Quality | Failed:
    """The figures of one subject on the recordings in ``narrow``, which are at ``low`` Hz."""
    target = setting.folder / f"{narrow.name}_{_plain(subject.name)}"
    call = subject.command(str(narrow), str(target), "--rate", str(rate), *_AS_FLOATS, *setting.options)
    try:
        spent = spend(audiosr(*call))
    except BenchError as error:
        return Failed(subject.label, str(error))
    rows, seconds = [], 0.0
    for path in references:
        reference, made = (load(name)[0] for name in (path, target / f"{path.stem}_{rate}.wav"))
        seconds += len(reference) / rate
        rows.append(widened(made, reference, rate, low / 2))
    return Quality(subject.label, f"{low} → {rate} Hz", len(rows), spent.cpu_s / seconds, overall(rows))


def parted(made: Tensor, sources: Tensor, mix: Tensor, rate: int) -> dict[str, float]:
    """Figures of the tracks of one mixture (T,), in the order of its ``sources`` (S, T); of sources that sound."""
    loud = sources.square().mean(-1) > _SILENT
    rows = []
    for estimate, reference in zip(made[loud], sources[loud], strict=True):
        row = {"SI-SDRi": float(si_sdr(estimate, reference) - si_sdr(mix, reference))}
        row["SDRi"] = float(sdr(estimate, reference) - sdr(mix, reference))
        rows.append(row | _distances(estimate, reference, rate, PARTED_HZ) | _alike(estimate, reference, rate))
    return overall(rows)


def widened(made: Tensor, reference: Tensor, rate: int, cutoff_hz: float) -> dict[str, float]:
    """Figures of one restored recording (T,), of which what lies below ``cutoff_hz`` was known."""
    size = min(len(made), len(reference))  # a reference's length need not be a whole number of low samples
    made, reference = made[:size], reference[:size]
    distances = _distances(made, reference, rate, cutoff_hz)
    return distances | {"SNR": float(snr(made, reference))} | _alike(made, reference, rate)


def _distances(made: Tensor, reference: Tensor, rate: int, cutoff_hz: float) -> dict[str, float]:
    """Both LSDs, whole and below and above the cutoff where it lies within the band."""
    cutoff = 2 * cutoff_hz / rate
    bands = {"": (0.0, 1.0)} | ({" below": (0.0, _BELOW * cutoff), " above": (cutoff, 1.0)} if cutoff < 1 else {})
    found = {f"LSD{name}": float(lsd(made, reference, *band)) for name, band in bands.items()}
    return found | {
        f"LSD (ssr_eval){name}": float(lsd_ssr_eval(made, reference, rate, *band)) for name, band in bands.items()
    }


def _alike(made: Tensor, reference: Tensor, rate: int) -> dict[str, float]:
    """Lag, gain, and what listeners would say where the packages that foretell it are installed."""
    late, rows = lag(made, reference), dict[str, float]()
    if torch.cosine_similarity(made.roll(-late), reference, dim=0).abs() > _RESEMBLES:
        rows["lag"] = float(late)
    if reference.square().mean() > _SILENT:
        rows["gain"] = float(gain_db(made, reference))
    if find_spec("pystoi") is not None:
        rows["STOI"] = float(import_module("pystoi").stoi(reference.numpy(), made.numpy(), rate))
    if find_spec("pesq") is not None and rate >= _HEARD_HZ:
        both = [resampled(wave, rate, _HEARD_HZ).numpy() for wave in (reference, made)]
        rows["PESQ"] = float(import_module("pesq").pesq(_HEARD_HZ, *both, "wb"))
    return rows


def overall(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of all figures; of lags the one furthest from 0. What is not finite is left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row[name] for row in rows if name in row and math.isfinite(row[name])] for name in names}
    return {name: max(values, key=abs) if name == "lag" else mean(values) for name, values in found.items() if values}


def load(path: Path) -> tuple[Tensor, int]:
    """A recording, the mean of its channels, as (T,); and its rate. Raises InputError on a very short one."""
    with AudioReader(path) as reader:
        blocks = [block.mean(0, dtype=np.float32) for block in reader.blocks()]
        wave, rate = np.concatenate([np.zeros(0, np.float32), *blocks]), reader.sample_rate
    if len(wave) < _LEAST:
        raise InputError(f"{path}: {len(wave)} samples are too few to be judged; {_LEAST} are needed")
    return torch.from_numpy(wave), rate


def resampled(wave: Tensor, rate: int, wanted: int) -> Tensor:
    """A wave (T,) at another rate, by soxr."""
    made: NDArray[np.float32] = Resampler(rate, wanted, 1).push(wave.unsqueeze(0).numpy(), last=True)
    return torch.from_numpy(made[0])


def save(path: Path, wave: Tensor, rate: int) -> None:
    """A wave (T,) as a float WAV."""
    with AudioWriter(path, OutputFormat("wav", "FLOAT", rate, 1)) as writer:
        writer.write(wave.unsqueeze(0).numpy())
        writer.finish()
        writer.commit()
