"""train/corpus.py: who is drawn, where crops lie, what speed does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import tone
from corpora import corpus_of, generator

from audiosr_cli.errors import TrainingError
from audiosr_cli.train.corpus import Corpus

CPU = torch.device("cpu")


def numbered(lengths: list[int], people: list[int]) -> Corpus:
    """Recordings that hold their own number, in thousandths."""
    return corpus_of([np.full(n, (i + 1) / 1024, np.float32) for i, n in enumerate(lengths)], people)


def test_crops_lie_inside_their_recordings() -> None:
    corpus = numbered([50, 200, 1000], [0, 1, 2])
    params = corpus.draw(300, 100, generator(), 3)
    crops = corpus.render(params, 100, CPU) * 1024
    assert crops.shape == (300, 3, 100)
    for crop, recording in zip(crops.flatten(0, 1), params["recording"].flatten().tolist(), strict=True):
        if recording == 0:  # shorter than the crop: zeros around it
            assert (crop == 1).sum() == 50
            assert (crop == 0).sum() == 50
        else:
            assert (crop == recording + 1).all()
    assert len(params["first"][params["recording"] == 0].unique()) > 20  # short ones lie anywhere


@pytest.mark.parametrize("speed", [0.0, 0.05])
def test_crops_never_hear_the_neighbouring_recording(speed: float) -> None:
    waves = [np.zeros(400, np.float32), np.full(400, 0.5, np.float32), np.zeros(400, np.float32)]
    corpus = corpus_of(waves, [0, 1, 2])
    params = corpus.draw(200, 380, generator(), speed=speed)
    silent = corpus.render(params, 380, CPU)[params["recording"] != 1]
    assert silent.abs().max() == 0


@pytest.mark.parametrize("share", [0.1, 0.42, 0.47])
def test_speed_changes_pitch_without_distortion(share: float) -> None:
    """Tones up to 0.47 of the rate: no droop, no image; what a higher speed moves above half the rate is gone."""
    rate, length = 48000, 24000
    corpus = corpus_of([tone(rate * 3, share * rate, rate)[0]], [0], rate)
    window, seen = torch.hann_window(length), set()
    for seed in range(12):
        params = corpus.draw(1, length, generator(seed), speed=0.05)
        factor = float(params["rate"][0, 0])
        seen.add(factor)
        power = torch.fft.rfft(corpus.render(params, length, CPU)[0, 0] * window).abs().square()
        whole = 10 * torch.log10(power.sum() / (0.5**2 / 4 * length * 3 / 8 * length))
        if share * factor > 0.5:
            assert whole < -40  # dB
        elif share * factor < 0.497:
            peak = int(power.argmax())
            assert abs(peak - share * factor * length) <= 1
            assert abs(float(whole)) < 0.05  # dB
            power[max(peak - 8, 0) : peak + 9] = 0
            assert 10 * torch.log10(power.sum() / (0.5**2 / 4 * length * 3 / 8 * length)) < -50  # dB
    assert len(seen) > 6
    assert 0.94 < min(seen) < 0.98 < 1.02 < max(seen) < 1.06


def test_no_speed_is_the_samples_themselves() -> None:
    corpus = corpus_of([np.arange(1000, dtype=np.float32) / 32768], [0])
    params = corpus.draw(4, 100, generator())
    expected = (params["first"] + torch.arange(100)).float() / 32768
    assert torch.equal(corpus.render(params, 100, CPU)[:, 0], expected)


def test_draws_distinct_speakers_each_as_likely_and_recordings_by_length() -> None:
    corpus = corpus_of([np.ones(n, np.float32) for n in [10] * 8 + [920, 1000, 30]], [0] * 9 + [1, 2])
    params = corpus.draw(6000, 5, generator(), 2)
    people = corpus.speakers[params["recording"]]
    assert (people[:, 0] != people[:, 1]).all()
    shares = torch.bincount(people.flatten(), minlength=3) / 12000
    assert (shares - 1 / 3).abs().max() < 0.02
    of_first = params["recording"][people == 0]
    assert float((of_first == 8).float().mean()) == pytest.approx(0.92, abs=0.02)
    with pytest.raises(TrainingError, match=r"3 speaker\(s\) in the data, but a mixture needs 4"):
        corpus.draw(1, 5, generator(), 4)


def test_chance_weighs_speakers() -> None:
    corpus = corpus_of([np.ones(10, np.float32)] * 3, [0, 1, 2])
    corpus.speaker_probs.copy_(torch.tensor([0.7, 0.3, 0.0]))
    drawn = corpus.speakers[corpus.draw(4000, 5, generator())["recording"]]
    shares = torch.bincount(drawn.flatten(), minlength=3) / 4000
    torch.testing.assert_close(shares, corpus.speaker_probs, atol=0.03, rtol=0)


def test_there_are_sixteen_speeds() -> None:
    """Each is an FFT length, for which a GPU keeps a plan."""
    corpus = corpus_of([np.ones(9000, np.float32)] * 60, list(range(60)))
    rates = corpus.draw(1, 4000, generator(), 50, speed=0.1)["rate"][0].tolist()
    assert 10 < len(set(rates)) <= 16
    assert min(rates) == pytest.approx(0.9, abs=0.01)
    assert max(rates) == pytest.approx(1.1, abs=0.01)


@pytest.mark.parametrize("speed", [0.0, 0.1])
def test_columns_of_one_speed_are_rendered_together_and_stay_in_place(
    speed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_of([tone(9000, 20 * (i + 3), 8000)[0] for i in range(40)], list(range(40)))
    params = corpus.draw(2, 2000, generator(), 40, speed)
    one_by_one = [
        corpus.render({key: value[:, i : i + 1] for key, value in params.items()}, 2000, CPU) for i in range(40)
    ]
    calls, real = list[int](), Corpus._cut
    monkeypatch.setattr(Corpus, "_cut", lambda self, *rest: calls.append(1) or real(self, *rest))
    torch.testing.assert_close(corpus.render(params, 2000, CPU), torch.cat(one_by_one, dim=1))
    assert len(calls) == len(params["rate"].unique())
    assert corpus.render({key: value[:0] for key, value in params.items()}, 2000, CPU).shape == (0, 40, 2000)
