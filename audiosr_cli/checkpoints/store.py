"""Weights: which models there are, reading and writing their checkpoints, and proving them whole.

A checkpoint is a safetensors file whose metadata hold ``format``, ``model`` (the architecture), ``config``
(every number that shapes the weights), ``spec`` and ``note`` (where the weights come from), all JSON. What
is bundled is listed with its SHA-256 in ``weights/catalogue.json``. One in parts (see ``parts``) is read like a file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audiosr_cli.checkpoints import parts
from audiosr_cli.checkpoints.catalogue import FORMAT, find, metadata
from audiosr_cli.errors import ModelError, OutputError
from audiosr_cli.files.fingerprint import sha256

if TYPE_CHECKING:
    from audiosr_cli.models import Model

Storage = Literal["float32", "float16", "int8"]


def load_model(model: str, device: str = "cpu") -> Model:
    """A bundled model by name, or a checkpoint by path, in evaluation mode and float32 on ``device``.

    Bundled weights must have their SHA-256; all must fit strictly and be finite. Raises ModelError.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    from audiosr_cli.checkpoints.quantize import dequantized
    from audiosr_cli.models import build, make_config

    path, digest = find(model)
    found = _proven(path, digest)
    known = metadata(path)
    try:
        config = make_config(known["model"], known["config"])
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    try:
        network = build(known["model"], config)
    except RuntimeError as error:
        raise ModelError(f"{path}: its config makes no network: {error}".splitlines()[0]) from error
    try:
        stored = load(parts.read(path)) if parts.exists(path) else load_file(path)
        tensors = dequantized(stored)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if broken := [key for key, value in tensors.items() if not torch.isfinite(value).all()]:
        raise ModelError(f"{path}: the weights {broken[0]!r} are not finite")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{path}: the weights do not fit their config: {error}") from error
    network.sha256 = found
    return network.to(device).requires_grad_(False).eval()


def _proven(path: Path, digest: str | None) -> str:
    """The SHA-256 of a checkpoint, which has to be ``digest`` if that is known. Raises ModelError."""
    try:
        found = hashlib.sha256(parts.read(path)).hexdigest() if parts.exists(path) else sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if digest is not None and found != digest:
        raise ModelError(f"{path}: damaged (its SHA-256 is not the catalogue's); install audiosr-cli again")
    return found


def save_model(model: Model, path: Path, note: dict[str, Any], storage: Storage = "float16") -> None:
    """Write ``model`` as safetensors with its config, spec and ``note`` (provenance), atomically. See `serialise`."""
    from audiosr_cli.files.atomic import atomic_path

    content = serialise(model, note, storage)
    try:
        with atomic_path(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def serialise(model: Model, note: dict[str, Any], storage: Storage = "float16") -> bytes:
    """Pack ``model`` into a checkpoint.

    Args:
        model: A network of any registered architecture, on any device.
        note: What the checkpoint says of its training.
        storage: How floating-point weights are stored; ``int8`` is for large ones, the others are float16 then.

    Returns:
        The bytes of a safetensors file.
    """
    import torch
    from safetensors.torch import save

    from audiosr_cli.checkpoints.quantize import quantized
    from audiosr_cli.models import architecture_of

    kind = torch.float16 if storage == "float16" else torch.float32
    tensors = {
        key: value.detach().to("cpu", kind if value.is_floating_point() else None).contiguous()
        for key, value in model.state_dict().items()
    }
    if storage == "int8":
        tensors = quantized(tensors)
    packed = {
        "format": FORMAT,
        "model": architecture_of(model),
        "config": asdict(model.config),  # type: ignore[call-overload]
        "spec": model.spec.as_dict(),
        "note": note,
    }
    return save(tensors, {key: json.dumps(value) for key, value in packed.items()})
