"""Add what importing.json lacks: `python tests/golden/add_importing.py`, with SpeechBrain and Asteroid installed.

A value that exists is never changed; to replace one on purpose, delete its entry by hand first.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from originals import KINDS, build, signal

path = Path(__file__).with_name("importing.json")
golden = json.loads(path.read_text())
for kind in [kind for kind in KINDS if kind not in golden]:
    network = build(kind)
    with torch.no_grad():
        made = network(signal())[0]
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    golden[kind] = {"shapes": shapes, "made": made[:, 1600:1616].tolist(), "rms": float(made.square().mean().sqrt())}
path.write_text(json.dumps(golden) + "\n")
