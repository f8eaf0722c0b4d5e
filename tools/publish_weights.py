"""Puts a trained checkpoint among the bundled weights: `python tools/publish_weights.py RUN/name.safetensors`."""

import json
import sys
from pathlib import Path

from audiosr_cli.checkpoints import catalogue
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.train.run import export


def main() -> None:
    """Copy the checkpoint to weights/ and enter its SHA-256 in the catalogue."""
    source, place = Path(sys.argv[1]), Path(__file__).parents[1] / "weights"
    spec = catalogue.metadata(source)["spec"]
    target = place / f"{spec['name']}.safetensors"
    export(source, target)
    entries = json.loads((place / "catalogue.json").read_text(encoding="utf-8"))
    entries[spec["name"]] = {"file": target.name, "sha256": sha256(target), "tasks": [spec["task"]]}
    (place / "catalogue.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    print(f"{target}: {json.dumps(catalogue.metadata(target)['note'])}")


if __name__ == "__main__":
    main()
