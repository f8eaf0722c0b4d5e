"""Score who speaks when: `python tools/score_turns.py [--minutes 10] [--conversations 10] [--speakers 2]`.

Conversations of held-out speakers (see conversation.py) go through `audiosr turns`; its labels are compared with the
true turns: the stretches of recordings that a conversation is built of, pauses within them included. Options that are
not listed by ``--help`` are passed to the command. ``--rttm FOLDER`` keeps the true and the found turns, to score them
with other programs.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import numpy as np
import soundfile
from conversation import RATE, conversation
from data_folder import add_data_option

from audiosr_cli.bench.diarization import diarization_error
from audiosr_cli.conversation.labels import Conversation, write_labels
from audiosr_cli.conversation.turns import Turn

SILENT_FRAMES = 10  # frames of 10 ms without a sample above 0, of which a pause between two stretches has more


def true_turns(sources: np.ndarray) -> list[Turn]:
    """Return the stretches of ``sources`` (S, T) in which there is anything at all."""
    frames = np.abs(sources[:, : sources.shape[1] // 160 * 160]).reshape(len(sources), -1, 160).max(2) > 0
    turns = []
    for speaker, active in enumerate(frames):
        edges = np.flatnonzero(np.diff(active, prepend=False, append=False)).reshape(-1, 2).tolist()
        merged: list[list[int]] = []
        for start, end in edges:
            if merged and start - merged[-1][1] <= SILENT_FRAMES:
                merged[-1][1] = end
            else:
                merged.append([start, end])
        turns += [Turn(f"true{speaker + 1}", start / 100, end / 100, 0.0) for start, end in merged]
    return sorted(turns, key=lambda turn: turn.start_s)


def found_turns(sources: np.ndarray, work: Path, arguments: list[str]) -> list[Turn]:
    """Run the command on the mixture, and return its turns."""
    soundfile.write(work / "mix.wav", sources.sum(0), RATE, "FLOAT")
    command = [sys.executable, "-m", "audiosr_cli", "turns", str(work / "mix.wav"), "--labels", "json"]
    speakers = [] if "--speakers" in arguments else ["--speakers", str(len(sources))]
    subprocess.run(
        [*command, *speakers, "-o", str(work), "-q", "-y", *arguments], check=True, stdout=subprocess.DEVNULL
    )
    return [Turn(**turn) for turn in json.loads((work / "mix_turns.json").read_text())["turns"]]


def main() -> None:
    """Print the errors of each conversation, and their means."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--conversations", type=int, default=10)
    parser.add_argument("--speakers", type=int, default=2, help="who speak; the command is told so")
    parser.add_argument(
        "--collar", type=float, default=0.25, help="seconds around true starts and ends that don't count"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rttm", type=Path, metavar="FOLDER")
    options, rest = parser.parse_known_args()
    draw = random.Random(options.seed)
    files = sorted((options.data / "speech16k" / "valid").rglob("*.ogg"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for k in range(options.conversations):
            chosen = draw.sample(files, options.speakers)
            sources = conversation(chosen, 60 * options.minutes, draw).numpy()
            true, found = true_turns(sources), found_turns(sources, Path(folder), rest)
            rows.append(asdict(diarization_error(true, found, options.collar)))
            print(json.dumps({key: round(100 * value, 2) for key, value in rows[-1].items()}), flush=True)
            if options.rttm is not None:
                options.rttm.mkdir(parents=True, exist_ok=True)
                for name, turns in (("true", true), ("found", found)):
                    path = options.rttm / f"{k:02d}_{name}.rttm"
                    write_labels(path, "rttm", Conversation(f"{k:02d}", 60 * options.minutes, (), tuple(turns)))
                shutil.copy(Path(folder) / "mix.wav", options.rttm / f"{k:02d}.wav")
    print(json.dumps({f"mean {key} (%)": round(100 * mean(row[key] for row in rows), 2) for key in rows[0]}))


if __name__ == "__main__":
    main()
