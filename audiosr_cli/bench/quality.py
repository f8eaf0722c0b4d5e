"""Score the commands on a folder of references: run them as a user would, and read their outputs back.

Separation: mixtures in ``FOLDER/mix/*.wav``, their sources under the same names in ``FOLDER/s1``, ``FOLDER/s2`` and so
on (the layout of WSJ0-2mix and LibriMix); ``s1`` alone holds the speech in noisy recordings. Upsampling: full-band
references in ``FOLDER/*.wav``, which are resampled to a lower rate and restored. Channels are averaged. The baselines
are the mixture itself, and soxr.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiosr_cli.audio.formats import OutputFormat
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.resample import Resampler
from audiosr_cli.audio.write import AudioWriter
from audiosr_cli.bench import perceptual
from audiosr_cli.bench.candidates import BenchSettings, Candidate, Failure
from audiosr_cli.bench.datasets import Quality
from audiosr_cli.bench.processes import audiosr, measure_process
from audiosr_cli.dsp.metrics import best_order, gain_db, lag, lsd, lsd_ssr_eval, sdr, si_sdr, snr
from audiosr_cli.errors import BenchError, InputError, UsageError

SEPARATION_CUTOFF_HZ = 4000.0  # separation at 8 kHz ends here; its LSD is also given below and above
_BELOW = 0.9  # of the cutoff: what lies below is unchanged by resampling
_AS_FLOATS = ("--subtype", "float", "--channels", "mix")
_MIN_SAMPLES = 2048  # for an LSD
_MIN_CORRELATION = 0.5  # of an estimate with its reference, for its lag to mean something
_SILENCE = 1e-10  # mean power; a reference below has no gain and no ratio

_Mixture = tuple[Tensor, Tensor, int]  # a mixture (T,), its sources (S, T), their rate in Hz


def score_separation(
    folder: Path, candidates: Sequence[Candidate], settings: BenchSettings
) -> Iterator[Quality | Failure]:
    """Score ``candidates`` on the mixtures of ``folder``, after the mixture itself as the baseline.

    Raises:
        UsageError: If there are no mixtures, or a candidate separates another number of sources.
        InputError: If a recording cannot be read, or does not fit its mixture.
    """
    names = sorted(path.name for path in (folder / "mix").glob("*.wav"))
    speakers = len([path for path in folder.glob("s[0-9]*") if path.is_dir()])
    if not names:
        raise UsageError(f"--quality {folder}: mix/ contains no .wav")
    candidates = [replace(one, speakers=speakers) if one.kind == "command" else one for one in candidates]
    for candidate in candidates:
        if candidate.speakers != speakers:
            raise UsageError(
                f"--quality {folder}: has {speakers} sources, but {candidate.label} separates {candidate.speakers}"
            )
    condition = "1 speaker" if speakers == 1 else f"{speakers} speakers"
    rows = []
    for name in names:  # one at a time, here and below: a set may be larger than memory
        mix, sources, rate = _mixture(folder, name, speakers)
        rows.append(separation_scores(mix.expand_as(sources), sources, mix, rate, settings.perceptual))
    yield Quality("the mixture", condition, len(names), None, average(rows))
    for candidate in candidates:
        yield _score_separator(candidate, folder, names, condition, settings)


def _score_separator(
    candidate: Candidate, folder: Path, names: Sequence[str], condition: str, settings: BenchSettings
) -> Quality | Failure:
    """Score one candidate on the mixtures ``names`` of a folder."""
    target = settings.folder / f"{_stem(candidate.name)}_tracks"
    try:
        usage = measure_process(
            audiosr(*candidate.command(str(folder / "mix"), str(target), *_AS_FLOATS, *settings.options))
        )
    except BenchError as error:
        return Failure(candidate.label, str(error))
    rows, seconds = [], 0.0
    for name in names:
        mix, sources, rate = _mixture(folder, name, candidate.speakers)
        seconds += len(mix) / rate
        tracks = ["speech"] if len(sources) == 1 else [f"speaker{i + 1}" for i in range(len(sources))]
        estimate = torch.stack([load(target / f"{Path(name).stem}_{track}.wav")[0] for track in tracks])
        estimate = estimate[list(best_order(estimate, sources))]
        rows.append(separation_scores(estimate, sources, mix, rate, settings.perceptual))
    return Quality(candidate.label, condition, len(rows), usage.cpu_s / seconds, average(rows))


def _stem(name: str) -> str:
    """Return a model's name without folder and suffix, for file names."""
    return Path(name).stem


