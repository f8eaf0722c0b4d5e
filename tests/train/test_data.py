"""train/data.py: folders become a corpus, once."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
from conftest import noise
from corpora import RUN

from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.train import data
from audiosr_cli.train.data import MetadataTable, load_corpus, read_table
from audiosr_cli.train.recordings import cache_folder
from audiosr_cli.train.reverb import load_rirs


def test_files_are_decoded_and_resampled_and_unreadable_ones_named(speakers: Path) -> None:
    corpus = load_corpus([speakers / "train"], 8000, speakers / "cache")
    assert (corpus.seconds, len(corpus.names), len(corpus.skipped)) == (6.0, 6, 1)
    assert "broken.wav: cannot be read" in corpus.skipped[0]
    assert corpus.speakers.tolist() == [0, 0, 1, 1, 2, 2]
    assert corpus.bandwidth.tolist() == [4000.0] * 6
    wave, _ = soundfile.read(speakers / "train/a/0.flac")
    assert float(corpus.level[0]) == pytest.approx(float(np.sqrt(np.mean(wave**2))), rel=0.01)


def test_files_are_decoded_once_by_content(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_corpus([speakers / "train"], 8000, speakers / "cache")
    monkeypatch.setattr(data, "read_mono", lambda *_: pytest.fail("decoded again"))
    again = load_corpus([speakers / "train"], 8000, speakers / "cache")
    assert torch.equal(again.samples, first.samples)
    assert again.skipped == first.skipped
    shutil.copytree(speakers / "train", speakers / "moved")
    (speakers / "moved/a/0.flac").rename(speakers / "moved/a/z.flac")
    moved = load_corpus([speakers / "moved"], 8000, speakers / "cache")
    assert sorted(moved.starts.tolist()) == sorted(first.starts.tolist())
    assert moved.names[1].endswith("moved/a/z.flac")
    assert int(moved.starts[1]) == int(first.starts[0])


def test_changed_content_is_decoded_again(speakers: Path) -> None:
    first = load_corpus([speakers / "valid"], 8000, speakers / "cache")
    soundfile.write(speakers / "valid/d/0.flac", noise(32000)[0], 16000)
    assert load_corpus([speakers / "valid"], 8000, speakers / "cache").seconds == first.seconds + 1


def test_a_table_names_speakers_and_bands(speakers: Path) -> None:
    rows = ["path,speaker,bandwidth_hz", "train/a/0.flac,carol,3000", "train/a/1.flac,,3500", "train/b/0.flac,carol,"]
    (speakers / "table.csv").write_text("\n".join(rows))
    table = read_table(speakers / "table.csv")
    corpus = load_corpus([speakers / "train"], 8000, speakers / "cache", table)
    assert [name[-8:] for name in corpus.names[-2:]] == ["a/0.flac", "b/0.flac"]
    assert corpus.speakers.tolist() == [0, 1, 2, 2, 3, 3]
    assert sorted(corpus.bandwidth.tolist()) == [3000.0, 3500.0, 4000.0, 4000.0, 4000.0, 4000.0]
    wider = load_corpus([speakers / "train"], 32000, speakers / "cache", table)  # files are at 16 kHz
    assert sorted(wider.bandwidth.tolist()) == pytest.approx([3000, 3500, *[0.94 * 8000] * 4])
    narrower = load_corpus([speakers / "train"], 8000, speakers / "cache", table, min_bandwidth=3200)
    assert len(narrower.names) == 5


def test_a_speaker_of_two_folders_is_one_by_the_table(speakers: Path) -> None:
    """``speaker_or_class`` is read as ``speaker`` is; nobody is mixed with themselves."""
    rows = ["path,speaker_or_class"] + [
        f"{folder}/{take}.flac,ann" for folder in ("train/a", "valid/d") for take in (0, 1)
    ]
    (speakers / "table.csv").write_text("\n".join(rows))
    folders, table = [speakers / "train", speakers / "valid"], read_table(speakers / "table.csv")
    corpus = load_corpus(folders, 8000, speakers / "cache", table, shares=(0.5, 0.5))
    assert len(corpus.speaker_probs) == 4
    ann = int(corpus.speakers[[name.endswith("train/a/0.flac") for name in corpus.names].index(True)])
    assert [Path(corpus.names[k]).parent.name for k in (corpus.speakers == ann).nonzero()[:, 0]] == ["a", "a", "d", "d"]
    assert float(corpus.speaker_probs[ann]) == pytest.approx(0.5 / 3 + 0.5 / 2)  # from either folder
    drawn = corpus.speakers[corpus.draw(200, 100, torch.Generator().manual_seed(0), 2)["recording"]]
    assert (drawn[:, 0] != drawn[:, 1]).all()


@pytest.mark.parametrize(("balance", "expected"), [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_balance_weighs_speakers_by_their_length(balance: float, expected: float, speakers: Path) -> None:
    """a has four times the audio of b and c; shares of folders stay what they are."""
    for take in range(2, 8):
        soundfile.write(speakers / "train" / "a" / f"{take}.flac", noise(16000, seed=50 + take)[0], 16000)
    corpus = load_corpus([speakers / "train"], 8000, speakers / "cache", balance=balance)
    assert float(corpus.speaker_probs[0] / corpus.speaker_probs[1]) == pytest.approx(expected)
    assert float(corpus.speaker_probs.sum()) == pytest.approx(1.0)
    folders = [speakers / "train", speakers / "valid"]
    both = load_corpus(folders, 8000, speakers / "cache", shares=(1.0, 1.0), balance=balance)
    assert float(both.speaker_probs[:3].sum()) == pytest.approx(0.5)
    assert float(both.speaker_probs[0] / both.speaker_probs[1]) == pytest.approx(expected)


def test_recordings_below_min_seconds_are_left_out(speakers: Path) -> None:
    soundfile.write(speakers / "train" / "a" / "long.flac", noise(32000)[0], 16000)
    corpus = load_corpus([speakers / "train"], 8000, speakers / "cache", min_seconds=1.5)
    assert [Path(name).name for name in corpus.names] == ["long.flac"]
    assert len(corpus.speaker_probs) == 1
    with pytest.raises(TrainingError, match="min_seconds"):
        load_corpus([speakers / "train"], 8000, speakers / "cache", min_seconds=3.0)


def test_training_reads_audio_without_pyav(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("train/a", "valid/d"):
        soundfile.write(speakers / folder / "more.ogg", noise(16000)[0], 16000)
    monkeypatch.setitem(sys.modules, "av", None)  # importing it raises ImportError
    corpus = load_corpus([speakers / "train"], 8000, speakers / "cache")
    assert len(corpus.names) == 7
    assert len(load_rirs([speakers / "valid" / "d"], 8000).responses) == 3


def test_full_band_speakers_get_their_share(speakers: Path) -> None:
    """Of a folder with such speakers and others only; between folders nothing changes."""
    paths = sorted((speakers / "train").rglob("*.flac"))
    full = paths[0].parent.name
    band = {path.resolve(): 4000.0 if path.parent.name == full else 3000.0 for path in paths}
    table = MetadataTable({}, band)
    for share, expected in ((0.0, 1 / 3), (0.6, 0.6)):
        corpus = load_corpus([speakers / "train"], 8000, speakers / "cache", table, full_band_share=share)
        names = {Path(corpus.names[int((corpus.speakers == i).nonzero()[0])]).parent.name: i for i in range(3)}
        assert float(corpus.speaker_probs[names[full]]) == pytest.approx(expected)
        assert float(corpus.speaker_probs.sum()) == pytest.approx(1.0)
    narrow = MetadataTable({}, dict.fromkeys(band, 3000.0))
    corpus = load_corpus([speakers / "train"], 8000, speakers / "cache", narrow, full_band_share=0.6)
    torch.testing.assert_close(corpus.speaker_probs, torch.full((3,), 1 / 3))


def test_shares_weigh_folders(speakers: Path) -> None:
    folders = [speakers / "train", speakers / "valid"]
    corpus = load_corpus(folders, 8000, speakers / "cache", shares=(3.0, 1.0))
    torch.testing.assert_close(corpus.speaker_probs, torch.tensor([0.25, 0.25, 0.25, 0.125, 0.125]))
    with pytest.raises(UsageError, match=r"shares = \[1\.0\]"):
        load_corpus(folders, 8000, speakers / "cache", shares=(1.0,))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("path,sex\na,f\n", UsageError, "needs the column path"),
        ("path,bandwidth_hz\na,high\n", UsageError, "line 2: bandwidth_hz = 'high'"),
        (None, TrainingError, "cannot be read as CSV"),
    ],
)
def test_tables_that_cannot_be_used(text: str | None, kind: type[Exception], message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "table.csv").write_text(text)
    with pytest.raises(kind, match=message):
        read_table(tmp_path / "table.csv")


def test_files_of_no_band_are_left_out(speakers: Path) -> None:
    (speakers / "table.csv").write_text("path,bandwidth_hz\ntrain/a/0.flac,0\n", encoding="utf-8-sig")
    corpus = load_corpus([speakers / "train"], 8000, speakers / "cache", read_table(speakers / "table.csv"))
    assert len(corpus.names) == 5


def test_linked_folders_are_read_once(speakers: Path) -> None:
    (speakers / "linked").mkdir()
    (speakers / "linked" / "b").symlink_to(speakers / "train" / "b")
    (speakers / "linked" / "self").symlink_to(speakers / "linked")
    corpus = load_corpus([speakers / "linked"], 8000, speakers / "cache")
    assert len(corpus.names) == 2


def test_hidden_files_are_not_read(tmp_path: Path) -> None:
    for name in ("a.wav", "._a.wav", ".trash/b.wav", "__MACOSX/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert data.audio_files(tmp_path) == [tmp_path / "a.wav"]


def test_damaged_files_are_named_and_used_as_far_as_they_go(speakers: Path) -> None:
    path = speakers / "train" / "a" / "0.wav"
    soundfile.write(path, noise(16000)[0], 16000)
    path.write_bytes(path.read_bytes()[:-8000])
    corpus = load_corpus([speakers / "train"], 8000, speakers / "cache")
    assert len(corpus.damaged) == 1
    assert "0.wav" in corpus.damaged[0]
    assert corpus.seconds == pytest.approx(6.75)


def test_a_lost_store_is_made_again(speakers: Path) -> None:
    first = load_corpus([speakers / "valid"], 8000, speakers / "cache")
    next((speakers / "cache").glob("*.s16")).unlink()
    assert torch.equal(load_corpus([speakers / "valid"], 8000, speakers / "cache").samples, first.samples)


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no audio files under"):
        load_corpus([tmp_path], 8000, tmp_path / "cache")
    soundfile.write(tmp_path / "silence.wav", np.zeros(100), 8000)
    with pytest.raises(TrainingError, match=r"none of 1 files could be read; .*is empty or silent"):
        load_corpus([tmp_path], 8000, tmp_path / "cache")


def test_nobody_of_the_real_valid_speakers_is_in_training(data: Path) -> None:
    """And 13 people are in two folders of the training data, as the table says."""
    table, folders = read_table(data / "manifest.csv"), {}
    for path, name in table.speakers.items():
        place = path.relative_to(data.resolve()).parts
        if place[0] in ("speech16k", "voices16k", "speech48k"):
            folders.setdefault(place[1], {}).setdefault(place[0], set()).add(name)
    train, valid = (set().union(*folders[split].values()) for split in ("train", "valid"))
    assert not train & valid
    assert len(folders["train"]["speech48k"] & folders["train"]["voices16k"]) == 13
    assert [len(folders["train"][name]) for name in ("speech16k", "voices16k", "speech48k")] == [227, 2080, 48]


def test_bandwidths_of_the_real_data(data: Path) -> None:
    """At 48 kHz: files at 44.1 kHz end where their resampler fades, others where the table says."""
    table, ends = read_table(data / "manifest.csv"), {}
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            rate, band = int(row["sample_rate"]), float(row["bandwidth_hz"])
            bandwidth = table.bandwidth_of(data / row["path"], rate, 48000)
            assert bandwidth <= band
            ends.setdefault(rate, []).append(bandwidth)
    assert max(ends[44100]) == pytest.approx(0.94 * 22050)
    assert max(ends[16000]) == pytest.approx(0.94 * 8000)
    assert max(ends[48000]) == 24000


def test_the_real_recordings(data: Path, tmp_path: Path) -> None:
    corpus = load_corpus([data / "speech16k" / "valid"], 8000, tmp_path / "cache", read_table(data / "manifest.csv"))
    assert len(corpus.speaker_probs) == 24
    assert corpus.skipped == []


@pytest.mark.parametrize("place", ["a file", "below a file", "a full disk"])
def test_an_unwritable_cache_is_an_error_that_names_the_variable(
    place: str, speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = speakers / "train/a/0.flac"
    if place == "below a file":
        cache /= "cache"
    if place == "a full disk":
        cache = speakers / "cache"
        monkeypatch.setattr(data, "atomic_path", mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(TrainingError, match=r"set \$AUDIOSR_CACHE to a writable folder") as error:
        load_corpus([speakers / "valid"], 8000, cache)
    assert str(cache) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_full_cache_need_not_be_writable(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_corpus([speakers / "valid"], 8000, speakers / "cache")
    monkeypatch.setattr(Path, "mkdir", mock.Mock(side_effect=OSError(errno.EROFS, "Read-only file system")))
    assert torch.equal(load_corpus([speakers / "valid"], 8000, speakers / "cache").samples, first.samples)


def test_without_a_home_folder_the_cache_needs_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AUDIOSR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "audiosr"
    monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError("Could not determine home directory.")))
    with pytest.raises(TrainingError, match=r"\$HOME is not set\); set \$AUDIOSR_CACHE to a writable folder"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "audiosr"
    monkeypatch.setenv("AUDIOSR_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which nobody can write")
def test_a_cache_that_cannot_be_written_is_one_line_of_the_command(speakers: Path) -> None:
    (speakers / "run.toml").write_text(RUN)
    command = [sys.executable, "-m", "audiosr_cli", "train", speakers / "run.toml", "--data", speakers]
    environment = os.environ | {"AUDIOSR_CACHE": "/proc/cache", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", speakers / "out"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "/proc/cache: decoded recordings cannot be written there" in line
    assert "set $AUDIOSR_CACHE to a writable folder" in line
