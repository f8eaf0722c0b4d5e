"""Measure how well cutoffs are detected: `python tools/score_cutoffs.py`.

Low-passes recordings and noise with each filter at each cutoff, at several sample rates, as 16 bits with dither at
three levels and as float, codes them with lossy codecs, and resamples them without any other filter. Reports how many
detected cutoffs are more than 5 % off. Cutoffs below whose frequency the recording is no more than 15 dB above the
dither are counted apart, as hidden: half the rate is right there, too, and 15 % are allowed.
"""

import argparse
import csv
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from data_folder import add_data_option

from audiosr_cli.audio.formats import choose_format
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.write import AudioWriter
from audiosr_cli.dsp.bandwidth import BandMeter
from audiosr_cli.train import bandlimit

Detector = Callable[[np.ndarray, int], float | None]

CUTOFFS = (2000.0, 4000.0, 8000.0, 12000.0, 16000.0, 20000.0)
RATES = (16000, 44100, 48000, 96000)
FULL_BAND_RATES = (8000, 16000, 22050, 32000, 44100, 48000)
FORMATS = (("16 bit", 0), ("16 bit", -30), ("16 bit", -60), ("float", -60))  # and dBFS
FILTERS = {
    "wall": ("sinc", 10),
    "codec": ("sinc", 10),
    "soxr": None,
    "chebyshev8": ("chebyshev", 8),
    "elliptic6": ("elliptic", 6),
    "butterworth10": ("butterworth", 10),
    "butterworth6": ("butterworth", 6),
}
# Stereo in kbit/s, at 44.1 kHz (Opus: 48 kHz).
CODECS = {"mp3": (64, 96, 128, 160, 192), "m4a": (64, 96, 128), "opus": (32, 64, 96)}
SECONDS = 6
VISIBLE_DB = 15.0


