"""train/tasks/speech.py: one output for all speech, the other one for the rest."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import denoiser, few_mixtures, halves
from corpora import RUN, generator, voices
from torch import Tensor

from audiosr_cli.checkpoints import store
from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.train.config import read_config
from audiosr_cli.train.log import Log
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Recordings, SpeechAndRest
from audiosr_cli.train.tasks.valid_sets import render_set
from audiosr_cli.train.warm_start import warm_start

MODEL = halves()
MIXING = Mixing(noise_prob=1.0, snr_db=(0.0, 5.0))
RECORDINGS = Recordings(voices(4, 7.0), voices(3, 7.0), voices(2, 7.0), valid_noise=voices(2, 3.0))


def task(**values: Any) -> SpeechAndRest:
    return SpeechAndRest(MODEL.spec, 3, 0.5, **({"mixing": MIXING} | values))


@pytest.mark.parametrize("speakers", [1, 3])
def test_targets_are_all_speech_and_the_rest_of_the_mixture(speakers: int) -> None:
    batch = task(speakers=speakers).batch(RECORDINGS, generator(), Ranks())
    context, (speech, rest) = MODEL.spec.context, batch["target"].unbind(1)
    mix = batch["input"][:, 0, context : batch["input"].shape[-1] - context]
    torch.testing.assert_close(speech + rest, mix)
    snr = 10 * torch.log10(speech.square().mean(1) / rest.square().mean(1))
    assert ((snr > -2) & (snr < 7)).all()


def test_the_order_of_the_outputs_is_fixed() -> None:
    batch = task().batch(RECORDINGS, generator(), Ranks())

    def loss(estimate: Tensor) -> float:
        return float(task().losses(lambda _: estimate.unsqueeze(2), batch).terms["si_snr_and_level"])

    assert loss(batch["target"]) == pytest.approx(-30.0)
    assert loss(batch["target"].flip(1)) > 0


def test_a_mixture_without_noise_has_a_silent_rest() -> None:
    quiet = task(mixing=replace(MIXING, noise_prob=1e-9))
    batch = quiet.batch(RECORDINGS, generator(), Ranks())
    speech = batch["target"][:, 0]
    perfect, half = torch.stack([speech, 0 * speech], 1), torch.stack([speech, speech], 1) / 2
    losses = [
        float(quiet.losses(lambda _, e=e: e.unsqueeze(2), batch).terms["si_snr_and_level"]) for e in (perfect, half)
    ]
    assert losses[0] == pytest.approx(-30.0, abs=0.1)
    assert losses[1] > losses[0] + 5


def test_the_score_is_the_improvement_of_the_speech_in_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    few_mixtures(monkeypatch)
    model = halves()
    assert task().score(model, RECORDINGS) == pytest.approx(0.0, abs=0.01)  # of half of the mixture
    length, cpu = round(5.12 * 8000), torch.device("cpu")
    _, sources = render_set("noise", RECORDINGS.valid, 1, length, cpu, RECORDINGS.valid_noise)
    model.forward = lambda x: torch.stack([sources, x[..., model.spec.context :][..., :length]], 1)  # type: ignore[method-assign]
    assert task().score(model, RECORDINGS) > 30
    with pytest.raises(UsageError, match=r"\[data\] valid_noise: is missing"):
        task().score(model, replace(RECORDINGS, valid_noise=None))


def test_late_reverberation_belongs_to_the_rest() -> None:
    rooms = replace(MIXING, noise_prob=1e-9, reverb_prob=1.0)
    whole, early = (
        task(mixing=rooms, reflections_ms=ms).batch(RECORDINGS, generator(), Ranks()) for ms in (math.inf, 20.0)
    )
    torch.testing.assert_close(early["input"], whole["input"])
    torch.testing.assert_close(early["target"].sum(1), whole["target"].sum(1))
    assert (whole["target"][:, 1].abs().amax(1) < 1e-5).all()
    assert (early["target"][:, 1].abs().amax(1) > 1e-3).all()


def test_extra_scores_tell_what_is_lost_where_there_is_nothing_to_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    few_mixtures(monkeypatch)
    model = halves()
    scores = task().extra_scores(model, RECORDINGS)
    assert scores["SI-SDR without noise (dB)"] > 60  # half of the mixture has its shape
    assert scores["SI-SDRi at 0 dB SNR (dB)"] == pytest.approx(0.0, abs=0.01)
    context = model.spec.context
    model.forward = lambda x: x[..., context : x.shape[-1] - context].sign().unsqueeze(1).repeat(1, 2, 1, 1)  # type: ignore[method-assign]
    scores = task().extra_scores(model, RECORDINGS)
    assert scores["SI-SDR without noise (dB)"] < 10
    assert scores["SI-SDRi rooms (dB)"] < -1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixing": Mixing()}, "noise_prob = 0: must be above 0"),
        ({"speakers": 0}, "speakers"),
        ({"reflections_ms": -1.0}, "reflections_ms = -1.0: must be at least 0"),
        ({"spec": halves(sources=3).spec}, r"\[model\] sources = 3: must be 2"),
    ],
    ids=["noise", "speakers", "reflections", "sources"],
)
def test_impossible_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(task(), **values)


def test_only_a_spectral_unet_of_speakers_starts_speech_and_rest(tmp_path: Path) -> None:
    text = RUN.replace('"separate"', '"speech-and-rest"').replace("[task.mixing]", "[task.mixing]\nnoise_prob = 0.5")
    (tmp_path / "run.toml").write_text(text)
    config = read_config(tmp_path / "run.toml")
    assert isinstance(config.task, SpeechAndRest)
    store.save_model(MODEL, tmp_path / "speakers.safetensors", {})
    with pytest.raises(ModelError, match="a wave_u_net that separates speakers cannot start speech-and-rest"):
        warm_start(MODEL, config.task, str(tmp_path / "speakers.safetensors"), Log(lambda _: None))
    store.save_model(denoiser(), tmp_path / "speech.safetensors", {})
    warm_start(halves(), config.task, str(tmp_path / "speech.safetensors"), Log(lambda _: None))