def _mixture(folder: Path, name: str, speakers: int) -> _Mixture:
    mix, rate = load(folder / "mix" / name)
    sources = [load(folder / f"s{i + 1}" / name) for i in range(speakers)]
    if any(source_rate != rate or len(source) != len(mix) for source, source_rate in sources):
        raise InputError(f"{folder}: {name} differs in sample rate or length from one of its sources")
    return mix, torch.stack([source for source, _ in sources]), rate


def score_upsampling(
    folder: Path, candidates: Sequence[Candidate], rates: Sequence[int], settings: BenchSettings
) -> Iterator[Quality | Failure]:
    """Score ``candidates`` on restoring the references of ``folder`` from each of ``rates`` (Hz), after soxr.

    Raises:
        UsageError: If references differ in sample rate, or theirs is not above all ``rates``.
        InputError: If a recording cannot be read.
    """
    references = sorted(folder.glob("*.wav"))
    reference_rates = sorted({load(path)[1] for path in references})
    if len(reference_rates) > 1 or reference_rates[0] <= max(rates):
        raise UsageError(
            f"--quality {folder}: references at {', '.join(map(str, reference_rates))} Hz; expected one sample rate, "
            f"above the {max(rates)} Hz of --from"
        )
    baseline = Candidate("model", "none", "soxr", "upsample", 0)
    for low in rates:
        narrow = settings.folder / f"from_{low}"
        narrow.mkdir()
        for path in references:
            save(narrow / path.name, resample(load(path)[0], reference_rates[0], low), low)
        for candidate in (baseline, *candidates):
            yield _score_upsampler(candidate, narrow, low, references, reference_rates[0], settings)


def _score_upsampler(
    candidate: Candidate, narrow: Path, low: int, references: Sequence[Path], rate: int, settings: BenchSettings
) -> Quality | Failure:
    """Score one candidate on the recordings in ``narrow``, which are at ``low`` Hz."""
    target = settings.folder / f"{narrow.name}_{_stem(candidate.name)}"
    call = candidate.command(str(narrow), str(target), "--rate", str(rate), *_AS_FLOATS, *settings.options)
    try:
        usage = measure_process(audiosr(*call))
    except BenchError as error:
        return Failure(candidate.label, str(error))
    rows, seconds = [], 0.0
    for path in references:
        reference, estimate = (load(name)[0] for name in (path, target / f"{path.stem}_{rate}.wav"))
        seconds += len(reference) / rate
        rows.append(upsampling_scores(estimate, reference, rate, low / 2, settings.perceptual))
    return Quality(candidate.label, f"{low} → {rate} Hz", len(rows), usage.cpu_s / seconds, average(rows))


def separation_scores(
    estimates: Tensor, sources: Tensor, mix: Tensor, rate: int, perceptually: bool = False
) -> dict[str, float]:
    """Score the tracks of one mixture; silent sources are left out.

    Args:
        estimates: Tracks (S, T) in the order of ``sources``.
        sources: References (S, T).
        mix: Mixture (T,).
        rate: Sample rate in Hz.
        perceptually: Whether to compute STOI, PESQ, ViSQOL and DNSMOS, too.

    Returns:
        Each metric's mean over the sources.
    """
    loud = sources.square().mean(-1) > _SILENCE
    rows = []
    for estimate, reference in zip(estimates[loud], sources[loud], strict=True):
        row = {"SI-SDRi": float(si_sdr(estimate, reference) - si_sdr(mix, reference))}
        row["SDRi"] = float(sdr(estimate, reference) - sdr(mix, reference))
        row |= _lsds(estimate, reference, rate, SEPARATION_CUTOFF_HZ)
        rows.append(row | _fidelity(estimate, reference, rate, perceptually))
    return average(rows)


