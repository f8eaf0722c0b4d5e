"""Writes importing.json anew: `python tests/golden/make_importing.py`, where SpeechBrain and Asteroid are installed."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from originals import KINDS, build, signal

golden = {}
for kind in KINDS:
    network = build(kind)
    with torch.no_grad():
        made = network(signal())[0]
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    golden[kind] = {"shapes": shapes, "made": made[:, 1600:1616].tolist(), "rms": float(made.square().mean().sqrt())}
Path(__file__).with_name("importing.json").write_text(json.dumps(golden) + "\n")
