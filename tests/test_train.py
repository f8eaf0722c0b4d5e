"""train/: the corpus, mixing, degradation, losses, and a run that learns, stops and goes on."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import EXAMPLES, noise, tone

from audiosr_cli import weights
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.metrics import lsd, si_sdr, snr
from audiosr_cli.train.config import read_config
from audiosr_cli.train.data import Corpus, load_corpus
from audiosr_cli.train.degrade import random_edges
from audiosr_cli.train.losses import log_spectral, pit, si_sdr_and_level, spectral
from audiosr_cli.train.mixing import mixtures
from audiosr_cli.train.run import train

RUN = """
[model]
architecture = "wave_u_net"
name = "tiny"
sample_rate = 8000
depth = 3
filters = 4
core = 512
norm = true
bias = false
output = "linear"
difference = false
[model.training]
valid = false
[data]
train = ["train"]
valid = ["valid"]
[task]
name = "separate"
batch_size = 2
crop_s = 0.256
level_db = [0.0, 0.0]
[loop]
minutes = 0.05
warmup_steps = 5
valid_every_min = 0.02
"""


@pytest.fixture
def speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three speakers for training and two to check on, a second each, and a file that is no audio."""
    monkeypatch.setenv("AUDIOSR_CACHE", str(tmp_path / "cache"))
    for i, name in enumerate(("train/a", "train/b", "train/c", "valid/d", "valid/e")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for take in range(2):
            wave = tone(16000, 100 * (i + 2), 16000) * 0.5 + noise(16000, seed=i * 2 + take, level=0.01)
            soundfile.write(folder / f"{take}.flac", wave.T, 16000)
    (tmp_path / "train" / "a" / "broken.wav").write_bytes(b"no audio at all, but a name like it")
    return tmp_path


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def corpus(lengths: list[int], people: list[int]) -> Corpus:
    """Recordings that hold their own number, times 1,000."""
    parts = [torch.full((n,), 1000 * (i + 1), dtype=torch.int16) for i, n in enumerate(lengths)]
    sizes = torch.tensor(lengths)
    names = [str(i) for i in range(len(lengths))]
    return Corpus(8000, torch.cat(parts), sizes.cumsum(0) - sizes, sizes, torch.tensor(people), names, [])


def test_corpus_decodes_resamples_and_names_what_it_cannot_read(speakers: Path) -> None:
    made = load_corpus([speakers / "train"], 8000, speakers / "cache")
    assert (made.seconds, len(made.names), len(made.skipped)) == (6.0, 6, 1)
    assert "broken.wav: cannot be read" in made.skipped[0]
    assert made.speakers.tolist() == [0, 0, 1, 1, 2, 2]
    again = load_corpus([speakers / "train"], 8000, speakers / "cache")
    assert torch.equal(again.samples, made.samples)
    assert again.skipped == made.skipped
    assert len(list((speakers / "cache").iterdir())) == 1


def test_manifest_leaves_out_narrow_files(speakers: Path) -> None:
    rows = ["path,bandwidth_hz", "train/a/0.flac,4000", "train/a/1.flac,8000"]
    (speakers / "manifest.csv").write_text("\n".join(rows))
    made = load_corpus([speakers / "train"], 8000, speakers / "cache", min_bandwidth=7000)
    assert not any(name.endswith("train/a/0.flac") for name in made.names)
    assert len(made.names) == 5


def test_crops_lie_inside_their_recordings() -> None:
    made = corpus([50, 200, 1000], [0, 1, 2])
    crops = made.crops(torch.tensor([0, 1, 2, 2]), 100, generator())
    assert (crops[0] != 0).sum() == 50  # shorter than the crop: zeros around it
    assert set(crops[0].unique().tolist()) == {0.0, 1000 / 32768}
    assert [set(crop.unique().tolist()) for crop in crops[1:]] == [{2000 / 32768}, {3000 / 32768}, {3000 / 32768}]


def test_speed_changes_pitch() -> None:
    wave = torch.from_numpy(np.rint(tone(80000, 400, 8000)[0] * 32767)).to(torch.int16)
    made = Corpus(8000, wave, torch.tensor([0]), torch.tensor([80000]), torch.tensor([0]), ["a"], [])
    crops = made.crops(torch.zeros(8, dtype=torch.long), 8000, generator(), speed=0.05)
    peaks = torch.fft.rfft(crops).abs().argmax(-1)
    assert len(peaks.unique()) > 4
    assert (peaks - 400).abs().max() <= 21


def test_draws_distinct_speakers_each_as_likely() -> None:
    made = corpus([10] * 9 + [1000], [0] * 8 + [1, 2])
    drawn = made.draw(3000, generator(), 2)
    people = made.speakers[drawn]
    assert (people[:, 0] != people[:, 1]).all()
    shares = torch.bincount(people.flatten(), minlength=3) / 6000
    assert (shares - 1 / 3).abs().max() < 0.03
    with pytest.raises(TrainingError, match="3 speaker"):
        made.draw(1, generator(), 4)


def test_mixtures_have_the_levels_asked_for(speakers: Path) -> None:
    made = load_corpus([speakers / "train"], 8000, speakers / "cache")
    sources = mixtures(made, 64, 4000, generator(), 2, spread_db=5.0, level_db=(-30.0, -10.0))
    level = 20 * sources.square().mean(-1).sqrt().log10()
    assert (level[:, 0] - level[:, 1]).abs().max() <= 5.0 + 1e-3
    mix = 20 * sources.sum(1).square().mean(-1).sqrt().log10()
    assert mix.min() >= -30 - 1e-3
    assert mix.max() <= -10 + 1e-3
    assert mix.max() - mix.min() > 10


def test_random_edges() -> None:
    edges = random_edges(2000, 2000.0, 16000.0, (4000.0, 8000.0), generator())
    usual = (edges == 4000) | (edges == 8000)
    assert 0.45 < usual.float().mean() < 0.55
    assert edges.min() >= 2000
    assert edges.max() <= 16000


def test_pit_finds_the_order() -> None:
    reference = torch.randn(4, 3, 1000, generator=generator())
    estimate = reference[:, [2, 0, 1]] + 0.1 * torch.randn(4, 3, 1000, generator=generator(1))
    assert float(pit(estimate, reference, snr)) == pytest.approx(-20, abs=0.5)
    assert float(pit(estimate, reference, snr, best_db=5.0)) == -5.0


def test_level_counts_a_tenth() -> None:
    reference = torch.randn(1, 1000, generator=generator())
    estimate = reference + 0.1 * torch.randn(1, 1000, generator=generator(1))
    plain = si_sdr(10 * estimate, reference)
    assert float(plain - si_sdr_and_level(10 * estimate, reference)) == pytest.approx(2.0, abs=0.02)


def test_spectral_losses_are_zero_for_equals_and_follow_the_metric() -> None:
    wave = 0.1 * torch.randn(1, 24000, generator=generator())
    assert float(spectral(wave, wave)) == 0
    other = 0.1 * torch.randn(1, 24000, generator=generator(1))
    assert float(log_spectral(other, wave)) == pytest.approx(float(lsd(other[0], wave[0])), abs=0.01)


def test_a_run_learns_stops_and_goes_on(speakers: Path) -> None:
    (speakers / "run.toml").write_text(RUN)
    out, rows = speakers / "out", []
    best = train(speakers / "run.toml", speakers, out, rows.append)
    assert {"skipped": rows[0]["skipped"]} == rows[0]
    steps = [row["step"] for row in rows if "step" in row]
    assert len(steps) >= 2
    assert all(a < b for a, b in pairwise(steps))
    model = weights.load_model(str(best))
    assert (model.spec.name, model.spec.context > 0) == ("tiny", True)
    assert weights.metadata(best)["note"]["data"] == ["train"]

    with pytest.raises(UsageError, match="--resume"):
        train(speakers / "run.toml", speakers, out, rows.append)
    train(speakers / "run.toml", speakers, out, rows.append, minutes=0.08, resume=True)
    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["step"] > steps[-1]
    assert log[-1]["minutes"] >= 0.08


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (("batch_size = 2", "batch_sise = 2"), UsageError, "did you mean 'batch_size'"),
        (("[loop]", "[loops]"), UsageError, "unknown section"),
        (('architecture = "wave_u_net"', 'architecture = "x"'), UsageError, "known: audio_unet, wave_u_net"),
        (('name = "separate"', 'name = "x"'), UsageError, "known: separate, upsample"),
        (("batch_size = 2", ""), UsageError, "batch_size"),
        (("minutes = 0.05", "minutes = 0"), UsageError, "above 0"),
        (('train = ["train"]', 'train = ["no"]'), TrainingError, "no such folder"),
        (('train = ["train"]', 'train = ["train/a"]'), TrainingError, "1 speaker"),
        (("[model]", "[model"), TrainingError, "cannot be read as TOML"),
    ],
)
def test_configs_and_data_that_cannot_be_used(
    change: tuple[str, str], kind: type[Exception], said: str, speakers: Path
) -> None:
    (speakers / "run.toml").write_text(RUN.replace(*change))
    with pytest.raises(kind, match=said):
        train(speakers / "run.toml", speakers, speakers / "out", lambda row: None)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_the_bundled_models_are_what_their_examples_describe(path: Path) -> None:
    config = read_config(path)
    entry = weights.load_model(config.model.spec.name)
    assert entry.config == config.model


def test_trains_on_the_real_recordings(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOSR_CACHE", str(tmp_path / "cache"))
    made = load_corpus([data / "speech16k" / "valid"], 8000, tmp_path / "cache")
    assert len(made.speakers.unique()) == 24
    sources = mixtures(made, 4, 16000, generator())
    assert torch.isfinite(sources).all()
    assert float(si_sdr(sources.sum(1, keepdim=True), sources).mean().abs()) < 3
