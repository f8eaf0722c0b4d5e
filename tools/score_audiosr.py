"""Measure what limits AudioSR, and its window borders: `python tools/score_audiosr.py [--model audiosr_small]`.

Ceilings: the LSD of speech, music and noise from 8 kHz if the vocoder gets the true mel spectrogram, or the one after
the autoencoder. Borders: ten minutes of music from 16 kHz go through the command; compares levels of the low band,
jumps and spectral flux at window borders with the rest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
import soundfile
import soxr
import torch
from data_folder import add_data_option

from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.dsp.metrics import lsd
from audiosr_cli.dsp.spectra import stft
from audiosr_cli.models.audiosr import AudioSR

RATE, LOW = 48000, 8000
CUTOFF_HZ = 0.945 * LOW / 2  # the -3 dB point of soxr
MINUTES = 10


def recordings(data: Path, kind: str) -> list[np.ndarray]:
    """Return the recordings of a valid split at 48 kHz, at most 20 s of each."""
    found = []
    for path in sorted((data / kind / "valid").rglob("*.ogg")):
        wave, rate = soundfile.read(path, dtype="float32")
        found.append(soxr.resample(wave, rate, RATE)[: 20 * RATE])
    return found


@torch.inference_mode()
def ceilings(model: AudioSR, waves: list[np.ndarray]) -> dict[str, float]:
    """Return the mean LSD with true mels, with mels after the autoencoder, and with the deterministic estimate."""
    unit = model.config.hop_length * model.vae.config.stride * model.unet.config.stride
    rows: dict[str, list[float]] = {"true mels": [], "after the autoencoder": [], "expected": []}
    for wave in (wave for wave in waves if len(wave) >= unit):
        length = len(wave) // unit * unit
        true = torch.from_numpy(wave[:length])[None]
        low = soxr.resample(soxr.resample(wave, RATE, LOW), LOW, RATE)[:length]
        heard, cutoff = torch.from_numpy(np.pad(low, (0, length - len(low))))[None], torch.tensor([CUTOFF_HZ])
        mel, level = model.relative_mels(heard, cutoff)
        target, _ = model.relative_mels(true, cutoff, level)
        back = model.join_at_cutoff(mel, model.vae.decode(model.vae.encode(target.unsqueeze(1)).mean)[:, 0], cutoff)
        for name, mels in zip(rows, (target, back, model.predict_mels(mel, cutoff)), strict=True):
            rows[name].append(float(lsd(model.synthesise(heard.unsqueeze(1), cutoff, mels)[0, 0, 0], true[0])))
    return {name: round(mean(values), 3) for name, values in rows.items()}


def borders(model: AudioSR, waves: list[np.ndarray], rest: list[str]) -> dict[str, float]:
    """Upsample ten minutes of music from 16 kHz, and compare crossfades and their ends with the rest."""
    whole = np.resize(np.concatenate(waves), MINUTES * 60 * RATE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        soundfile.write(path / "in.wav", soxr.resample(whole, RATE, 16000), 16000, "FLOAT")
        command = [sys.executable, "-m", "audiosr_cli", "upsample", str(path / "in.wav"), "-o", str(path / "out.wav")]
        subprocess.run([*command, "-q", *rest], check=True)
        made = soundfile.read(path / "out.wav", dtype="float32")[0]
        plain = soxr.resample(soundfile.read(path / "in.wav", dtype="float32")[0], 16000, RATE)[: len(made)]
    spectra = torch.stack([stft(torch.from_numpy(x), 2048, 512).abs() for x in (made, plain)])
    low = spectra[:, :300].square().sum(1)  # (2, L) below 7 kHz
    seconds = low[:, : low.shape[1] // 94 * 94].unflatten(1, (-1, 94)).mean(2)
    loud = seconds[1] > 1e-4 * seconds[1].mean()
    error = (10 * torch.log10(seconds[0] / seconds[1]))[loud].abs()
    flux = spectra[0, 350:].clamp_min(1e-4).log().diff(dim=1).abs().mean(0)  # above 8.2 kHz
    jumps = np.abs(np.diff(made, 2))
    place = (np.arange(len(made)) - model.spec.hop) % model.spec.hop  # since a window began to be faded in
    meets = torch.from_numpy(place < model.spec.overlap)[::512][: len(flux)]
    ends = np.minimum(place, np.abs(place - model.spec.overlap))[1:-1] < 48  # a millisecond
    return {
        "level error, most (dB)": round(float(error.max()), 3),
        "flux where windows meet / elsewhere": round(float(flux[meets].mean() / flux[~meets].mean()), 3),
        "jumps at their ends / elsewhere": round(float(jumps[ends].mean() / jumps[~ends].mean()), 3),
    }


def main() -> None:
    """Print one JSON object per kind of recording, then one for the borders."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--model", default="audiosr_small")
    options, rest = parser.parse_known_args()
    model = load_model(options.model)
    assert isinstance(model, AudioSR)
    for kind in ("speech48k", "music48k", "noise48k"):
        print(json.dumps({kind: ceilings(model, recordings(options.data, kind))}), flush=True)
    music = recordings(options.data, "music48k")
    print(json.dumps({"borders": borders(model, music, ["--model", options.model, *rest])}))


if __name__ == "__main__":
    main()
