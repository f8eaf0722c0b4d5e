"""Scores the commands on the valid splits: `python tools/score.py ../shared/data [--only separate|upsample]`.

Writes the inputs to a temporary folder, runs `audiosr` on it as a user would, reads back what it wrote.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
import soundfile
import soxr
import torch

from audiosr_cli.metrics import best_order, lsd, lsd_ssr_eval, si_sdr, snr

SEED = 1
MIXTURES = 40


def audiosr(*arguments: str) -> None:
    """Run the command."""
    subprocess.run([sys.executable, "-m", "audiosr_cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def load(path: Path) -> torch.Tensor:
    """A mono file as (T,) float32."""
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])


def separation(data: Path, work: Path, model: list[str]) -> dict[str, float]:
    """SI-SDR improvement in dB on 40 mixtures of two speakers at 16 kHz: min length, ± 2.5 dB, seeded."""
    draw = random.Random(SEED)
    sexes = {row["speaker_or_class"]: row["sex"] for row in csv.DictReader((data / "manifest.csv").open())}
    files = sorted((data / "speech16k" / "valid").rglob("*.ogg"))
    references, alike = {}, {}
    (work / "mix").mkdir()
    for i in range(MIXTURES):
        pair = draw.sample(files, 2)
        while pair[0].parent == pair[1].parent:
            pair = draw.sample(files, 2)
        waves = [load(path) for path in pair]
        length = min(map(len, waves))
        stack = torch.stack([wave[:length] / wave[:length].square().mean().sqrt() for wave in waves])
        level = draw.uniform(-2.5, 2.5)
        stack[0] *= 10 ** (level / 40)
        stack[1] *= 10 ** (-level / 40)
        stack *= 0.05
        references[f"{i:02d}"] = stack
        alike[f"{i:02d}"] = sexes[pair[0].parent.name] == sexes[pair[1].parent.name]
        soundfile.write(work / "mix" / f"{i:02d}.wav", stack.sum(0).numpy(), 16000, "FLOAT")
    audiosr("separate", str(work / "mix"), "-o", str(work / "tracks"), "-q", *model)
    gains, level_errors = {}, []
    for name, reference in references.items():
        estimate = torch.stack([load(work / "tracks" / f"{name}_speaker{s}.wav") for s in (1, 2)])
        estimate = estimate[list(best_order(estimate, reference))]
        before = si_sdr(reference.sum(0).expand_as(reference), reference)
        gains[name] = float((si_sdr(estimate, reference) - before).mean())
        level_errors += (10 * torch.log10(estimate.square().mean(-1) / reference.square().mean(-1))).tolist()
    return {
        "SI-SDRi (dB)": mean(gains.values()),
        "same sex": mean(gain for name, gain in gains.items() if alike[name]),
        "other sex": mean(gain for name, gain in gains.items() if not alike[name]),
        "median": float(np.median(list(gains.values()))),
        "level error, mean (dB)": mean(level_errors),
    }


def upsampling(data: Path, work: Path, kind: str, rate: int, model: list[str]) -> dict[str, float]:
    """LSD from ``rate`` Hz, for the command and for soxr, over all files of one kind's valid split."""
    low = work / f"{kind}_{rate}"
    low.mkdir()
    references = {}
    for path in sorted((data / kind / "valid").rglob("*.ogg")):
        wave, true_rate = soundfile.read(path, dtype="float32")
        wave = soxr.resample(wave, true_rate, 48000) if true_rate != 48000 else wave
        name = f"{path.parent.name}_{path.stem}"[:80]
        references[name] = torch.from_numpy(wave[: 20 * 48000])
        soundfile.write(low / f"{name}.wav", soxr.resample(wave[: 20 * 48000], 48000, rate), rate, "FLOAT")
    audiosr("upsample", str(low), "-o", str(work / f"{kind}_{rate}_up"), "-q", *model)
    rows: dict[str, list[float]] = {}
    edge = rate / 48000
    for name, reference in references.items():
        plain = torch.from_numpy(soxr.resample(load(low / f"{name}.wav").numpy(), rate, 48000))
        made = load(work / f"{kind}_{rate}_up" / f"{name}_48000.wav")
        for label, wave in (("audiosr", made), ("soxr", plain)):
            length = min(len(wave), len(reference))
            pair = wave[:length], reference[:length]
            figures = {
                "LSD": lsd(*pair),
                "LSD below 0.9 edge": lsd(*pair, high=0.9 * edge),
                "LSD above edge": lsd(*pair, low=edge),
                "LSD (ssr_eval)": lsd_ssr_eval(*pair, 48000),
                "SNR (dB)": snr(*pair),
            }
            for figure, value in figures.items():
                rows.setdefault(f"{label} {figure}", []).append(float(value))
    return {key: mean(values) for key, values in rows.items()}


def main() -> None:
    """Print one JSON object a table row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--model-separate")
    parser.add_argument("--model-upsample")
    parser.add_argument("--only", choices=["separate", "upsample"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.only != "upsample":
            model = ["--model", options.model_separate] if options.model_separate else []
            print(json.dumps({"separate": separation(options.data, work, model)}))
        if options.only != "separate":
            model = ["--model", options.model_upsample] if options.model_upsample else []
            for kind in ("speech48k", "music48k", "noise48k"):
                for rate in (8000, 16000):
                    print(
                        json.dumps({f"{kind} from {rate}": upsampling(options.data, work, kind, rate, model)}),
                        flush=True,
                    )


if __name__ == "__main__":
    main()
