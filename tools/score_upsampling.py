"""Scores `audiosr upsample` on the valid splits: `python tools/score_upsampling.py ../shared/data`.

Writes the inputs to a temporary folder, runs the command on it as a user would (``--model`` and what else is not known
here goes to it), reads back what it wrote.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

import soundfile
import soxr
import torch

from audiosr_cli.metrics import lsd, lsd_ssr_eval, snr


def audiosr(*arguments: str) -> None:
    """Run the command."""
    subprocess.run([sys.executable, "-m", "audiosr_cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def load(path: Path) -> torch.Tensor:
    """A mono file as (T,) float32."""
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])


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
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("speech48k", "music48k", "noise48k"):
            for rate in (4000, 8000, 12000, 16000, 24000) if kind == "speech48k" else (8000, 16000):
                row = upsampling(options.data, Path(folder), kind, rate, rest)
                print(json.dumps({f"{kind} from {rate}": row}), flush=True)


if __name__ == "__main__":
    main()
