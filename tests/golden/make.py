"""Writes models.json anew: `python tests/golden/make.py`, after a change that means to change the models."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from small_models import CASES, GOLDEN, make, signal

golden = {}
for name, values in CASES:
    model = make(name, values).eval()
    golden[f"{name} {json.dumps(values, sort_keys=True)}"] = model(signal(model, model.spec.window))[
        0, 0, 0, :8
    ].tolist()
GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
