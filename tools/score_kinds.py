"""Measure how often `upsample --kind auto` recognises speech, music and effects: `python tools/score_kinds.py`.

Confusion tables as Markdown, over the valid recordings of the data folder: by recording, as the command decides, and by
window of 2 s; at several cutoffs, after codecs, and of speech over music and noise.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import soxr
import torch
from data_folder import add_data_option
from numpy.typing import NDArray

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.coding import code
from audiosr_cli.audio.read import read_mono
from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.contract import Kind
from audiosr_cli.models.audio_classifier import AudioClassifier
from audiosr_cli.streaming.kind import classify, detect_kind
from audiosr_cli.streaming.options import Options
from audiosr_cli.train.reverb import load_rirs, reverberate

Wave = NDArray[np.float32]
Recording = tuple[str, str, Wave]  # its kind, its name, and its samples (T,) at RATE
KINDS = get_args(Kind)
RATE = 16000
FOLDERS = {"speech48k": "speech", "speech16k": "speech", "music48k": "music", "noise48k": "effects"}
CODECS = {"AMR-NB 8 kHz, 12 kbit/s": ("amr_nb", 8000, 12200), "MP3 16 kHz, 24 kbit/s": ("mp3", 16000, 24000)}


def recordings(data: Path, split: str) -> list[Recording]:
    """Read all recordings of a split."""
    return [
        (kind, path.relative_to(data).as_posix(), read_mono(path, RATE)[0])
        for folder, kind in FOLDERS.items()
        for path in sorted((data / folder / split).rglob("*.*"))
        if path.is_file()
    ]


def cut_off(hz: int) -> Callable[[Wave], Wave]:
    """Return a function that resamples to twice a cutoff and back."""
    return lambda wave: np.asarray(soxr.resample(soxr.resample(wave, RATE, 2 * hz), 2 * hz, RATE), np.float32)


def over(speech: list[Recording], others: list[Recording], level_db: float) -> Iterator[Recording]:
    """Put each recording of speech over another one, so many dB louder."""
    for i, (kind, name, wave) in enumerate(speech):
        other = np.resize(others[i % len(others)][2], len(wave))
        gain = np.sqrt(np.square(wave).mean() / np.square(other).mean().clip(1e-9)) * 10 ** (-level_db / 20)
        yield kind, name, wave + np.float32(gain) * other


def reverberant(items: list[Recording], data: Path) -> Iterator[Recording]:
    """Put each recording into one of the measured rooms at the distance of the measurement."""
    rirs = load_rirs([data / "rir"], RATE)
    for i, (kind, name, wave) in enumerate(items):
        response = rirs.responses[i % len(rirs.responses)][:1]  # (1, T)
        wet = reverberate(torch.from_numpy(wave)[None], response)[0].numpy()
        yield kind, name, wet * np.float32(0.05 / np.sqrt(np.square(wet).mean()).clip(1e-6))


def tables(items: list[Recording], classifier: AudioClassifier, name: str, verbose: bool) -> list[str]:
    """Return the rows of a condition: how recordings, and windows of 2 s, of each kind are classified."""
    by_recording, by_window = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for kind, path, wave in items:
        found = detect_kind(ArrayReader(wave, RATE), classifier, Options())
        by_recording[kind, found.kind] += 1
        if verbose and found.kind != kind:
            print(f"{name}: {path}: {kind} as {found.kind}, likeliest {found.likeliest}, {found.confidence}")
        narrow = torch.from_numpy(np.asarray(soxr.resample(wave, RATE, classifier.spec.in_rate), np.float32))
        size = classifier.spec.window
        loudest = float(narrow.square().mean())
        for window in narrow.unfold(0, size, size) if len(narrow) >= size else [narrow]:
            probabilities = classify(window, classifier) if float(window.square().mean()) > 1e-3 * loudest else None
            if probabilities is not None:
                by_window[kind, max(probabilities, key=lambda one: probabilities[one])] += 1
    rows = []
    for kind in KINDS:
        cells = []
        for counts in (by_recording, by_window):
            own = [counts[kind, other] for other in KINDS]
            cells += [" / ".join(map(str, own)), f"{100 * own[KINDS.index(kind)] / max(sum(own), 1):.0f} %"]
        if any(by_recording[kind, other] for other in KINDS):
            rows.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_option(parser)
    parser.add_argument("--model", default="audio_classifier")
    parser.add_argument("--split", default="valid")
    parser.add_argument("--verbose", action="store_true", help="also print every recording that is not recognised")
    options = parser.parse_args()
    torch.set_num_threads(1)
    classifier = load_model(options.model)
    assert isinstance(classifier, AudioClassifier)
    items = recordings(options.data, options.split)
    speech, music, effects = ([item for item in items if item[0] == kind] for kind in KINDS)
    conditions = {
        f"cutoff {hz / 1000:g} kHz": [(k, n, cut_off(hz)(w)) for k, n, w in items] for hz in (1500, 2000, 4000, 8000)
    }
    conditions |= {
        name: [(kind, path, code(wave, RATE, *coding)) for kind, path, wave in items] for name, coding in CODECS.items()
    }
    conditions |= {f"speech {db} dB above music": list(over(speech, music, db)) for db in (0, 5, 10, 20)}
    conditions |= {f"speech {db} dB above effects": list(over(speech, effects, db)) for db in (0, 10)}
    conditions |= {"measured rooms and halls": list(reverberant(items, options.data))}
    columns = f"{' / '.join(KINDS)}"
    print(
        f"| condition | kind | recordings: {columns} | right | windows: {columns} | right |\n|---|---|---|---|---|---|"
    )
    for name, chosen in conditions.items():
        print("\n".join(tables(chosen, classifier, name, options.verbose)), flush=True)


if __name__ == "__main__":
    main()
