"""The catalogue of bundled models, and the metadata of checkpoints; loads no torch."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any, cast

from audiosr_cli.checkpoints import parts
from audiosr_cli.errors import ModelError

FORMAT = 2
# Names that format 1 used, and what they are called since.
_RENAMED_FIELDS = {"edge_hz": "cutoff_hz", "hears_edge": "uses_cutoff", "placed": "uses_position"}
_RENAMED_ARCHITECTURES = {"voice": "speaker_encoder"}
_RENAMED_TASKS = {"voice": "embed"}
_RENAMED_MODELS = {"audiosr": "audiosr_small", "voice": "speaker_encoder"}
_MAX_HEADER_BYTES = 10_000_000
_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "_weights", _PACKAGE.parent / "weights")


def folder() -> Path:
    """Where the bundled weights lie: inside an installed package, beside it in a checkout."""
    for place in _FOLDERS:
        if (place / "catalogue.json").is_file():
            return place
    raise ModelError("the bundled weights are missing from this installation; install audiosr-cli again")


def entries() -> dict[str, dict[str, Any]]:
    """The bundled models: name → {file, sha256, tasks}; the first of a task is its default."""
    read = json.loads((folder() / "catalogue.json").read_text(encoding="utf-8"))
    return cast("dict[str, dict[str, Any]]", read)


def default_model(task: str) -> str:
    """The bundled model that ``task`` uses when none is named."""
    for name, entry in entries().items():
        if task in entry["tasks"]:
            return name
    raise ModelError(f"no bundled model can {task}")


def find(model: str) -> tuple[Path, str | None]:
    """The file of a bundled model by name, or of anybody's by path; and the SHA-256 it has to have."""
    bundled = entries()
    if model in bundled:
        return folder() / bundled[model]["file"], bundled[model]["sha256"]
    path = Path(model)
    if path.suffix != ".safetensors" and not path.exists() and not parts.exists(path):
        raise ModelError(f"no model {model!r}; bundled: {', '.join(bundled)}; or give a .safetensors file's path")
    return path, None


def metadata(path: Path) -> dict[str, Any]:
    """The metadata of a checkpoint, parsed; torch is not needed. Raises ModelError on anything else."""
    try:
        with io.BytesIO(parts.read(path)) if parts.exists(path) else path.open("rb") as stream:
            size = struct.unpack("<Q", stream.read(8))[0]
            if size > _MAX_HEADER_BYTES:
                raise ModelError(f"{path}: its header claims {size} bytes; not a checkpoint of ours")
            packed = json.loads(stream.read(size)).get("__metadata__", {})
        known = {key: json.loads(packed[key]) for key in ("format", "model", "config", "spec", "note")}
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a checkpoint of ours (its metadata are missing or damaged)") from error
    if known["format"] == 1 and isinstance(known["spec"], dict) and isinstance(known["config"], dict):
        return _upgraded(known)
    if known["format"] != FORMAT:
        raise ModelError(f"{path}: checkpoint format {known['format']}; this version reads formats 1 to {FORMAT}")
    return known


def _upgraded(known: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a checkpoint of format 1 in today's names."""
    spec = _renamed(known["spec"])
    spec["task"] = _RENAMED_TASKS.get(spec.get("task"), spec.get("task"))
    architecture = _RENAMED_ARCHITECTURES.get(known["model"], known["model"])
    config = _renamed(known["config"])
    if known["model"] in _RENAMED_MODELS:
        spec["name"] = config["name"] = _RENAMED_MODELS.get(config.get("name"), config.get("name"))
    return known | {"model": architecture, "config": config, "spec": spec}


def _renamed(values: Any) -> Any:
    """Rename the keys of nested tables."""
    if not isinstance(values, dict):
        return values
    return {_RENAMED_FIELDS.get(key, key): _renamed(value) for key, value in values.items()}
