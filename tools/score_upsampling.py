"""Scores `audiosr upsample` on the valid splits: `python tools/score_upsampling.py`.

Writes the inputs to a temporary folder, runs the command on it as a user would (``--model`` and what else is not known
here goes to it), reads back what it wrote.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

import soundfile
import soxr
import torch
from data_folder import add_data_option

from audiosr_cli.dsp.metrics import lsd, lsd_ssr_eval, snr


def audiosr(*arguments: str) -> None:
    """Run the command."""
    subprocess.run([sys.executable, "-m", "audiosr_cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def load(path: Path) -> torch.Tensor:
    """A mono file as (T,) float32."""
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])


def cpu_s() -> float:
    """CPU-seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def upsampling(data: Path, work: Path, kind: str, rate: int, model: list[str], most: int) -> dict[str, float]:
    """LSD from ``rate`` Hz, for the command and for soxr, over up to ``most`` files of one kind's valid split."""
    low = work / f"{kind}_{rate}"
    low.mkdir()
    references = {}
    paths = sorted((data / kind / "valid").rglob("*.ogg"))
    for path in paths[:: -(-len(paths) // most)]:
        wave, true_rate = soundfile.read(path, dtype="float32")
        wave = soxr.resample(wave, true_rate, 48000) if true_rate != 48000 else wave
        name = f"{path.parent.name}_{path.stem}"[:80]
        references[name] = torch.from_numpy(wave[: 20 * 48000])
        soundfile.write(low / f"{name}.wav", soxr.resample(wave[: 20 * 48000], 48000, rate), rate, "FLOAT")
    before = cpu_s()
    audiosr("upsample", str(low), "-o", str(work / f"{kind}_{rate}_up"), "-q", *model)
    cost = (cpu_s() - before) / sum(len(wave) / 48000 for wave in references.values())
    rows: dict[str, list[float]] = {}
    cutoff = rate / 48000
    for name, reference in references.items():
        plain = torch.from_numpy(soxr.resample(load(low / f"{name}.wav").numpy(), rate, 48000))
        made = load(work / f"{kind}_{rate}_up" / f"{name}_48000.wav")
        for label, wave in (("audiosr", made), ("soxr", plain)):
            length = min(len(wave), len(reference))
            pair = wave[:length], reference[:length]
            figures = {
                "LSD": lsd(*pair),
                "LSD below 0.9 cutoff": lsd(*pair, high=0.9 * cutoff),
                "LSD above cutoff": lsd(*pair, low=cutoff),
                "LSD (ssr_eval)": lsd_ssr_eval(*pair, 48000),
                "SNR (dB)": snr(*pair),
            }
            for figure, value in figures.items():
                rows.setdefault(f"{label} {figure}", []).append(float(value))
    return {key: mean(values) for key, values in rows.items()} | {"CPU-s per s, with start": cost}


def main() -> None:
    """Print one JSON object a table row."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--kinds", default="speech48k,music48k,noise48k")
    parser.add_argument("--rates", help="Hz, comma-separated; speech from 4000 to 24000, others from 8000 and 16000")
    parser.add_argument("--files", type=int, default=1000, help="of each kind, at most")
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds.split(","):
            usual = "4000,8000,12000,16000,24000" if kind == "speech48k" else "8000,16000"
            for rate in map(int, (options.rates or usual).split(",")):
                row = upsampling(options.data, Path(folder), kind, rate, rest, options.files)
                print(json.dumps({f"{kind} from {rate}": row}), flush=True)


if __name__ == "__main__":
    main()
