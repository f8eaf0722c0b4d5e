"""Checkpoints in several files, for services that limit the size of one: writing, finding and joining the parts.

``NAME.safetensors`` in three parts is ``NAME.safetensors.GENERATION-DIGEST.part1of3`` and so on. The parts are plain
slices, so ``cat`` joins them, too. DIGEST is the start of the SHA-256 of the whole, so parts of different files never
mix; newer sets have a higher GENERATION. A new set is written beside the old one, which is removed only when the new
one is complete, so a process that is killed at any time leaves a set that loads.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from audiosr_cli.errors import ModelError, OutputError
from audiosr_cli.files.atomic import atomic_path

_NAME = re.compile(
    r"(?P<base>.+\.safetensors)\.(?P<generation>\d+)-(?P<digest>[0-9a-f]{12})\.part(?P<number>\d+)of(?P<count>\d+)"
)
_DIGEST_CHARACTERS = 12  # 48 bits: protects from mix-ups, not from attacks


class _Set(NamedTuple):
    """Identifies the parts of one file."""

    generation: int
    digest: str
    total: int


def write(path: Path, content: bytes, part_bytes: int, generation: int) -> list[Path]:
    """Write a checkpoint, in parts if it is larger than ``part_bytes``, and remove older sets.

    At every moment either the old content or the new one is complete.

    Args:
        path: The path of the file in one piece; its name must end in ``.safetensors``.
        content: The bytes of the checkpoint.
        part_bytes: Largest size of a file in bytes.
        generation: A number that grows from one write to the next, such as the training step.

    Returns:
        The files written, in order.

    Raises:
        OutputError: If the operating system refuses.

    """
    slices = [content[start : start + part_bytes] for start in range(0, len(content), part_bytes)]
    if len(slices) == 1:
        names = [path]
    else:
        stem = f"{path.name}.{generation}-{_digest(content)}"
        names = [path.with_name(f"{stem}.part{i}of{len(slices)}") for i in range(1, len(slices) + 1)]
    try:
        for name, piece in zip(names, slices, strict=True):
            with atomic_path(name) as temporary:
                temporary.write_bytes(piece)
        for old in [path, *(part for parts in _sets(path).values() for part in parts)]:
            if old not in names:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return names


def exists(path: Path) -> bool:
    """Return whether ``path`` is a part of a checkpoint, or a checkpoint that exists in parts only."""
    return _NAME.fullmatch(path.name) is not None or (not path.exists() and bool(_sets(path)))


def read(path: Path) -> bytes:
    """Join the parts of a checkpoint.

    Args:
        path: Any of the parts, or the path of the file in one piece, which stands for the newest complete set.

    Returns:
        The bytes of the whole checkpoint.

    Raises:
        ModelError: If no set is complete, or the parts do not belong together.

    """
    part_name = _NAME.fullmatch(path.name)
    base = path.with_name(part_name["base"]) if part_name else path
    sets = _sets(base)
    if part_name:
        part_set = _Set(int(part_name["generation"]), part_name["digest"], int(part_name["count"]))
        return _join(base, part_set, sets.get(part_set, []))
    if not sets:
        raise ModelError(f"{path}: cannot be read: neither this file nor parts of it exist")
    errors = []
    for kind in sorted(sets, reverse=True):
        try:
            return _join(base, kind, sets[kind])
        except ModelError as error:
            errors.append(error)
    raise errors[0]


def _join(base: Path, kind: _Set, parts: list[Path]) -> bytes:
    """Join the parts of one set. Raises ModelError if it is incomplete or damaged."""
    numbers = {number for part in parts if (number := _number(part)) <= kind.total}
    if missing := sorted(set(range(1, kind.total + 1)) - numbers):
        name = f"{base.name}.{kind.generation}-{kind.digest}.part{missing[0]}of{kind.total}"
        raise ModelError(f"{base.with_name(name)}: this part is missing; copy all {kind.total} parts into one folder")
    try:
        content = b"".join(part.read_bytes() for part in sorted(parts, key=_number))
    except OSError as error:
        raise ModelError(f"{base}: a part cannot be read: {error.strerror}") from error
    if _digest(content) != kind.digest:
        raise ModelError(
            f"{parts[0]}: the parts are damaged (their SHA-256 does not start with {kind.digest}); copy them again"
        )
    return content


def _sets(base: Path) -> dict[_Set, list[Path]]:
    """Find all parts of ``base``, by the set that they belong to."""
    sets = defaultdict(list)
    if base.parent.is_dir():
        for path in base.parent.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and match["base"] == base.name:
                sets[_Set(int(match["generation"]), match["digest"], int(match["count"]))].append(path)
    return dict(sets)


def _number(part: Path) -> int:
    match = _NAME.fullmatch(part.name)
    return int(match["number"]) if match else 0


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST_CHARACTERS]
