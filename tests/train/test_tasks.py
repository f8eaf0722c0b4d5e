"""train/tasks: what the losses aim at, and scores of networks that do it perfectly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import noise
from corpora import corpus_of, generator, voices
from torch import Tensor

from audiosr_cli.dsp.metrics import si_sdr
from audiosr_cli.dsp.spectra import low_pass
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import build, make_config
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.train.augment import Augmentation
from audiosr_cli.train.bandlimit import Degradation
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.losses import pairwise_metric
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.reverb import MeasuredRirs
from audiosr_cli.train.tasks import Embedding, Recordings, Restoration, Separation, Upsampling
from audiosr_cli.train.tasks.restoration import RestorationLossWeights
from audiosr_cli.train.tasks.upsampling import UpsamplingLossWeights

SPEC = make_config("dual_path", {"context": 0}).spec
SPEAKER_SPEC = make_config("speaker_encoder", {}).spec
RECORDINGS = Recordings(voices(4), voices(3))


def test_targets_of_stages_are_band_limited() -> None:
    task = Separation(SPEC, 2, 0.5, stage_bandwidths_hz=(1000.0, 2000.0, 4000.0))
    batch = task.batch(RECORDINGS, generator(), Ranks())
    seen: list[Tensor] = []
    goals = task._stage_targets(batch["target"], 3)
    for goal, cutoff in zip(goals, (1000, 2000, 4000), strict=True):
        spectrum = torch.fft.rfft(goal).abs()
        above = spectrum[..., cutoff // 2 + 1 :]  # bins of 2 Hz
        assert above.numel() == 0 or above.max() < 1e-3 * spectrum.max()
        assert spectrum[..., int(cutoff * 0.85) // 2].min() > 0
        seen.append(goal)
    assert torch.equal(seen[-1], batch["target"])
    perfect = task.losses(lambda _: torch.cat([goal.flip(1) for goal in goals], 1).unsqueeze(2), batch)
    one_rate = Separation(SPEC, 2, 0.5).losses(lambda _: torch.cat([goals[-1]] * 3, 1).unsqueeze(2), batch)
    assert float(sum(perfect.terms.values())) == pytest.approx(-30.0)
    assert float(sum(one_rate.terms.values())) == pytest.approx(-30.0)
    assert torch.equal(perfect.estimate, batch["target"].flip(1).flatten(0, 1))


def test_stages_and_bandwidths_must_be_as_many() -> None:
    task = Separation(SPEC, 2, 0.5, stage_bandwidths_hz=(1000.0, 4000.0))
    batch = task.batch(RECORDINGS, generator(), Ranks())
    with pytest.raises(UsageError, match="needs one value for each of 1 stages"):
        task.losses(lambda _: batch["target"].unsqueeze(2), batch)
    with pytest.raises(UsageError, match="above 0"):
        Separation(SPEC, 2, 0.5, stage_bandwidths_hz=(0.0,))


def test_voices_are_two_crops_of_each_speaker() -> None:
    """The leak is another speaker's crop, as far below as asked for."""
    spec = make_config("speaker_encoder", {}).spec
    quiet = Embedding(spec, 3, 0.5, leakage_db=(200.0, 200.0)).batch(RECORDINGS, generator(), Ranks())["input"]
    leaky = Embedding(spec, 3, 0.5, leakage_db=(10.0, 10.0)).batch(RECORDINGS, generator(), Ranks())["input"]
    assert quiet.shape == (6, 1, 4000)
    level = 10 * torch.log10((leaky - quiet).square().mean(-1) / quiet.square().mean(-1))
    torch.testing.assert_close(level, torch.full_like(level, -10.0), rtol=0, atol=0.5)
    torch.testing.assert_close(leaky[0] - quiet[0], quiet[2] * 10**-0.5, rtol=0, atol=1e-4)
    torch.testing.assert_close(leaky[3] - quiet[3], quiet[4] * 10**-0.5, rtol=0, atol=1e-4)  # not the same one again


def tones(speakers: list[int], seconds: float = 2.0) -> Corpus:
    """Recordings of the given speakers; the first is a tone of 100 Hz, the second of 200 Hz and so on."""
    time = np.arange(round(seconds * 8000)) / 8000
    waves = [0.1 * np.sin(2 * np.pi * 100 * (i + 1) * time) for i in range(len(speakers))]
    return corpus_of(waves, speakers)


