"""The saved state of a run: two alternating files, each of them either complete or absent."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from audiosr_cli.errors import OutputError, TrainingError
from audiosr_cli.files.atomic import atomic_path

_NAMES = ("state-0.pt", "state-1.pt")

# A state file is this line, a digest of the rest, and the output of torch.save. Line and digest have 32 bytes each, so
# that tensors stay aligned to 64 bytes. State files of earlier versions are the output of torch.save alone, a zip file.
_FORMAT = b"audiosr training state, format 1"
_DIGEST_BYTES = 32
_ZIP = b"PK\x03\x04"
# The flag of a folder among the external attributes of a zip entry.
_FOLDER = 0x10


@dataclass(frozen=True)
class _Damaged:
    """A state file that cannot be used; ``modified_ns`` is its modification time."""

    path: Path
    modified_ns: int
    reason: str


class _HashedStream:
    """A file for torch.save that hashes everything written to ``stream``."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._hash = stream, _new_hash()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()

    def digest(self) -> bytes:
        return self._hash.digest()


def exists(folder: Path) -> bool:
    """Return whether ``folder`` contains a run."""
    return any((folder / name).exists() for name in _NAMES)


def save(folder: Path, state: dict[str, Any], slot: int) -> None:
    """Write ``state`` atomically to file number ``slot`` modulo 2. Raises TrainingError if that fails."""
    try:
        with atomic_path(folder / _NAMES[slot % 2]) as part, part.open("wb") as stream:
            stream.write(_FORMAT + bytes(_DIGEST_BYTES))
            hashed = _HashedStream(stream)
            torch.save(state, hashed)  # type: ignore[arg-type]  # it only calls write and flush
            stream.seek(len(_FORMAT))
            stream.write(hashed.digest())
    except (OSError, RuntimeError, OutputError) as error:  # torch raises a RuntimeError if the disk is full
        reason = f"{error}".splitlines()[0]
        raise TrainingError(f"{folder}: the state cannot be written (is the disk full?): {reason}") from error


def load(folder: Path, warn: Callable[[str], None] | None = None) -> tuple[dict[str, Any], int]:
    """Read the newest undamaged state.

    Args:
        folder: The run's folder.
        warn: Called with one line if one of two states is damaged and the other is used.

    Returns:
        The state with its tensors on the CPU, and the slot of the next ``save``.

    Raises:
        TrainingError: If no state can be read.
    """
    states: list[tuple[int, int, dict[str, Any]]] = []
    damaged: list[_Damaged] = []
    for slot, name in enumerate(_NAMES):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = _read(path)
            states.append((state["step"], slot, state))
        # Damaged pickles and archives raise all kinds of errors: UnicodeDecodeError, IndexError, struct.error, ...
        except Exception as error:  # noqa: BLE001
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            damaged.append(_Damaged(path, path.stat().st_mtime_ns, reason))
    if not states:
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in damaged)
        raise TrainingError(f"no state can be read: {reasons or folder}; use another --out")
    step, slot, state = max(states, key=lambda item: item[:2])
    if damaged and warn is not None:
        warn(_damage(damaged[0], folder / _NAMES[slot], step))
    return state, slot + 1


def _damage(damaged: _Damaged, intact: Path, step: int) -> str:
    """Describe that the state ``intact`` is used in place of a damaged one."""
    which, other = ("newer", "older") if damaged.modified_ns >= intact.stat().st_mtime_ns else ("older", "newer")
    return (
        f"{damaged.path}: the {which} of two states is damaged ({damaged.reason}); "
        f"training continues from the {other} one, {intact.name}, at step {step}"
    )


def _read(path: Path) -> dict[str, Any]:
    """Read a state after checking its digest or checksums. Raises any exception if the file is damaged."""
    with path.open("rb") as stream:
        beginning = stream.read(len(_FORMAT))
        if beginning == _FORMAT:
            _check_digest(stream)
        elif beginning.startswith(_ZIP):
            _check_zip(stream)
        else:
            raise ValueError("not a training state")
        state: dict[str, Any] = torch.load(stream, map_location="cpu", weights_only=True)
    return state


def _check_digest(stream: BinaryIO) -> None:
    """Raise ValueError unless the digest at ``stream`` matches the rest; leaves ``stream`` after the digest."""
    expected, digest = stream.read(_DIGEST_BYTES), _new_hash()
    start = stream.tell()
    while block := stream.read(1 << 20):
        digest.update(block)
    if digest.digest() != expected:
        raise ValueError("its digest does not match")
    stream.seek(start)


def _check_zip(stream: BinaryIO) -> None:
    """Raise ValueError or BadZipFile if a zip file is damaged, as torch.load does not check the checksums.

    For an entry marked as a folder, torch.load reads nothing and leaves the tensor uninitialised.
    """
    with zipfile.ZipFile(stream) as archive:
        if (name := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {name} does not match")
        if any(entry.external_attr & _FOLDER for entry in archive.infolist()):
            raise ValueError("one of its tensors is marked as a folder")
    stream.seek(0)


def _new_hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)
