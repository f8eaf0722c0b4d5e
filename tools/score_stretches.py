"""Measure how well stretches with another bandwidth are found: `python tools/score_stretches.py`.

First the recordings of the data as they are, and those of valid/ one after the other and coded: all of these have one
bandwidth, and a stretch is an error. Then conversations of a full-band host and band-limited guests in turns of 2 to
20 s. Prints a JSON object a line.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from data_folder import add_data_option

from audiosr_cli.audio.coding import CODINGS, code
from audiosr_cli.streaming.stretches import Bandwidth, measure_bandwidth

RATE = 48000
TURNS, CONVERSATIONS, VOICES = 8, 4, 10
RMS = 0.05
# Of each folder of train/, this share is measured: it is large.
TRAIN_SHARES = {"speech16k": 0.06, "voices16k": 0.06, "speech48k": 0.4, "music48k": 1.0, "noise48k": 1.0}
CASES = {  # of conversations: cutoffs of the guests in Hz, and what else is different
    "4 kHz": {"cutoffs": (4000,)},
    "telephone": {"cutoffs": (3400,), "telephone": True},
    "6 kHz": {"cutoffs": (6000,)},
    "8 kHz": {"cutoffs": (8000,)},
    "12 kHz": {"cutoffs": (12000,)},
    "two guests": {"cutoffs": (3400, 8000)},
    "4 kHz, guest -12 dB": {"cutoffs": (4000,), "gain_db": -12},
    "4 kHz, guest +12 dB": {"cutoffs": (4000,), "gain_db": 12},
    "4 kHz, host 8 kHz": {"cutoffs": (4000,), "host": 8000},
    "8 kHz, noise -70 dBFS": {"cutoffs": (8000,), "noise_db": -70},
    "telephone, noise -70 dBFS": {"cutoffs": (3400,), "telephone": True, "noise_db": -70},
    "4 kHz, noise -60 dBFS": {"cutoffs": (4000,), "noise_db": -60},
}


class Recordings:
    """The data: `audiosr train --help` says what is in it."""

    def __init__(self, data: Path) -> None:
        self.data, self.rows = data, list(csv.DictReader((data / "manifest.csv").open()))

    def read(self, row: dict[str, str]) -> tuple[np.ndarray, int]:
        """Return a recording (C, T) and its rate in Hz."""
        wave, rate = soundfile.read(self.data / row["path"], dtype="float32", always_2d=True)
        return wave.T, rate

    def voices(self) -> list[list[dict[str, str]]]:
        """Return the rows of the full-band speakers of whom there is most."""
        by_speaker: dict[str, list[dict[str, str]]] = {}
        for row in self.rows:
            if row["path"].startswith("speech48k") and float(row["bandwidth_hz"] or 0) >= 19000:
                by_speaker.setdefault(row["speaker_or_class"], []).append(row)
        return sorted(by_speaker.values(), key=lambda rows: -sum(float(row["seconds"]) for row in rows))[:VOICES]

    def speak(self, rows: list[dict[str, str]], seconds: float, draw: random.Random) -> np.ndarray:
        """Return speech (T,) of one speaker, each recording at the same level."""
        pieces, length = list[np.ndarray](), round(seconds * RATE)
        while sum(map(len, pieces)) < length:
            wave, rate = self.read(draw.choice(rows))
            pieces.append(soxr.resample(wave[0], rate, RATE) * RMS / max(1e-6, float(np.std(wave[0]))))
        return np.concatenate(pieces)[:length]

    def joined(self, folder: str, seconds: float = 150.0) -> np.ndarray:
        """Return recordings of a valid split, one after the other (T,)."""
        pieces = list[np.ndarray]()
        for row in self.rows:
            if row["path"].startswith(f"{folder}/valid") and sum(map(len, pieces)) < seconds * RATE:
                wave, rate = self.read(row)
                pieces.append(soxr.resample(wave[0, : 20 * rate], rate, RATE))
        return np.concatenate(pieces).astype(np.float32)


def limit(wave: np.ndarray, cutoff_hz: int, telephone: bool = False) -> np.ndarray:
    """Return ``wave`` (T,) band-limited by resampling, or by a telephone: 300-3400 Hz, 8-bit mu-law."""
    if telephone:
        low = soxr.resample(wave, RATE, 8000)
        hz = np.fft.rfftfreq(len(low), 1 / 8000) + 1e-3
        gain = 1 / np.sqrt((1 + (hz / cutoff_hz) ** 16) * (1 + (300 / hz) ** 8))
        low = np.fft.irfft(np.fft.rfft(low) * gain, len(low))
        compressed = np.round(np.log1p(255 * np.abs(low)) / np.log(256) * 128) / 128
        narrow = soxr.resample(np.sign(low) * (256**compressed - 1) / 255, 8000, RATE)
    else:
        narrow = soxr.resample(soxr.resample(wave, RATE, 2 * cutoff_hz), 2 * cutoff_hz, RATE)
    return np.pad(narrow, (0, max(0, len(wave) - len(narrow))))[: len(wave)]


def measure(wave: np.ndarray, rate: int = RATE) -> Bandwidth:
    """Measure a signal (C, T) in blocks."""
    return measure_bandwidth((wave[:, i : i + 65536] for i in range(0, wave.shape[1], 65536)), rate)


def count_ordinary(recordings: Recordings) -> Iterator[dict[str, object]]:
    """Count the recordings in which there are stretches, by folder and split."""
    draw, counts = random.Random(1), dict[tuple[str, str], list[int]]()
    for row in recordings.rows:
        folder = row["path"].split("/")[0]
        if row["split"] != "valid" and draw.random() >= TRAIN_SHARES.get(folder, 0.0):
            continue
        count = counts.setdefault((folder, row["split"]), [0, 0])
        count[0] += 1
        count[1] += bool(measure(*recordings.read(row)).stretches)
    for (folder, split), (files, wrong) in counts.items():
        yield {"data": f"{folder}/{split}", "recordings": files, "with stretches": wrong}


def count_coded(recordings: Recordings) -> Iterator[dict[str, object]]:
    """Count the stretches in joined recordings, before and after each codec at each of its rates."""
    for folder in ("speech16k", "speech48k", "music48k", "noise48k"):
        wave = recordings.joined(folder)
        yield {"joined": folder, "stretches": len(measure(wave[None]).stretches)}
        for name, coding in CODINGS.items():
            for bit_rate in coding.bit_rates:
                coded = code(wave, RATE, name, coding.rates[-1], bit_rate)
                yield {"joined": folder, name: bit_rate, "stretches": len(measure(coded[None]).stretches)}


def conversation(
    recordings: Recordings,
    seed: int,
    cutoffs: tuple[int, ...],
    telephone: bool = False,
    gain_db: float = 0.0,
    noise_db: float = -90.0,
    host: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a conversation (T,), the true cutoff of each hundredth of a second, 0 for the host, and who is active."""
    draw = random.Random(seed)
    own, *guests = draw.sample(recordings.voices(), 1 + len(cutoffs))
    waves, truth = list[np.ndarray](), list[np.ndarray]()
    for turn in range(TURNS):
        seconds, guest = draw.uniform(2, 20), draw.randrange(len(cutoffs)) if turn % 2 else None
        wave = recordings.speak(own if guest is None else guests[guest], seconds, draw)
        if guest is not None:
            wave = limit(wave, cutoffs[guest], telephone) * 10 ** (gain_db / 20)
        elif host is not None:
            wave = limit(wave, host)
        waves.append(wave)
        truth.append(np.full(len(wave), 0 if guest is None else cutoffs[guest]))
    speech, hop = np.concatenate(waves), RATE // 100
    whole = len(speech) // hop * hop
    active = np.sqrt(np.square(speech[:whole]).reshape(-1, hop).mean(1)) > 0.08 * RMS
    noise = 10 ** (noise_db / 20) * np.random.default_rng(seed).standard_normal(len(speech))
    return (speech + noise).astype(np.float32), np.concatenate(truth)[:whole:hop], active