def recordings_of(crops: Tensor) -> Tensor:
    """Return which recording of ``tones`` each of the crops (N, 1, 4000) is from, (N,)."""
    return torch.fft.rfft(crops[:, 0]).abs().argmax(-1) // 50 - 1


@pytest.mark.parametrize("prob", [0.0, 0.5, 1.0])
def test_the_second_crop_comes_from_another_recording_if_there_is_one(prob: float) -> None:
    train = tones([0, 0, 1, 1, 2])
    task = Embedding(SPEAKER_SPEC, 3, 0.5, (200.0, 200.0), speed_perturbation=0.0, two_recordings_prob=prob)
    different = 0
    for seed in range(60):
        crops = task.batch(Recordings(train, voices(2)), generator(seed), Ranks())["input"]
        first, second = recordings_of(crops).chunk(2)
        assert torch.equal(train.speakers[first], train.speakers[second])
        different += int((first != second).sum())
    # Of 120 crops of speakers with two recordings, half of the second ones are drawn from the other recording.
    assert abs(different - 60 * prob) <= 20 * (prob > 0)


def knowing(classes: list[int]) -> SpeakerEncoder:
    """A network that takes the recordings of ``tones`` for these speakers."""
    network = build("speaker_encoder", make_config("speaker_encoder", {}))
    assert isinstance(network, SpeakerEncoder)

    def forward(x: Tensor) -> Tensor:
        hz = torch.fft.rfft(x[:, 0]).abs().argmax(-1) * 8000 / x.shape[-1]
        return torch.eye(3)[torch.tensor(classes)[(hz / 100).round().long() - 1]]

    network.forward = forward  # type: ignore[method-assign]
    return network


def test_equal_error_rates_of_networks_that_know_all_speakers_and_most_of_them() -> None:
    task, recordings = Embedding(SPEAKER_SPEC, 3, 0.5), Recordings(voices(3), tones([0, 1, 2], 12.0))
    assert task.score(knowing([0, 1, 2]), recordings) == 0
    assert task.extra_scores(knowing([0, 1, 2]), recordings) == {"EER at 2 s (%)": 0, "EER at 4 s (%)": 0}
    # If speakers 0 and 1 are one, a third of the pairs of two speakers are accepted.
    assert -60 < task.score(knowing([0, 0, 1]), recordings) < -10


def test_pauses_do_not_count_in_the_equal_error_rate() -> None:
    corpus = tones([0, 1, 2], 12.0)
    pause = corpus.samples.view(3, 12, 8000)[:, 3:5]
    pause[:] = (torch.rand(pause.shape, generator=generator()) * 3).short()  # all alike, and 60 dB below the tones
    network, recordings = knowing([0, 1, 2]), Recordings(voices(3), corpus)
    assert Embedding(SPEAKER_SPEC, 3, 0.5).score(network, recordings) == 0


def test_voices_loss_of_a_network_that_knows() -> None:
    task = Embedding(SPEAKER_SPEC, 3, 0.5)
    batch = task.batch(RECORDINGS, generator(), Ranks())
    matching, mixed = torch.eye(3).repeat(2, 1), torch.eye(3)[[0, 1, 2, 1, 2, 0]]
    correct, wrong = (float(task.losses(lambda _, v=v: v, batch).terms["prototypes"]) for v in (matching, mixed))
    assert correct < 1e-3 < 10 < wrong
    with pytest.raises(TrainingError, match="two speakers"):
        task.batch(Recordings(RECORDINGS.train, voices(1)), generator(), Ranks())


def restoration(**values: Any) -> Restoration:
    spec = make_config("band_masks", {"frame_s": 0.008, "width": 4, "margin": 0}).spec
    return Restoration(spec, 2, 0.512, "wave_u_net", **values)


