"""Measure how well cutoffs are detected: `python tools/score_cutoffs.py`.

Low-passes held-out recordings and white noise with each filter at each cutoff, at several sample rates and levels, with
16-bit dither. Reports how many detected cutoffs are more than 5 % off, by filter and level.
"""

import argparse
import csv
import itertools
import json
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from data_folder import add_data_option

from audiosr_cli.dsp.bandwidth import BandMeter
from audiosr_cli.train import bandlimit

CUTOFFS = (2000.0, 4000.0, 8000.0, 12000.0, 16000.0, 20000.0)
RATES = (16000, 44100, 48000, 96000)
LEVELS_DB = (0, -30, -60)
SECONDS = 6


def recordings(data: Path) -> dict[str, tuple[np.ndarray, float]]:
    """Return, by name, waveforms (T,) at 96 kHz and their own bandwidths in Hz."""
    found = {}
    rows = csv.DictReader((data / "manifest.csv").open())
    bands = {row["path"]: float(row["bandwidth_hz"] or 24000) for row in rows}
    for kind, count in (("speech48k", 3), ("music48k", 3), ("noise48k", 2)):
        files = sorted((data / kind / "valid").rglob("*.ogg"))
        step = max(1, len(files) // count)
        for path in files[::step][:count]:
            wave, rate = soundfile.read(path, dtype="float32", frames=SECONDS * 48000, always_2d=True)
            band = bands[str(path.relative_to(data))]
            found[f"{kind}/{path.stem[:20]}"] = soxr.resample(wave[:, 0], rate, 96000), band
    draw = np.random.default_rng(1)
    found["white"] = 0.2 * draw.standard_normal(SECONDS * 96000).astype(np.float32), 48000.0
    return found


def low_passed(wave: np.ndarray, kind: str, cutoff: float, rate: int) -> np.ndarray:
    """Filter a waveform (T,) at 96 kHz, and resample it to ``rate``."""
    if kind == "soxr":
        return soxr.resample(soxr.resample(wave, 96000, 2 * cutoff), 2 * cutoff, rate)
    family, order = {
        "wall": ("sinc", 10),
        "chebyshev8": ("chebyshev", 8),
        "elliptic6": ("elliptic", 6),
        "butterworth10": ("butterworth", 10),
        "butterworth6": ("butterworth", 6),
        "codec": ("sinc", 10),
    }[kind]
    spectrum = np.fft.rfft(wave)
    x = np.fft.rfftfreq(len(wave), 1 / 96000) / cutoff
    gain = 10 ** (bandlimit.magnitude_db(family, order, torch.from_numpy(x).clamp_min(1e-3)).numpy() / 20)
    if kind == "codec":
        gain *= 10 ** (-np.clip((x - 0.7) / 0.1, 0, 1) * 12 / 20)
    return soxr.resample(np.fft.irfft(spectrum * gain, len(wave)).astype(np.float32), 96000, rate, quality="VHQ")


def detected_cutoff(wave: np.ndarray, rate: int) -> float | None:
    """Return the cutoff in Hz that the bandwidth meter detects."""
    meter = BandMeter(rate)
    meter.push(wave[None].astype(np.float32))
    return meter.cutoff()


def main() -> None:
    """Print one JSON object per filter and level."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    options = parser.parse_args()
    waves, draw = recordings(options.data), np.random.default_rng(2)
    for kind in ("wall", "soxr", "chebyshev8", "elliptic6", "butterworth10", "butterworth6", "codec"):
        for level in LEVELS_DB:
            off, worst = {}, []
            for cutoff, rate in itertools.product(CUTOFFS, RATES):
                if cutoff > 0.46 * rate:
                    continue
                for name, (wave, band) in waves.items():
                    if cutoff > 0.95 * band:
                        continue
                    made = low_passed(wave, kind, cutoff, rate)
                    made = made / np.abs(made).max() * 10 ** (level / 20)
                    made = np.round(made * 32767 + draw.random(len(made)) - draw.random(len(made))) / 32768
                    detected = detected_cutoff(made, rate)
                    key = name.split("/")[0]
                    bad = detected is None or abs(detected / cutoff - 1) > 0.05
                    counts = off.setdefault(key, [0, 0])
                    counts[0] += bad
                    counts[1] += 1
                    if bad:
                        worst.append((name, cutoff, rate, detected and round(detected)))
            print(json.dumps({"filter": kind, "level": level, "off": off, "some": worst[:4]}), flush=True)


if __name__ == "__main__":
    main()