def score(recordings: Recordings, name: str) -> dict[str, object]:
    """Score the conversations of a case, in seconds."""
    total = dict.fromkeys(("host_s", "host_altered_s", "guest_s", "guest_missed_s"), 0.0)
    off = list[float]()
    for seed in range(CONVERSATIONS):
        wave, truth, active = conversation(recordings, seed, **CASES[name])
        bandwidth, found = measure(wave[None]), np.zeros(len(truth))
        for stretch in bandwidth.stretches:
            if stretch.cutoff_hz is not None and stretch.cutoff_hz < 0.8 * (bandwidth.cutoff_hz or 0):
                found[round(stretch.start_s * 100) : round(stretch.end_s * 100)] = stretch.cutoff_hz
        host, hit = truth == 0, (truth > 0) & (found > 0)
        for key, frames in (("host_s", host), ("host_altered_s", host & (found > 0))):
            total[key] += frames.sum() / 100
        for key, frames in (("guest_s", ~host & active), ("guest_missed_s", ~host & active & (found == 0))):
            total[key] += frames.sum() / 100
        off += np.abs(found[hit] / truth[hit] - 1).tolist()
    return {"case": name} | {key: round(value, 2) for key, value in total.items()} | {"off": round(np.median(off), 3)}


def main() -> None:
    """Print all rows."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--only", choices=("ordinary", "coded", "conversations"))
    options = parser.parse_args()
    recordings = Recordings(options.data)
    if options.only in (None, "conversations"):
        for name in CASES:
            print(json.dumps(score(recordings, name)), flush=True)
    if options.only in (None, "coded"):
        for row in count_coded(recordings):
            print(json.dumps(row), flush=True)
    if options.only in (None, "ordinary"):
        for row in count_ordinary(recordings):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
