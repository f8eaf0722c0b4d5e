"""train/pack.py: kits hold what runs need, within their size, as many speakers as possible."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from conftest import SMALL, noise
from typer.testing import CliRunner

from audiosr_cli.audio.small_files import encode, probe
from audiosr_cli.checkpoints import parts, store
from audiosr_cli.cli.main import app
from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.files.fingerprint import sha256
from audiosr_cli.models import build, make_config
from audiosr_cli.train import pack_audio
from audiosr_cli.train.config import read_config
from audiosr_cli.train.data import load_corpus, read_table
from audiosr_cli.train.kit_folder import wheels
from audiosr_cli.train.pack import pack

RUN = """
[model]
architecture = "speaker_encoder"
width = 8
size = 8
[data]
train = ["train"]
valid = ["valid"]
[task]
name = "embed"
batch_size = 2
crop_s = 0.2
"""
NOISY = """
[model]
architecture = "wave_u_net"
name = "noisy"
sample_rate = 8000
depth = 3
filters = 4
core = 512
overlap = 64
output = "linear"
[data]
train = ["train"]
valid = ["valid"]
noise = ["noise"]
table = "lists/table.csv"
[task]
name = "separate"
batch_size = 2
crop_s = 0.2
[task.mixing]
noise_prob = 0.5
"""
MIB = 1 << 20
LITTLE = 0.24  # mebibytes for recordings, of which 12 speakers do not all fit


def packed(
    folder: Path, limit: float = 55.0, text: str = RUN, init: tuple[str, ...] = ()
) -> tuple[Path, dict[str, Any]]:
    (folder / "run.toml").write_text(text)
    rows: list[dict[str, Any]] = []
    pack([folder / "run.toml"], folder, folder / "kit", round(limit * MIB), init, rows.append)
    return folder / "kit", rows[-1]


def tar_size(folder: Path) -> int:
    with tarfile.open(folder.with_suffix(".tar"), "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(folder, folder.name)
    return folder.with_suffix(".tar").stat().st_size


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def speakers_of(count: int, folder: Path, seconds: tuple[float, ...] = (0.8, 0.4, 1.2)) -> Path:
    """So many speakers of noise at 16 kHz, three recordings each, and two to validate on."""
    for i in range(count + 2):
        place = folder / ("train" if i < count else "valid") / f"p{i}"
        place.mkdir(parents=True)
        for take, length in enumerate(seconds):
            wave = noise(round(16000 * length), seed=10 * i + take, level=0.05)[0]
            soundfile.write(place / f"{take}.wav", wave, 16000)
    return folder


def test_a_kit_has_everything_that_its_runs_need(speakers: Path) -> None:
    kit, row = packed(speakers)
    manifest = json.loads((kit / "MANIFEST.json").read_text())
    assert manifest["runs"] == [{"name": "run", "config": "configs/run.toml", "init": None}]
    assert set(manifest["files"]) == names(kit) - {"MANIFEST.json"}
    assert all(sha256(kit / name) == digest for name, digest in manifest["files"].items())
    assert {"run.sh", "wheels.txt", "code/audiosr_cli/train/loop.py", "code/weights/catalogue.json"} <= names(kit)
    assert not [name for name in names(kit) if name.endswith((".pyc", ".safetensors"))]
    assert {f"data/train/{speaker}/{take}.flac" for speaker in "abc" for take in (0, 1)} <= names(kit)
    assert (row["speakers"], row["recordings"], row["quality"]) == (3, 6, "unchanged")
    assert row["mib"] * MIB >= tar_size(kit) - 10240
    assert not (speakers / "kit-rest").exists()
    assert not list(speakers.glob(".kit*"))


def test_a_config_without_a_table_gets_one(speakers: Path) -> None:
    kit, _ = packed(speakers)
    config = read_config(kit / "configs" / "run.toml")
    assert config.data.table == "kit.csv"
    table = read_table(kit / "data" / "kit.csv")
    assert set(table.bandwidth.values()) == {8000.0}
    assert len(table.bandwidth) == 6 + 4
    before, after = (load_corpus([path / "train"], 16000, speakers / "cache") for path in (speakers, kit / "data"))
    assert torch.equal(before.samples, after.samples)


def test_recordings_that_do_not_fit_are_encoded_then_left_out(tmp_path: Path) -> None:
    speakers_of(12, tmp_path)  # 0.9 MiB as WAV, 0.1 at 24 kbit/s, and 0.15 to validate on
    limit = 0.35 + size_of_code()
    kit, row = packed(tmp_path, limit)
    assert tar_size(kit) <= limit * MIB
    assert (row["speakers"], row["recordings"]) == (12, 36)
    assert "kbit/s" in row["quality"]
    assert sorted((kit / "data" / "valid").rglob("*.wav")) != []
    for name in names(kit / "data" / "valid"):
        assert sha256(kit / "data" / "valid" / name) == sha256(tmp_path / "valid" / name)
    encoded = next((kit / "data" / "train").rglob("*.opus"))
    assert soundfile.info(encoded).samplerate == 8000  # as the model


def test_most_speakers_first(tmp_path: Path) -> None:
    speakers_of(12, tmp_path)
    limit = LITTLE + size_of_code()
    kit, row = packed(tmp_path, limit)
    assert tar_size(kit) <= limit * MIB
    inside = [Path(name) for name in names(kit / "data" / "train")]
    assert 0 < row["recordings"] < row["recordings_of_all"] == 36
    takes = [sum(path.parent.name == f"p{i}" for path in inside) for i in range(12)]
    assert max(takes) - min(takes) <= 1
    in_turn = ["1", "0", "2"]  # the shortest first
    for i in range(12):
        assert {path.stem for path in inside if path.parent.name == f"p{i}"} == set(in_turn[: takes[i]])
    rest = tmp_path / "kit-rest"
    left = [Path(name) for name in names(rest / "data" / "train")]
    assert {path.with_suffix("") for path in inside} | {path.with_suffix("") for path in left} == {
        Path(f"p{i}/{take}") for i in range(12) for take in range(3)
    }
    assert len(inside) + len(left) == 36


def test_the_rest_completes_the_kit(tmp_path: Path) -> None:
    speakers_of(12, tmp_path)
    kit, _ = packed(tmp_path, LITTLE + size_of_code())
    few = len(read_table(kit / "data" / "kit.csv").bandwidth)
    shutil.copytree(tmp_path / "kit-rest", kit, dirs_exist_ok=True)
    assert len(read_table(kit / "data" / "kit.csv").bandwidth) == 42 > few
    files = json.loads((kit / "MANIFEST.json").read_text())["files"]
    assert set(files) == names(kit) - {"MANIFEST.json"}
    assert all(sha256(kit / name) == digest for name, digest in files.items())


def size_of_code() -> float:
    """Mebibytes of a kit's code, in an archive."""
    import audiosr_cli

    package = Path(audiosr_cli.__file__).parent
    files = [p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return sum(-(-p.stat().st_size // 512) * 512 + 700 for p in files) / MIB


def test_a_limit_below_the_required_files_is_refused(speakers: Path) -> None:
    with pytest.raises(UsageError, match=r"--pack-mib 0\.1: .*code [\d.]+, weights and configs [\d.]+, validation"):
        packed(speakers, 0.1)
    assert not list(speakers.glob("*kit*"))


def test_a_refused_pack_leaves_no_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if some recordings are encoded already, and if an interrupted call left its folder."""
    speakers_of(3, tmp_path)
    stage = tmp_path / ".kit.packing"
    (stage / "encoded").mkdir(parents=True)
    monkeypatch.setattr("audiosr_cli.train.pack.choose_rung", lambda *_: 0)

    def too_small(*_: Any) -> None:
        assert list((stage / "encoded").iterdir())
        raise UsageError("too small")

    monkeypatch.setattr("audiosr_cli.train.pack._check_folders", too_small)
    with pytest.raises(UsageError, match="too small"):
        packed(tmp_path)
    assert not stage.exists()
    assert not (tmp_path / "kit").exists()


def test_tables_rates_and_noise(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (speakers / "noise").mkdir()
    soundfile.write(speakers / "noise" / "wind.wav", noise(48000)[0], 48000)
    (speakers / "lists").mkdir()
    rows = "path,speaker,bandwidth_hz\n../train/a/0.flac,carol,3000\n../train/b/0.flac,carol,\n../train/c/1.flac,,0\n"
    (speakers / "lists" / "table.csv").write_text(rows)
    monkeypatch.setattr(pack_audio, "choose_rung", lambda *_: 5)
    monkeypatch.setattr("audiosr_cli.train.pack.choose_rung", lambda *_: 5)
    kit, row = packed(speakers, text=NOISY)
    assert row["speakers"] == 4  # carol, and who says the rest of a, b and c
    with (kit / "data" / "lists" / "table.csv").open() as stream:
        rows = {line["path"]: line for line in csv.DictReader(stream)}
    assert rows["../train/a/0.opus"]["speaker"] == "carol"
    assert float(rows["../train/a/0.opus"]["bandwidth_hz"]) == 3000
    assert float(rows["../train/a/1.opus"]["bandwidth_hz"]) == 4000  # the run is at 8 kHz
    assert not [name for name in rows if name.startswith("../train/c/1")]  # of no band
    assert probe(kit / "data" / "noise" / "wind.opus") == (8000, 1.0)
    corpus = load_corpus(
        [kit / "data" / "train"], 8000, speakers / "cache", read_table(kit / "data" / "lists" / "table.csv")
    )
    assert len(corpus.speaker_probs) == 4


def test_a_folder_of_noise_may_also_be_the_validation_noise(speakers: Path) -> None:
    (speakers / "noise").mkdir()
    soundfile.write(speakers / "noise" / "wind.wav", noise(8000)[0], 8000)
    text = NOISY.replace('noise = ["noise"]', 'noise = ["./noise"]\nvalid_noise = ["noise"]')
    kit, _ = packed(speakers, text=text.replace('table = "lists/table.csv"\n', ""))
    assert "data/noise/wind.wav" in names(kit)


@pytest.mark.parametrize("place", ["../elsewhere", "/elsewhere"])
@pytest.mark.parametrize("key", ["train", "valid", "table"])
def test_paths_outside_the_data_folder_are_refused(speakers: Path, place: str, key: str) -> None:
    value = f'"{place}"' if key == "table" else f'["{place}"]'
    lines = [line for line in RUN.splitlines() if not line.startswith(key)]
    lines.insert(lines.index("[data]") + 1, f"{key} = {value}")
    with pytest.raises(UsageError, match="must be a path below --data"):
        packed(speakers, text="\n".join(lines))


def test_initial_weights_are_packed(speakers: Path, small_weights: Path) -> None:
    torch.manual_seed(0)
    model = build("speaker_encoder", make_config("speaker_encoder", SMALL["speaker_encoder"]))
    files = parts.write(speakers / "my.safetensors", store.serialise(model, {}), 1000, 7)
    kit, _ = packed(speakers, init=(str(files[2]),))
    described = json.loads((kit / "MANIFEST.json").read_text())["runs"][0]
    assert described["init"] == "init/run.safetensors"
    store.load_model(str(kit / described["init"]))
    shutil.rmtree(kit)
    kit, _ = packed(speakers, init=("speaker_encoder",))
    assert json.loads((kit / "MANIFEST.json").read_text())["runs"][0]["init"] == "speaker_encoder"
    assert list(json.loads((kit / "code/weights/catalogue.json").read_text())) == ["speaker_encoder"]
    assert sorted(path.name for path in (kit / "code/weights").iterdir()) == [
        "catalogue.json",
        "speaker_encoder.safetensors",
    ]


def test_packs_that_are_refused(speakers: Path, small_weights: Path) -> None:
    with pytest.raises(ModelError, match=r"do not fit.* a wave_u_net and not a speaker_encoder"):
        packed(speakers, init=("wave_u_net",))
    with pytest.raises(UsageError, match="given 2 times for 1 configs"):
        packed(speakers, init=("speaker_encoder", "speaker_encoder"))
    (speakers / "run.toml").write_text(RUN)
    (speakers / "b.toml").write_text(RUN)
    with pytest.raises(UsageError, match=r"two configs have the \[model\] name 'speaker_encoder'"):
        pack([speakers / "run.toml", speakers / "b.toml"], speakers, speakers / "kit", MIB, (), print)
    large = RUN.replace("width = 8", "width = 2048").replace("size = 8", "size = 4096")
    with pytest.raises(UsageError, match=r"can be \d+ files of 15 MiB"):
        packed(speakers, text=large)
    packed(speakers)
    with pytest.raises(UsageError, match="exists already"):
        packed(speakers)


def test_an_interrupted_call_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speakers_of(12, tmp_path)
    calls: list[Path] = []

    def stopping(path: Path, *arguments: Any) -> int:
        calls.append(path)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return encode(path, *arguments)

    monkeypatch.setattr(pack_audio, "encode", stopping)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    limit = 0.35 + size_of_code()
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path, limit)
    assert not (tmp_path / "kit").exists()
    packed(tmp_path, limit)
    assert (tmp_path / "kit").is_dir()
    encoded = [path for path in calls if path.name.startswith(".audiosr")]
    assert len(encoded) <= 36 + 1


def test_wheels_are_those_that_training_needs_besides_torch_and_numpy() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    listed = {line.split("==")[0] for line in wheels()}
    assert {line.split(">")[0] for line in project["dependencies"]} - listed == {
        "numpy",
        "torch",
        "av",  # packs hold Ogg files, which soundfile reads
        "platformdirs",  # finds the user's options of the processing commands
    }
    assert "cffi" in listed  # soundfile needs it


def test_the_command(speakers: Path) -> None:
    (speakers / "run.toml").write_text(RUN)
    runs = [str(speakers / "run.toml")] * 2
    done = CliRunner().invoke(app, ["train", runs[0], "--data", str(speakers), "--pack", str(speakers / "kit")])
    assert (done.exit_code, done.stdout) == (0, f"{speakers / 'kit'}\n")
    for arguments, message in (
        (runs, "several are for --pack"),
        ([runs[0], "--batch-size", "0"], "whole number of at least 1, auto or config"),
        ([runs[0], "--batch-size", "many"], "whole number of at least 1, auto or config"),
    ):
        error = CliRunner().invoke(app, ["train", *arguments]).exception
        assert isinstance(error, UsageError)
        assert message in str(error)
