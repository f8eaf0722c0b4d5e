"""Reading, verifying and writing checkpoints.

A checkpoint is a safetensors file whose metadata are ``format``, ``model`` (the architecture), ``config`` (every number
that shapes the weights), ``spec`` and ``note`` (where the weights come from), all in JSON. ``weights/catalogue.json``
lists the bundled ones with their SHA-256. A checkpoint in parts (see ``parts``) is read like a file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audiosr_cli.checkpoints import parts
from audiosr_cli.checkpoints.catalogue import FORMAT, find, metadata
from audiosr_cli.contract import ModelSpec
from audiosr_cli.errors import ModelError, OutputError, UsageError
from audiosr_cli.files.fingerprint import sha256

if TYPE_CHECKING:
    from audiosr_cli.models import Model

Storage = Literal["float32", "float16", "int8"]


def load_model(model: str, device: str = "cpu") -> Model:
    """Load a model in evaluation mode, with float32 weights.

    Args:
        model: The name of a bundled model, or the path of a checkpoint.
        device: Where to put the weights, such as "cpu" or "cuda".

    Returns:
        The model.

    Raises:
        ModelError: If there is no such model, a bundled one is damaged, or the weights do not fit the config or are not
            finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    from audiosr_cli.checkpoints.quantize import dequantized
    from audiosr_cli.models import build, make_config

    path, digest = find(model)
    actual = _verified_digest(path, digest)
    values = metadata(path)
    try:
        config = make_config(values["model"], values["config"])
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    try:
        network = build(values["model"], config)
    except RuntimeError as error:
        raise ModelError(f"{path}: no network can be built from its config: {error}".splitlines()[0]) from error
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
    network.sha256 = actual
    network.spec = _trained_spec(path, network.spec, values["spec"])
    return network.to(device).requires_grad_(False).eval()


def _trained_spec(path: Path, spec: ModelSpec, stored: Any) -> ModelSpec:
    """Return the ``spec`` of a config with what only the ``stored`` one says. Raises ModelError."""
    rest = stored.get("rest", False) if isinstance(stored, dict) else False
    try:
        return replace(spec, rest=rest is True)
    except UsageError as error:
        raise ModelError(f"{path}: {error}") from error


def _verified_digest(path: Path, digest: str | None) -> str:
    """Return the SHA-256 of a checkpoint. Raises ModelError if it is not ``digest``, unless that is None."""
    try:
        actual = hashlib.sha256(parts.read(path)).hexdigest() if parts.exists(path) else sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if digest is not None and actual != digest:
        raise ModelError(f"{path}: damaged (its SHA-256 differs from the catalogue); reinstall audiosr-cli")
    return actual


def save_model(model: Model, path: Path, note: dict[str, Any], storage: Storage = "float16") -> None:
    """Write a checkpoint atomically.

    Args:
        model: A network of any registered architecture, on any device.
        path: The file.
        note: Where the weights come from.
        storage: How floating-point weights are stored; see `serialise`.

    Raises:
        OutputError: If the file cannot be written.
    """
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
        note: Where the weights come from.
        storage: How floating-point weights are stored. With "int8" small tensors are float16.

    Returns:
        The bytes of a safetensors file.
    """
    import torch
    from safetensors.torch import save

    from audiosr_cli.checkpoints.quantize import quantized
    from audiosr_cli.models import architecture_of

    dtype = torch.float16 if storage == "float16" else torch.float32
    tensors = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for key, value in model.state_dict().items()
    }
    if storage == "int8":
        tensors = quantized(tensors)
    values = {
        "format": FORMAT,
        "model": architecture_of(model),
        "config": asdict(model.config),  # type: ignore[call-overload]
        "spec": model.spec.as_dict(),
        "note": note,
    }
    return save(tensors, {key: json.dumps(value) for key, value in values.items()})
