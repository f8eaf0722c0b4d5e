"""The catalogue of bundled models, and the metadata of checkpoints; does not import torch."""

from __future__ import annotations

import io
import struct
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from audiosr_cli.checkpoints import parts
from audiosr_cli.errors import ModelChoiceError, ModelError
from audiosr_cli.files.parsing import parse_json

FORMAT = 2
# Names in format 1, and their names since.
_RENAMED_FIELDS = {"edge_hz": "cutoff_hz", "hears_edge": "uses_cutoff", "placed": "uses_position"}
_RENAMED_ARCHITECTURES = {"voice": "speaker_encoder"}
_RENAMED_TASKS = {"voice": "embed"}
_RENAMED_MODELS = {"audiosr": "audiosr_small", "voice": "speaker_encoder"}
_MAX_HEADER_BYTES = 10_000_000
_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "_weights", _PACKAGE.parent / "weights")


def folder() -> Path:
    """Return the folder of the bundled weights: inside an installed package, beside the package in a checkout."""
    for path in _FOLDERS:
        if (path / "catalogue.json").is_file():
            return path
    raise ModelError("the bundled weights are missing from this installation; reinstall audiosr-cli")


def entries() -> dict[str, dict[str, Any]]:
    """Read the catalogue: name → {file, sha256, tasks}; the first model of a task is its default.

    An entry with ``"quality": "fast"`` is what ``--quality fast`` picks instead, for as many speakers. An upsampler
    with ``"kinds": ["music", "effects"]`` is what recordings of these kinds get instead of the default one.
    """
    catalogue = parse_json((folder() / "catalogue.json").read_text(encoding="utf-8"))
    return cast("dict[str, dict[str, Any]]", catalogue)


def names(task: str) -> list[str]:
    """List the bundled models for ``task``, its default first. Raises ModelError."""
    return [name for name, entry in entries().items() if task in entry["tasks"]]


def speakers_of(spec: dict[str, Any]) -> int:
    """Return ``ModelSpec.speakers`` for a ``spec`` as `metadata` returns it."""
    return 1 if spec["rest"] else int(spec["sources"])


def default_model(task: str) -> str:
    """Return the name of the bundled model that is the default for ``task``. Raises ModelError."""
    if bundled := names(task):
        return bundled[0]
    raise ModelError(f"there is no bundled model for the task {task!r}")


def find(model: str) -> tuple[Path, str | None]:
    """Find the file of a model.

    Args:
        model: The name of a bundled model, or the path of a checkpoint.

    Returns:
        The path, and the SHA-256 that the catalogue states; None for a path.

    Raises:
        ModelChoiceError: If there is no such model.
        ModelError: If the bundled models are missing from the installation.
    """
    bundled = entries()
    if model in bundled:
        return folder() / bundled[model]["file"], bundled[model]["sha256"]
    path = Path(model)
    try:
        exists = path.exists() or parts.exists(path)
        if path.is_dir():
            raise ModelChoiceError(f"{path}: cannot be read: is a folder; expected a .safetensors file")
    except (OSError, ValueError):  # too long for a path, or a NUL byte
        exists = False
    if not exists and path.suffix == ".safetensors" and "\0" not in model:
        raise ModelChoiceError(f"{path}: cannot be read: no such file", _similar_file(path))
    if not exists:
        raise ModelChoiceError(
            f"no model {model[:100]!r}; bundled: {', '.join(bundled)}; or give the path of a .safetensors file",
            _did_you_mean(model, list(bundled)),
        )
    return path, None


def _did_you_mean(name: str, known: list[str]) -> str | None:
    """Suggest the name that is most similar to a wrong one, if one is."""
    similar = get_close_matches(name[:100], known, 1)
    return f"did you mean {similar[0]!r}?" if similar else None


def _similar_file(path: Path) -> str | None:
    """Suggest a checkpoint in the folder of one that does not exist."""
    try:
        suggestion = _did_you_mean(path.name, [other.name for other in path.parent.glob("*.safetensors")])
    except OSError:
        return None
    return suggestion


def metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a checkpoint, without torch.

    Args:
        path: The file, or any of its parts.

    Returns:
        ``format``, ``model`` (the architecture), ``config``, ``spec`` and ``note``, with today's names.

    Raises:
        ModelError: If the file cannot be read, is not a checkpoint, or has another format.
    """
    try:
        with io.BytesIO(parts.read(path)) if parts.exists(path) else path.open("rb") as stream:
            size = struct.unpack("<Q", stream.read(8))[0]
            if size > _MAX_HEADER_BYTES:
                raise ModelError(f"{path}: not an audiosr checkpoint (its header claims {size} bytes)")
            packed = parse_json(stream.read(size)).get("__metadata__", {})
        values = {key: parse_json(packed[key]) for key in ("format", "model", "config", "spec", "note")}
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not an audiosr checkpoint (its metadata are missing or damaged)") from error
    if values["format"] == 1 and isinstance(values["spec"], dict) and isinstance(values["config"], dict):
        values = _upgraded(values)
    elif values["format"] != FORMAT:
        raise ModelError(f"{path}: checkpoint format {values['format']}; this version reads formats 1 to {FORMAT}")
    if isinstance(values["spec"], dict) and isinstance(values["note"], dict):
        # Checkpoints from before the field: it follows from what they were trained for.
        values["spec"].setdefault("rest", values["note"].get("training_task") == "speech-and-rest")
    return values


def _upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a checkpoint of format 1 with today's names."""
    spec = _renamed(values["spec"])
    spec["task"] = _RENAMED_TASKS.get(spec.get("task"), spec.get("task"))
    architecture = _RENAMED_ARCHITECTURES.get(values["model"], values["model"])
    config = _renamed(values["config"])
    if values["model"] in _RENAMED_MODELS:
        spec["name"] = config["name"] = _RENAMED_MODELS.get(config.get("name"), config.get("name"))
    return values | {"model": architecture, "config": config, "spec": spec}


def _renamed(values: Any) -> Any:
    """Rename the keys of nested tables."""
    if not isinstance(values, dict):
        return values
    return {_RENAMED_FIELDS.get(key, key): _renamed(value) for key, value in values.items()}
