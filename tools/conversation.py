"""Measure how much speech of a long conversation is on the right track.

`python tools/conversation.py [--minutes 10] [--pairs 6] [--perfect]`. Conversations of held-out speakers go through
`audiosr separate`. With ``--perfect`` there is no separator: the tracker gets the true sources, in a random order in
every window. Options that are not listed by ``--help`` are passed to the command.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from itertools import permutations
from pathlib import Path
from statistics import mean

import soundfile
import torch
from data_folder import add_data_option
from torch import Tensor

from audiosr_cli.checkpoints.loading import load_speaker_encoder
from audiosr_cli.contract import ModelSpec
from audiosr_cli.streaming.speakers import Tracker
from audiosr_cli.streaming.stages import embedder
from audiosr_cli.streaming.windows import Engine

RATE = 16000
PAUSES_S = (1.0, 2.5, 5.0, 9.0)
BLOCK_S = 0.25
ACTIVE_DB = -35.0  # relative to a speaker's RMS: a block below this is silence


def conversation(files: list[Path], seconds: float, draw: random.Random) -> Tensor:
    """Return sources (S, T) with turns of 2 to 7 s; a third overlaps the turn before, the others follow a pause."""
    voices = []
    for path in files:
        wave = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        voices.append(0.05 * wave / wave.square().mean().sqrt())
    sources = torch.zeros(len(voices), round(seconds * RATE))
    at, last = 0.0, -1
    while at < seconds:
        others = [i for i in range(len(voices)) if i != last or draw.random() < 0.2]
        who = draw.choice(others or [last])
        turn = min(draw.uniform(2, 7), len(voices[who]) / RATE)
        length = min(round(turn * RATE), sources.shape[1] - round(at * RATE))
        first = draw.randrange(len(voices[who]) - round(turn * RATE) + 1)
        start = round(at * RATE)
        sources[who, start : start + length] += voices[who][first : first + length]
        at += turn + (-draw.uniform(0.5, 2) if draw.random() < 0.33 and who != last else draw.choice(PAUSES_S))
        at, last = max(at, 0.0), who
    return sources


def share_on_track(made: Tensor, sources: Tensor) -> float:
    """Return the share of active speech that is mostly on its speaker's track, for the best assignment of tracks."""
    size = round(BLOCK_S * RATE)
    count = sources.shape[1] // size
    ours, theirs = (x[:, : count * size].unflatten(1, (count, size)) for x in (made, sources))
    level = theirs.square().mean(2)  # (S, blocks)
    active = level > level.mean(1, keepdim=True) * 10 ** (ACTIVE_DB / 10)
    gain = torch.einsum("knt,snt->ksn", ours, theirs)  # (K, S, blocks)
    best = 0.0
    for order in permutations(range(len(sources))):
        right = torch.stack([gain[:, s].argmax(0) == order[s] for s in range(len(sources))])
        best = max(best, float((right & active).sum() / active.sum()))
    return best


def perfect(sources: Tensor, draw: random.Random, voice: bool) -> float:
    """Score the tracker alone, on the true sources in windows of 4 s that overlap by 0.5 s."""
    spec = ModelSpec("perfect", "separate", RATE, 1, len(sources), 1, 4 * RATE, 0, 7 * RATE // 2)
    position = iter(range(10**9))

    def forward(x: Tensor) -> Tensor:
        start = next(position) * spec.hop
        part = torch.nn.functional.pad(sources[:, start : start + spec.window], (0, spec.window))[:, : x.shape[-1]]
        return part[draw.sample(range(len(sources)), len(sources))].unsqueeze(1).unsqueeze(0)  # (1, S, 1, T)

    engine = Engine(spec, forward, 1, 1, Tracker(True, embedder(load_speaker_encoder(), RATE) if voice else None))
    made = torch.cat([engine.push(sources.sum(0, keepdim=True)), engine.flush()], dim=-1)
    return share_on_track(made[:, 0], sources)


def separated(sources: Tensor, work: Path, arguments: list[str]) -> float:
    """Score `audiosr separate`."""
    soundfile.write(work / "mix.wav", sources.sum(0).numpy(), RATE, "FLOAT")
    command = [sys.executable, "-m", "audiosr_cli", "separate", str(work / "mix.wav"), "-s", str(len(sources))]
    subprocess.run([*command, "-o", str(work), "--overwrite", *arguments], check=True, stdout=subprocess.DEVNULL)
    made = [soundfile.read(work / f"mix_speaker{s + 1}.wav", dtype="float32")[0] for s in range(len(sources))]
    return share_on_track(torch.stack([torch.from_numpy(wave) for wave in made]), sources)


def main() -> None:
    """Print one JSON object per method."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--speakers", type=int, default=2)
    parser.add_argument("--perfect", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options, rest = parser.parse_known_args()
    draw = random.Random(options.seed)
    files = sorted((options.data / "speech16k" / "valid").rglob("*.ogg"))
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.pairs):
            sources = conversation(draw.sample(files, options.speakers), 60 * options.minutes, draw)
            if options.perfect:
                for voice in (False, True):
                    found.setdefault(f"perfect, voice {voice}", []).append(perfect(sources, draw, voice))
            else:
                found.setdefault("separated", []).append(separated(sources, Path(folder), rest))
    for name, shares in found.items():
        print(json.dumps({name: {"mean (%)": 100 * mean(shares), "least (%)": 100 * min(shares), "n": len(shares)}}))


if __name__ == "__main__":
    main()
