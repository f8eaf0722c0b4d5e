"""train/checkpoint.py: two states, of which damage to one leaves the other."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from audiosr_cli.errors import TrainingError
from audiosr_cli.train import checkpoint


def state_of(step: int) -> dict[str, Any]:
    """Tensors that tell which step they are of, an optimizer's numbers, and text."""
    weights = {f"layers.{i}.weight": torch.full((5, 7), float(step * 10 + i)) for i in range(4)}
    return {"step": step, "model": weights, "optimizer": {"state": {0: {"step": torch.tensor(step)}}}, "init": "über"}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (
        one.keys() == other.keys()
        and (one["step"], one["init"]) == (other["step"], other["init"])
        and one["model"].keys() == other["model"].keys()
        and all(torch.equal(weight, other["model"][name]) for name, weight in one["model"].items())
        and torch.equal(one["optimizer"]["state"][0]["step"], other["optimizer"]["state"][0]["step"])
    )


def save_plainly(folder: Path, state: dict[str, Any], turn: int) -> None:
    """As versions without a digest did."""
    torch.save(state, folder / f"state-{turn % 2}.pt")


def write(path: Path, content: bytes, when: int) -> None:
    path.write_bytes(content)
    os.utime(path, (when, when))


@pytest.fixture(params=[checkpoint.save, save_plainly], ids=["with a digest", "of the version before"])
def newer(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The newer of two states, of step 7; the older one is of step 6."""
    for step in (6, 7):
        request.param(tmp_path, state_of(step), step)
        os.utime(tmp_path / f"state-{step % 2}.pt", (step, step))
    return tmp_path / "state-1.pt"


def test_the_newest_state_is_loaded_without_a_word(newer: Path) -> None:
    state, turn = checkpoint.load(newer.parent, pytest.fail)
    assert same(state, state_of(7))
    assert turn == 2


def test_flipped_bytes_never_load_and_never_crash(newer: Path) -> None:
    whole, draw = newer.read_bytes(), random.Random(0)
    for _ in range(400):
        content = bytearray(whole)
        for place in draw.sample(range(len(content)), draw.randint(1, 5)):
            content[place] ^= draw.randint(1, 255)
        write(newer, content, 7)
        warnings: list[str] = []
        state, turn = checkpoint.load(newer.parent, warnings.append)
        step = 6 if warnings else 7  # of a zip file some bytes mean nothing
        assert same(state, state_of(step))
        assert turn == step % 2 + 1


@pytest.mark.parametrize("kind", ["truncated", "longer", "empty", "garbage", "zeros", "a zip file's beginning"])
def test_the_older_state_replaces_an_incomplete_one(newer: Path, kind: str) -> None:
    whole = newer.read_bytes()
    contents = {
        "truncated": [whole[:size] for size in range(0, len(whole), 97)],
        "longer": [whole + b"\0"] if whole.startswith(checkpoint._FORMAT) else [],
        "empty": [b""],
        "garbage": [random.Random(seed).randbytes(5000) for seed in range(20)],
        "zeros": [bytes(len(whole))],
        "a zip file's beginning": [b"PK\x03\x04" + random.Random(seed).randbytes(5000) for seed in range(20)],
    }[kind]
    for content in contents:
        write(newer, content, 7)
        warnings: list[str] = []
        state, turn = checkpoint.load(newer.parent, warnings.append)
        assert same(state, state_of(6))
        assert turn == 1  # the next state replaces the damaged one
        (warning,) = warnings
        assert f"{newer}: the newer of two states is damaged" in warning
        assert "continues from the older one, state-0.pt, at step 6" in warning
        assert "\n" not in warning


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"step": 6}, 0)
    checkpoint.save(tmp_path, {"step": 7}, 1)
    newer = tmp_path / "state-1.pt"
    whole = newer.read_bytes()
    for place in range(len(whole)):
        newer.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert checkpoint.load(tmp_path)[0]["step"] == 6


def test_damage_to_the_older_state_is_also_reported(newer: Path) -> None:
    write(newer.with_name("state-0.pt"), b"", 6)
    warnings: list[str] = []
    state, turn = checkpoint.load(newer.parent, warnings.append)
    assert (state["step"], turn) == (7, 2)
    assert "the older of two states is damaged" in warnings[0]
    assert "continues from the newer one, state-1.pt, at step 7" in warnings[0]


def test_two_damaged_states_are_an_error_that_names_both(newer: Path) -> None:
    write(newer, newer.read_bytes()[:100], 7)
    write(newer.with_name("state-0.pt"), b"", 6)
    with pytest.raises(TrainingError, match=r"no state can be read: .*state-0\.pt: .*state-1\.pt: .*another --out"):
        checkpoint.load(newer.parent)


def test_a_failed_save_keeps_both_states(newer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_the_disk(stream: checkpoint._HashedStream, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint._HashedStream, "write", fill_the_disk)
    with pytest.raises(TrainingError, match="is the disk full"):
        checkpoint.save(newer.parent, state_of(8), 8)
    assert sorted(path.name for path in newer.parent.iterdir()) == ["state-0.pt", "state-1.pt"]
    assert same(checkpoint.load(newer.parent, pytest.fail)[0], state_of(7))