def test_restoration_inputs_are_the_separators_estimates(small_weights: Path) -> None:
    """Estimates lie behind the mixture and end at the separator's cutoff; targets are in their order."""
    task, recordings = restoration(), Recordings(voices(4, 4.0, 16000), voices(3, 5.0, 16000))
    batch = task.batch(recordings, generator(), Ranks())
    mix, sources = batch["input"][:, 0], batch["target"]
    torch.testing.assert_close(sources.sum(1), mix, rtol=0, atol=1e-5)
    for order in (sources, sources.flip(1)):
        inputs, ordered = task.separate(mix, order)
        assert inputs.shape == (2, 3, 8192) and torch.equal(inputs[:, 0], mix)
        own = pairwise_metric(ordered, inputs[:, 1:], si_sdr)
        straight, crossed = (own.diagonal(dim1=1, dim2=2), own.flip(1).diagonal(dim1=1, dim2=2))
        assert (straight.sum(1) >= crossed.sum(1)).all()
        spectrum = torch.fft.rfft(inputs[:, 1:]).abs()
        assert spectrum[..., 4097 // 2 + 1 :].max() < 1e-3 * spectrum.max()


def test_restoration_targets_have_the_common_bandwidth_only(small_weights: Path) -> None:
    """Of four recordings two end at 2 kHz; a mixture has what its narrower one has, and is the sum of its sources."""
    recordings = Recordings(voices(4, 4.0, 16000), voices(3, 5.0, 16000))
    recordings.train.bandwidth[:2] = 2000.0
    seen = set()
    for seed in range(8):
        batch = restoration().batch(recordings, torch.Generator().manual_seed(seed), Ranks())
        torch.testing.assert_close(batch["target"].sum(1), batch["input"][:, 0], rtol=0, atol=1e-5)
        power = torch.fft.rfft(batch["input"][:, 0]).abs().square()
        high = power[:, 2300 * 8192 // 16000 :].sum(1) / power.sum(1)
        assert ((high < 1e-6) | (high > 0.3)).all()
        seen |= set((high > 0.3).tolist())
    assert seen == {True, False}


def test_restoring_loses_least_with_the_truth(small_weights: Path) -> None:
    task, recordings = restoration(), Recordings(voices(4, 4.0, 16000), voices(3, 5.0, 16000))
    batch = task.batch(recordings, generator(), Ranks())
    _, ordered = task.separate(batch["input"][:, 0], batch["target"])
    perfect = task.losses(lambda _: ordered.unsqueeze(2), batch).terms
    swapped = task.losses(lambda _: ordered.flip(1).unsqueeze(2), batch).terms
    assert float(perfect["si_snr"]) == pytest.approx(-3.0) and float(perfect["stft"]) < 1e-3
    assert float(swapped["si_snr"]) > -0.5 and float(swapped["stft"]) > 0.1
    batch["target"][:, 1] = 0
    silenced = task.losses(lambda inputs: inputs[:, 1:, None], batch).terms
    assert float(silenced["stft"]) < 5  # not thousands, as by the energy of what is silent
    model = build("band_masks", make_config("band_masks", {"frame_s": 0.008, "width": 4, "margin": 0})).eval()
    model.forward = lambda x: x[:, :1, None].expand(-1, 2, 1, -1)  # type: ignore[method-assign]
    mixture = task.score(model, recordings)
    model.forward = lambda x: 0 * x[:, 1:, None]  # type: ignore[method-assign]
    assert -10 < task.score(model, recordings) < mixture < 0  # silence is further off


@pytest.mark.parametrize("joint", [False, True])
def test_the_separator_is_trained_only_if_joint(small_weights: Path, joint: bool) -> None:
    task, recordings = restoration(joint=joint), Recordings(voices(4, 4.0, 16000), voices(3, 5.0, 16000))
    batch = task.batch(recordings, generator(), Ranks())
    model = build("band_masks", make_config("band_masks", {"frame_s": 0.008, "width": 4, "margin": 0}))
    sum(task.losses(model, batch).terms.values()).backward()  # type: ignore[union-attr]
    assert (task.joint_model is not None) == joint
    assert all((weight.grad is not None) == joint for weight in task.separator_model.parameters())
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


def test_restoration_rejects_a_separator_that_does_not_fit(small_weights: Path) -> None:
    with pytest.raises(UsageError, match="must be a separator of 2 speakers"):
        Restoration(restoration().spec, 2, 0.5, "audio_unet")
    with pytest.raises(UsageError, match="must be between 3200 and 4000"):
        Restoration(replace(restoration().spec, cutoff_hz=7000.0), 2, 0.5, "wave_u_net")
    with pytest.raises(UsageError, match="is the name of the separator"):
        Restoration(replace(restoration().spec, name="wave_u_net"), 2, 0.5, "wave_u_net", joint=True)
    with pytest.raises(UsageError, match="one of si_snr, stft and lsd"):
        RestorationLossWeights(0.0, 0.0)
    task, recordings = restoration(joint=True), Recordings(voices(4, 4.0, 16000), voices(3, 5.0, 16000))
    with pytest.raises(UsageError, match="single process"):
        task.batch(recordings, generator(), Ranks(0, 2))


def test_restoration_is_scored_up_to_the_bandwidth_of_the_narrowest_recording(small_weights: Path) -> None:
    task, valid = restoration(), voices(3, 5.0, 16000)
    model = build("band_masks", make_config("band_masks", {"frame_s": 0.008, "width": 4, "margin": 0})).eval()
    truth: list[Tensor] = []
    separate = Restoration.separate

    def keep(self: Restoration, mix: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        inputs, ordered = separate(self, mix, sources)
        truth.append(ordered)
        return inputs, ordered

    def perfect_below_5_khz(_: Tensor) -> Tensor:
        cutoff = torch.full((truth[-1][:, 0].numel() // truth[-1].shape[-1],), 5000.0)
        return low_pass(truth[-1].flatten(0, 1), cutoff.repeat(2), 0.02 * torch.ones(2 * len(cutoff)), 16000).view_as(
            truth[-1]
        )[:, :, None]

    model.forward = perfect_below_5_khz  # type: ignore[method-assign,assignment]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Restoration, "separate", keep)
        whole = task.score(model, Recordings(valid, valid))
        valid.bandwidth[:] = 4800.0
        narrow = task.score(model, Recordings(valid, valid))
    assert whole < -1 < -0.01 < narrow


@pytest.mark.parametrize("task", ["separate", "separate-sr"])
def test_rooms_are_used_by_both_mixing_tasks(task: str, small_weights: Path) -> None:
    response = torch.zeros(1, 4000)
    response[0, [0, 800]] = torch.tensor([1.0, 0.7])
    recordings = Recordings(
        voices(4, 4.0, 16000), voices(3, 4.0, 16000), measured_rirs=MeasuredRirs(16000, (response,))
    )
    spec = make_config("dual_path", {"context": 0, "sample_rate": 16000}).spec
    inputs = []
    for reverberation in (0.0, 1.0):
        mixing = Mixing(reverb_prob=reverberation, measured_rir_share=1.0)
        trained = Separation(spec, 2, 0.512, mixing) if task == "separate" else restoration(mixing=mixing)
        batch = trained.batch(recordings, generator(), Ranks())
        torch.testing.assert_close(batch["target"].sum(1), batch["input"][:, 0], rtol=0, atol=1e-5)
        inputs.append(batch["input"][:, 0])
    own = [torch.fft.irfft(torch.fft.rfft(wave, 16384).abs().square())[:, 740:861].amax(1) for wave in inputs]
    energy = [wave.square().sum(-1) for wave in inputs]
    assert (own[0] / energy[0]).max() < 0.1 < (own[1] / energy[1]).min()  # an echo after 50 ms, give or take 5 %


def test_upsampling_augments_targets_and_inputs_alike() -> None:
    """Noise floors are in the target, and in the input up to its cutoff."""
    tone = 0.1 * np.sin(2 * np.pi * 500 * np.arange(96000) / 48000)
    recordings = Recordings(corpus_of([tone], [0], 48000), voices(1))
    task = Upsampling(make_config("audio_unet", {"sample_rate": 48000, "ratio": 1}).spec, 4, 0.5)
    degradation = Degradation(common_cutoffs_hz=(4000.0,), common_cutoff_prob=1.0, resampler_prob=1.0, shelf_prob=0.0)
    task = replace(task, degradation=degradation)
    noisy = replace(task, augmentation=Augmentation(noise_prob=1.0, noise_db=(-40.0, -40.0), noise_slope_db=(0.0, 0.0)))
    levels = []
    for each in (task, noisy):
        batch = each.batch(recordings, generator(), Ranks())
        for wave in (batch["target"], batch["input"][:, 0]):
            power = torch.fft.rfft(wave * torch.hann_window(wave.shape[-1])).abs().square()
            bins = power.shape[1]
            levels.append([float(power[:, int(bins * a) : int(bins * b)].mean()) for a, b in ((0.1, 0.13), (0.5, 0.9))])
    (quiet_target, quiet_input, target, low) = levels
    assert min(target) > 100 * max(quiet_target) and target[1] == pytest.approx(target[0], rel=0.2)
    assert low[0] == pytest.approx(target[0], rel=0.2) and low[1] < 1e-3 * target[1] and max(quiet_input) < low[0] / 100


def test_upsampling_fills_what_codecs_emptied() -> None:
    """In the targets and in the score: a network that ends noise where the codec did scores worse."""
    full = torch.from_numpy(0.01 * noise(96000, seed=3)[0])[None].float()
    coded = low_pass(full, torch.tensor([18000.0]), torch.tensor([0.01]), 48000)
    recordings = Recordings(*(corpus_of([coded[0].numpy()], [0], 48000) for _ in range(2)))
    spec = make_config("audio_unet", {"sample_rate": 48000, "ratio": 1}).spec
    plain, filling = (Upsampling(spec, 1, 0.5, fill_empty_bins=fill) for fill in (False, True))
    share = []
    for task in (plain, filling):
        power = torch.fft.rfft(task.batch(recordings, generator(), Ranks())["target"]).abs().square()[0]
        share.append(
            float(power[int(0.8 * len(power)) : int(0.95 * len(power))].mean() / power[: len(power) // 2].mean())
        )
    assert share[0] < 1e-3 and share[1] > 0.5
    model = build("audio_unet", make_config("audio_unet", {"sample_rate": 48000, "ratio": 1})).eval()
    model.forward = lambda x, **_: full[:, None, None, : x.shape[-1]]  # type: ignore[method-assign,misc]
    assert filling.score(model, recordings) > plain.score(model, recordings) + 0.3


def test_full_band_recordings_and_others_weigh_the_same_in_a_balanced_score() -> None:
    """One recording in four is full-band, and the only one that the network gets right."""
    waves = [noise(48000, seed=k)[0] for k in range(4)]
    valid = corpus_of(waves, [0, 1, 2, 3], 48000)
    valid.bandwidth[1:] = 20000.0
    recordings = Recordings(valid, valid)
    model = build("audio_unet", make_config("audio_unet", {"sample_rate": 48000, "ratio": 1})).eval()
    outputs = iter([torch.from_numpy(waves[k]) * (1 if k == 0 else 0) for k in (0, 0, 1, 1, 2, 2, 3, 3)] * 2)
    model.forward = lambda x, **_: next(outputs)[None, None, None].float()  # type: ignore[method-assign,misc]
    task = Upsampling(model.spec, 1, 0.5)
    plain, balanced = task.score(model, recordings), replace(task, balanced_score=True).score(model, recordings)
    assert balanced / plain == pytest.approx((1 / 2) / (3 / 4), rel=1e-3)


def test_upsampling_loses_nothing_above_the_band_of_a_recording() -> None:
    """Files at 44.1 kHz end at 20.7 kHz: noise above is as good as none, below it is worse."""
    recordings = Recordings(
        corpus_of([noise(96000, seed=k)[0] for k in range(3)], [0, 1, 2], 48000, 20727.0), voices(1)
    )
    task = Upsampling(make_config("audio_unet", {"sample_rate": 48000, "ratio": 1}).spec, 2, 0.5)
    task = replace(task, loss_weights=UpsamplingLossWeights(lsd=1.0, stft=1.0, complex=1.0, mel=1.0))
    batch = task.batch(recordings, generator(), Ranks())
    assert (batch["band"] <= 1.06 * 20727).all()
    target, hiss = batch["target"], 0.1 * torch.randn(batch["target"].shape, generator=generator(1))
    cutoff, steep = torch.full((2,), 22300.0), torch.full((2,), 0.001)
    above, below = hiss - low_pass(hiss, cutoff, steep, 48000), low_pass(hiss, cutoff - 8000, steep, 48000)
    losses = [
        float(sum(task.losses(lambda *_, x=x, **__: x.unsqueeze(1), batch).terms.values()))
        for x in (target, target + above, target + below)
    ]
    assert losses[1] < losses[0] + 0.05 < 0.1 < 1.0 < losses[2]
