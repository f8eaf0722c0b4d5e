"""Score `audiosr upsample` on the valid splits: `python tools/score_upsampling.py`.

Writes the inputs to a temporary folder, runs the command on it as a user would, and reads its output back. Options that
are not listed by ``--help``, such as ``--model``, are passed to the command.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np
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
    """Return the CPU-seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def full_band(data: Path, kind: str, most: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and samples (T,) at 48 kHz, at most 20 s, of up to ``most`` files of one kind's valid split."""
    paths = sorted((data / kind / "valid").rglob("*.ogg"))
    if not paths:
        sys.exit(f"{data / kind / 'valid'}: no recordings")
    for path in paths[:: -(-len(paths) // most)]:
        wave, rate = soundfile.read(path, dtype="float32")
        wave = soxr.resample(wave, rate, 48000) if rate != 48000 else wave
        yield f"{path.parent.name}_{path.stem}"[:80], wave[: 20 * 48000]


def write(data: Path, kind: str, most: int, folder: Path) -> None:
    """Write full-band references as ``audiosr bench --quality`` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, wave in full_band(data, kind, most):
        soundfile.write(folder / f"{name}.wav", wave, 48000, "FLOAT")


def upsampling(data: Path, work: Path, kind: str, rate: int, model: list[str], most: int) -> dict[str, float]:
    """LSD from ``rate`` Hz, for the command and for soxr, over up to ``most`` files of one kind's valid split."""
    low = work / f"{kind}_{rate}"
    low.mkdir()
    references = {name: torch.from_numpy(wave) for name, wave in full_band(data, kind, most)}
    for name, wave in references.items():
        soundfile.write(low / f"{name}.wav", soxr.resample(wave.numpy(), 48000, rate), rate, "FLOAT")
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
    """Print one JSON object per kind and rate."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--kinds", default="speech48k,music48k,noise48k")
    parser.add_argument("--rates", help="Hz, comma-separated; speech from 4000 to 24000, others from 8000 and 16000")
    parser.add_argument("--files", type=int, default=1000, help="at most so many of each kind")
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
                row = upsampling(options.data, Path(folder), kind, rate, rest, options.files)
                print(json.dumps({f"{kind} from {rate}": row}), flush=True)


if __name__ == "__main__":
    main()
