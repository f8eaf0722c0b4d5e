"""train/tasks/classification.py: which class a crop has, what lies behind it, and how many crops are recognised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import noise, tone
from corpora import corpus_of, generator, run
from kinds import classifier
from torch import Tensor

from audiosr_cli.checkpoints import store
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import make_config
from audiosr_cli.train.bandlimit import Degradation
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Classification, Recordings

SPEC = make_config("audio_classifier", {}).spec
FOLDERS: dict[str, Any] = {"speech": ("voices",), "music": ("songs",), "effects": ("noise", "voices/crowd")}
PLAIN = Degradation((20000.0, 20000.0), (), resampler_prob=1.0, shelf_prob=0.0)  # nothing is cut off below 4 kHz
NAMES = ["/data/voices/train/a.wav", "/data/songs/train/b.wav", "/data/noise/c.wav"]
SPEECH, MUSIC, EFFECTS = range(3)


def corpus(seconds: float = 4.0, names: list[str] | None = None) -> Corpus:
    """A recording of each class: tones of 200 and 500 Hz, and one of 1 kHz."""
    waves = [tone(round(seconds * 8000), hz, 8000, level=0.2)[0] for hz in (200, 500, 1000)]
    return replace(corpus_of(waves, [0, 1, 2]), names=names or NAMES)


def task(**values: Any) -> Classification:
    chosen = {"batch_size": 32, "crop_s": 0.5, "background_prob": 0.0, "degradation": PLAIN} | FOLDERS | values
    return Classification(SPEC, **chosen)


def batch_of(train: Corpus | None = None, **values: Any) -> tuple[Tensor, Tensor]:
    """The crops (B, T) and labels (B,) of a batch."""
    train = train or corpus()
    batch = task(**values).batch(Recordings(train, train), generator(), Ranks())
    return batch["input"][:, 0], batch["label"]


def levels_db(crops: Tensor) -> Tensor:
    """The levels of the tones of the three classes in crops, whose speed may be up to 10 % off, (B, 3)."""
    power = torch.fft.rfft(crops * torch.hann_window(crops.shape[1])).abs().square()  # bins of 2 Hz
    return (
        10
        * torch.stack(
            [power[:, round(0.88 * hz / 2) : round(1.12 * hz / 2)].sum(1) for hz in (200, 500, 1000)], 1
        ).log10()
    )


def test_the_class_of_a_crop_is_that_of_its_folder() -> None:
    crops, label = batch_of()
    assert crops.shape == (32, 4000)
    assert set(label.tolist()) == {SPEECH, MUSIC, EFFECTS}
    assert torch.equal(levels_db(crops).argmax(1), label)


def test_the_longest_folder_counts() -> None:
    names = ["voices/a.wav", "voices/crowd/b.wav", "my voices/noise/c.wav"]
    labels = task().labels(corpus(names=names), torch.arange(3))
    assert labels.tolist() == [SPEECH, EFFECTS, EFFECTS]


def test_recordings_in_no_folder_of_a_class_are_errors() -> None:
    with pytest.raises(TrainingError, match=r"/data/voice/a.wav: is in none of the folders of \[task\] speech, music"):
        task().labels(corpus(names=["/data/voice/a.wav", *NAMES[1:]]), torch.arange(3))
    with pytest.raises(UsageError, match=r"music = \[\]: must name at least one folder"):
        task(music=())


def test_a_background_is_the_crop_before_at_a_lower_level() -> None:
    """Behind speech 5 dB, behind other crops 20 dB; never speech behind music or effects."""
    crops, label = batch_of(background_prob=1.0, background_db=(5.0, 5.0), other_background_db=(20.0, 20.0))
    levels, other = levels_db(crops), label.roll(1)
    for i in range(len(label)):
        if label[i] == other[i]:
            continue
        below = float(levels[i, label[i]] - levels[i, other[i]])
        if other[i] == SPEECH:
            assert below > 60
        else:
            assert below == pytest.approx(5 if label[i] == SPEECH else 20, abs=1)


def test_half_of_the_crops_have_a_background() -> None:
    levels = levels_db(batch_of(batch_size=400, background_prob=0.5, background_db=(5.0, 5.0))[0]).sort(1).values
    share = float((levels[:, 1] > levels[:, 2] - 40).float().mean())
    assert 0.15 < share < 0.4  # of two classes, of which some do not mix


def test_crops_are_band_limited() -> None:
    crops, label = batch_of(degradation=Degradation((700.0, 700.0), (), resampler_prob=1.0, shelf_prob=0.0))
    assert crops[label == EFFECTS].square().mean() < 1e-2 * crops[label == MUSIC].square().mean()


def test_coded_copies_replace_crops() -> None:
    train = corpus()
    coded = replace(train, samples=train.samples // 4, bandwidth=torch.tensor([4000.0, 4000.0, 0.0]))
    batch = task(coded_prob=1.0).batch(Recordings(train, train, coded=coded), generator(), Ranks())
    level = batch["input"][:, 0].square().mean(1).sqrt()
    assert level[batch["label"] == EFFECTS].mean() > 3 * level[batch["label"] != EFFECTS].mean()  # they have no copies


def test_reverberant_crops_go_on_after_a_sound_has_ended() -> None:
    """The tones of a second end in the middle of crops of 2 s."""
    values: dict[str, Any] = {"crop_s": 2.0, "batch_size": 8, "t60_s": (1.0, 1.0)}
    tails = []
    for prob in (0.0, 1.0):
        crops, _ = batch_of(corpus(0.5), reverb_prob=prob, **values)
        last = crops.abs().cumsum(1) > 0.999 * crops.abs().sum(1, keepdim=True)
        tails.append(last.float().argmax(1) - (crops.abs() > 1e-3).float().argmax(1))
    assert (tails[0] < 0.6 * 8000).all()
    assert float((tails[1] > tails[0] + 800).float().mean()) > 0.5


def test_wrong_reverberation_times_are_errors() -> None:
    with pytest.raises(UsageError, match=r"t60_s = \[0.0, 1.0\]: must be above 0"):
        task(t60_s=(0.0, 1.0))


def test_processes_share_a_batch() -> None:
    train = corpus()
    parts = [task(batch_size=8).batch(Recordings(train, train), generator(), Ranks(rank, 2)) for rank in range(2)]
    whole = task(batch_size=16).batch(Recordings(train, train), generator(), Ranks())
    torch.testing.assert_close(torch.cat([part["input"] for part in parts]), whole["input"])


def test_the_loss_is_the_cross_entropy() -> None:
    batch = {"input": torch.zeros(3, 1, 10), "label": torch.arange(3)}
    for smoothing, expected in ((0.0, 0.0), (0.3, 2.0)):  # of logits of 10, two thirds of the smoothing are wrong
        loss = task(label_smoothing=smoothing).losses(lambda _: 10 * torch.eye(3), batch).terms["cross_entropy"]
        assert float(loss) == pytest.approx(expected, abs=1e-3)


def valid(waves: list[np.ndarray]) -> Corpus:
    return replace(corpus_of(waves, [0, 1, 2]), names=NAMES)


def test_the_score_is_the_mean_recall_of_the_classes() -> None:
    """A classifier of tones and noise finds all of the music, half of the effects, and no speech."""
    mixed = np.concatenate([noise(16000)[0], tone(16000, 500, 8000)[0]])
    recordings = Recordings(corpus(), valid([noise(8000)[0], tone(32000, 500, 8000)[0], mixed]))
    assert task().score(classifier(), recordings) == pytest.approx(50.0)
    assert task().extra_scores(classifier(), recordings) == {"speech (%)": 0, "music (%)": 100, "effects (%)": 50}


def test_crops_of_validation_recordings_are_audible_and_at_most_30_s() -> None:
    silent = np.concatenate([tone(8000, 500, 8000)[0], 1e-3 * noise(8000)[0]])
    crops, label = task().valid_crops(valid([noise(100)[0], silent, noise(40 * 8000)[0]]))
    assert crops.shape == (1 + 2 + 60, 4000)
    assert label.tolist() == [SPEECH, MUSIC, MUSIC] + 60 * [EFFECTS]
    with pytest.raises(TrainingError, match="has no recordings of speech"):
        task().score(classifier(), Recordings(corpus(), corpus(names=[NAMES[1], *NAMES[1:]])))


RUN = """
[model]
architecture = "audio_classifier"
name = "tiny"
widths = [4]
time_strides = [2]
features = 4
[data]
train = ["train"]
valid = ["valid"]
[task]
name = "classify"
batch_size = 6
crop_s = 0.25
speech = ["a"]
music = ["b", "d"]
effects = ["c", "e"]
[loop]
steps = 2
precision = "fp32"
"""


def test_a_run_trains_a_classifier(speakers: Path) -> None:
    (speakers / "valid" / "a").mkdir()
    (speakers / "valid" / "a" / "0.flac").write_bytes((speakers / "train" / "a" / "0.flac").read_bytes())
    best, rows = run(speakers, RUN)
    assert store.load_model(str(best)).spec.task == "classify"
    scores = [row for row in rows if row["event"] == "valid"]
    assert {"mean recall (%)", "speech (%)", "music (%)", "effects (%)"} <= set(scores[-1])
