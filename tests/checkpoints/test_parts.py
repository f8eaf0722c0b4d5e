"""checkpoints/parts.py: checkpoints in several files are joined, or the error says what is wrong."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import SMALL
from typer.testing import CliRunner

from audiosr_cli.checkpoints import catalogue, parts, store
from audiosr_cli.cli.main import app
from audiosr_cli.errors import ModelError, OutputError
from audiosr_cli.models import Model, build, make_config

PART = 1000


def model(seed: int) -> Model:
    torch.manual_seed(seed)
    return build("speaker_encoder", make_config("speaker_encoder", SMALL["speaker_encoder"]))


def written(folder: Path, seed: int = 0, generation: int = 1) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return parts.write(folder / "a.safetensors", store.serialise(model(seed), {}), PART, generation)


def seed_of(path: Path) -> int:
    """Return the seed of the model in a checkpoint, of three."""
    state = store.load_model(str(path)).state_dict()
    return next(seed for seed in range(3) if all(torch.equal(state[k], v) for k, v in halved(seed).items()))


def halved(seed: int) -> dict[str, torch.Tensor]:
    return {key: value.half().float() for key, value in model(seed).state_dict().items() if value.is_floating_point()}


def test_parts_are_small_plain_slices(tmp_path: Path) -> None:
    content = store.serialise(model(0), {})
    files = parts.write(tmp_path / "a.safetensors", content, PART, 1)
    assert len(files) > 2
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(path.stat().st_size <= PART for path in files)
    assert b"".join(path.read_bytes() for path in files) == content
    assert re.fullmatch(r"a\.safetensors\.1-[0-9a-f]{12}\.part2of\d+", files[1].name)


def test_any_part_and_the_base_name_load(tmp_path: Path) -> None:
    files = written(tmp_path)
    for path in (files[0], files[-1], tmp_path / "a.safetensors"):
        assert catalogue.metadata(path)["model"] == "speaker_encoder"
        assert seed_of(path) == 0
    assert len(store.load_model(str(files[0])).sha256) == 64


def test_verify_accepts_parts(tmp_path: Path) -> None:
    files = written(tmp_path)
    done = CliRunner().invoke(app, ["models", "verify", str(files[1]), str(tmp_path / "a.safetensors")])
    assert (done.exit_code, done.stdout.count(": ok")) == (0, 2)
    files[0].unlink()
    done = CliRunner().invoke(app, ["models", "verify", str(files[1])])
    assert done.exit_code == 1
    assert f"{files[0].name}: this part is missing" in done.stdout


def test_a_new_set_replaces_the_old_one(tmp_path: Path) -> None:
    old = written(tmp_path, 0, 1)
    new = written(tmp_path, 1, 2)
    assert sorted(tmp_path.iterdir()) == sorted(new)
    assert not set(old) & set(new)
    whole = parts.write(tmp_path / "a.safetensors", store.serialise(model(2), {}), 1 << 20, 3)
    assert list(tmp_path.iterdir()) == whole == [tmp_path / "a.safetensors"]
    assert seed_of(whole[0]) == 2
    written(tmp_path, 0, 4)
    assert seed_of(whole[0]) == 0
    assert not whole[0].exists()


def test_a_kill_at_any_time_leaves_a_complete_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the folder as it is before and after each operation on files."""
    states = []

    def snapshot() -> None:
        states.append(tmp_path / f"state{len(states)}")
        shutil.copytree(tmp_path / "out", states[-1])

    written(tmp_path / "out", 0, 1)
    for kind, name in ((Path, "write_bytes"), (Path, "unlink")):
        real = getattr(kind, name)

        def stopping(*arguments: object, real: object = real, **more: object) -> object:
            snapshot()
            done = real(*arguments, **more)  # type: ignore[operator]
            snapshot()
            return done

        monkeypatch.setattr(kind, name, stopping)
    new = written(tmp_path / "out", 1, 2)
    monkeypatch.undo()
    assert len(states) >= 4 * len(new)
    seeds = [seed_of(state / "a.safetensors") for state in states]
    assert seeds == sorted(seeds)
    assert (seeds[0], seeds[-1]) == (0, 1)


def test_an_incomplete_newer_set_is_skipped(tmp_path: Path) -> None:
    written(tmp_path / "old", 0, 1)
    written(tmp_path / "new", 1, 2)[0].unlink()
    shutil.copytree(tmp_path / "old", tmp_path / "new", dirs_exist_ok=True)
    assert seed_of(tmp_path / "new" / "a.safetensors") == 0


def test_missing_mixed_and_damaged_parts_are_refused(tmp_path: Path) -> None:
    files = written(tmp_path / "a", 0, 1)
    others = written(tmp_path / "b", 1, 1)
    files[1].write_bytes(bytes(byte ^ 1 for byte in files[1].read_bytes()))
    with pytest.raises(ModelError, match="parts are damaged"):
        store.load_model(str(files[0]))
    files[1].unlink()
    shutil.copy(others[1], tmp_path / "a")
    with pytest.raises(ModelError, match=r"part\d+of\d+: this part is missing; copy all \d+ parts"):
        store.load_model(str(tmp_path / "a" / "a.safetensors"))
    with pytest.raises(ModelError, match="cannot be read"):
        store.load_model(str(tmp_path / "none.safetensors"))


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        parts.write(tmp_path / "no" / "a.safetensors", b"0123456789", 4, 1)