def upsampling_scores(
    estimate: Tensor, reference: Tensor, rate: int, cutoff_hz: float, perceptually: bool = False
) -> dict[str, float]:
    """Score one restored recording.

    Args:
        estimate: Waveform (T,).
        reference: Waveform (T',); both are cut to the shorter one.
        rate: Sample rate in Hz.
        cutoff_hz: Frequency below which the content was known.
        perceptually: Whether to compute STOI, PESQ, ViSQOL and DNSMOS, too.
    """
    size = min(len(estimate), len(reference))  # resampling down may have rounded the length
    estimate, reference = estimate[:size], reference[:size]
    distances = _lsds(estimate, reference, rate, cutoff_hz)
    distances["SNR"] = float(snr(estimate, reference))
    return distances | _fidelity(estimate, reference, rate, perceptually)


def _lsds(estimate: Tensor, reference: Tensor, rate: int, cutoff_hz: float) -> dict[str, float]:
    """Compute both LSDs, over the whole band, and below and above the cutoff if it lies within the band."""
    cutoff = 2 * cutoff_hz / rate
    bands = {"": (0.0, 1.0)} | ({" below": (0.0, _BELOW * cutoff), " above": (cutoff, 1.0)} if cutoff < 1 else {})
    scores = {f"LSD{name}": float(lsd(estimate, reference, *band)) for name, band in bands.items()}
    return scores | {
        f"LSD (ssr_eval){name}": float(lsd_ssr_eval(estimate, reference, rate, *band)) for name, band in bands.items()
    }


def _fidelity(estimate: Tensor, reference: Tensor, rate: int, perceptually: bool) -> dict[str, float]:
    """Compute lag and gain, and perceptual metrics if they are asked for."""
    delay, scores = lag(estimate, reference), dict[str, float]()
    if torch.cosine_similarity(estimate.roll(-delay), reference, dim=0).abs() > _MIN_CORRELATION:
        scores["lag"] = float(delay)
    if reference.square().mean() > _SILENCE:
        scores["gain"] = float(gain_db(estimate, reference))
        if perceptually:
            scores |= perceptual.compare(estimate, reference, rate) | perceptual.dnsmos(estimate, rate)
    return scores


def average(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average every metric over ``rows``, without values that are not finite; of lags, take the one furthest from 0."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row[name] for row in rows if name in row and math.isfinite(row[name])] for name in names}
    return {name: max(values, key=abs) if name == "lag" else mean(values) for name, values in columns.items() if values}


def load(path: Path) -> tuple[Tensor, int]:
    """Load a recording: the mean of its channels (T,), and its sample rate. Raises InputError if it is too short."""
    with AudioReader(path) as reader:
        blocks = [block.mean(0, dtype=np.float32) for block in reader.blocks()]
        wave, rate = np.concatenate([np.zeros(0, np.float32), *blocks]), reader.sample_rate
    if len(wave) < _MIN_SAMPLES:
        raise InputError(f"{path}: has {len(wave)} samples; expected at least {_MIN_SAMPLES}")
    return torch.from_numpy(wave), rate


def resample(wave: Tensor, rate: int, new_rate: int) -> Tensor:
    """Resample a waveform (T,) with soxr."""
    output: NDArray[np.float32] = Resampler(rate, new_rate, 1).push(wave.unsqueeze(0).numpy(), last=True)
    return torch.from_numpy(output[0])


def save(path: Path, wave: Tensor, rate: int) -> None:
    """Save a waveform (T,) as a float WAV."""
    with AudioWriter(path, OutputFormat("wav", "FLOAT", rate, 1)) as writer:
        writer.write(wave.unsqueeze(0).numpy())
        writer.finish()
        writer.commit()