def recordings(data: Path, split: str, share: float, skip: int) -> dict[str, tuple[np.ndarray, float]]:
    """Return, by name, waveforms (T,) at 96 kHz and their own bandwidths in Hz: ``share`` times 8, and white noise."""
    found = {}
    rows = csv.DictReader((data / "manifest.csv").open())
    bands = {row["path"]: float(row["bandwidth_hz"] or 24000) for row in rows}
    for kind, count in (("speech48k", 3), ("music48k", 3), ("noise48k", 2)):
        files = sorted((data / kind / split).rglob("*.ogg"))
        step = max(1, len(files) // round(count * share))
        for path in files[skip::step][: round(count * share)]:
            wave, rate = soundfile.read(path, dtype="float32", frames=SECONDS * 48000, always_2d=True)
            band = bands[str(path.relative_to(data))]
            wave = soxr.resample(wave[:, 0], rate, 96000)
            found[f"{kind}/{path.stem[:20]}"] = wave[: len(wave) // 19200 * 19200], band
    draw = np.random.default_rng(1)
    found["white"] = 0.2 * draw.standard_normal(SECONDS * 96000).astype(np.float32), 48000.0
    return found


def low_passed(wave: np.ndarray, kind: str, cutoff: float, rate: int) -> np.ndarray:
    """Filter a waveform (T,) at 96 kHz, and resample it to ``rate``."""
    if kind == "soxr":
        return soxr.resample(soxr.resample(wave, 96000, 2 * cutoff), 2 * cutoff, rate)
    length = len(wave) * rate // 96000
    spectrum = np.fft.rfft(wave)[: length // 2 + 1]
    x = np.arange(len(spectrum)) * 96000 / len(wave) / cutoff
    gain = 10 ** (bandlimit.magnitude_db(*FILTERS[kind], torch.from_numpy(x).clamp_min(1e-3)).numpy() / 20)
    if kind == "codec":
        gain *= 10 ** (-np.clip((x - 0.7) / 0.1, 0, 1) * 12 / 20)
    return np.fft.irfft(spectrum * gain, length) * rate / 96000


def stored(wave: np.ndarray, kind: str, level_db: float, draw: np.random.Generator) -> np.ndarray:
    """Return a waveform (T,) with this peak in dBFS as a file holds it."""
    wave = wave / np.abs(wave).max() * 10 ** (level_db / 20)
    if kind == "float":
        return wave.astype(np.float32)
    return (np.round(wave * 32767 + draw.random(len(wave)) - draw.random(len(wave))) / 32768).astype(np.float32)


def is_visible(wave: np.ndarray, kind: str, cutoff: float, rate: int, level_db: float, peak: float) -> bool:
    """Tell whether the unfiltered ``wave`` at 96 kHz, scaled like the filtered one, is above the dither there."""
    power = np.abs(np.fft.rfft(wave)) ** 2 / len(wave) * (10 ** (level_db / 20) / peak) ** 2 * 96000 / rate
    at = int(0.84 * cutoff * len(wave) / 96000), int(cutoff * len(wave) / 96000)
    level = 10 * np.log10(power[slice(*at)].mean() + 1e-30) - (12 if kind == "codec" else 0)
    return level - 10 * np.log10(0.25 / 32768**2) > VISIBLE_DB


def coded(wave: np.ndarray, rate: int, container: str, kbits: int) -> np.ndarray:
    """Encode a waveform (T,) with a second channel, half a second later, and decode it: (2, T)."""
    stereo = np.stack([wave, np.roll(wave, rate // 2)]).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{container}"
        with AudioWriter(path, choose_format(container, None, "", rate, 2, 1000 * kbits)) as writer:
            writer.write(stereo)
            writer.finish()
            writer.commit()
        with AudioReader(path) as reader:
            return np.concatenate(list(reader.blocks()), axis=1)


def detect(wave: np.ndarray, rate: int) -> float | None:
    """Return the cutoff in Hz that the bandwidth meter detects in a waveform (T,) or (C, T)."""
    meter = BandMeter(rate)
    meter.push(np.atleast_2d(wave).astype(np.float32))
    return meter.cutoff()


def is_off(detected: float | None, cutoff: float, rate: int, most: float = 0.05) -> bool:
    """Tell whether a cutoff is more than 5 % off; None counts as half the rate."""
    return abs((detected or rate / 2) / cutoff - 1) > most


class Counts:
    """Count what is off by the kind of recording, and remember some examples."""

    def __init__(self) -> None:
        self.off, self.examples = dict[str, list[int]](), []

    def add(self, key: str, off: bool, *example: object) -> None:
        """Count one case."""
        counts = self.off.setdefault(key, [0, 0])
        counts[0] += int(off)
        counts[1] += 1
        if off:
            self.examples.append(example)

    def show(self, **labels: object) -> None:
        """Print a JSON object."""
        print(json.dumps(labels | {"off": self.off, "examples": self.examples[:4]}), flush=True)


def score_filters(waves: dict[str, tuple[np.ndarray, float]], kind: str, detector: Detector) -> None:
    """Score a filter at all cutoffs, in all formats."""
    draw, counts = np.random.default_rng(2), {form: Counts() for form in FORMATS}
    for cutoff, rate in itertools.product(CUTOFFS, RATES):
        for name, (wave, band) in waves.items():
            if cutoff > min(0.46 * rate, 0.95 * band):
                continue
            filtered = low_passed(wave, kind, cutoff, rate)
            peak = np.abs(filtered).max()
            for form, level in FORMATS:
                detected = detector(stored(filtered, form, level, draw), rate)
                visible = form == "float" or is_visible(wave, kind, cutoff, rate, level, peak)
                off = is_off(detected, cutoff, rate, 0.05 if visible else 0.15)
                off = off and (visible or is_off(detected, rate / 2, rate))
                key = name.split("/")[0] if visible else "hidden"
                counts[form, level].add(key, off, name, cutoff, rate, detected and round(detected))
    for (form, level), count in counts.items():
        count.show(filter=kind, format=form, level=level)


def score_full_band(waves: dict[str, tuple[np.ndarray, float]], detector: Detector) -> None:
    """Count the recordings that reach half the rate and seem to have a cutoff below 90 % of that."""
    draw = np.random.default_rng(3)
    for form, level in FORMATS:
        counts = Counts()
        for (name, (wave, band)), rate in itertools.product(waves.items(), FULL_BAND_RATES):
            if rate / 2 <= band:
                detected = detector(stored(soxr.resample(wave, 96000, rate), form, level, draw), rate)
                off = detected is not None and detected < 0.9 * rate / 2
                counts.add(name.split("/")[0], off, name, rate, detected and round(detected))
        counts.show(filter="none", format=form, level=level)


def encoder_cutoff(container: str, kbits: int, rate: int) -> float:
    """Return the cutoff in Hz of a codec: where a sweep of a sine, which needs few bits, has lost 6 dB."""
    time = np.arange(6 * rate) / (6 * rate)  # from 0 to 1
    wave = 0.5 * np.sin(np.pi * rate / 2 * 6 * time**2)  # from 0 Hz to half the rate
    output = coded(wave, rate, container, kbits)[0]
    after, before = (np.square(x[: len(x) // 3000 * 3000]).reshape(-1, 3000).mean(1) for x in (output, wave))
    return float((np.flatnonzero(after > before / 4)[-1] + 1) * 3000 / len(wave) * rate / 2)


def score_codecs(waves: dict[str, tuple[np.ndarray, float]], detector: Detector) -> None:
    """Score codecs on recordings that reach their cutoffs."""
    for container, rates in CODECS.items():
        rate = 48000 if container == "opus" else 44100
        for kbits in rates:
            counts, cutoff = Counts(), encoder_cutoff(container, kbits, rate)
            for name, (wave, band) in waves.items():
                if 0.95 * band < cutoff or name == "white":  # of white noise encoders drop the highs altogether
                    continue
                output = coded(0.5 * soxr.resample(wave / np.abs(wave).max(), 96000, rate), rate, container, kbits)
                detected = detector(output, rate)
                counts.add(name.split("/")[0], is_off(detected, cutoff, rate), name, detected and round(detected))
            counts.show(codec=container, kbits=kbits, cutoff=cutoff)


def main() -> None:
    """Print one JSON object per filter and format."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--split", default="valid", help="train or valid [default: valid]")
    parser.add_argument("--share", type=float, default=1.0, help="recordings: 8 times this number [default: 1]")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many files of each folder [default: 0]")
    options = parser.parse_args()
    waves = recordings(options.data, options.split, options.share, options.skip)
    score_full_band(waves, detect)
    score_codecs(waves, detect)
    for kind in FILTERS:
        score_filters(waves, kind, detect)


if __name__ == "__main__":
    main()
