"""Score `audiosr upsample` on the valid splits: `python tools/score_upsampling.py`.

Writes the inputs to a temporary folder, runs the command on it as a user would, and reads its output back. Options that
are not listed by ``--help``, such as ``--model``, are passed to the command. Voices of VCTK, which reach 24 kHz, and
those of phones and laptops, which reach 20 kHz, are scored apart; so is their mean. ``--visqol`` adds ViSQOL, with the
extra ``metrics``.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import soundfile
import soxr
import torch
from data_folder import add_data_option

from audiosr_cli.bench import perceptual
from audiosr_cli.dsp.metrics import lsd, lsd_ssr_eval, snr
from audiosr_cli.dsp.spectra import power_spectrogram
from audiosr_cli.train.data import read_table
from audiosr_cli.train.empty_bins import empty_bins

# Folders of VCTK's speakers; the other voices of speech48k are on phones and laptops.
VCTK = re.compile(r"[ps]\d{3}")
# Hz up to which each kind of voice counts; other recordings count up to their bandwidth in manifest.csv.
TOP_HZ = {"vctk": 24000.0, "phones": 20000.0}
# Upper ends of the third octaves of --levels, in Hz.
TOPS_HZ = [24000 / 2 ** (k / 3) for k in range(9, -1, -1)]


# The rate of the frames of spectral_bwe, the band whose envelope --line looks at, and how far on each side of the frame
# rate it compares, all in Hz.
FRAMES_HZ, LINE_BAND_HZ, BESIDE_HZ = 93.75, (8000.0, 16000.0), (5.0, 25.0)


def audiosr(*arguments: str) -> None:
    """Run the command."""
    subprocess.run([sys.executable, "-m", "audiosr_cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def load(path: Path) -> torch.Tensor:
    """A mono file as (T,) float32."""
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])


def cpu_s() -> float:
    """Return the CPU-seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Reference:
    """A full-band recording.

    Attributes:
        name: Unique name for files.
        source: For speech vctk or phones, else the kind.
        bandwidth: Share of the Nyquist frequency up to which it counts.
        wave: (T,) at 48 kHz.
    """

    name: str
    source: str
    bandwidth: float
    wave: np.ndarray


