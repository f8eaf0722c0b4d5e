"""Add the golden values that models.json lacks: `python tests/golden/add.py`. A value that exists is never changed.

To replace a value on purpose, delete its entry by hand first, so that the change shows in the diff.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from small_models import CASES, GOLDEN, first_samples, golden_key


def add_missing(path: Path) -> list[str]:
    """Add the values of all cases that ``path`` lacks, and return their keys."""
    golden = json.loads(path.read_text())
    new = {golden_key(name, values): (name, values) for name, values in CASES}
    added = {key: first_samples(*case) for key, case in new.items() if key not in golden}
    if added:
        path.write_text(json.dumps(golden | added, indent=1) + "\n")
    return list(added)


if __name__ == "__main__":
    for key in add_missing(GOLDEN):
        print(f"added: {key}")
