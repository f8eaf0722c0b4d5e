"""Where a run goes on after an interruption: two rotating states, each whole or not there at all."""

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

# A state is this line, a digest of what follows, and what torch.save writes. Both take 32 bytes, so that tensors
# stay aligned to 64 bytes. States of earlier versions are what torch.save writes alone, which is a zip file.
_FORMAT = b"audiosr training state, format 1"
_DIGEST_BYTES = 32
_ZIP = b"PK\x03\x04"
_FOLDER = 0x10  # among the external attributes of an entry


@dataclass(frozen=True)
class _Damaged:
    """A state that cannot be used; ``modified_ns`` is when it was written."""

    path: Path
    modified_ns: int
    reason: str


class _HashedStream:
    """Writes to ``stream`` and hashes what it writes; torch.save needs no more of a file."""

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
    """Whether ``folder`` holds a run."""
    return any((folder / name).exists() for name in _NAMES)


def save(folder: Path, state: dict[str, Any], turn: int) -> None:
    """Write ``state`` atomically over the older of the two. Raises TrainingError where that fails."""
    try:
        with atomic_path(folder / _NAMES[turn % 2]) as part, part.open("wb") as stream:
            stream.write(_FORMAT + bytes(_DIGEST_BYTES))
            hashed = _HashedStream(stream)
            torch.save(state, hashed)  # type: ignore[arg-type]  # write and flush are all that it calls
            stream.seek(len(_FORMAT))
            stream.write(hashed.digest())
    except (OSError, RuntimeError, OutputError) as error:  # torch tells of a full disk by a RuntimeError
        reason = f"{error}".splitlines()[0]
        raise TrainingError(f"{folder}: the state cannot be written (is the disk full?): {reason}") from error


def load(folder: Path, warn: Callable[[str], None] | None = None) -> tuple[dict[str, Any], int]:
    """Read the newest undamaged state.

    Args:
        folder: The run's folder.
        warn: Called with one line where one of two states is damaged and the other is used.

    Returns:
        The state, its tensors on the CPU, and the turn of the next ``save``.

    Raises:
        TrainingError: No state can be read.
    """
    states: list[tuple[int, int, dict[str, Any]]] = []
    damaged: list[_Damaged] = []
    for turn, name in enumerate(_NAMES):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = _read(path)
            states.append((state["step"], turn, state))
        # What damaged pickles and archives raise is anybody's guess: UnicodeDecodeError, IndexError, struct.error, ...
        except Exception as error:  # noqa: BLE001
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            damaged.append(_Damaged(path, path.stat().st_mtime_ns, reason))
    if not states:
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in damaged)
        raise TrainingError(f"no state can be read: {reasons or folder}; train to a new --out")
    step, turn, state = max(states, key=lambda item: item[:2])
    if damaged and warn is not None:
        warn(_damage(damaged[0], folder / _NAMES[turn], step))
    return state, turn + 1


def _damage(damaged: _Damaged, sound: Path, step: int) -> str:
    """What a user has to know where the state ``sound`` stands in for a damaged state."""
    which, other = ("newer", "older") if damaged.modified_ns >= sound.stat().st_mtime_ns else ("older", "newer")
    return (
        f"{damaged.path}: the {which} of two states is damaged ({damaged.reason}); "
        f"training goes on from the {other} one, {sound.name}, at step {step}"
    )


def _read(path: Path) -> dict[str, Any]:
    """Read a state whose digest, or whose checksums, hold. Raises anything where the file is damaged."""
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
    """Raise ValueError unless the digest at ``stream`` is of what follows, where it is left."""
    expected, digest = stream.read(_DIGEST_BYTES), _new_hash()
    start = stream.tell()
    while block := stream.read(1 << 20):
        digest.update(block)
    if digest.digest() != expected:
        raise ValueError("its digest does not match")
    stream.seek(start)


def _check_zip(stream: BinaryIO) -> None:
    """Raise ValueError or BadZipFile unless a zip file holds what was written: torch.load does not look at checksums.

    Of an entry that is marked as a folder it would read nothing and leave the tensor uninitialised.
    """
    with zipfile.ZipFile(stream) as archive:
        if (name := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {name} does not match")
        if any(entry.external_attr & _FOLDER for entry in archive.infolist()):
            raise ValueError("one of its tensors is marked as a folder")
    stream.seek(0)


def _new_hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)
