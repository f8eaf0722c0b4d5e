"""Add a trained checkpoint to the bundled weights: `python tools/publish_weights.py RUN/name.safetensors [--int8]`.

``--int8`` stores large weights in 8 bits. Do that where the model's figures drop by less than 0.05 dB or 0.005 LSD.
``--kinds music,effects`` says which recordings an upsampler is for, in place of the default one.
"""

import argparse
import json
from pathlib import Path

from audiosr_cli.checkpoints import catalogue
from audiosr_cli.checkpoints.store import load_model, save_model
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.train.run import export


def main() -> None:
    """Copy the checkpoint to weights/ and enter its SHA-256 in the catalogue."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--kinds", type=lambda text: text.split(","))
    options = parser.parse_args()
    source, place = options.checkpoint, Path(__file__).parents[1] / "weights"
    spec = catalogue.metadata(source)["spec"]
    target = place / f"{spec['name']}.safetensors"
    if options.int8:
        save_model(load_model(str(source)), target, catalogue.metadata(source)["note"], "int8")
    else:
        export(source, target)
    entries = json.loads((place / "catalogue.json").read_text(encoding="utf-8"))
    entry = {"file": target.name, "sha256": sha256(target), "tasks": [spec["task"]]}
    if options.kinds:
        entry["kinds"] = options.kinds
    entries[spec["name"]] = entries.get(spec["name"], {}) | entry
    (place / "catalogue.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    print(f"{target}: {json.dumps(catalogue.metadata(target)['note'])}")


if __name__ == "__main__":
    main()
