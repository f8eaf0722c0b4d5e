"""Measure how often the number of speakers that `--speakers auto` counts is right.

`python tools/count_speakers.py [--each 20]`. Recordings of 1, 2 and 3 held-out speakers: conversations of 30 to 60 s as
in conversation.py, in which everybody speaks for 5 s or more, and some of 12 s in which all speak at once. A third of
them have noise. Prints a JSON object for each recording, then the confusion table of each condition as Markdown, and
how many are right with other values of ``CountingConfig.min_cosine``: that is how it is chosen, with ``--seed 1``, for
a new speaker encoder.
"""

import argparse
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from conversation import RATE, conversation
from data_folder import add_data_option
from torch import Tensor

from audiosr_cli.audio.read import read_mono
from audiosr_cli.pipelines import SeparateOptions, default_options
from audiosr_cli.streaming.auto import AutoPipeline
from audiosr_cli.streaming.counting import count_speakers
from audiosr_cli.streaming.counting_config import COUNTING

COUNTS = (1, 2, 3)
AT_ONCE_S = 12.0
LEAST_S = 5.0  # of speech of everybody in a conversation
SNRS_DB = (5.0, 10.0, 20.0)  # of noise, relative to the mean power where somebody speaks
COSINES = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)


def active_seconds(sources: Tensor) -> list[float]:
    """Return how long each of the ``sources`` (S, T) is within 35 dB of its mean, in blocks of 50 ms."""
    level = sources[:, : sources.shape[1] // 800 * 800].unflatten(1, (-1, 800)).square().mean(2)
    return ((level > level.mean(1, keepdim=True) * 10**-3.5).sum(1) * 800 / RATE).tolist()


def at_once(files: list[Path], draw: random.Random) -> Tensor:
    """Return sources (S, T) that speak all the time, with levels that differ by up to 5 dB."""
    sources = torch.zeros(len(files), round(AT_ONCE_S * RATE))
    for source, path in zip(sources, files, strict=True):
        wave = torch.from_numpy(read_mono(path, RATE)[0])[: len(source)]
        gain = 0.05 * 10 ** (draw.uniform(-2.5, 2.5) / 20)
        source[: len(wave)] = gain * wave / wave.square().mean().sqrt()
    return sources


def recording(speakers: int, files: list[Path], noises: list[Path], draw: random.Random) -> tuple[Tensor, str]:
    """Return a recording (T,), and its condition."""
    if draw.random() < 0.25:
        condition, sources = "at once", at_once(draw.sample(files, speakers), draw)
    else:
        condition, sources = "in turns", torch.zeros(speakers, RATE)
        while min(active_seconds(sources)) < LEAST_S:
            sources = conversation(draw.sample(files, speakers), draw.uniform(30, 60), draw)
    mixture = sources.sum(0)
    if draw.random() < 1 / 3:
        snr_db, noise = draw.choice(SNRS_DB), torch.from_numpy(read_mono(draw.choice(noises), RATE)[0])
        noise = noise.repeat(-(-len(mixture) // len(noise)))[: len(mixture)]
        power = mixture[mixture.abs() > 1e-4].square().mean()
        mixture = mixture + noise * (power / noise.square().mean() * 10 ** (-snr_db / 10)).sqrt()
        condition = f"noise at {snr_db:g} dB"
    return mixture, condition


def table(rows: list[dict[str, Any]]) -> str:
    """Return a confusion table in Markdown: a row for each true number, a column for each counted one."""
    pairs = Counter((row["speakers"], row["counted"]) for row in rows)
    lines = ["| speakers | counted 1 | counted 2 | counted 3 |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {n} | {' | '.join(str(pairs[n, k]) for k in COUNTS)} |" for n in COUNTS])


def main() -> None:
    """Count the speakers of the recordings, and print what came out."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--each", type=int, default=20, help="recordings of each number of speakers")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    files = sorted((arguments.data / "speech16k" / "valid").rglob("*.ogg"))
    noises = sorted((arguments.data / "noise48k" / "valid").rglob("*.ogg"))
    options = default_options("cpu")
    pipeline = SeparateOptions("auto").pipeline(options)
    assert isinstance(pipeline, AutoPipeline)
    assert pipeline.counter is not None
    rows = list[dict[str, Any]]()
    for _ in range(arguments.each):
        for speakers in COUNTS:
            mixture, condition = recording(speakers, files, noises, draw)
            windows, _ = pipeline.counter.windows([mixture[None].numpy()], RATE, options)
            count = count_speakers(windows)
            row = {"speakers": speakers, "counted": count.speakers, "confidence": count.confidence}
            row |= {"overlap": round(windows.overlap, 2), "overlap3": round(windows.overlap3, 2)}
            by_cosine = [count_speakers(windows, replace(COUNTING, min_cosine=cosine)).speakers for cosine in COSINES]
            rows.append(row | {"condition": condition, "by_cosine": by_cosine})
            print(json.dumps(rows[-1]), flush=True)
    for condition in ("all", *sorted({str(row["condition"]) for row in rows})):
        chosen = [row for row in rows if condition in ("all", row["condition"])]
        right = mean(row["speakers"] == row["counted"] for row in chosen)
        print(f"\n{condition}: {right:.0%} of {len(chosen)}\n\n{table(chosen)}")
    print("\n| min_cosine | right |\n|---|---|")
    for i, cosine in enumerate(COSINES):
        print(f"| {cosine:g} | {mean(row['speakers'] == row['by_cosine'][i] for row in rows):.0%} |")
    for right in (True, False):
        confidences = [row["confidence"] for row in rows if (row["speakers"] == row["counted"]) == right]
        print(f"\nconfidence where {'right' if right else 'wrong'}: {mean(confidences or [0]):.2f}")


if __name__ == "__main__":
    main()