def full_band(data: Path, kind: str, most: int) -> Iterator[Reference]:
    """Yield up to ``most`` recordings of one kind's valid split, at most 20 s of each."""
    table = read_table(data / "manifest.csv").bandwidth if (data / "manifest.csv").exists() else {}
    paths = sorted((data / kind / "valid").rglob("*.ogg"))
    if not paths:
        sys.exit(f"{data / kind / 'valid'}: no recordings")
    for path in paths[:: -(-len(paths) // most)]:
        wave, rate = soundfile.read(path, dtype="float32")
        wave = soxr.resample(wave, rate, 48000) if rate != 48000 else wave
        source = ("vctk" if VCTK.fullmatch(path.parent.name) else "phones") if kind == "speech48k" else kind
        top = TOP_HZ.get(source) or table.get(path.resolve(), 24000.0)
        yield Reference(f"{path.parent.name}_{path.stem}"[:80], source, min(1.0, top / 24000), wave[: 20 * 48000])


def write(data: Path, kind: str, most: int, folder: Path) -> None:
    """Write full-band references as ``audiosr bench --quality`` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for reference in full_band(data, kind, most):
        soundfile.write(folder / f"{reference.name}.wav", reference.wave, 48000, "FLOAT")


def figures(wave: torch.Tensor, reference: Reference, cutoff: float) -> dict[str, float]:
    """Score one output; ``cutoff`` is a share of the Nyquist frequency.

    ``LSD in band`` ends where the recording does. ``LSD without empty bins`` leaves out what lossy coding emptied.
    """
    truth = torch.from_numpy(reference.wave)
    length = min(len(wave), len(truth))
    pair, top = (wave[:length], truth[:length]), reference.bandwidth
    values = {
        "LSD": lsd(*pair),
        "LSD in band": lsd(*pair, high=top),
        "LSD below 0.9 cutoff": lsd(*pair, high=0.9 * cutoff),
        "LSD above cutoff": lsd(*pair, low=cutoff, high=max(top, cutoff)),
        "LSD without empty bins": lsd_without_empty_bins(*pair, top),
        "LSD (ssr_eval)": lsd_ssr_eval(*pair, 48000),
        "SNR (dB)": snr(*pair),
    }
    return {name: float(value) for name, value in values.items()}


def lsd_without_empty_bins(estimate: torch.Tensor, reference: torch.Tensor, high: float) -> torch.Tensor:
    """Compute the LSD over the bins up to ``high`` in which the reference has more than rounding to 16 bits."""
    content = ~empty_bins((reference * 32768).round()[None] / 32768)[0]
    content[round(high * (len(content) - 1)) + 1 :] = False
    ours, true = (power_spectrogram(x, 2048, 512).clamp_min(1e-8).log10() for x in (estimate, reference))
    frames = content.any(0)
    squares = ((ours - true).square() * content)[:, frames].sum(0) / content[:, frames].sum(0)
    return squares.sqrt().mean()


def level_errors(wave: torch.Tensor, reference: Reference) -> dict[str, list[float]]:
    """Return by how many dB each third octave of TOPS_HZ is too loud.

    ``mean of bins`` is the mean difference of log powers, which the LSD sees; ``power`` compares the powers of the
    whole recording, which loud moments decide. Bins that are empty in the reference do not count. NaN without any.
    """
    truth = torch.from_numpy(reference.wave)
    length = min(len(wave), len(truth))
    ours, true = (power_spectrogram(x[:length], 2048, 512).clamp_min(1e-8) for x in (wave, truth))
    content = ~empty_bins((truth[:length] * 32768).round()[None] / 32768)[0]
    frequency = torch.linspace(0, 24000, len(ours))
    errors: dict[str, list[float]] = {"mean of bins": [], "power": []}
    for top in TOPS_HZ:
        inside = (frequency > top / 2 ** (1 / 3)) & (frequency <= min(top, reference.bandwidth * 24000))
        chosen = content & inside[:, None]
        errors["mean of bins"].append(float(10 * (ours[chosen].log10() - true[chosen].log10()).mean()))
        errors["power"].append(float(10 * (ours[chosen].sum() / true[chosen].sum()).log10()))
    return errors


def line_db(wave: torch.Tensor) -> float:
    """Compute by how many dB the envelope of the highs varies more at the rate of the frames than beside it.

    A network whose frames are pulses buzzes at that rate. Recordings without a line are at 0 dB, give or take 2.
    """
    spectrum = torch.fft.fft(wave.double())
    frequency = torch.fft.fftfreq(len(wave), 1 / 48000)
    spectrum[(frequency < LINE_BAND_HZ[0]) | (frequency > LINE_BAND_HZ[1])] = 0  # the analytic signal of the band
    envelope = torch.fft.ifft(spectrum).abs()
    power = torch.fft.rfft(envelope * torch.hann_window(len(wave), dtype=torch.float64)).abs().square()
    distance = (torch.fft.rfftfreq(len(wave), 1 / 48000) - FRAMES_HZ).abs()
    at, beside = power[distance <= 0.5].mean(), power[(distance > BESIDE_HZ[0]) & (distance <= BESIDE_HZ[1])].mean()
    return float(10 * (at / beside).log10())


def upsampling(
    data: Path, work: Path, kind: str, rate: int, model: list[str], options: argparse.Namespace
) -> dict[str, dict[str, object]]:
    """Score the command and soxr from ``rate`` Hz on files of one kind's valid split, by source."""
    low = work / f"{kind}_{rate}"
    low.mkdir()
    references = list(full_band(data, kind, options.files))
    for reference in references:
        soundfile.write(low / f"{reference.name}.wav", soxr.resample(reference.wave, 48000, rate), rate, "FLOAT")
    before = cpu_s()
    audiosr("upsample", str(low), "-o", str(work / f"{kind}_{rate}_up"), "-q", *model)
    cost = (cpu_s() - before) / sum(len(reference.wave) / 48000 for reference in references)
    rows: dict[str, dict[str, list[float]]] = {}
    errors: dict[str, dict[str, list[list[float]]]] = {}
    for reference in references:
        plain = torch.from_numpy(soxr.resample(load(low / f"{reference.name}.wav").numpy(), rate, 48000))
        output = load(work / f"{kind}_{rate}_up" / f"{reference.name}_48000.wav")
        for label, wave in (("audiosr", output), ("soxr", plain)):
            scored = figures(wave, reference, rate / 48000)
            if options.line:
                scored |= {"line at the frame rate (dB)": line_db(wave)}
                scored |= {"line in the original (dB)": line_db(torch.from_numpy(reference.wave))}
            if options.visqol:
                truth = torch.from_numpy(reference.wave)
                scored |= perceptual.visqol(wave[: len(truth)], truth[: len(wave)], 48000)
            for figure, value in scored.items():
                rows.setdefault(reference.source, {}).setdefault(f"{label} {figure}", []).append(value)
        for name, values in level_errors(output, reference).items() if options.levels else ():
            errors.setdefault(reference.source, {}).setdefault(f"dB too loud, {name}", []).append(values)
    scores: dict[str, dict[str, object]] = {
        source: {key: mean(values) for key, values in row.items()} | {"files": len(row["audiosr LSD"])}
        for source, row in rows.items()
    }
    if len(scores) > 1:  # each source counts as much as the other, whatever its number of files
        keys = next(iter(rows.values()))
        scores["mean of sources"] = {key: mean(mean(row[key]) for row in rows.values()) for key in keys}
    for source, tables in errors.items():
        for name, values in tables.items():
            means = np.nanmean(np.array(values), axis=0) if values else []
            scores[source][name] = {f"{top:.0f} Hz": round(float(x), 1) for top, x in zip(TOPS_HZ, means, strict=True)}
    for row in scores.values():
        row["CPU-s per s, with start"] = cost
    return scores


def main() -> None:
    """Print one JSON object per kind, rate and source."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--kinds", default="speech48k,music48k,noise48k")
    parser.add_argument("--rates", help="Hz, comma-separated; speech from 4000 to 24000, others from 8000 and 16000")
    parser.add_argument("--files", type=int, default=1000, help="at most so many of each kind")
    parser.add_argument("--levels", action="store_true", help="add the mean error of the level by third octave")
    parser.add_argument("--line", action="store_true", help="add how strong a buzz at the rate of the frames is")
    parser.add_argument("--visqol", action="store_true", help="add ViSQOL")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FOLDER",
        help="write references to FOLDER/KIND for `audiosr bench --quality FOLDER/KIND`, and score nothing",
    )
    options, rest = parser.parse_known_args()
    if options.write is not None:
        for kind in options.kinds.split(","):
            write(options.data, kind, options.files, options.write / kind)
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds.split(","):
            usual = "4000,8000,12000,16000,24000" if kind == "speech48k" else "8000,16000"
            for rate in map(int, (options.rates or usual).split(",")):
                scores = upsampling(options.data, Path(folder), kind, rate, rest, options)
                for source, row in scores.items():
                    print(json.dumps({f"{kind} from {rate}, {source}": row}), flush=True)


if __name__ == "__main__":
    main()
